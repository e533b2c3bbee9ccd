"""Statistics, against tables, textbooks, scipy, and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nested_lookahead.analysis import statistics
from nested_lookahead.analysis.statistics import Difference, paired, verdict, welch

RNG = np.random.default_rng(0)


def test_t_interval_against_published_quantiles():
    # t(.975) is 4.3027 for 2 degrees of freedom and 2.2622 for 9 (any table)
    assert statistics.t_half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 * 1 / np.sqrt(3), rel=1e-6)
    ten = list(range(10))
    assert statistics.t_half_width(ten) == pytest.approx(2.262157 * np.std(ten, ddof=1) / np.sqrt(10), rel=1e-6)
    assert statistics.t_half_width([1.0, 2.0]) is None
    assert statistics.t_half_width([5.0, 5.0, 5.0]) == 0


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_paired_is_scipys_t_test(n):
    d = RNG.normal(0.3, 1, n)
    ours, theirs = paired(d), stats.ttest_1samp(d, 0)
    assert (ours.n, ours.mean, ours.sd) == (n, pytest.approx(d.mean()), pytest.approx(d.std(ddof=1)))
    assert ours.p == pytest.approx(theirs.pvalue)
    for level, low, high in ((0.95, ours.low, ours.high), (0.90, ours.low90, ours.high90)):
        interval = theirs.confidence_interval(level)
        assert (low, high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert ours.d == pytest.approx(d.mean() / d.std(ddof=1))
    assert ours.g == pytest.approx(ours.d * (1 - 3 / (4 * (n - 1) - 1)))


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 9), (20, 5)])
def test_welch_is_scipys(n, m):
    a, b = RNG.normal(0.3, 1, n), RNG.normal(0, 3, m)
    ours, theirs = welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert ours.p == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_too_few_or_all_equal_values_have_no_test():
    degenerate = paired([0.1 + 0.2, 0.3, 0.3])
    for result in (paired([]), paired([1.0]), paired([1.0, 2.0]), degenerate, welch([1, 2], [3, 4, 5])):
        assert math.isnan(result.p)
        assert math.isnan(result.low)
        assert verdict(result, math.nan, 0.5) == "unresolved"
    assert degenerate.sd == 0  # and not t = inf
    assert paired([1.0, 2.0]).mean == 1.5


@pytest.mark.parametrize(("n", "effect"), [(3, 3.27), (5, 1.69), (8, 1.16), (10, 1.00), (20, 0.67)])
def test_detectable_effect_of_pairs(n, effect):
    """Power tables of the paired t test, 80%."""
    assert statistics.detectable_effect(n) == pytest.approx(effect, abs=0.011)


@pytest.mark.parametrize(("n", "effect"), [(3, 3.07), (10, 1.32), (64, 0.499)])
def test_detectable_effect_of_two_samples(n, effect):
    """64 per group for d = 0.5: Cohen's (1988) table."""
    assert statistics.detectable_effect(n, n) == pytest.approx(effect, abs=0.006)


def test_detectable_effect_is_detected_four_times_in_five():
    n = 6
    draws = RNG.normal(statistics.detectable_effect(n), 1, (20000, n))
    detected = np.abs(draws.mean(1) / draws.std(1, ddof=1) * math.sqrt(n)) > stats.t.ppf(0.975, n - 1)
    assert detected.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 20000))


@pytest.mark.parametrize(
    ("effect", "paired", "n"),
    [(0.2, True, 199), (0.5, True, 34), (0.8, True, 15), (0.2, False, 394), (0.5, False, 64), (0.8, False, 26)],
)
def test_seeds_needed_are_those_of_the_tables(effect, paired, n):
    """Cohen (1988) of two samples, and G*Power's of pairs: 80% power, two-sided, alpha = 0.05."""
    assert statistics.seeds_needed(effect, paired) == n


@pytest.mark.parametrize("paired", [True, False])
def test_seeds_needed_and_detectable_effect_are_one_answer(paired):
    for n in (3, 4, 7, 20, 100):
        effect = statistics.detectable_effect(n, None if paired else n)
        assert statistics.seeds_needed(effect, paired) == n
        assert statistics.seeds_needed(0.999 * effect, paired) == n + 1
        assert statistics.seeds_needed(1.001 * effect, paired) == max(n, 3)
    assert statistics.seeds_needed(1e6, paired) == 3


def test_seeds_needed_of_a_difference():
    assert paired([0.0, 1.0, 2.0]).seeds_needed(0.5, paired=True) == 34
    assert welch([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]).seeds_needed(0.5, paired=False) == 64
    assert paired([0.0, 10.0, 20.0]).seeds_needed(5, paired=True) == 34  # in any unit


@pytest.mark.parametrize(("n", "m"), [(5, None), (12, None), (5, 8)])
def test_power_is_that_of_simulated_studies(n, m):
    a, b = RNG.normal(0.9, 1, (20000, n)), RNG.normal(0, 1, (20000, m or 1))
    p = stats.ttest_1samp(a, 0, axis=1).pvalue if m is None else stats.ttest_ind(a, b, axis=1).pvalue
    expected = statistics.power(0.9, n, m)
    assert (p < 0.05).mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20000))


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(statistics.holm([0.6, 0.9]), [1, 1])
    np.testing.assert_allclose(statistics.holm([0.02, math.nan, 0.03]), [0.04, math.nan, 0.04])
    assert statistics.holm([]).size == 0


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_holm_rejects_as_the_step_down_procedure_does(p):
    """Written out: the smallest at α/m, the next at α/(m − 1), until the first that fails."""
    rejected, order = set(), sorted(range(len(p)), key=lambda i: p[i])
    for rank, i in enumerate(order):
        if p[i] * (len(p) - rank) >= 0.05:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(statistics.holm(p)) if value < 0.05} == rejected


def test_clopper_pearson():
    assert statistics.clopper_pearson(0, 10) == (0, pytest.approx(0.3085, abs=1e-4))  # 1 − 0.025^(1/10)
    assert statistics.clopper_pearson(10, 10) == (pytest.approx(0.6915, abs=1e-4), 1)
    exact = stats.binomtest(7, 12).proportion_ci(method="exact")
    assert statistics.clopper_pearson(7, 12) == (pytest.approx(exact.low), pytest.approx(exact.high))
    low, high = statistics.clopper_pearson(2.5, 5)
    assert low == pytest.approx(1 - high)


def difference(n, mean, sd):
    """Of n pairs with exactly this mean and standard deviation."""
    x = RNG.normal(size=n)
    return paired(mean + sd * (x - x.mean()) / x.std(ddof=1))


def test_verdicts():
    assert verdict(difference(10, 1.0, 0.5), 0.001, 0.5) == "better"
    assert verdict(difference(10, -1.0, 0.5), 0.001, 0.5) == "worse"
    assert verdict(difference(10, 0.0, 0.5), 1.0, 0.5) == "equivalent"
    assert verdict(difference(10, 0.0, 5.0), 1.0, 0.5) == "unresolved"
    assert verdict(difference(10, 1.0, 0.5), 0.06, 0.5) == "unresolved"  # not after Holm
    assert verdict(difference(4, 1.0, 0.1), 0.001, 0.5) == "suggestive: better"
    assert verdict(difference(4, 0.0, 0.1), 1.0, 0.5) == "suggestive: equivalent"
    assert verdict(difference(10, 0.2, 0.1), 0.001, 0.5) == "better"  # a small difference that is surely there


def test_expected_best_by_hand_and_by_brute_force():
    np.testing.assert_allclose(statistics.expected_best([1.0, 2.0, 4.0]), [7 / 3, (2 + 4 + 4) / 3, 4])
    values = RNG.normal(size=7)
    for n, value in enumerate(statistics.expected_best(values), start=1):
        assert value == pytest.approx(np.mean([max(c) for c in itertools.combinations(values, n)]))
    with_divergence, without = (statistics.expected_best([1.0, x, 3.0]) for x in (math.nan, 1.0))
    np.testing.assert_array_equal(with_divergence, without)


def test_anova_shares_of_a_planted_grid():
    """No main effect of the second factor, an interaction of the first and third, and noise."""
    a, c = np.array([-1.0, 0, 1]), np.array([-2.0, 0, 2])
    cells = a[:, None, None] * 2 + np.zeros((3, 4, 3)) + a[:, None, None] * c
    shares = statistics.anova_shares(np.repeat(cells[..., None], 3, axis=-1))
    total = 4 * np.mean(a**2) + np.mean(np.multiply.outer(a, c) ** 2)
    assert shares[(0,)] == pytest.approx(4 * np.mean(a**2) / total)
    assert shares[(0, 2)] == pytest.approx(1 - shares[(0,)])
    assert all(share == pytest.approx(0, abs=1e-12) for key, share in shares.items() if key not in ((0,), (0, 2)))
    noisy = cells[..., None] + RNG.normal(0, 0.1, (3, 4, 3, 5))
    shares = statistics.anova_shares(noisy)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[(1,)] < 0.004
    assert 0 < shares["noise"] < 0.01


@settings(max_examples=30)
@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 3))
def test_anova_shares_sum_to_one(a, b, seeds):
    values = RNG.normal(size=(a, b, seeds))
    shares = statistics.anova_shares(values)
    assert sum(shares.values()) == pytest.approx(1)
    rows = values.mean(axis=(1, 2))
    assert shares[(0,)] == pytest.approx(np.var(rows) / np.var(values))


def test_equal_values_have_no_shares():
    assert math.isnan(statistics.anova_shares(np.ones((2, 2, 2)))["noise"])


def test_time_to_target():
    assert statistics.time_to_target([1, 2, 3], [0.1, 0.5, 0.4], 0.5) == 2
    assert statistics.time_to_target([1, 2, 3], [0.1, 0.5, 0.4], 0.6) == math.inf
    assert statistics.time_to_target([], [], 0.6) == math.inf


def test_leaving_a_seed_out_undoes_the_winners_curse():
    """27 settings that are all alike: the best of them looks more than a standard deviation better than it is."""
    chosen, honest = [], []
    for values in RNG.normal(0, 1, (3000, 27, 3)):
        chosen.append(values.mean(axis=1).max())
        honest.append(statistics.leave_one_seed_out(values).mean())
    assert np.mean(chosen) == pytest.approx(1.15, abs=0.1)
    assert np.mean(honest) == pytest.approx(0, abs=0.1)
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, math.nan]])  # the divergence counts as the worst of all, 1
    np.testing.assert_array_equal(statistics.leave_one_seed_out(values), [4.0, 5.0, math.nan])


# --- the verdict, on studies whose truth is known -------------------------------------------------------------------


def simulated(studies, methods, seeds, effect=0.0, delta=0.5, sd=1.0):
    """Verdicts (studies × methods − 1) of each method against the first, all but for an effect on the last alike."""
    values = RNG.normal(0, sd / math.sqrt(2), (studies, methods, seeds))
    values[:, -1] += effect
    words, covered = [], []
    for study in values:
        results = [paired(other - study[0]) for other in study[1:]]
        adjusted = statistics.holm([result.p for result in results])
        words.append([verdict(result, p, delta) for result, p in zip(results, adjusted, strict=True)])
        covered += [
            result.low <= (effect if i == methods - 2 else 0) <= result.high for i, result in enumerate(results)
        ]
    return np.array(words), np.mean(covered)


@pytest.mark.parametrize("seeds", [5, 10])
def test_few_false_verdicts_where_nothing_differs(seeds):
    words, covered = simulated(500, 4, seeds)
    false = np.isin(words, ["better", "worse"]).any(axis=1).mean()
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)
    assert 0.93 <= covered <= 0.97


def test_power_at_an_effect_of_one_standard_deviation():
    words, _ = simulated(1000, 2, 10, effect=1.0)
    assert np.mean(words == "better") == pytest.approx(0.80, abs=4 * math.sqrt(0.16 / 1000))


def test_equivalent_is_seldom_wrong():
    """At a true difference of exactly delta."""
    words, _ = simulated(1000, 2, 10, effect=0.5, delta=0.5, sd=0.4)
    assert np.mean(words == "equivalent") <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_a_difference_knows_nothing_of_units():
    d = RNG.normal(size=8)
    small, large = paired(d), paired(100 * d)
    assert isinstance(small, Difference)
    assert large.p == pytest.approx(small.p)
    assert large.d == pytest.approx(small.d)
    assert large.detectable == pytest.approx(100 * small.detectable)


def test_what_unpaired_samples_could_show_is_in_their_own_units():
    a, b = [1.0, 2.0, 4.0, 3.0], [2.0, 5.0, 3.0, 7.0, 4.0]
    wide = welch([10 * x for x in a], [10 * x for x in b])
    assert wide.detectable == pytest.approx(10 * welch(a, b).detectable)
