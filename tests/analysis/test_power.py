"""What so many values can show, against tables, scipy, and simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats

from nested_lookahead.analysis import power

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "effect"), [(3, 3.27), (5, 1.69), (8, 1.16), (10, 1.00), (20, 0.67)])
def test_detectable_effect_of_pairs(n, effect):
    """Power tables of the paired t test, 80%."""
    assert power.detectable_effect(n) == pytest.approx(effect, abs=0.011)


@pytest.mark.parametrize(("n", "effect"), [(3, 3.07), (10, 1.32), (64, 0.499)])
def test_detectable_effect_of_two_samples(n, effect):
    """64 per group for d = 0.5: Cohen's (1988) table."""
    assert power.detectable_effect(n, n) == pytest.approx(effect, abs=0.006)


def test_detectable_effect_is_detected_four_times_in_five():
    n = 6
    draws = RNG.normal(power.detectable_effect(n), 1, (20000, n))
    detected = np.abs(draws.mean(1) / draws.std(1, ddof=1) * math.sqrt(n)) > stats.t.ppf(0.975, n - 1)
    assert detected.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 20000))


@pytest.mark.parametrize(
    ("effect", "paired", "n"),
    [(0.2, True, 199), (0.5, True, 34), (0.8, True, 15), (0.2, False, 394), (0.5, False, 64), (0.8, False, 26)],
)
def test_seeds_needed_are_those_of_the_tables(effect, paired, n):
    """Cohen (1988) of two samples, and G*Power's of pairs: 80% power, two-sided, alpha = 0.05."""
    assert power.seeds_needed(effect, paired) == n


@pytest.mark.parametrize("paired", [True, False])
def test_seeds_needed_and_detectable_effect_are_one_answer(paired):
    for n in (3, 4, 7, 20, 100):
        effect = power.detectable_effect(n, None if paired else n)
        assert power.seeds_needed(effect, paired) == n
        assert power.seeds_needed(0.999 * effect, paired) == n + 1
        assert power.seeds_needed(1.001 * effect, paired) == max(n, 3)
    assert power.seeds_needed(1e6, paired) == 3


@pytest.mark.parametrize(("n", "m"), [(5, None), (12, None), (5, 8)])
def test_power_is_that_of_simulated_studies(n, m):
    a, b = RNG.normal(0.9, 1, (20000, n)), RNG.normal(0, 1, (20000, m or 1))
    p = stats.ttest_1samp(a, 0, axis=1).pvalue if m is None else stats.ttest_ind(a, b, axis=1).pvalue
    expected = power.power(0.9, n, m)
    assert (p < 0.05).mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20000))


def test_power_is_that_of_the_noncentral_t():
    for n, m, effect, alpha in (
        (5, None, 1.0, 0.05 / 12),
        (10, None, 0.5, 0.05),
        (8, 20, 0.7, 0.01),
        (200, None, 0.2, 0.05),
    ):
        df, scale = (n - 1, math.sqrt(n)) if m is None else (n + m - 2, math.sqrt(n * m / (n + m)))
        critical = stats.t.ppf(1 - alpha / 2, df)
        expected = stats.nct.sf(critical, df, effect * scale) + stats.nct.cdf(-critical, df, effect * scale)
        assert power.power(effect, n, m, alpha) == pytest.approx(expected, abs=1e-10)
    assert power.power(0, 7, None, 0.01) == pytest.approx(0.01)
    assert power.power(1000, 3) == pytest.approx(1)  # where scipy's is NaN


def test_a_family_needs_more():
    assert power.detectable_effect(10, None, 0.05 / 6) > 1.3 * power.detectable_effect(10)
    assert power.seeds_needed(0.5, True, 0.05 / 12) > power.seeds_needed(0.5, True, 0.05 / 6) > 34


def test_the_range_of_seeds_is_that_of_the_spread():
    needed, low, high = power.seeds_range(0.5, 1.0, 5, paired=True)
    assert needed == 34
    for q, n in ((0.975, low), (0.025, high)):
        sd = math.sqrt(4 / stats.chi2.ppf(q, 4))
        assert power.seeds_needed(0.5 / sd, True) == n
    assert power.seeds_range(0.5, 0.01, 5, paired=False) == (5, 5, 5)  # fewer are no verdict
    assert power.seeds_range(0.5, 1e4, 5, paired=True)[2] == math.inf


def test_the_range_of_seeds_holds_the_right_number_nineteen_times_in_twenty():
    hits = []
    for sd in RNG.normal(0, 1, (400, 5)).std(axis=1, ddof=1):
        _, low, high = power.seeds_range(0.5, sd, 5, paired=True)
        hits.append(low <= 34 <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / 400))


@pytest.mark.parametrize(("n", "m", "alpha"), [(5, None, 0.05), (10, None, 0.05 / 12), (4, 7, 0.05)])
def test_what_a_study_states_from_its_own_spread_has_its_power_on_average(n, m, alpha):
    df = n - 1 if m is None else n + m - 2
    spreads = np.sqrt(RNG.chisquare(df, 4000) / df)
    found = [power.power(spread * power.stated_effect(n, m, alpha), n, m, alpha) for spread in spreads]
    assert np.mean(found) == pytest.approx(0.8, abs=4 * np.std(found) / math.sqrt(4000))
    assert power.stated_effect(n, m, alpha) > power.detectable_effect(n, m, alpha)
