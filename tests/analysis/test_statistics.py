"""Statistics, against tables, textbooks, scipy, and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nested_lookahead.analysis import statistics
from nested_lookahead.analysis.statistics import Difference, paired, welch

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
    for level, (low, high) in ((0.95, (ours.low, ours.high)), (0.90, ours.interval(0.9))):
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
    assert degenerate.sd == 0  # and not t = inf
    assert paired([1.0, 2.0]).mean == 1.5


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


def test_expected_best_by_hand_and_by_brute_force():
    np.testing.assert_allclose(statistics.expected_best([1.0, 2.0, 4.0]), [7 / 3, (2 + 4 + 4) / 3, 4])
    values = RNG.normal(size=7)
    for n, value in enumerate(statistics.expected_best(values), start=1):
        assert value == pytest.approx(np.mean([max(c) for c in itertools.combinations(values, n)]))
    with_divergence, without = (statistics.expected_best([1.0, x, 3.0]) for x in (math.nan, 1.0))
    np.testing.assert_array_equal(with_divergence, without)


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


def test_a_difference_knows_nothing_of_units():
    d = RNG.normal(size=8)
    small, large = paired(d), paired(100 * d)
    assert isinstance(small, Difference)
    assert large.p == pytest.approx(small.p)
    assert large.d == pytest.approx(small.d)


def test_hedges_g_is_unbiased():
    """Of two small samples with a true effect of one standard deviation; Welch's degrees of freedom would take more."""
    found = [welch(*pair).g for pair in zip(RNG.normal(1, 1, (4000, 3)), RNG.normal(0, 1, (4000, 4)), strict=True)]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / math.sqrt(4000))
    assert welch([1.0, 2, 3], [0.0, 1, 2, 3]).g == pytest.approx(welch([1.0, 2, 3], [0.0, 1, 2, 3]).d * (1 - 3 / 19))


@pytest.mark.parametrize("delta", [0.3, 1.0])
def test_two_one_sided_tests_are_scipys(delta):
    d = RNG.normal(0.2, 0.5, 9)
    sides = [
        stats.ttest_1samp(d, -delta, alternative="greater").pvalue,
        stats.ttest_1samp(d, delta, alternative="less").pvalue,
    ]
    assert paired(d).p_within(delta) == pytest.approx(max(sides))
    assert paired(d).p_above(0.1) == pytest.approx(stats.ttest_1samp(d, 0.1, alternative="greater").pvalue)
    low, high = paired(d).interval(1 - 2 * max(sides))
    assert min(low + delta, delta - high) == pytest.approx(0)  # the interval of that level just touches


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_holms_levels_decide_as_holms_p(p):
    adjusted, levels = statistics.holm(p), statistics.holm_levels(p)
    np.testing.assert_array_equal(np.array(p) < levels, adjusted < 0.05)
    assert levels.min() == pytest.approx(0.05 / len(p)) or (np.array(p) >= levels).sum() == 0 or len(p) == 1


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_signed_ranks_by_brute_force(d):
    """All signs that the differences could have had, ties and infinities included."""
    values = [math.copysign(math.inf, x) if abs(x) == 6 else float(x) for x in d if x]
    found = statistics.signed_rank([*values, *[0.0] * d.count(0), math.nan])
    if not values:
        assert math.isnan(found.p)
        return
    ranks = stats.rankdata(np.abs(values))
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    seen = sum(r for r, x in zip(ranks, values, strict=True) if x > 0)
    tails = np.mean(np.array(sums) <= seen + 1e-9), np.mean(np.array(sums) >= seen - 1e-9)
    assert found.p == pytest.approx(min(1, 2 * min(tails)))
    assert found.sign == np.sign(seen - sum(ranks) / 2)
    assert found.n == len(values)


def test_signed_ranks_are_scipys_without_ties():
    d = RNG.normal(0.3, 1, 15)
    assert statistics.signed_rank(d).p == pytest.approx(stats.wilcoxon(d).pvalue)


def test_rank_sums_count_a_diverged_run_last():
    lost = statistics.rank_sum([1.0, 2, 3, math.nan, math.nan, math.nan, math.nan], [0.0, 0.5, 0.2, 0.3, 0.4, 0.1, 0.6])
    assert lost.p == pytest.approx(
        stats.mannwhitneyu([1, 2, 3, -9, -9, -9, -9], [0, 0.5, 0.2, 0.3, 0.4, 0.1, 0.6]).pvalue
    )
    assert math.isnan(statistics.rank_sum([math.nan], [math.nan]).p)


@pytest.mark.parametrize(("one", "other"), [(0, 5), (9, 0), (3, 4), (1, 0)])
def test_mcnemar_is_the_binomial_test(one, other):
    assert statistics.mcnemar(one, other) == pytest.approx(stats.binomtest(one, one + other).pvalue)
    assert math.isnan(statistics.mcnemar(0, 0))


def test_the_medians_interval_is_that_of_the_sign_test():
    assert np.isnan(statistics.median_interval([1.0, 2, 3, 4, 5])).all()
    assert statistics.median_interval([6.0, 1, 2, 3, 4, math.inf]) == (1, math.inf)  # 1 − 2/64 = 96.9%
    for n in (8, 9, 20, 51):
        low, high = statistics.median_interval(np.arange(1, n + 1))
        assert stats.binom.cdf(low - 1, n, 0.5) <= 0.025 < stats.binom.cdf(low, n, 0.5)
        assert low + high == n + 1


def test_the_best_is_chosen_by_validation_and_reported_on_test():
    test, validation = np.array([5.0, 9.0, 7.0]), np.array([0.9, 0.1, 0.5])
    found = statistics.expected_best(test, validation)
    pairs = [test[max(pair, key=lambda i: validation[i])] for pair in itertools.combinations(range(3), 2)]
    np.testing.assert_allclose(found, [7, np.mean(pairs), 5])
    np.testing.assert_array_equal(statistics.expected_best(test, test), statistics.expected_best(test))
    held = statistics.leave_one_seed_out(np.array([[1.0, 2, 3], [7.0, 8, 9]]), np.array([[5.0, 5, 5], [0.0, 0, 0]]))
    np.testing.assert_array_equal(held, [1, 2, 3])
