"""Exact moments of averages of the iterates that are not fed back, of Schedule-Free SGD, and the floor below them.

All of them are linear in the noise. Curvatures, variances and starts are arrays of one shape; the rest are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from nested_lookahead.theory.checks import Array
from nested_lookahead.theory.moments import Moments
from nested_lookahead.theory.momentum import State, Transition
from nested_lookahead.theory.slow_momentum import slow_transitions


def ema_moments(
    lr: float,
    decay: float,
    steps: int,
    start: ArrayLike = 1.0,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    momentum: float = 0.0,
) -> Moments:
    """Of e ← decay · e + (1 − decay) x after each step of SGD, from e = x at the start."""
    state = _followed(_with_average(lr, curvature, noise, momentum, decay, 1 - decay), steps, start, held=True)
    return Moments(state.mean[..., -1], state.covariance[..., -1, -1])


def tail_moments(
    lr: float,
    first: int,
    steps: int,
    start: ArrayLike = 1.0,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    momentum: float = 0.0,
) -> Moments:
    """Of the mean of x after the steps ``first`` + 1 … ``steps`` of SGD; from the first step on it is Polyak's."""
    if not 0 <= first < steps:
        raise ValueError(f"first must be in [0, {steps}), got {first}")
    sums = _with_average(lr, curvature, noise, momentum, 1.0, 1.0)
    waiting = _with_average(lr, curvature, noise, momentum, 1.0, 0.0)
    count = steps - first
    state = sums.repeated(count).applied(_followed(waiting, first, start, held=False))
    return Moments(state.mean[..., -1] / count, state.covariance[..., -1, -1] / count**2)


def _with_average(
    lr: float, curvature: ArrayLike, noise: ArrayLike, momentum: float, kept: float, taken: float
) -> Transition:
    """A step of SGD on (x, v, average), with average ← kept · average + taken · x."""
    fast = slow_transitions(lr, (), curvature, noise, momentum)[0]
    size = fast.matrix.shape[-1]
    lift = np.vstack([np.eye(size), taken * np.eye(size)[:1]])
    matrix = np.zeros((*fast.matrix.shape[:-2], size + 1, size + 1))
    matrix[..., :size] = lift @ fast.matrix
    matrix[..., -1, -1] = kept
    return Transition(matrix, lift @ fast.noise @ lift.T)


def _followed(step: Transition, steps: int, start: ArrayLike, held: bool) -> State:
    size = step.matrix.shape[-1]
    shape = np.broadcast_shapes(step.matrix.shape[:-2], np.shape(start))
    mean = np.zeros((*shape, size))
    mean[..., 0] = start
    if held:
        mean[..., -1] = start
    return step.repeated(steps).applied(State(mean, np.zeros((*shape, size, size))))


def polyak_moments(
    lrs: Sequence[float], start: ArrayLike = 1.0, curvature: ArrayLike = 1.0, noise: ArrayLike = 1.0
) -> Moments:
    """Of the mean of x after all steps of SGD, with a learning rate for each.

    Goes back from the end: an impulse on x at step t adds to the mean what it becomes in the steps after, over T.
    """
    a, variance = np.broadcast_arrays(np.asarray(curvature, dtype=np.float64), np.asarray(noise, dtype=np.float64))
    total, spread = np.zeros(a.shape), np.zeros(a.shape)
    for lr in reversed(lrs):
        reach = 1 + total  # of an impulse on x: in the average now, and in the steps after
        spread = spread + (lr * a * reach) ** 2
        total = (1 - lr * a) * reach
    count = len(lrs)
    return Moments(np.asarray(start) * total / count, spread * variance / count**2)


def schedule_free_moments(
    lr: float, beta: float, steps: int, start: ArrayLike = 1.0, curvature: ArrayLike = 1.0, noise: ArrayLike = 1.0
) -> Moments:
    """Of the averaged weights of Schedule-Free SGD (arXiv:2405.15682) at a constant learning rate.

    The gradient is taken at y = (1 − beta) z + beta x; z ← z − lr · gradient; x ← x + (z − x) / t at step t = 1, 2, ….
    """
    return linear_moments(_schedule_free_step(lr, beta), steps, start, curvature, noise)


Step = Callable[[int, Array, Array, Array], tuple[Array, Array, Array]]


def _schedule_free_step(lr: float, beta: float) -> Step:
    """What a row (z, x) is before step t, and what a unit of the step's noise adds to its end."""

    def back(t: int, z: Array, x: Array, a: Array) -> tuple[Array, Array, Array]:
        z = z + x / t
        x = x * (1 - 1 / t)
        reach = lr * a * z
        return z - (1 - beta) * reach, x - beta * reach, reach

    return back


def linear_moments(step: Step, steps: int, start: ArrayLike, curvature: ArrayLike, noise: ArrayLike) -> Moments:
    """Of x, for a rule on (z, x), by going back from the end."""
    a, variance = np.broadcast_arrays(np.asarray(curvature, dtype=np.float64), np.asarray(noise, dtype=np.float64))
    z, x, spread = np.zeros(a.shape), np.ones(a.shape), np.zeros(a.shape)
    for t in range(steps, 0, -1):
        z, x, reach = step(t, z, x, a)
        spread = spread + reach**2
    return Moments(np.asarray(start) * (z + x), spread * variance)


def floor(steps: int, start: ArrayLike = 1.0, curvature: ArrayLike = 1.0, noise: ArrayLike = 1.0) -> float:
    """The excess risk below which no linear method gets, even one with settings of its own for each coordinate.

    Its end is m x₀ + Σ w_t c_t with m + Σ w_t = 1, as a shift of everything shifts it along. Then equal w_t are best:
    m² x₀² + (1 − m)² σ²/T, least at x₀² σ² / (T x₀² + σ²).
    """
    a, square, variance = np.broadcast_arrays(curvature, np.square(start), noise)
    return float(0.5 * np.sum(a * square * variance / (steps * square + variance)))
