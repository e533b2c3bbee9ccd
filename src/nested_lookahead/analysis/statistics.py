"""Array to number functions. Differences and values are in any unit; nothing here knows what a run is."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Values = Sequence[float] | np.ndarray[Any, Any]
NAN = float("nan")


def t_half_width(values: Values, level: float = 0.95) -> float | None:
    """Half-width of Student's t interval for the mean, or None for fewer than three values.

    At n = 3 this interval covers a normal mean 94.5% of the time where a percentile bootstrap covers 75%. Two values
    give an interval too wide to be of use (t = 12.7): show the values themselves.
    """
    n = len(values)
    if n < 3:
        return None
    if _all_equal(values):
        return 0.0
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))


def _all_equal(values: Values) -> bool:
    """But for rounding, of which a standard deviation would make a tiny number and its inverse a huge one."""
    return bool(np.ptp(values) <= 1e-9 * max(1.0, float(np.max(np.abs(values)))))


@dataclass(frozen=True)
class Difference:
    """A mean difference and what can be said of it; NaN where too little is known (n < 3, or no spread at all)."""

    n: int
    """Pairs; of unpaired samples, the smaller one's size."""
    mean: float
    sd: float
    """Of the differences; of unpaired samples, pooled."""
    p: float
    """Two-sided, of the t test."""
    low: float
    high: float
    """95% interval."""
    low90: float
    high90: float
    d: float
    """Mean over sd: d_z of pairs, Cohen's d of unpaired samples."""
    g: float
    """Hedges' g: ``d`` less its small-sample bias (Hedges 1981)."""
    detectable: float
    """The smallest true difference that so many values of this spread detect with 80% power (alpha = 0.05)."""

    def seeds_needed(self, delta: float, paired: bool) -> float:
        """How many seeds (of each method, where unpaired) would detect a difference of ``delta`` with 80% power."""
        return seeds_needed(delta / self.sd, paired)


def paired(differences: Values) -> Difference:
    """From the differences of pairs, such as two methods' results with the same seed."""
    d = np.asarray(differences, dtype=float)
    n, mean = len(d), float(np.mean(d)) if len(d) else NAN
    if n < 3 or _all_equal(d):
        return _unknown(n, mean, 0.0 if n >= 3 else NAN)
    sd = float(np.std(d, ddof=1))
    return _t_test(n, mean, sd, sd / math.sqrt(n), n - 1, sd * detectable_effect(n))


def welch(a: Values, b: Values) -> Difference:
    """Of mean(a) − mean(b), of samples that do not come in pairs and need not have equal variances (Welch 1947)."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n, mean = min(len(a), len(b)), float(np.mean(a) - np.mean(b)) if len(a) and len(b) else NAN
    if n < 3 or (_all_equal(a) and _all_equal(b)):
        return _unknown(n, mean, 0.0 if n >= 3 else NAN)
    parts = [float(np.var(x, ddof=1)) / len(x) for x in (a, b)]
    error = math.sqrt(sum(parts))
    df = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    pooled = math.sqrt((np.var(a, ddof=1) * (len(a) - 1) + np.var(b, ddof=1) * (len(b) - 1)) / (len(a) + len(b) - 2))
    return _t_test(n, mean, pooled, error, df, pooled * detectable_effect(len(a), len(b)))


def _unknown(n: int, mean: float, sd: float) -> Difference:
    return Difference(n, mean, sd, *[NAN] * 8)


def _t_test(n: int, mean: float, sd: float, error: float, df: float, detectable: float) -> Difference:
    from scipy.stats import t

    half, half90 = (float(t.ppf(q, df)) * error for q in (0.975, 0.95))
    d = mean / sd
    return Difference(
        n=n,
        mean=mean,
        sd=sd,
        p=float(2 * t.sf(abs(mean) / error, df)),
        low=mean - half,
        high=mean + half,
        low90=mean - half90,
        high90=mean + half90,
        d=d,
        g=d * (1 - 3 / (4 * df - 1)),
        detectable=detectable,
    )


POWER = 0.8
"""The probability with which a difference that is called detectable is detected."""


def power(effect: float, n: int, m: int | None = None) -> float:
    """Of a two-sided t test at 0.05: the probability that it detects a true effect, in standard deviations.

    Args:
        n: pairs; with ``m``, the sizes of two samples. Exact, by the noncentral t distribution.
    """
    from scipy.stats import nct, t

    df, scale = (n - 1, math.sqrt(n)) if m is None else (n + m - 2, math.sqrt(n * m / (n + m)))
    critical = t.ppf(0.975, df)
    return float(nct.sf(critical, df, effect * scale) + nct.cdf(-critical, df, effect * scale))


@cache
def detectable_effect(n: int, m: int | None = None) -> float:
    """The effect that `power` has 80% for: of n pairs, or of samples of n and m."""
    from scipy.optimize import brentq

    most = 0.5
    while power(most, n, m) < POWER:  # no further than needed: the noncentral t is not to be had far out
        most *= 1.5
    return float(brentq(lambda effect: power(effect, n, m) - POWER, most / 10, most))


def seeds_needed(effect: float, paired: bool) -> int:
    """The least n for which an effect is detectable: n pairs, or two samples of n; three at the least, as of any test.

    So n detect an effect if and only if ``detectable_effect`` of n is no larger.
    """

    effect = min(abs(effect), 5.0)  # three are enough for that, and the noncentral t is not to be had far out

    def enough(n: int) -> bool:
        return power(effect, n, None if paired else n) >= POWER - 1e-9  # as exactly as `detectable_effect` is solved

    most = 3
    while not enough(most):
        most *= 2
    return bisect.bisect_left(range(most), True, lo=3, key=enough)


def holm(p_values: Values) -> np.ndarray[Any, Any]:
    """p-values adjusted for a family of tests (Holm 1979); NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), NAN)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else []
    return adjusted


def clopper_pearson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval for a share (Clopper & Pearson 1934); half successes, of ties, are allowed."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if successes <= 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes >= n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def verdict(difference: Difference, p_holm: float, delta: float) -> str:
    """``better``, ``worse``, ``equivalent`` or ``unresolved``; fewer than five seeds can at most be ``suggestive``.

    better, worse: Holm's p is below 0.05 and the 95% interval excludes 0. equivalent: the 90% interval lies inside
    ±delta, that is, two one-sided tests at 0.05 (Schuirmann 1987).
    """
    if math.isnan(p_holm):
        return "unresolved"
    if p_holm < 0.05 and (difference.low > 0 or difference.high < 0):
        word = "better" if difference.mean > 0 else "worse"
        return word if difference.n >= 5 else f"suggestive: {word}"
    if -delta < difference.low90 and difference.high90 < delta:
        return "equivalent" if difference.n >= 5 else "suggestive: equivalent"
    return "unresolved"


def expected_best(values: Values) -> np.ndarray[Any, Any]:
    """Expected best of n settings drawn without replacement, for n = 1 … N, exactly (Dodge et al. 2019, without ties).

    A value that is not finite (a divergence) counts as the worst of the others.
    """
    v = np.asarray(values, dtype=float)
    finite = v[np.isfinite(v)]
    v = np.sort(np.where(np.isfinite(v), v, finite.min() if len(finite) else NAN))
    size = len(v)
    return np.array(
        [
            sum(math.comb(i - 1, n - 1) * v[i - 1] for i in range(n, size + 1)) / math.comb(size, n)
            for n in range(1, size + 1)
        ]
    )


def anova_shares(values: np.ndarray[Any, Any]) -> dict[tuple[int, ...] | str, float]:
    """Shares of the variance over a complete grid: of each factor, each interaction, and the seeds' noise.

    Args:
        values: one axis per factor, and a last one for the seeds.

    Returns:
        {(0,): main effect of the first factor, (0, 1): the first two's interaction, …, "noise": within cells}; they
        sum to 1. The decomposition is the exact one of a balanced design (Hoeffding 1948), no model is fitted.
    """
    factors = values.ndim - 1
    total = float(np.mean((values - values.mean()) ** 2))
    if total == 0:
        return {"noise": NAN}
    cells = values.mean(axis=-1)
    effects: dict[tuple[int, ...], Any] = {(): cells.mean()}
    shares: dict[tuple[int, ...] | str, float] = {}
    for order in range(1, factors + 1):
        for subset in itertools.combinations(range(factors), order):
            others = tuple(axis for axis in range(factors) if axis not in subset)
            mean = cells.mean(axis=others, keepdims=True)
            effects[subset] = mean - sum(effects[part] for part in effects if set(part) < set(subset))
            shares[subset] = float(np.mean(effects[subset] ** 2)) / total
    shares["noise"] = float(np.mean((values - cells[..., None]) ** 2)) / total
    return shares


def time_to_target(times: Values, values: Values, target: float) -> float:
    """The first time at which the value reaches the target; infinity if it never does."""
    reached = np.flatnonzero(np.asarray(values) >= target)
    return float(np.asarray(times)[reached[0]]) if len(reached) else math.inf


def leave_one_seed_out(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What choosing the best setting is worth on a seed that had no part in the choice.

    Args:
        values: (settings, seeds); a divergence (NaN) counts as the worst.

    Returns:
        (seeds,): of each seed, the value there of the setting that is best on average over the others.
    """
    worst = np.nanmin(values) if np.isfinite(values).any() else NAN
    filled = np.where(np.isnan(values), worst, values)
    others = (filled.sum(axis=1, keepdims=True) - filled) / (filled.shape[1] - 1)
    return np.asarray(values[others.argmax(axis=0), np.arange(values.shape[1])])
