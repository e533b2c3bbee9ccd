"""Workers that train apart between the syncs of layers that average over them, in the noisy quadratic model: exact.

Worker w of a group descends a quadratic of its own in each coordinate, x ← x − γ a_w (x − c_w − ε), with noise ε of its
own. Every k steps an inner layer moves toward the mean over its *group*; every s of its syncs an outer layer moves
toward the mean over *all*. What all workers have after an outer sync is one random number per coordinate; a cycle takes
it to P x + q + noise: so its moments after any number of cycles have a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from nested_lookahead.theory.checks import Array
from nested_lookahead.theory.moments import Moments
from nested_lookahead.theory.tuning import LEAST_ALPHA, Problem


@dataclass(frozen=True)
class Workers:
    """Groups of equal size on one problem.

    Args:
        factors: (groups, members), what each one's curvatures are multiples of.
        shifts: (groups, members), each one's optimum, in every coordinate.
    """

    problem: Problem
    factors: Array
    shifts: Array

    @classmethod
    def differing(cls, problem: Problem, groups: int, members: int, spread: float, shift: float) -> Workers:
        """Within each group curvatures differ by a factor of up to 1 ± ``spread``, and optima by ±``shift``, the
        steepest being the lowest; the groups are alike."""
        u = np.linspace(-1, 1, members) if members > 1 else np.zeros(1)
        return cls(problem, np.tile(1 + spread * u, (groups, 1)), np.tile(-shift * u, (groups, 1)))

    @property
    def optimum(self) -> float:
        """Of the mean of all workers' quadratics."""
        return float((self.factors * self.shifts).sum() / self.factors.sum())

    def cycle(self, lr: float, k: int, alpha: float, s: int, h: float) -> tuple[Array, Array, Array]:
        """P, q and the variance of the noise of one outer cycle of k · s steps, each (n,)."""
        per_step = 1 - lr * self.problem.curvature * self.factors[..., None]  # (groups, members, n)
        apart = per_step**k
        shifts = self.shifts[..., None]
        noise = (1 - per_step) ** 2 * self.problem.noise * geometric(per_step**2, k)
        members = self.factors.shape[1]
        keeps = 1 - alpha + alpha * apart.mean(axis=1)  # (groups, n): an inner cycle of each group
        moves = alpha * ((1 - apart) * shifts).mean(axis=1)
        shakes = alpha**2 * noise.mean(axis=1) / members
        groups = len(self.factors)
        return (
            1 - h + h * (keeps**s).mean(axis=0),
            h * (moves * geometric(keeps, s)).mean(axis=0),
            h**2 * (shakes * geometric(keeps**2, s)).mean(axis=0) / groups,
        )

    def moments(self, lr: float, k: int, alpha: float, s: int, h: float, cycles: int) -> Moments:
        """Mean and variance of the outer slow weights after so many outer cycles, in each coordinate."""
        keeps, moves, shakes = self.cycle(lr, k, alpha, s, h)
        mean = keeps**cycles * self.problem.start + moves * geometric(keeps, cycles)
        return Moments(mean, shakes * geometric(keeps**2, cycles))

    def risk(self, lr: float, k: int, alpha: float, s: int, h: float, steps: int) -> float:
        """Excess risk of the outer slow weights over the optimum of the mean of all quadratics; infinite where it is
        beyond all bounds.

        Raises:
            ValueError: the cycles do not fill the steps.
        """
        if steps % (k * s):
            raise ValueError(f"{steps} steps are no whole number of cycles of {k} x {s}")
        with np.errstate(over="ignore", invalid="ignore"):
            now = self.moments(lr, k, alpha, s, h, steps // (k * s))
            centred = Moments(now.mean - self.optimum, now.variance)
            mean_curvature = float(self.factors.mean())
            risk = mean_curvature * self.problem.risk_of(centred)
        return risk if math.isfinite(risk) else math.inf

    def fixed_point(self, lr: float, k: int) -> Array:
        """Where the mean of one layer with period k stays, over all workers, whatever its step size: (n,).

        Σ_w (1 − (1 − γ a_w)^k) c_w / Σ_w (1 − (1 − γ a_w)^k): the optimum for k = 1, and for γ → 0; else a worker that
        is steep counts for less than its curvature, as it comes to rest before it syncs.
        """
        pulls = 1 - (1 - lr * self.problem.curvature * self.factors[..., None]) ** k
        found: Array = (pulls * self.shifts[..., None]).sum(axis=(0, 1)) / pulls.sum(axis=(0, 1))
        return found


def geometric(ratio: Array, count: int) -> Array:
    """1 + r + … + r^(count − 1)."""
    near = np.abs(1 - ratio) < 1e-12
    safe = np.where(near, 0.0, ratio)
    return np.where(near, float(count), (1 - safe**count) / (1 - safe))


@dataclass(frozen=True)
class Tuned:
    """Settings of least risk, and that risk."""

    risk: float
    lr: float
    alpha: float
    h: float


def tune(workers: Workers, steps: int, k: int, s: int = 1) -> Tuned:
    """The best learning rate and step size of the layer over all; an inner layer, where there is one, takes the mean.

    With ``s`` = 1 there is one layer, of period k over all workers, with alpha for its step size.
    """
    most = 2 / float(largest_curvature(workers).max())

    def settings(u: Array) -> tuple[float, float, float]:
        lr, step_size = math.exp(u[0]), float(u[1])
        return (lr, step_size, 1.0) if s == 1 else (lr, 1.0, step_size)

    def value(u: Array) -> float:
        lr, alpha, h = settings(u)
        risk = workers.risk(lr, k, alpha, s, h, steps)
        return math.log(risk) if math.isfinite(risk) else 50.0

    bounds = [(math.log(1e-5 * most), math.log(most)), (LEAST_ALPHA, 1.0)]
    rates = np.linspace(bounds[0][0], bounds[0][1] - 0.05, 40)
    starts = [min((np.array([rate, size]) for rate in rates), key=value) for size in (0.1, 0.5, 1.0)]
    found = [minimize(value, at, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14}) for at in starts]
    best = min(found, key=lambda one: float(one.fun))
    lr, alpha, h = settings(best.x)
    return Tuned(workers.risk(lr, k, alpha, s, h, steps), lr, alpha, h)


def largest_curvature(workers: Workers) -> Array:
    """The largest curvature that any worker has, per coordinate."""
    return workers.problem.curvature * float(workers.factors.max())


def communication(
    workers: Workers, steps: int, periods: Sequence[int], inner: Sequence[int]
) -> dict[tuple[int, int], Tuned]:
    """By outer period K and inner period k, tuned: one layer (k = K), and nested with each inner period dividing K."""
    return {(K, k): tune(workers, steps, k, K // k) for K in periods for k in (K, *inner) if k <= K and K % k == 0}
