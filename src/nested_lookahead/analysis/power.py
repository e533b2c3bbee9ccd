"""What so many values can show, at the level at which it is decided."""

from __future__ import annotations

import bisect
import math
import statistics
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

POWER = 0.8
"""The probability with which a difference that is called detectable is detected."""

LEAST = 5
"""Seeds without which no verdict is more than suggestive: fewer detect nothing."""


def power(effect: float, n: int, m: int | None = None, alpha: float = 0.05) -> float:
    """Of a two-sided t test at ``alpha``: the probability that it detects a true effect, in standard deviations.

    By the noncentral t distribution (Cohen 1988), as an integral over the estimated spread: scipy's own function is NaN
    where the effect is large.

    Args:
        n: pairs; with ``m``, the sizes of two samples.
    """
    return float(_powers(np.array([effect]), n, m, alpha)[0])


def _powers(effects: Array, n: int, m: int | None, alpha: float) -> Array:
    from scipy.special import ndtr, stdtrit

    df, scale = (n - 1, math.sqrt(n)) if m is None else (n + m - 2, math.sqrt(n * m / (n + m)))
    spread, weight = _spreads(df)
    critical, shifted = stdtrit(df, 1 - alpha / 2) * spread, effects[:, None] * scale
    return np.asarray((ndtr(shifted - critical) + ndtr(-shifted - critical)) @ weight)


@cache
def _spreads(df: int) -> tuple[Array, Array]:
    """Estimates of a standard deviation of 1 (chi over the root of ``df``), and weights that sum to 1."""
    nodes, weights = _quadrature()
    width = 10 / math.sqrt(2 * df)  # ten standard deviations on each side
    low, high = max(0.0, 1 - width), 1 + width
    at = 0.5 * (high - low) * nodes + 0.5 * (high + low)
    constant = math.log(2) + 0.5 * df * math.log(0.5 * df) - math.lgamma(0.5 * df)
    density = np.exp(constant + (df - 1) * np.log(at) - 0.5 * df * at**2)
    return at, 0.5 * (high - low) * weights * density


@cache
def _quadrature() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(300)
    return nodes, weights


@cache
def detectable_effect(n: int, m: int | None = None, alpha: float = 0.05) -> float:
    """The effect that `power` has 80% for: of n pairs, or of samples of n and m."""
    from scipy.optimize import brentq

    most = 0.5
    while power(most, n, m, alpha) < POWER:
        most *= 2
    return float(brentq(lambda effect: power(effect, n, m, alpha) - POWER, 0, most))


@cache
def stated_effect(n: int, m: int | None = None, alpha: float = 0.05) -> float:
    """The effect that a study may state from its own spread: 80% power on average over studies.

    `detectable_effect` is for a known spread. Times the one that five pairs happen to have, it has 66% power on
    average, as a spread that comes out small takes more than a large one gives.
    """
    from scipy.optimize import brentq

    spread, weight = _spreads(n - 1 if m is None else n + m - 2)

    def lack(effect: float) -> float:
        return float(weight @ _powers(effect * spread, n, m, alpha)) - POWER

    least = detectable_effect(n, m, alpha)
    most = 2 * least
    while lack(most) < 0:
        most *= 2
    return float(brentq(lack, least / 2, most))


@cache
def seeds_needed(effect: float, paired: bool, alpha: float = 0.05) -> int:
    """The least n for which an effect is detectable: n pairs, or two samples of n; three at the least, as of any test.

    So n detect an effect if and only if ``detectable_effect`` of n is no larger.
    """
    effect = abs(effect)
    if effect < 1e-3:
        raise ValueError(f"effect {effect:g}: must be at least 0.001; millions of seeds are not a plan")

    def enough(n: int) -> bool:
        return power(effect, n, None if paired else n, alpha) >= POWER - 1e-9  # as exactly as the effect is solved

    normal = statistics.NormalDist().inv_cdf
    known = (2 - paired) * ((normal(1 - alpha / 2) + normal(POWER)) / effect) ** 2  # if the spread were: not enough
    least, step = max(3, math.floor(known)), 4
    while not enough(least + step):
        step *= 2
    return bisect.bisect_left(range(least + step), True, lo=least, key=enough)


def seeds_range(delta: float, sd: float, n: int, paired: bool, alpha: float = 0.05) -> tuple[float, float, float]:
    """Seeds needed for a true difference of ``delta``: by the spread that was seen, and the least and the most of them.

    The range is that of the 95% interval of the true spread, by the chi-square distribution of n − 1 degrees of
    freedom (2n − 2 of two samples): five seeds know their spread to within a factor of five. None is below
    `LEAST`, and infinity stands for more than can be run.
    """
    from scipy.special import gammaincinv

    df = n - 1 if paired else 2 * n - 2
    spreads = (sd, *(sd * math.sqrt(0.5 * df / gammaincinv(0.5 * df, q)) for q in (0.975, 0.025)))
    return tuple(_needed(delta / spread, paired, alpha) for spread in spreads)  # type: ignore[return-value]


def _needed(effect: float, paired: bool, alpha: float) -> float:
    return math.inf if effect < 0.02 else max(LEAST, seeds_needed(effect, paired, alpha))
