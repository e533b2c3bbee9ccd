"""The best settings of each method for a spectrum and a horizon, found deterministically."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from scipy.optimize import minimize

from nested_lookahead.tasks.spectrum import power_law
from nested_lookahead.theory.checks import Array, Layers
from nested_lookahead.theory.moments import Moments, excess_risk, moments, scheduled_moments

LEAST_ALPHA = 0.001


@dataclass(frozen=True)
class Problem:
    """A spectrum: curvatures, noise variances, and where each coordinate starts; all (n,)."""

    curvature: Array
    noise: Array
    start: Array
    weight: Array | float = 1.0
    """How many coordinates each one stands for, (n,) where they are not all themselves."""

    @classmethod
    def power_law(
        cls, coordinates: int = 1000, power: float = 1.0, noise_power: float = 1.0, start_power: float = 0.0
    ) -> Problem:
        """Curvatures aᵢ = i^−power, noise variances aᵢ^−noise_power, starts with x₀² = aᵢ^−start_power."""
        curvature, noise = power_law(coordinates, power, noise_power)
        return cls(curvature, noise, curvature ** (-start_power / 2))

    def thinned(self, nodes: int = 8) -> Problem:
        """Nearly the same risks in a tenth of the time, to search with, where a spectrum is smooth.

        Of each octave of the coordinates' numbers so many are kept, with the weights of the polynomial through them.
        """
        count = len(self.curvature)
        octaves = np.split(np.arange(count), [2**j - 1 for j in range(1, count.bit_length())])
        kept, weights = [], []
        for octave in octaves:
            place = np.log(octave + 1)
            x = 2 * (place - place[0]) / max(place[-1] - place[0], 1e-9) - 1
            ideal = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
            at = np.unique(np.abs(x[:, None] - ideal).argmin(axis=0)) if len(octave) > nodes else np.arange(len(octave))
            basis = chebvander(x, len(at) - 1)
            kept.append(octave[at])
            weights.append(np.linalg.solve(basis[at].T, basis.sum(axis=0)))
        at = np.concatenate(kept)
        return Problem(self.curvature[at], self.noise[at], self.start[at], np.concatenate(weights))

    def risk_of(self, now: Moments) -> float:
        """Excess risk of moments of these coordinates."""
        return float(excess_risk(now, self.weight * self.curvature))

    def risk(self, lr: float, layers: Layers, steps: int, decay: str = "constant") -> float:
        """Excess risk of the fast weights after so many steps; infinite where it is beyond all bounds.

        ``decay``: ``constant``, or ``linear`` as `linear_decay`.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if decay == "linear":
                rates = lr * linear_decay(steps)
                now = scheduled_moments(rates, layers, self.start, 0.0, self.curvature, self.noise)
            else:
                now = moments(lr, layers, steps, self.start, 0.0, self.curvature, self.noise)
            risk = self.risk_of(now)
        return risk if math.isfinite(risk) else math.inf


def linear_decay(steps: int) -> Array:
    """What a learning rate that falls to 0 is a multiple of on step t = 0, 1, …: 1 − t / steps."""
    return 1 - np.arange(steps) / steps


@dataclass(frozen=True)
class Tuned:
    """The settings of least risk, and that risk."""

    risk: float
    lr: float
    layers: tuple[tuple[int, float], ...]


def tune(
    problem: Problem,
    steps: int,
    periods: Sequence[int] = (),
    decay: str = "constant",
    alphas: Sequence[float] | None = None,
) -> Tuned:
    """Learning rate and step sizes of least excess risk at the last step, for given synchronization periods.

    Args:
        periods: k of each layer, innermost first.
        alphas: step sizes to keep; None tunes them.
    """
    most = 2 / problem.curvature.max() * (2 if decay == "linear" else 1)  # which may begin where it is not stable
    free_alphas = len(periods) if alphas is None else 0

    def settings(u: Array) -> tuple[float, Layers]:
        chosen = list(u[1:]) if alphas is None else list(alphas)
        return math.exp(u[0]), [(k, float(alpha)) for k, alpha in zip(periods, chosen, strict=True)]

    def logarithm(u: Array) -> float:
        risk = problem.risk(*settings(u), steps, decay)
        return math.log(risk) if math.isfinite(risk) else 50.0

    bounds = [(math.log(1e-6 * most), math.log(most)), *[(LEAST_ALPHA, 1.0)] * free_alphas]
    best: tuple[float, Any] | None = None
    for at_first in _starts(logarithm, bounds[0], free_alphas):
        found = minimize(logarithm, at_first, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-10})
        if best is None or found.fun < best[0]:
            best = (float(found.fun), found.x)
    assert best is not None
    lr, layers = settings(best[1])
    return Tuned(problem.risk(lr, layers, steps, decay), lr, tuple(layers))


def _starts(value: Callable[[Array], float], bounds: tuple[float, float], alphas: int) -> Iterator[Array]:
    """For each of a few step sizes, the best of a coarse grid of learning rates."""
    rates = np.linspace(bounds[0], bounds[1] - 0.05, 25)
    for alpha in (0.05, 0.3, 0.7) if alphas else (1.0,):
        yield min((np.array([rate, *[alpha] * alphas]) for rate in rates), key=value)


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
