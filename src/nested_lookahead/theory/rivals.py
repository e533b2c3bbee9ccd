"""The best settings of nesting's rivals, momentum on slow weights and averages read out beside the run.

Every minimum is an upper bound: the least that several starts of a local search found, with how near the second came.
The search takes a thinned spectrum; what is told is the risk of the whole one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import minimize

from nested_lookahead.theory import averages
from nested_lookahead.theory.checks import Array
from nested_lookahead.theory.rules import impulse_moments, lookahead_rule
from nested_lookahead.theory.slow_momentum import SlowLayer, slow_moments, slow_rule
from nested_lookahead.theory.tuning import Problem, linear_decay, periods_of

MOST_MOMENTUM = 0.999

BEYOND = 50.0
"""The logarithm of a risk that is beyond all bounds."""

Risk = Callable[[Problem, Array], float]
"""Of a problem, at the settings in a vector."""


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
    problem: Problem,
    risk: Risk,
    bounds: Sequence[tuple[float, float]],
    starts: int,
    steps: int = 200,
    more: Sequence[Sequence[float]] = (),
) -> Minimum:
    """From the best of many points spread evenly over the bounds (a Halton sequence), a local search each."""
    thinned = problem.thinned()

    def logarithm(u: Array, of: Problem = thinned) -> float:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value = risk(of, u)
        return math.log(value) if 0 < value < math.exp(BEYOND) else BEYOND

    low, high = np.array(bounds).T
    spread = low + (high - low) * halton(24 * starts, len(bounds))
    best = sorted([*spread, *np.array(more).reshape(-1, len(bounds))], key=logarithm)[:starts]
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": steps}
    found = [minimize(logarithm, u, method="L-BFGS-B", bounds=bounds, options=options) for u in best]
    found.sort(key=lambda one: one.fun)
    whole = [math.exp(logarithm(one.x, problem)) for one in found[:2]]
    return Minimum(whole[0], tuple(map(float, found[0].x)), whole[1] if len(whole) > 1 else math.inf)


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
    momentum: float | None = 0.0,
    *,
    with_momentum: Sequence[bool],
    starts: int = 5,
    finalists: int = 4,
) -> Minimum:
    """Over all periods that fit a whole number of times: a short search each, from the best settings of the last one
    too, as neighbours are alike; then a long one of the best few, from several starts."""
    inner = _inner_momentum(momentum)
    bounds = [_rates(problem, momentum)]
    bounds += [(math.log(1e-3), math.log(2) if has else 0.0) for has in with_momentum]
    bounds += [(0.0, -math.log(0.01))] * sum(with_momentum) + inner.bounds

    def risk_of(periods: tuple[int, ...]) -> Risk:
        def risk(problem: Problem, u: Array) -> float:
            return risk_at(problem, steps, math.exp(u[0]), layers_at(u[1:], periods, with_momentum), inner.of(u))

        return risk

    tried: dict[tuple[int, ...], Minimum] = {}
    for periods in periods_of(steps, len(with_momentum)):
        last = [one.settings for one in tried.values()][-1:]
        tried[periods] = least(problem, risk_of(periods), bounds, 1, 40, more=last)
    best = sorted(tried, key=lambda periods: tried[periods].risk)[:finalists]
    found = {
        periods: least(problem, risk_of(periods), bounds, starts, more=[tried[periods].settings]) for periods in best
    }
    chosen = min(found, key=lambda periods: found[periods].risk)
    one = found[chosen]
    return Minimum(one.risk, one.settings, one.second, chosen)


@dataclass(frozen=True)
class _Inner:
    """SGD's own momentum: given, or the last of the settings, as −log(1 − μ)."""

    given: float | None
    bounds: list[tuple[float, float]]

    def of(self, u: Array) -> float:
        return -math.expm1(-u[-1]) if self.given is None else self.given


def _inner_momentum(momentum: float | None) -> _Inner:
    return _Inner(momentum, [(0.0, -math.log(1 - MOST_MOMENTUM))] if momentum is None else [])


def risk_at(problem: Problem, steps: int, lr: float, layers: Sequence[SlowLayer], momentum: float = 0.0) -> float:
    now = slow_moments(lr, layers, steps, problem.start, problem.curvature, problem.noise, momentum)
    return problem.risk_of(now)


def risk_by_impulses(
    problem: Problem, steps: int, lr: float, layers: Sequence[SlowLayer], momentum: float = 0.0
) -> float:
    """The same from the rule written out, impulse by impulse."""
    rule = slow_rule(layers)
    now = impulse_moments([lr] * steps, rule, problem.start, problem.curvature, problem.noise, momentum)
    return problem.risk_of(now)


def tuned_decay(problem: Problem, steps: int, momentum: float | None = 0.0, starts: int = 4) -> Minimum:
    """SGD at a rate that falls linearly to 0; settings are the logarithm of the first."""
    inner = _inner_momentum(momentum)

    def risk(problem: Problem, u: Array) -> float:
        given = (problem.start, problem.curvature, problem.noise, inner.of(u))
        return problem.risk_of(impulse_moments([*math.exp(u[0]) * linear_decay(steps)], lookahead_rule(()), *given))

    low, high = _rates(problem, momentum)  # it may begin where it is not stable
    return least(problem, risk, [(low, high + math.log(2)), *inner.bounds], starts)


def tuned_ema(problem: Problem, steps: int, momentum: float | None = 0.0, starts: int = 6) -> Minimum:
    """Learning rate and decay; settings are their logarithms, of 1 − decay."""
    inner = _inner_momentum(momentum)

    def risk(problem: Problem, u: Array) -> float:
        given = (problem.start, problem.curvature, problem.noise, inner.of(u))
        return problem.risk_of(averages.ema_moments(math.exp(u[0]), 1 - math.exp(u[1]), steps, *given))

    bounds = [_rates(problem, momentum), (math.log(0.01 / steps), -0.01), *inner.bounds]
    return least(problem, risk, bounds, starts)


def tuned_tail(problem: Problem, steps: int, momentum: float | None = 0.0, starts: int = 3) -> Minimum:
    """Learning rate, and the share of training after which the mean begins: one of forty."""
    inner = _inner_momentum(momentum)
    bounds = [_rates(problem, momentum), *inner.bounds]

    def risk_of(first: int) -> Risk:
        def risk(problem: Problem, u: Array) -> float:
            given = (problem.start, problem.curvature, problem.noise, inner.of(u))
            return problem.risk_of(averages.tail_moments(math.exp(u[0]), first, steps, *given))

        return risk

    tried: dict[int, Minimum] = {}
    for first in sorted({share * steps // 40 for share in range(40)}):
        last = [one.settings for one in tried.values()][-1:]
        tried[first] = least(problem, risk_of(first), bounds, 1, 20, more=last)
    chosen = min(tried, key=lambda first: tried[first].risk)
    one = least(problem, risk_of(chosen), bounds, starts, more=[tried[chosen].settings])
    return Minimum(one.risk, (*one.settings, chosen / steps), one.second)


def tuned_polyak(problem: Problem, steps: int, starts: int = 3) -> Minimum:
    """Rates lr · ((t + 1) / T)^p at step t = 0, 1, …; settings are the logarithm of lr, and p."""
    share = np.arange(1, steps + 1) / steps

    def risk(problem: Problem, u: Array) -> float:
        rates = math.exp(u[0]) * share ** u[1]
        return problem.risk_of(averages.polyak_moments(rates, problem.start, problem.curvature, problem.noise))

    return least(problem, risk, [(-2.0, math.log(4 / problem.curvature.max())), (0.0, 1.0)], starts)


def tuned_schedule_free(problem: Problem, steps: int, starts: int = 3) -> Minimum:
    """Learning rate (its logarithm) and beta."""

    def risk(problem: Problem, u: Array) -> float:
        given = (problem.start, problem.curvature, problem.noise)
        return problem.risk_of(averages.schedule_free_moments(math.exp(u[0]), u[1], steps, *given))

    return least(problem, risk, [(-3.0, math.log(8 / problem.curvature.max())), (0.0, 1.0)], starts)


def _rates(problem: Problem, momentum: float | None) -> tuple[float, float]:
    """Of the logarithm of the learning rate: up to where SGD is stable."""
    return (math.log(1e-3), math.log(2 / problem.curvature.max() * (2 if momentum is None else 1 + momentum)))


WITH_MOMENTUM: dict[str, Callable[[Problem, int, float | None], Minimum]] = {
    "SGD, linear decay": tuned_decay,
    "Lookahead": partial(tuned_layers, with_momentum=(False,)),
    "one Nesterov layer (SNOO)": partial(tuned_layers, with_momentum=(True,)),
    "nested": partial(tuned_layers, with_momentum=(False, False)),
    "nested, outer Nesterov": partial(tuned_layers, with_momentum=(False, True)),
    "EMA of the iterates": tuned_ema,
    "tail average": tuned_tail,
}
"""SGD in each of them has momentum: a number, or tuned where it is None."""

RIVALS: dict[str, Callable[[Problem, int], Minimum]] = {
    **{name: partial(tuner, momentum=0.0) for name, tuner in WITH_MOMENTUM.items() if "decay" not in name},  # type: ignore[call-arg]
    "Schedule-Free SGD": tuned_schedule_free,
    "Polyak average, rate γ ((t + 1) / T)^p": tuned_polyak,
}
"""SGD without momentum in each of them."""
