"""Exact moments in the noisy quadratic model, for SGD with any number of layers of slow weights around it.

The model (Zhang et al. 2019, Section 3.2; Schaul et al. 2013): each coordinate x has the loss ½ a (x − c)² with a fresh
c ~ N(0, σ²) at every step, so that its excess risk is ½ a E[x²]. Coordinates do not meet, so a spectrum is an array of
curvatures a and noise variances σ². Every step and every sync is linear, so mean and variance follow exactly.

Arrays of curvatures, variances, learning rates and starts broadcast against each other; all of it is float64 numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from nested_lookahead.theory.checks import Array, Layers, arrays, checked

S = TypeVar("S")


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
    rate, a, variance = arrays(lr, curvature, noise)
    found = [Cycle(rate * a, (rate * a) ** 2 * variance)]
    for k, alpha in checked(layers):
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
    return after_steps(stages, layers, steps, now, depth)


class Stage(Protocol[S]):
    """One cycle of a layer, or many, as a map on what is followed: moments, or a state with momentum."""

    def repeated(self, times: int, /) -> Stage[S]: ...

    def applied(self, now: S, /) -> S: ...


def after_steps(stages: Sequence[Stage[S]], layers: Sequence[Any], steps: int, now: S, depth: int = 0) -> S:
    """Moments or state after so many fast steps; without what is left of them that ends no cycle of layer ``depth``.

    At a layer's sync all below it are equal to it: so whole cycles of the outermost layer come first, then those of
    the next that have been finished since, and so on.
    """
    for level in range(len(stages) - 1, depth - 1, -1):
        period = int(np.prod([k for k, *_ in layers[:level]], dtype=int))
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
    rate, a, variance = arrays(np.asarray(lrs)[:, None], curvature, noise)
    rates, noises = 1 - rate * a, (rate * a) ** 2 * variance
    for k, alpha in (*checked(layers), (0, 1.0)):
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


def _check_stable(lr: ArrayLike, curvature: ArrayLike) -> None:
    step = np.multiply(lr, curvature, dtype=np.float64)
    if not np.all((step > 0) & (step < 2)):
        raise ValueError("unstable: lr must be in (0, 2 / curvature) for a steady state")
