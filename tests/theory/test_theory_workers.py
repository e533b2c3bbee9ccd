"""Workers that train apart: closed forms against the covariance of all of them, step by step."""

import itertools

import numpy as np
import pytest

from nested_lookahead.theory.moments import moments
from nested_lookahead.theory.tuning import Problem
from nested_lookahead.theory.workers import Workers, communication, geometric, tune

SMALL = Problem.power_law(6, 1.0, 1.0, 0.0)
RNG = np.random.default_rng(0)
ODD = Workers(SMALL, RNG.uniform(0.4, 1.6, (3, 2)), RNG.normal(size=(3, 2)))
"""Of which no two workers and no two groups are alike."""


def literal(workers, lr, k, alpha, s, h, cycles):
    """Mean and variance of the outer slow weights, from the mean vector and covariance matrix of workers, groups' slow
    weights and the outer ones, taken through every step and every sync as matrices."""
    groups, members = workers.factors.shape
    count = groups * members
    size = count + groups + 1  # workers, inner slow weights, outer ones
    found = []
    for a, noise, start in zip(workers.problem.curvature, workers.problem.noise, workers.problem.start, strict=True):
        mean, cov = np.full(size, start), np.zeros((size, size))
        rates = lr * a * workers.factors.reshape(-1)
        step = np.eye(size)
        step[range(count), range(count)] -= rates
        pull = np.zeros(size)
        pull[:count] = rates * workers.shifts.reshape(-1)
        shake = np.zeros((size, size))
        shake[range(count), range(count)] = rates**2 * noise
        inner, outer = np.eye(size), np.eye(size)
        for g in range(groups):
            own, slow = slice(g * members, (g + 1) * members), count + g
            inner[slow] = 0
            inner[slow, slow], inner[slow, own] = 1 - alpha, alpha / members
            inner[own] = inner[slow]
        outer[-1] = 0
        outer[-1, -1], outer[-1, count:-1] = 1 - h, h / groups
        outer[:-1] = outer[-1]
        for _, sync in itertools.product(range(cycles), range(1, s + 1)):
            for _ in range(k):
                mean, cov = step @ mean + pull, step @ cov @ step.T + shake
            mean, cov = inner @ mean, inner @ cov @ inner.T
            if sync == s:
                mean, cov = outer @ mean, outer @ cov @ outer.T
        found.append((mean[-1], cov[-1, -1]))
    return np.array(found).T


@pytest.mark.parametrize("settings", [(0.3, 4, 0.7, 3, 0.6, 5), (1.1, 3, 1.0, 2, 0.9, 4), (0.5, 6, 0.4, 1, 1.0, 3)])
def test_the_moments_are_those_of_all_workers_step_by_step(settings):
    found, expected = ODD.moments(*settings), literal(ODD, *settings)
    np.testing.assert_allclose(found.mean, expected[0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.variance, expected[1], rtol=1e-12, atol=1e-13)


def test_one_worker_is_the_optimizer_alone():
    one = Workers.differing(SMALL, 1, 1, 0.5, 1.0)
    found = one.moments(0.4, 5, 0.6, 3, 0.7, 4)
    expected = moments(0.4, [(5, 0.6), (3, 0.7)], 60, SMALL.start, 0.0, SMALL.curvature, SMALL.noise)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-12)


@pytest.mark.parametrize(("groups", "members"), [(4, 4), (2, 8), (1, 16)])
def test_means_within_groups_of_workers_that_are_alike_are_worth_nothing(groups, members):
    """Whoever is averaged with whom in between, what all have in common is the same."""
    settings = (0.5, 4, 0.7, 3, 0.6, 5)
    grouped = Workers.differing(SMALL, groups, members, 0.0, 0.0).moments(*settings)
    apart = Workers.differing(SMALL, 16, 1, 0.0, 0.0).moments(*settings)
    np.testing.assert_allclose(grouped.mean, apart.mean, rtol=1e-12)
    np.testing.assert_allclose(grouped.variance, apart.variance, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_one_layer_s_mean_comes_to_stay_beside_the_optimum(alpha):
    """Whatever its step size, and the further, the longer its period and the larger the steps."""
    differ = Workers.differing(SMALL, 2, 3, 0.5, 1.0)
    for lr, k in ((0.5, 7), (0.05, 7), (0.5, 1)):
        mean = differ.moments(lr, k, alpha, 1, 1.0, 20000).mean
        np.testing.assert_allclose(mean, differ.fixed_point(lr, k), rtol=1e-9)
    off = [np.abs(differ.fixed_point(lr, k) - differ.optimum) for lr, k in ((0.5, 30), (0.5, 7), (0.05, 7), (1e-6, 7))]
    for more, less in itertools.pairwise(off):
        assert (more > less).all()
    assert off[-1].max() < 1e-5
    np.testing.assert_allclose(differ.fixed_point(0.5, 1), differ.optimum, rtol=1e-12)


def test_groups_that_are_alike_reach_what_one_layer_reaches_at_the_inner_period():
    """With a K-th of the means over all: the outer layer's step size makes up for the inner's."""
    differ = Workers.differing(SMALL, 3, 4, 0.5, 2.0)
    found = communication(differ, 240, [24, 60], [1, 6])
    seldom = tune(differ, 240, 6)
    for period in (24, 60):
        assert found[period, 6].risk == pytest.approx(seldom.risk, rel=0.02)
        assert found[period, 1].risk < 0.9 * found[period, 6].risk < found[period, period].risk
    for (outer, inner), tuned in found.items():
        nearby = [
            differ.risk(tuned.lr * factor, inner, tuned.alpha, outer // inner, tuned.h, 240) for factor in (0.98, 1.02)
        ]
        assert tuned.risk <= min(nearby) * (1 + 1e-9)


def test_cycles_must_fill_the_steps():
    with pytest.raises(ValueError, match="no whole number of cycles of 4 x 3"):
        ODD.risk(0.1, 4, 0.5, 3, 0.5, 50)
    assert geometric(np.array([1.0, 0.5]), 3).tolist() == [3.0, 1.75]
