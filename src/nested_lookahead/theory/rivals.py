"""The best settings of nesting's rivals, momentum on slow weights and averages read out beside the run.

Every minimum is an upper bound: the least that several starts of a local search found, with how near the second came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from nested_lookahead.theory import averages
from nested_lookahead.theory.checks import Array
from nested_lookahead.theory.moments import Moments, excess_risk
from nested_lookahead.theory.rules import impulse_moments
from nested_lookahead.theory.slow_momentum import SlowLayer, slow_moments, slow_rule
from nested_lookahead.theory.tuning import Problem, periods_of

BEYOND = 50.0
"""The logarithm of a risk that is beyond all bounds."""


@dataclass(frozen=True)
class Minimum:
    """The least risk that was found, where, and what the best of the other starts came to."""

    risk: float
    settings: tuple[float, ...]
    second: float
    periods: tuple[int, ...] = ()

    @property
    def certified(self) -> bool:
        """Whether a second start came to the same."""
        return self.second <= self.risk * (1 + 1e-7)


def least(
    risk: Callable[[Array], float],
    bounds: Sequence[tuple[float, float]],
    starts: int,
    steps: int = 200,
    more: Sequence[Sequence[float]] = (),
) -> Minimum:
    """From the best of many points spread evenly over the bounds (a Halton sequence), a local search each."""

    def logarithm(u: Array) -> float:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value = risk(u)
        return math.log(value) if 0 < value < math.exp(BEYOND) else BEYOND

    low, high = np.array(bounds).T
    spread = low + (high - low) * halton(24 * starts, len(bounds))
    best = sorted([*spread, *np.array(more).reshape(-1, len(bounds))], key=logarithm)[:starts]
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": steps}
    found = [minimize(logarithm, u, method="L-BFGS-B", bounds=bounds, options=options) for u in best]
    found.sort(key=lambda one: one.fun)
    second = found[1].fun if len(found) > 1 else math.inf
    return Minimum(math.exp(found[0].fun), tuple(map(float, found[0].x)), math.exp(second))


def halton(count: int, dimensions: int) -> Array:
    """Points in the unit cube, spread evenly and always the same."""

    def column(base: int) -> list[float]:
        return [
            sum(digit * base ** -(i + 1.0) for i, digit in enumerate(_digits(n, base))) for n in range(1, count + 1)
        ]

    return np.array([column(base) for base in (2, 3, 5, 7, 11, 13)[:dimensions]]).T


def _digits(number: int, base: int) -> list[int]:
    found = []
    while number:
        number, digit = divmod(number, base)
        found.append(digit)
    return found


def layers_at(u: Array, periods: Sequence[int], with_momentum: Sequence[bool]) -> list[SlowLayer]:
    """From the logarithms of the step sizes, then −log(1 − μ) of the layers that have momentum."""
    momenta = iter(u[len(periods) :])
    return [
        SlowLayer(k, math.exp(u[i]), -math.expm1(-next(momenta)) if has else 0.0)
        for i, (k, has) in enumerate(zip(periods, with_momentum, strict=True))
    ]


def tuned_layers(
    problem: Problem,
    steps: int,
    with_momentum: Sequence[bool],
    momentum: float = 0.0,
    starts: int = 5,
    finalists: int = 6,
) -> Minimum:
    """Over all periods that fit a whole number of times: a short search each, then a long one of the best few."""
    most = math.log(2 / problem.curvature.max()) + (math.log(2) if momentum else 0)
    bounds = [(math.log(1e-3), most)]
    bounds += [(math.log(1e-3), math.log(2) if has else 0.0) for has in with_momentum]
    bounds += [(0.0, -math.log(0.01))] * sum(with_momentum)

    def risk_of(periods: tuple[int, ...]) -> Callable[[Array], float]:
        return lambda u: risk_at(problem, steps, math.exp(u[0]), layers_at(u[1:], periods, with_momentum), momentum)

    every = periods_of(steps, len(with_momentum))
    tried = {periods: least(risk_of(periods), bounds, 2, 25) for periods in every}
    best = sorted(tried, key=lambda periods: tried[periods].risk)[:finalists]
    found = {periods: least(risk_of(periods), bounds, starts, more=[tried[periods].settings]) for periods in best}
    chosen = min(found, key=lambda periods: found[periods].risk)
    one = found[chosen]
    return Minimum(one.risk, one.settings, one.second, chosen)


def risk_at(problem: Problem, steps: int, lr: float, layers: Sequence[SlowLayer], momentum: float = 0.0) -> float:
    now = slow_moments(lr, layers, steps, problem.start, problem.curvature, problem.noise, momentum)
    return _risk(problem, now)


def risk_by_impulses(
    problem: Problem, steps: int, lr: float, layers: Sequence[SlowLayer], momentum: float = 0.0
) -> float:
    """The same from the rule written out, impulse by impulse."""
    rule = slow_rule(layers)
    now = impulse_moments([lr] * steps, rule, problem.start, problem.curvature, problem.noise, momentum)
    return _risk(problem, now)


def _risk(problem: Problem, now: Moments) -> float:
    return float(excess_risk(now, problem.curvature))


def tuned_ema(problem: Problem, steps: int, momentum: float = 0.0, starts: int = 6) -> Minimum:
    """Learning rate and decay; settings are their logarithms, of 1 − decay."""
    given = (problem.start, problem.curvature, problem.noise, momentum)

    def risk(u: Array) -> float:
        return _risk(problem, averages.ema_moments(math.exp(u[0]), 1 - math.exp(u[1]), steps, *given))

    return least(risk, [_rates(problem, momentum), (math.log(0.01 / steps), -0.01)], starts)


def tuned_tail(problem: Problem, steps: int, momentum: float = 0.0, starts: int = 3) -> Minimum:
    """Learning rate, and the share of training after which the mean begins: one of forty."""
    given = (problem.start, problem.curvature, problem.noise, momentum)
    found = []
    for first in sorted({share * steps // 40 for share in range(40)}):

        def risk(u: Array, first: int = first) -> float:
            return _risk(problem, averages.tail_moments(math.exp(u[0]), first, steps, *given))

        one = least(risk, [_rates(problem, momentum)], starts)
        found.append(Minimum(one.risk, (*one.settings, first / steps), one.second))
    return min(found, key=lambda one: one.risk)


def tuned_polyak(problem: Problem, steps: int, starts: int = 3) -> Minimum:
    """Rates lr · ((t + 1) / T)^p at step t = 0, 1, …; settings are the logarithm of lr, and p."""
    share = np.arange(1, steps + 1) / steps

    def risk(u: Array) -> float:
        rates = math.exp(u[0]) * share ** u[1]
        return _risk(problem, averages.polyak_moments(rates, problem.start, problem.curvature, problem.noise))

    return least(risk, [(-2.0, math.log(4 / problem.curvature.max())), (0.0, 1.0)], starts)


def tuned_schedule_free(problem: Problem, steps: int, starts: int = 3) -> Minimum:
    """Learning rate (its logarithm) and beta."""
    given = (problem.start, problem.curvature, problem.noise)

    def risk(u: Array) -> float:
        return _risk(problem, averages.schedule_free_moments(math.exp(u[0]), u[1], steps, *given))

    return least(risk, [(-3.0, math.log(8 / problem.curvature.max())), (0.0, 1.0)], starts)


def _rates(problem: Problem, momentum: float) -> tuple[float, float]:
    most = 2 / problem.curvature.max() * (1 + momentum)
    return (math.log(1e-3), math.log(most))


RIVALS: dict[str, Callable[[Problem, int], Minimum]] = {
    "Lookahead": lambda problem, steps: tuned_layers(problem, steps, (False,)),
    "one Nesterov layer (SNOO)": lambda problem, steps: tuned_layers(problem, steps, (True,)),
    "nested": lambda problem, steps: tuned_layers(problem, steps, (False, False)),
    "nested, outer Nesterov": lambda problem, steps: tuned_layers(problem, steps, (False, True)),
    "EMA of the iterates": tuned_ema,
    "tail average": tuned_tail,
    "Schedule-Free SGD": tuned_schedule_free,
    "Polyak average, rate γ ((t + 1) / T)^p": tuned_polyak,
}
"""SGD without momentum in each of them."""
