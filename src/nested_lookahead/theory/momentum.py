"""Mean and covariance of the weights and the momentum buffer, for SGD with momentum inside any number of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nested_lookahead.theory.checks import Array, Layers, arrays, checked
from nested_lookahead.theory.moments import after_steps

BUFFER_SHARES: dict[str, Callable[[float], tuple[float, float]]] = {
    "none": lambda alpha: (0.0, 1.0),
    "reset": lambda alpha: (0.0, 0.0),
    "pullback": lambda alpha: (1 - alpha, alpha),
}
"""By pullback mode, from the step size α: (κ, ν) of a sync, b ← κ b' + ν b, where b' is what the last sync left."""


@dataclass(frozen=True)
class State:
    """Of z = (x, momentum buffer, …): mean (…, size) and covariance (…, size, size)."""

    mean: Array
    covariance: Array


@dataclass(frozen=True)
class Transition:
    """z ← matrix z + ξ, ξ of this covariance: matrices (…, size, size)."""

    matrix: Array
    noise: Array

    def then(self, other: Transition) -> Transition:
        turned = other.matrix @ self.noise @ np.swapaxes(other.matrix, -1, -2)
        return Transition(other.matrix @ self.matrix, turned + other.noise)

    def repeated(self, times: int) -> Transition:
        """That many as one, by doubling."""
        if times == 0:
            return Transition(
                np.broadcast_to(np.eye(self.matrix.shape[-1]), self.matrix.shape), np.zeros_like(self.noise)
            )
        half = self.repeated(times // 2)
        twice = half.then(half)
        return twice.then(self) if times % 2 else twice

    def applied(self, state: State) -> State:
        mean = np.squeeze(self.matrix @ state.mean[..., None], axis=-1)
        turned = self.matrix @ state.covariance @ np.swapaxes(self.matrix, -1, -2)
        return State(mean, turned + self.noise)

    def steady_covariance(self) -> Array:
        """The covariance that it leaves as it is.

        Raises:
            ValueError: there is none.
        """
        radius = np.abs(np.linalg.eigvals(self.matrix)).max(axis=-1)
        if not np.all(radius < 1):
            raise ValueError("unstable: no steady state at this learning rate and momentum")
        kronecker = np.einsum("...ij,...kl->...ikjl", self.matrix, self.matrix)
        size = self.matrix.shape[-1] ** 2
        square = kronecker.reshape(*kronecker.shape[:-4], size, size)
        right = self.noise.reshape(*self.noise.shape[:-2], size, 1)
        result: Array = np.linalg.solve(np.eye(size) - square, right).reshape(self.noise.shape)
        return result


def fast_step(
    lr: ArrayLike, curvature: ArrayLike, noise: ArrayLike, momentum: float, nesterov: bool
) -> tuple[Array, Array]:
    """A step of SGD: the matrix (…, 2, 2) on (x, buffer), and what one standard deviation of its noise adds (…, 2)."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    rate, a, variance = arrays(lr, curvature, noise)
    matrix = np.empty((*rate.shape, 2, 2))
    pull = rate * (1 + momentum) if nesterov else rate
    matrix[..., 0, 0], matrix[..., 0, 1] = 1 - pull * a, -rate * momentum * (momentum if nesterov else 1)
    matrix[..., 1, 0], matrix[..., 1, 1] = a, momentum
    return matrix, np.sqrt(variance)[..., None] * np.stack([pull * a, -a], axis=-1)


def transitions(
    lr: ArrayLike,
    layers: Layers,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    pullback: str | Sequence[str] = "none",
) -> list[Transition]:
    """The fast step of SGD with momentum, in torch's form (b ← μ b + g, x ← x − γ b), then one cycle of each layer.

    Args:
        momentum: μ, in [0, 1).
        pullback: what a sync does to the buffer: ``none``, ``reset`` or ``pullback``, for all layers or for each.

    Raises:
        ValueError: as `cycles`; a momentum or pullback that there is not.
    """
    matrix, kick = fast_step(lr, curvature, noise, momentum, nesterov)
    found = [Transition(matrix, kick[..., :, None] * kick[..., None, :])]
    for (k, alpha), mode in zip(checked(layers), modes_of(pullback, len(layers)), strict=True):
        kept, taken = BUFFER_SHARES[mode](alpha)
        inner = found[-1].repeated(k)
        stay, move = np.diag([1 - alpha, kept]), np.diag([alpha, taken])
        found.append(Transition(stay + move @ inner.matrix, move @ inner.noise @ move))
    return found


def momentum_moments(stages: Sequence[Transition], layers: Layers, steps: int, start: State) -> State:
    """After any number of fast steps, of the fast weights and the buffer; ``stages`` as `transitions` gives them."""
    return after_steps(stages, layers, steps, start)


def modes_of(pullback: str | Sequence[str], depth: int) -> tuple[str, ...]:
    """The mode of each layer.

    Raises:
        ValueError: a mode that there is not, or not one for each layer.
    """
    modes = (pullback,) * depth if isinstance(pullback, str) else tuple(pullback)
    if len(modes) != depth or any(mode not in BUFFER_SHARES for mode in modes):
        raise ValueError(
            f"pullback must be one of {', '.join(BUFFER_SHARES)}, or one for each of {depth} layer(s): {pullback!r}"
        )
    return modes
