"""Array to number functions. Differences and values are in any unit; nothing here knows what a run is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    return t_quantile((1 + level) / 2, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)


@cache
def t_quantile(share: float, df: float) -> float:
    """Of Student's t. By `scipy.special`, as all here: `scipy.stats` takes as long to import as pandas."""
    from scipy.special import stdtrit

    return float(stdtrit(df, share))


def _all_equal(values: Values) -> bool:
    """But for rounding, of which a standard deviation would make a tiny number and its inverse a huge one."""
    return bool(np.ptp(values) <= 1e-9 * max(1.0, float(np.max(np.abs(values)))))


@dataclass(frozen=True)
class Difference:
    """A mean difference and what can be said of it; NaN where too little is known (n < 3, or no spread at all)."""

    n: int
    """Pairs; of unpaired samples, the smaller one's size."""
    other: int | None
    """The other unpaired sample's size; None of pairs."""
    mean: float
    sd: float
    """Of the differences; of unpaired samples, pooled."""
    error: float
    """Standard error of the mean difference."""
    df: float
    """Degrees of freedom of ``error``."""
    p: float
    """Two-sided, of the t test."""
    d: float
    """Mean over sd: d_z of pairs, Cohen's d of unpaired samples."""
    g: float
    """Hedges' g: ``d`` less its small-sample bias, by the degrees of freedom of ``sd`` (Hedges 1981)."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Of the mean difference, by Student's t."""
        half = t_quantile((1 + level) / 2, self.df) * self.error
        return self.mean - half, self.mean + half

    @property
    def low(self) -> float:
        """End of the 95% interval."""
        return self.interval()[0]

    @property
    def high(self) -> float:
        return self.interval()[1]

    def times(self, factor: float) -> Difference:
        """In another unit; of a factor below 0, of the other less the one."""
        size, sign = abs(factor), math.copysign(1.0, factor)
        mean, sd, error = factor * self.mean, size * self.sd, size * self.error
        return replace(self, mean=mean, sd=sd, error=error, d=sign * self.d, g=sign * self.g)

    def p_within(self, delta: float) -> float:
        """Of two one-sided t tests that the true difference lies within ±delta: the larger p (Schuirmann 1987).

        Below ``a`` if and only if the interval of level 1 − 2a lies inside ±delta.
        """
        from scipy.special import stdtr

        return float(stdtr(self.df, (abs(self.mean) - delta) / self.error)) if self.error > 0 else NAN

    def p_above(self, value: float) -> float:
        """One-sided: how easily a true difference of no more than ``value`` gives one as large as this."""
        from scipy.special import stdtr

        return float(stdtr(self.df, (value - self.mean) / self.error)) if self.error > 0 else NAN


def paired(differences: Values) -> Difference:
    """From the differences of pairs, such as two methods' results with the same seed."""
    d = np.asarray(differences, dtype=float)
    n, mean = len(d), float(np.mean(d)) if len(d) else NAN
    if n < 3 or _all_equal(d):
        return _unknown(n, None, mean, 0.0 if n >= 3 else NAN)
    sd = float(np.std(d, ddof=1))
    return _t_test(n, None, mean, sd, sd / math.sqrt(n), n - 1, n - 1)


def welch(a: Values, b: Values) -> Difference:
    """Of mean(a) − mean(b), of samples that do not come in pairs and need not have equal variances (Welch 1947)."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n, other = min(len(a), len(b)), max(len(a), len(b))
    mean = float(np.mean(a) - np.mean(b)) if n else NAN
    if n < 3 or (_all_equal(a) and _all_equal(b)):
        return _unknown(n, other, mean, 0.0 if n >= 3 else NAN)
    parts = [float(np.var(x, ddof=1)) / len(x) for x in (a, b)]
    df = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    pooled = math.sqrt((np.var(a, ddof=1) * (len(a) - 1) + np.var(b, ddof=1) * (len(b) - 1)) / (len(a) + len(b) - 2))
    return _t_test(n, other, mean, pooled, math.sqrt(sum(parts)), df, len(a) + len(b) - 2)


def _unknown(n: int, other: int | None, mean: float, sd: float) -> Difference:
    return Difference(n, other, mean, sd, *[NAN] * 5)


def _t_test(n: int, other: int | None, mean: float, sd: float, error: float, df: float, df_sd: int) -> Difference:
    """``df`` is of the error, ``df_sd`` of the standard deviation: Welch's are fewer than the pooled spread has."""
    from scipy.special import stdtr

    d, p = mean / sd, float(2 * stdtr(df, -abs(mean) / error))
    return Difference(n, other, mean, sd, error, df, p, d, d * (1 - 3 / (4 * df_sd - 1)))


# --- families of tests ----------------------------------------------------------------------------------------------


def holm(p_values: Values) -> np.ndarray[Any, Any]:
    """p-values adjusted for a family of tests (Holm 1979); NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), NAN)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else []
    return adjusted


def holm_levels(p_values: Values, alpha: float = 0.05) -> np.ndarray[Any, Any]:
    """The level at which Holm's procedure decided each test: ``p < level`` if and only if Holm's p is below ``alpha``.

    alpha/m for the smallest p, alpha/(m − 1) for the next, … and for all that were not rejected that of the first of
    them. An interval of level 1 − level therefore excludes 0 exactly where Holm rejects.
    """
    p = np.asarray(p_values, dtype=float)
    levels = np.full(len(p), NAN)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = alpha / np.arange(len(order), 0, -1)
    failed = np.flatnonzero(p[order] >= steps)
    if len(failed):
        steps[failed[0] :] = steps[failed[0]]
    levels[order] = steps
    return levels


# --- counts and ranks -----------------------------------------------------------------------------------------------


@cache
def clopper_pearson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval for a share (Clopper & Pearson 1934); half successes, of ties, are allowed."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = 0.0 if successes <= 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes >= n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


@dataclass(frozen=True)
class Ranks:
    """``p``: two-sided; ``sign``: +1 where the ranks speak for positive differences, −1 for negative, 0 for neither."""

    n: int
    p: float
    sign: int


def signed_rank(differences: Values) -> Ranks:
    """Wilcoxon's signed-rank test, exact given the ties (Wilcoxon 1945; Pratt & Gibbons 1981).

    Args:
        differences: of pairs; infinite ones, of pairs of which one diverged, have the largest ranks. Zeros are left
            out, and so is NaN: where both of a pair diverged, neither is worse.
    """
    d = np.asarray(differences, dtype=float)
    d = d[~np.isnan(d) & (d != 0)]
    if not len(d):
        return Ranks(0, NAN, 0)
    from scipy.stats import rankdata

    doubled = np.rint(2 * rankdata(np.abs(d))).astype(int)  # whole numbers, whatever the ties
    total, positive = int(doubled.sum()), int(doubled[d > 0].sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for rank in doubled:  # each sign with probability one half
        shifted = np.concatenate([np.zeros(rank), chances[: total + 1 - rank]])
        chances = 0.5 * (chances + shifted)
    least = min(positive, total - positive)
    p = min(1.0, 2 * float(chances[: least + 1].sum()))
    return Ranks(len(d), p, int(np.sign(2 * positive - total)))


def rank_sum(a: Values, b: Values) -> Ranks:
    """Mann and Whitney's test of unpaired samples (1947); NaN, of a diverged run, is below everything."""
    from scipy.stats import mannwhitneyu

    a, b = (np.nan_to_num(np.asarray(x, dtype=float), nan=-1e300) for x in (a, b))
    if not len(a) or not len(b) or _all_equal(np.concatenate([a, b])):
        return Ranks(0, NAN, 0)
    found = mannwhitneyu(a, b)
    return Ranks(min(len(a), len(b)), float(found.pvalue), int(np.sign(found.statistic - len(a) * len(b) / 2)))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p for paired failures: of the pairs in which one alone failed, half should be the first's
    (McNemar 1947). NaN where there is no such pair."""
    from scipy.special import bdtr

    n = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), n, 0.5))) if n else NAN


def median_interval(values: Values, level: float = 0.95) -> tuple[float, float]:
    """Of the median, by order statistics (Thompson 1936): at least of that level, whatever the distribution.

    NaN where so few values cannot have one: 95% needs six. Infinite values are as good as others.
    """
    from scipy.special import bdtr

    v = np.sort(np.asarray(values, dtype=float))
    n = len(v)
    below = n // 2
    while below > 0 and 2 * bdtr(below - 1, n, 0.5) > 1 - level:
        below -= 1
    return (float(v[below - 1]), float(v[n - below])) if below else (NAN, NAN)


def quantile(values: Values, q: float) -> float:
    """Of results of which NaN, a diverged run, is below any other; NaN where it falls among those."""
    if not len(values):
        return float("nan")
    # As numpy's linear rule has it, by hand: between minus infinity and a number there is no number.
    ordered = np.sort(np.nan_to_num(np.asarray(values, dtype=float), nan=-np.inf))
    place = q * (len(ordered) - 1)
    low, share = int(place), place - int(place)
    parts = ordered[low : low + 2] if share > 0 else ordered[low : low + 1]
    if not np.isfinite(parts).all():
        return float("nan")
    return float(parts[0] if share == 0 else parts[0] * (1 - share) + parts[1] * share)


# --- choosing -------------------------------------------------------------------------------------------------------


def expected_best(values: Values, chosen_by: Values | None = None) -> np.ndarray[Any, Any]:
    """Expected value of the best of n settings drawn without replacement, for n = 1 … N, exactly (Dodge et al. 2019).

    Args:
        chosen_by: what the best is chosen by, such as results on a validation split; the values themselves without. A
            value that is not finite (a divergence) counts as the worst of the others.
    """
    v = _worst_filled(np.asarray(values, dtype=float))
    by = v if chosen_by is None else _worst_filled(np.asarray(chosen_by, dtype=float))
    v = v[np.lexsort((v, by))]  # of equals the better one last, as if the values decided
    size = len(v)
    return np.array(
        [
            sum(math.comb(i - 1, n - 1) * v[i - 1] for i in range(n, size + 1)) / math.comb(size, n)
            for n in range(1, size + 1)
        ]
    )


def _worst_filled(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    finite = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, finite.min() if len(finite) else NAN)


def leave_one_seed_out(
    values: np.ndarray[Any, Any], chosen_by: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """What choosing the best setting is worth on a seed that had no part in the choice.

    Args:
        values: (settings, seeds); a divergence (NaN) counts as the worst.
        chosen_by: of the same shape, what the choice goes by, such as results on a validation split; the values
            themselves without.

    Returns:
        (seeds,): of each seed, the value there of the setting that is best on average over the others; NaN where that
        one diverged.
    """
    filled = _worst_filled(values if chosen_by is None else chosen_by)
    others = (filled.sum(axis=1, keepdims=True) - filled) / (filled.shape[1] - 1)
    return np.asarray(values[others.argmax(axis=0), np.arange(values.shape[1])])


def time_to_target(times: Values, values: Values, target: float) -> float:
    """The first time at which the value reaches the target; infinity if it never does."""
    reached = np.flatnonzero(np.asarray(values) >= target)
    return float(np.asarray(times)[reached[0]]) if len(reached) else math.inf
