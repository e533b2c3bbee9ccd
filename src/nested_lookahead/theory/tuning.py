"""The best settings of each method for a spectrum and a horizon, found deterministically."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from nested_lookahead.tasks.spectrum import power_law
from nested_lookahead.theory.checks import Array, Layers
from nested_lookahead.theory.moments import Moments, excess_risk, moments, scheduled_moments
from nested_lookahead.theory.momentum import State, momentum_moments, transitions

LEAST_ALPHA = 0.001
MOST_MOMENTUM = 0.999


@dataclass(frozen=True)
class Problem:
    """A spectrum: curvatures, noise variances, and where each coordinate starts; all (n,)."""

    curvature: Array
    noise: Array
    start: Array

    @classmethod
    def power_law(
        cls, coordinates: int = 1000, power: float = 1.0, noise_power: float = 1.0, start_power: float = 0.0
    ) -> Problem:
        """Curvatures aᵢ = i^−power, noise variances aᵢ^−noise_power, starts with x₀² = aᵢ^−start_power."""
        curvature, noise = power_law(coordinates, power, noise_power)
        return cls(curvature, noise, curvature ** (-start_power / 2))

    def risk(self, lr: float, layers: Layers, steps: int, momentum: float = 0.0, decay: str = "constant") -> float:
        """Excess risk of the fast weights after so many steps; infinite where it is beyond all bounds.

        ``decay``: ``constant`` or ``linear``, to 0, a learning rate of lr · (1 − t / steps) on step t = 0, 1, ….
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if decay == "linear":
                rates = lr * (1 - np.arange(steps) / steps)
                now = scheduled_moments(rates, layers, self.start, 0.0, self.curvature, self.noise)
            elif momentum:
                stages = transitions(lr, layers, self.curvature, self.noise, momentum)
                buffer = np.zeros_like(self.start)
                start = State(np.stack([self.start, buffer], axis=-1), np.zeros((len(self.start), 2, 2)))
                state = momentum_moments(stages, layers, steps, start)
                now = Moments(state.mean[:, 0], state.covariance[:, 0, 0])
            else:
                now = moments(lr, layers, steps, self.start, 0.0, self.curvature, self.noise)
            risk = float(excess_risk(now, self.curvature))
        return risk if math.isfinite(risk) else math.inf


@dataclass(frozen=True)
class Tuned:
    """The settings of least risk, and that risk."""

    risk: float
    lr: float
    layers: tuple[tuple[int, float], ...]
    momentum: float = 0.0


def tune(
    problem: Problem,
    steps: int,
    periods: Sequence[int] = (),
    momentum: float | None = 0.0,
    decay: str = "constant",
    alphas: Sequence[float] | None = None,
) -> Tuned:
    """Learning rate and step sizes of least excess risk at the last step, for given synchronization periods.

    Args:
        periods: k of each layer, innermost first.
        momentum: μ; None tunes it, too.
        alphas: step sizes to keep; None tunes them.
    """
    most = 2 / problem.curvature.max()
    free_alphas = len(periods) if alphas is None else 0

    def settings(u: Array) -> tuple[float, Layers, float]:
        chosen = list(u[1 : 1 + free_alphas]) if alphas is None else list(alphas)
        layers = [(k, float(alpha)) for k, alpha in zip(periods, chosen, strict=True)]
        return math.exp(u[0]), layers, float(u[-1]) if momentum is None else momentum

    def logarithm(u: Array) -> float:
        lr, layers, mu = settings(u)
        risk = problem.risk(lr, layers, steps, mu, decay)
        return math.log(risk) if math.isfinite(risk) else 50.0

    bounds = [(math.log(1e-6 * most), math.log(most * (1 if momentum == 0 else 2)))]
    bounds += [(LEAST_ALPHA, 1.0)] * free_alphas + ([(0.0, MOST_MOMENTUM)] if momentum is None else [])
    best: tuple[float, Any] | None = None
    for at_first in _starts(logarithm, bounds, free_alphas, momentum is None):
        found = minimize(logarithm, at_first, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-10})
        if best is None or found.fun < best[0]:
            best = (float(found.fun), found.x)
    assert best is not None
    lr, layers, mu = settings(best[1])
    return Tuned(problem.risk(lr, layers, steps, mu, decay), lr, tuple(layers), mu)


def _starts(value: Callable[[Array], float], bounds: Any, alphas: int, free_momentum: bool) -> Iterator[Array]:
    """For each of a few step sizes and momenta, the best of a coarse grid of learning rates."""
    rates = np.linspace(bounds[0][0], bounds[0][1] - 0.05, 25)
    for alpha in (0.05, 0.3, 0.7) if alphas else (1.0,):
        for momentum in ([0.5], [0.99]) if free_momentum else ([],):
            tried = [np.array([rate, *[alpha] * alphas, *momentum]) for rate in rates]
            yield min(tried, key=value)


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def periods_of(steps: int, depth: int, most: int | None = None) -> list[tuple[int, ...]]:
    """All periods k ≥ 2 of so many layers whose cycles fit a whole number of times into the horizon."""
    if depth == 0:
        return [()]
    return [
        (k, *rest)
        for k in divisors(steps)
        if k > 1 and (most is None or k <= most)
        for rest in periods_of(steps // k, depth - 1, most)
    ]
