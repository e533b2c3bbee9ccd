"""Exact moments in the noisy quadratic model, for SGD with any number of layers of slow weights around it.

The model (Zhang et al. 2019, Section 3.2; Schaul et al. 2013): each coordinate x has the loss ½ a (x − c)² with a fresh
c ~ N(0, σ²) at every step, so that its excess risk is ½ a E[x²]. Coordinates do not meet, so a spectrum is an array of
curvatures a and noise variances σ². Every step and every sync is linear, so mean and variance follow exactly.

Arrays of curvatures, variances, learning rates and starts broadcast against each other; all of it is float64 numpy.
``layers`` are (k, alpha) pairs, innermost first, as in `nested_lookahead.MultilayerLookahead`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Layers = Sequence[tuple[int, float]]

MODES = ("none", "reset", "pullback")


def power_law(coordinates: int, power: float = 1.0, noise_power: float = 1.0) -> tuple[Array, Array]:
    """Curvatures aᵢ = i^−power, i = 1 … n, and noise variances σᵢ² = aᵢ^−noise_power (Zhang et al. 2019: both 1).

    Raises:
        ValueError: no coordinates.
    """
    if coordinates < 1:
        raise ValueError(f"coordinates must be >= 1, got {coordinates}")
    curvature = np.arange(1, coordinates + 1, dtype=np.float64) ** -power
    return curvature, curvature**-noise_power


class Moments(NamedTuple):
    """Of x: mean and variance, each of the broadcast shape."""

    mean: Array
    variance: Array


class Cycle(NamedTuple):
    """What one cycle of a layer does: x ← (1 − gap) x + ξ, with ξ of this variance and independent of x.

    The gap 1 − r, rather than r, is kept: of the slow modes of a spectrum r is 1 but for the last digits.
    """

    gap: Array
    noise: Array

    def repeated(self, times: int) -> Cycle:
        """That many cycles as one."""
        return Cycle(_power_gap(self.gap, times), self.noise * _geometric_sum(self.gap, times))

    def applied(self, moments: Moments) -> Moments:
        rate = 1 - self.gap
        return Moments(rate * moments.mean, rate**2 * moments.variance + self.noise)

    def steady_variance(self) -> Array:
        """Variance that a cycle leaves as it is: noise / (1 − r²).

        Raises:
            ValueError: there is none, as |r| ≥ 1.
        """
        if not np.all((self.gap > 0) & (self.gap < 2)):
            raise ValueError("unstable: a cycle does not bring x nearer to 0; use a learning rate in (0, 2 / a)")
        result: Array = self.noise / (self.gap * (2 - self.gap))
        return result


def _power_gap(gap: Array, times: int) -> Array:
    """1 − (1 − gap)^times, to full relative precision also where the gap is small."""
    near = np.clip(gap, 0, 0.5)
    with np.errstate(over="ignore", invalid="ignore"):  # far from stable, it grows beyond all bounds
        return np.where((gap >= 0) & (gap < 0.5), -np.expm1(times * np.log1p(-near)), 1 - (1 - gap) ** times)


def _geometric_sum(gap: Array, times: int) -> Array:
    """Σ r^(2i) over i < times, with r = 1 − gap."""
    square = gap * (2 - gap)  # 1 − r²
    at_one = square == 0
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(at_one, times, _power_gap(square, times) / np.where(at_one, 1, square))


def cycles(lr: ArrayLike, layers: Layers, curvature: ArrayLike = 1.0, noise: ArrayLike = 1.0) -> list[Cycle]:
    """The fast step, then one cycle of each layer (Zhang et al. 2019, Appendix B, applied to itself).

    Args:
        lr: learning rate γ of SGD without momentum.
        layers: (k, alpha) pairs, innermost first; none is SGD.
        curvature: a.
        noise: σ², the variance of c.

    Raises:
        ValueError: a value out of its range, or an empty spectrum.
    """
    rate, a, variance = _arrays(lr, curvature, noise)
    found = [Cycle(rate * a, (rate * a) ** 2 * variance)]
    for k, alpha in _checked(layers):
        inner = found[-1].repeated(k)
        found.append(Cycle(alpha * inner.gap, alpha**2 * inner.noise))
    return found


def steady_variance(lr: ArrayLike, layers: Layers, curvature: ArrayLike = 1.0, noise: ArrayLike = 1.0) -> Array:
    """Variance of the outermost slow weights at their sync after endlessly many cycles (Proposition 2, at any depth).

    Raises:
        ValueError: as `cycles`; or a learning rate at which there is none.
    """
    _check_stable(lr, curvature)
    return cycles(lr, layers, curvature, noise)[-1].steady_variance()


def moments(
    lr: ArrayLike,
    layers: Layers,
    steps: int,
    start: ArrayLike = 1.0,
    start_variance: ArrayLike = 0.0,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    weights: int = 0,
) -> Moments:
    """Mean and variance after any number of fast steps, from weights that all start at the same x.

    Args:
        steps: fast steps; need not end a cycle.
        start: mean of x at the start.
        start_variance: variance of x at the start.
        weights: whose: 0 the fast weights, l the slow weights of layer l, −1 the outermost.

    Raises:
        ValueError: as `cycles`; fewer than 0 steps, or a layer that there is not.
    """
    stages = cycles(lr, layers, curvature, noise)
    depth = range(len(stages))[weights] if -len(stages) <= weights < len(stages) else None
    if depth is None:
        raise ValueError(f"weights must name one of {len(layers)} layer(s), or 0 for the fast weights, got {weights}")
    if steps < 0:
        raise ValueError(f"steps must be >= 0, got {steps}")
    shape = np.broadcast_shapes(stages[0].gap.shape, np.shape(start), np.shape(start_variance))
    now = Moments(
        np.broadcast_to(np.asarray(start, dtype=np.float64), shape),
        np.broadcast_to(np.asarray(start_variance, dtype=np.float64), shape),
    )
    after: Moments = _after(stages, layers, steps, now, depth)
    return after


def _after(stages: Sequence[Any], layers: Layers, steps: int, now: Any, depth: int = 0) -> Any:
    """Moments or state after so many fast steps; without what is left of them that ends no cycle of layer ``depth``.

    At a layer's sync all below it are equal to it: so whole cycles of the outermost layer come first, then those of
    the next that have been finished since, and so on.
    """
    for level in range(len(stages) - 1, depth - 1, -1):
        period = int(np.prod([k for k, _ in layers[:level]], dtype=int))
        done, steps = divmod(steps, period)
        now = stages[level].repeated(done).applied(now)
    return now


def scheduled_moments(
    lrs: ArrayLike,
    layers: Layers,
    start: ArrayLike = 1.0,
    start_variance: ArrayLike = 0.0,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
) -> Moments:
    """`moments` after a learning rate for each step, (steps,), over a spectrum (n,); must end a cycle of all layers.

    Raises:
        ValueError: as `cycles`; or the steps are no whole number of cycles.
    """
    rate, a, variance = _arrays(np.asarray(lrs)[:, None], curvature, noise)
    rates, noises = 1 - rate * a, (rate * a) ** 2 * variance
    for k, alpha in (*_checked(layers), (0, 1.0)):
        k = k or len(rates)  # at last, all that is left is one cycle
        if len(rates) % k:
            raise ValueError(f"{len(np.asarray(lrs))} steps are no whole number of cycles of {list(layers)}")
        steps, kicks = rates.reshape(-1, k, *rates.shape[1:]), noises.reshape(-1, k, *rates.shape[1:])
        rates, noises = np.ones_like(steps[:, 0]), np.zeros_like(steps[:, 0])
        for i in range(k):
            rates, noises = steps[:, i] * rates, steps[:, i] ** 2 * noises + kicks[:, i]
        rates, noises = 1 - alpha + alpha * rates, alpha**2 * noises
    return Moments(rates[0] * start, rates[0] ** 2 * start_variance + noises[0])


def excess_risk(moments: Moments, curvature: ArrayLike) -> Array:
    """½ Σ a E[x²] over the last axis, the spectrum."""
    mean, variance = moments
    risk: Array = 0.5 * np.sum(np.asarray(curvature, dtype=np.float64) * (mean**2 + variance), axis=-1)
    return risk


# --- momentum and pullback --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """Of z = (x, momentum buffer): mean (…, 2) and covariance (…, 2, 2)."""

    mean: Array
    covariance: Array


@dataclass(frozen=True)
class Transition:
    """z ← matrix z + ξ, ξ of this covariance: matrices (…, 2, 2)."""

    matrix: Array
    noise: Array

    def then(self, other: Transition) -> Transition:
        turned = other.matrix @ self.noise @ np.swapaxes(other.matrix, -1, -2)
        return Transition(other.matrix @ self.matrix, turned + other.noise)

    def repeated(self, times: int) -> Transition:
        """That many as one, by doubling."""
        if times == 0:
            return Transition(np.broadcast_to(np.eye(2), self.matrix.shape), np.zeros_like(self.noise))
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
        square = kronecker.reshape(*kronecker.shape[:-4], 4, 4)
        right = self.noise.reshape(*self.noise.shape[:-2], 4, 1)
        result: Array = np.linalg.solve(np.eye(4) - square, right).reshape(self.noise.shape)
        return result


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
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    rate, a, variance = _arrays(lr, curvature, noise)
    matrix = np.empty((*rate.shape, 2, 2))
    pull = rate * (1 + momentum) if nesterov else rate
    matrix[..., 0, 0], matrix[..., 0, 1] = 1 - pull * a, -rate * momentum * (momentum if nesterov else 1)
    matrix[..., 1, 0], matrix[..., 1, 1] = a, momentum
    kick = np.stack([pull * a, -a], axis=-1)
    covariance = variance[..., None, None] * kick[..., :, None] * kick[..., None, :]
    found = [Transition(matrix, covariance)]
    for (k, alpha), mode in zip(_checked(layers), _modes(pullback, len(layers)), strict=True):
        kept, taken = {"none": (0.0, 1.0), "reset": (0.0, 0.0), "pullback": (1 - alpha, alpha)}[mode]
        inner = found[-1].repeated(k)
        stay, move = np.diag([1 - alpha, kept]), np.diag([alpha, taken])
        found.append(Transition(stay + move @ inner.matrix, move @ inner.noise @ move))
    return found


def momentum_moments(stages: Sequence[Transition], layers: Layers, steps: int, start: State) -> State:
    """After any number of fast steps, of the fast weights and the buffer; ``stages`` as `transitions` gives them."""
    state: State = _after(stages, layers, steps, start)
    return state


# --- step by step: any schedule, any linear rule ----------------------------------------------------------------------


class Rule(NamedTuple):
    """A wrapper around SGD as linear maps on the vector (x, b, …): x, the buffer, then what the wrapper remembers."""

    size: int
    """Length of the vector."""
    sync: Callable[[int], Array | None]
    """The map (size, size) that follows fast step t = 1, 2, …; None where there is none."""


def lookahead_rule(layers: Layers, pullback: str | Sequence[str] = "none") -> Rule:
    """Lookahead of any depth with its slow weights and momentum caches written out: (x, b, slow₁, cache₁, slow₂, …)."""
    layers = _checked(layers)
    modes = _modes(pullback, len(layers))
    size = 2 + 2 * len(layers)

    def after(due: int) -> Array:
        now = np.eye(size)
        for depth, ((_, alpha), mode) in enumerate(zip(layers[:due], modes, strict=False), start=1):
            slow, cache = 2 * depth, 2 * depth + 1
            now[slow] += alpha * (now[0] - now[slow])
            if mode == "reset":
                now[1] = 0
            elif mode == "pullback":
                now[1] = alpha * now[1] + (1 - alpha) * now[cache]
                now[cache] = now[1]
            now[0] = now[slow]
            for below in range(1, depth):
                now[2 * below] = now[slow]
                if modes[below - 1] == "pullback":
                    now[2 * below + 1] = now[1]
        return now

    maps = [None, *(after(due) for due in range(1, len(layers) + 1))]
    periods = np.cumprod([k for k, _ in layers], dtype=int)
    return Rule(size, lambda step: maps[int(sum(step % period == 0 for period in periods))])


def trajectory(
    lrs: Sequence[ArrayLike],
    rule: Rule,
    start: ArrayLike = 1.0,
    start_variance: ArrayLike = 0.0,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Iterator[tuple[Array, Array]]:
    """Mean (…, size) and covariance (…, size, size) of the rule's vector after each step; one learning rate per step.

    The buffer starts at zero, everything else at x.

    Raises:
        ValueError: as `transitions`.
    """
    shape = np.broadcast_shapes(np.shape(curvature), np.shape(noise), np.shape(start), *map(np.shape, lrs))
    held = np.ones(rule.size)
    held[1::2] = 0  # the buffer and its caches
    mean = np.broadcast_to(np.asarray(start, dtype=np.float64), shape)[..., None] * held
    covariance = np.broadcast_to(np.asarray(start_variance, dtype=np.float64), shape)[..., None, None] * np.outer(
        held, held
    )
    for step, lr in enumerate(lrs, start=1):
        fast = transitions(lr, (), curvature, noise, momentum, nesterov)[0]
        move = np.broadcast_to(np.eye(rule.size), (*fast.matrix.shape[:-2], rule.size, rule.size)).copy()
        move[..., :2, :2] = fast.matrix
        kick = np.zeros_like(move)
        kick[..., :2, :2] = fast.noise
        sync = rule.sync(step)
        if sync is not None:
            move, kick = sync @ move, sync @ kick @ sync.T
        mean = np.squeeze(move @ mean[..., None], axis=-1)
        covariance = move @ covariance @ np.swapaxes(move, -1, -2) + kick
        yield mean, covariance


# --- checks -----------------------------------------------------------------------------------------------------------


def _arrays(*values: ArrayLike) -> list[Array]:
    names = ("lr", "curvature", "noise")
    arrays = [np.asarray(value, dtype=np.float64) for value in values]
    for name, array in zip(names, arrays, strict=True):
        if array.size == 0:
            raise ValueError(f"{name} must not be empty")
        if not np.all(np.isfinite(array) & (array >= 0)):
            raise ValueError(f"{name} must be finite and >= 0, got {array.min() if array.ndim else array}")
    return [np.asarray(array) for array in np.broadcast_arrays(*arrays)]


def _checked(layers: Layers) -> Layers:
    for k, alpha in layers:
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k must be an integer >= 1, got {k!r}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {alpha!r}")
    return layers


def _modes(pullback: str | Sequence[str], depth: int) -> tuple[str, ...]:
    modes = (pullback,) * depth if isinstance(pullback, str) else tuple(pullback)
    if len(modes) != depth or any(mode not in MODES for mode in modes):
        raise ValueError(
            f"pullback must be one of {', '.join(MODES)}, or one for each of {depth} layer(s): {pullback!r}"
        )
    return modes


def _check_stable(lr: ArrayLike, curvature: ArrayLike) -> None:
    step: Any = np.asarray(lr, dtype=np.float64) * np.asarray(curvature, dtype=np.float64)
    if not np.all((step > 0) & (step < 2)):
        raise ValueError("unstable: lr must be in (0, 2 / curvature) for a steady state")
