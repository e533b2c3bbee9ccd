"""Shares of the variance over a grid, less what noise alone would give."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nested_lookahead.analysis.variance import anova_intervals, anova_shares

RNG = np.random.default_rng(0)


def test_shares_of_a_planted_grid():
    """No main effect of the second factor, an interaction of the first and third, and no noise."""
    a, c = np.array([-1.0, 0, 1]), np.array([-2.0, 0, 2])
    cells = a[:, None, None] * 2 + np.zeros((3, 4, 3)) + a[:, None, None] * c
    shares = anova_shares(np.repeat(cells[..., None], 3, axis=-1))
    total = 4 * np.mean(a**2) + np.mean(np.multiply.outer(a, c) ** 2)
    assert shares[(0,)] == pytest.approx(4 * np.mean(a**2) / total)
    assert shares[(0, 2)] == pytest.approx(1 - shares[(0,)])
    assert all(share == pytest.approx(0, abs=1e-12) for key, share in shares.items() if key not in ((0,), (0, 2)))
    shares = anova_shares(cells[..., None] + RNG.normal(0, 0.1, (3, 4, 3, 5)))
    assert abs(shares[(1,)]) < 0.004
    assert 0 < shares["noise"] < 0.01


@settings(max_examples=30)
@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 3))
def test_shares_sum_to_one(a, b, seeds):
    assert sum(anova_shares(RNG.normal(size=(a, b, seeds))).values()) == pytest.approx(1)


def test_shares_are_those_of_a_two_way_table_by_hand():
    """Settings × seeds, the textbook's randomised blocks: mean squares as scipy's repeated measures have them."""
    y = RNG.normal(size=(4, 6)) + np.arange(4)[:, None] + 3 * RNG.normal(size=6)
    settings_, seeds = y.mean(axis=1) - y.mean(), y.mean(axis=0) - y.mean()
    rest = y - y.mean() - settings_[:, None] - seeds
    squares, total = 6 * np.sum(settings_**2), np.sum((y - y.mean()) ** 2)
    mean_square = np.sum(rest**2) / (3 * 5)
    shares = anova_shares(y)
    assert shares[(0,)] == pytest.approx((squares - 3 * mean_square) / total)
    assert shares["seeds"] == pytest.approx((4 * np.sum(seeds**2) - 5 * mean_square) / total)


def test_pure_noise_gives_the_settings_nothing():
    shares = [anova_shares(RNG.normal(size=(3, 3, 3, 3))) for _ in range(300)]
    assert np.mean([1 - one["noise"] for one in shares]) == pytest.approx(0, abs=0.03)
    assert np.mean([1 - one["noise"] for one in map(anova_shares, RNG.normal(size=(300, 3, 3, 1)))]) == pytest.approx(
        0, abs=0.08
    )  # of one seed, too


def test_what_a_seed_has_in_common_is_not_noise():
    values = 10 * RNG.normal(size=5) + RNG.normal(size=(3, 3, 5))
    with_block, without = anova_shares(values), anova_shares(values - values.mean(axis=(0, 1)))
    assert with_block["seeds"] > 0.9
    assert with_block[(0,)] / with_block["noise"] == pytest.approx(without[(0,)] / without["noise"], abs=0.4)


def test_equal_values_have_no_shares():
    assert math.isnan(anova_shares(np.ones((2, 2, 2)))["noise"])
    assert math.isnan(anova_shares(np.full((2, 2, 2), 0.1 + 0.2))["noise"])


def test_intervals_hold_what_is_so_and_are_narrow_where_there_is_no_noise():
    a = np.array([-1.0, 0, 1])
    hits = []
    for draw in range(60):
        values = a[:, None, None] + np.array([-1.0, -0.5, 0, 0.5, 1]) + RNG.normal(size=(3, 3, 5))
        low, high = anova_intervals(values, draws=200, seed=draw)[(0,)]
        effect, seeds, noise = 2 / 3, 0.5, 1.0
        hits.append(low <= effect / (effect + seeds + noise) <= high)
    assert np.mean(hits) >= 0.85
    low, high = anova_intervals(a[:, None, None] + np.zeros((3, 3, 5)))[(0,)]
    assert low == pytest.approx(1)
    assert high == pytest.approx(1)
