"""Exact moments of layers with momentum of their own, at any depth and with every pullback mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nested_lookahead.theory.checks import Array
from nested_lookahead.theory.moments import Moments, after_steps
from nested_lookahead.theory.momentum import BUFFER_SHARES, State, Transition, fast_step
from nested_lookahead.theory.rules import Rule


class SlowLayer(NamedTuple):
    """As `nested_lookahead.optim.SlowMomentum`: b ← μ b + d, slow ← slow − α u with d = slow − below."""

    k: int
    alpha: float
    momentum: float = 0.0
    nesterov: bool = True
    """u = d + μ b; else heavy ball, u = b."""
    pullback: str = "none"


def slow_transitions(
    lr: ArrayLike,
    layers: Sequence[SlowLayer],
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> list[Transition]:
    """The fast step, then one cycle of each layer, on z = (x, v, b₁, …): of the buffers, those that there are.

    A layer keeps S of where its cycle starts and takes E of where the cycles below it end, so that
    M' = S + E Mᵏ and Q' = E (Σ_{i<k} Mⁱ Q Mⁱᵀ) Eᵀ.

    Raises:
        ValueError: a value out of its range.
    """
    _check(layers)
    fast, push = fast_step(lr, curvature, noise, momentum, nesterov)
    inner = 2 if momentum else 1
    size = inner + sum(layer.momentum > 0 for layer in layers)
    matrix = np.broadcast_to(np.eye(size), (*fast.shape[:-2], size, size)).copy()
    matrix[..., :inner, :inner] = fast[..., :inner, :inner]
    kick = np.zeros(matrix.shape[:-1])
    kick[..., :inner] = push[..., :inner]
    found = [Transition(matrix, kick[..., :, None] * kick[..., None, :])]
    at = inner
    for layer in layers:
        stay, take = _sync(layer, at, size)
        cycles = found[-1].repeated(layer.k)
        found.append(Transition(stay + take @ cycles.matrix, take @ cycles.noise @ take.T))
        at += layer.momentum > 0
    return found


def _sync(layer: SlowLayer, at: int, size: int) -> tuple[Array, Array]:
    """S and E of a layer whose buffer, if it has one, is entry ``at``; those before are the ones that it acts on."""
    alpha, mu = layer.alpha, layer.momentum
    one, two = (1 + mu, mu**2) if layer.nesterov else (1.0, mu)
    kept, taken = BUFFER_SHARES[layer.pullback](alpha)
    stay, take = np.zeros((size, size)), np.eye(size)
    for buffer in range(1, at):
        stay[buffer, buffer], take[buffer, buffer] = kept, taken
    stay[0, 0], take[0, 0] = 1 - alpha * one, alpha * one
    if mu:
        stay[0, at] = -alpha * two
        stay[at, 0], stay[at, at] = 1, mu
        take[at, 0], take[at, at] = -1, 0
    return stay, take


def slow_moments(
    lr: ArrayLike,
    layers: Sequence[SlowLayer],
    steps: int,
    start: ArrayLike = 1.0,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    weights: int = 0,
) -> Moments:
    """Mean and variance after any number of fast steps, of the fast weights (0) or the slow ones of a layer (l)."""
    stages = slow_transitions(lr, layers, curvature, noise, momentum, nesterov)
    shape = np.broadcast_shapes(stages[0].matrix.shape[:-2], np.shape(start))
    mean = np.zeros((*shape, stages[0].matrix.shape[-1]))
    mean[..., 0] = start
    state = after_steps(stages, layers, steps, State(mean, np.zeros((*shape, *stages[0].matrix.shape[-2:]))), weights)
    return Moments(state.mean[..., 0], state.covariance[..., 0, 0])


def steady_variance_over(layer: SlowLayer, gap: ArrayLike, noise: ArrayLike) -> Array:
    """Of one layer over anything that takes x to (1 − gap) x plus noise of this variance in the layer's k cycles.

    The layer is SGD with learning rate α and momentum μ on the curvature A = gap: substitute d = A x − noise.

    Raises:
        ValueError: there is none.
    """
    alpha, mu, a = layer.alpha, layer.momentum, np.asarray(gap, dtype=np.float64)
    pushed = alpha * np.asarray(noise, dtype=np.float64) / a
    if not np.all((a > 0) & (alpha * a < largest_step(layer))):
        raise ValueError(f"unstable: alpha · gap must be in (0, {largest_step(layer):g})")
    if not layer.nesterov:
        heavy: Array = pushed * (1 + mu) / ((1 - mu) * (2 * (1 + mu) - alpha * a))
        return heavy
    rate = 1 - alpha * a
    top = 1 + 2 * mu + 2 * mu**2 - mu * (1 + 2 * mu) * rate
    ball: Array = pushed * top / ((1 - mu * rate) * (1 + (1 + 2 * mu) * rate))
    return ball


def largest_step(layer: SlowLayer) -> float:
    """The bound below which α times the gap has to be for a steady state."""
    both = 2 * (1 + layer.momentum)
    return both / (1 + 2 * layer.momentum) if layer.nesterov else both


def slow_rule(layers: Sequence[SlowLayer]) -> Rule:
    """All that the layers remember, written out: (x, v, slow₁ …, b₁ …, the cache of each layer for each momentum)."""
    _check(layers)
    depths = range(len(layers))
    slow = [2 + depth for depth in depths]
    buffers = [1, *(2 + len(layers) + depth for depth in depths)]  # of level 0, v, and of each layer
    pairs = [(depth, level) for depth in depths for level in range(depth + 1)]
    caches = {pair: 2 + 2 * len(layers) + i for i, pair in enumerate(pairs)}
    size = 2 + 2 * len(layers) + len(pairs)

    def after(due: int) -> Array:
        now = np.eye(size)
        for depth, layer in enumerate(layers[:due]):
            back = now[slow[depth]] - now[0]
            buffer = buffers[depth + 1]
            now[buffer] = layer.momentum * now[buffer] + back if layer.momentum else 0
            step = back + layer.momentum * now[buffer] if layer.nesterov or not layer.momentum else now[buffer]
            now[[0, *slow[: depth + 1]]] = now[slow[depth]] - layer.alpha * step
            for level in range(depth + 1):
                row = buffers[level]
                if layer.pullback == "reset":
                    now[row] = 0
                elif layer.pullback == "pullback":
                    now[row] = layer.alpha * now[row] + (1 - layer.alpha) * now[caches[depth, level]]
                    now[caches[depth, level]] = now[row]
                for below in range(level, depth):
                    now[caches[below, level]] = now[row]
        return now

    maps = [None, *(after(due) for due in range(1, len(layers) + 1))]
    periods = np.cumprod([layer.k for layer in layers], dtype=int)
    held = tuple(entry == 0 or entry in slow for entry in range(size))
    return Rule(size, lambda step: maps[int(sum(step % period == 0 for period in periods))], held)


def _check(layers: Sequence[SlowLayer]) -> None:
    for layer in layers:
        if isinstance(layer.k, bool) or not isinstance(layer.k, (int, np.integer)) or layer.k < 1:
            raise ValueError(f"k must be an integer >= 1, got {layer.k!r}")
        if not 0 < layer.alpha < np.inf or not 0 <= layer.momentum < 1:
            raise ValueError(f"alpha must be > 0 and momentum in [0, 1), got {layer.alpha!r} and {layer.momentum!r}")
        if layer.pullback not in BUFFER_SHARES:
            raise ValueError(f"pullback must be one of {', '.join(BUFFER_SHARES)}, got {layer.pullback!r}")
