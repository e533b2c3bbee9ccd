"""Numbers of the figures and verdicts, each against a computation that shares no code with it."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats
from test_figures import GRID, PLAIN, make_task

from nested_lookahead.analysis import figures, pooled
from nested_lookahead.analysis.pooled import Stratum
from nested_lookahead.analysis.tuned import tuned
from nested_lookahead.analysis.variance import anova_intervals, anova_shares

RNG = np.random.default_rng(0)
EXACT = {"rel": 1e-6, "abs": 1e-9}


# --- shares of the variance: regressions on dummy variables ---------------------------------------------------------


def dummies(index, levels):
    """(observations, levels − 1), each sums to 0 over a balanced design."""
    return np.eye(levels)[index][:, :-1] - (index == levels - 1)[:, None]


def columns_of(effect, shape):
    """The regressors of an effect: products of the dummies of its factors."""
    places = np.indices(shape).reshape(len(shape), -1)
    axes = (len(shape) - 1,) if effect == "seeds" else effect
    made = np.ones((places.shape[1], 1))
    for axis in axes:
        own = dummies(places[axis], shape[axis])
        made = (made[:, :, None] * own[:, None, :]).reshape(len(made), -1)
    return made


def effects_of(shape):
    factors = range(len(shape) - 1)
    every = [s for order in range(1, len(shape)) for s in itertools.combinations(factors, order)]
    return [*every, "seeds"] if shape[-1] > 1 else every[:-1]


def unexplained(y, effects, shape):
    """Residual sum of squares and its degrees of freedom."""
    x = np.hstack([np.ones((y.size, 1)), *(columns_of(effect, shape) for effect in effects)])
    found = np.linalg.lstsq(x, y.ravel(), rcond=None)[0]
    return float(np.sum((y.ravel() - x @ found) ** 2)), y.size - x.shape[1]


def epsilon_squared(y):
    """Kelley's: (SS − df·MSE) / SS of all. Omega squared has SS of all + MSE below, and is smaller."""
    shape, every = y.shape, effects_of(y.shape)
    rest, free = unexplained(y, every, shape)
    total = float(np.sum((y - y.mean()) ** 2))
    shares = {}
    for effect in every:
        without, more = unexplained(y, [other for other in every if other != effect], shape)
        shares[effect] = (without - rest - (more - free) * rest / free) / total
    return shares | {"noise": (y.size - 1) * rest / free / total}


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 2, 4), (4, 3), (3, 3, 1), (2, 3, 3, 1)])
def test_shares_are_epsilon_squared_of_nested_regressions(shape):
    y = RNG.normal(size=shape) + RNG.normal(size=(shape[0], *[1] * (len(shape) - 1))) + 2 * RNG.normal(size=shape[-1])
    ours, theirs = anova_shares(y), epsilon_squared(y)
    assert ours.keys() == theirs.keys()
    for effect, share in theirs.items():
        assert ours[effect] == pytest.approx(share, **EXACT), effect
    assert sum(ours.values()) == pytest.approx(1, **EXACT)


def test_intervals_of_shares_are_those_of_a_bootstrap_written_out():
    """Residuals scaled to their mean square are drawn anew around shrunk effects, with a spread of chi-square."""
    shape, draws = (3, 2, 4), 40
    y = RNG.normal(size=shape) + np.arange(3)[:, None, None] + RNG.normal(size=4)
    every, shares, total = effects_of(shape), epsilon_squared(y), float(np.sum((y - y.mean()) ** 2))
    fitted, rest = np.full(y.size, y.mean()), y.ravel() - y.mean()
    for effect in every:  # balanced, so that each effect is a regression of its own
        x = columns_of(effect, shape)
        part = x @ np.linalg.lstsq(x, y.ravel(), rcond=None)[0]
        rest = rest - part
        fitted = fitted + part * math.sqrt(max(0.0, shares[effect]) * total / np.sum(part**2))
    free = y.size - 1 - sum(columns_of(effect, shape).shape[1] for effect in every)
    assert free == (6 - 1) * (4 - 1)
    rest = rest * math.sqrt(y.size / free)
    rng = np.random.default_rng(7)
    drawn = rng.choice(rest, (draws, *shape))
    spreads = np.sqrt(free / rng.chisquare(free, (draws, 1, 1, 1))).ravel()
    found = [epsilon_squared(fitted.reshape(shape) + spread * one) for one, spread in zip(drawn, spreads, strict=True)]
    ours = anova_intervals(y, draws=draws, seed=7)
    for effect in [*every, "noise"]:
        low, high = np.quantile([one[effect] for one in found], [0.025, 0.975])
        assert ours[effect] == (pytest.approx(low, **EXACT), pytest.approx(high, **EXACT)), effect


# --- paired intervals in figures: scipy's paired t test -------------------------------------------------------------


@pytest.fixture(scope="module")
def grid():
    """k × α, six seeds that differ by far more than the settings do; and results, seeds × k × α."""
    noise = np.random.default_rng(1).normal(0, 0.3, (9, 6))
    task = make_task(GRID, seeds=6, final=lambda i, seed: 80 + 3 * seed + 0.2 * (i % 4) + noise[i, seed])
    values = task.final.pivot_table(index="seed", columns="group", values="value").to_numpy()
    return task, values.reshape(6, 3, 3)


def half_width(one, other):
    low, high = stats.ttest_rel(one, other).confidence_interval()
    return (high - low) / 2


def held(row, one, other):
    """A row of a figure's table is the paired difference from the other, and the interval is that difference's."""
    assert row["value"] == pytest.approx(one.mean(), **EXACT)
    assert row["half_width"] == pytest.approx(half_width(one, other), **EXACT)
    assert row["n"] == len(one)


def test_marginals_are_paired_differences_from_the_whole_grid(grid):
    task, y = grid
    table = figures.draw("marginals", task).table.set_index("tick")
    for axis, ticks in ((1, ("k=3", "k=5", "k=10")), (2, ("α=0.3", "α=0.5", "α=0.8"))):
        for place, tick in enumerate(ticks):
            held(table.loc[tick], y.take(place, axis).mean(axis=1), y.mean(axis=(1, 2)))


def test_variants_are_paired_differences_from_the_default(grid):
    task, y = grid
    table = figures.draw("hyperparameters", task).table.set_index("tick")
    assert len(table) == 9
    for i, j in itertools.product(range(3), repeat=2):
        ticks = [("k=3", "", "k=10")[i], ("α=0.3", "", "α=0.8")[j]]
        tick = " ".join(filter(None, ticks))
        if tick:
            held(table.loc[tick], y[:, i, j], y[:, 1, 1])


@pytest.mark.parametrize("name", ["heatmaps", "interactions"])
def test_cells_are_paired_differences_from_the_panels_mean(grid, name):
    task, y = grid
    table = figures.draw(name, task).table.set_index(["x", "y"])
    for i, j in itertools.product(range(3), repeat=2):
        held(table.loc[("k=3", "k=5", "k=10")[i], ("α=0.3", "α=0.5", "α=0.8")[j]], y[:, i, j], y.mean(axis=(1, 2)))


def test_a_variant_with_fewer_seeds_is_where_its_pairs_put_it(grid):
    """Seeds 0 to 3 alone, which are the low ones: not lower than the default by what these seeds are."""
    task, y = grid
    fewer = task.final[(task.final["group"] != "00000001") | (task.final["seed"] < 4)]
    row = figures.draw("hyperparameters", replace(task, final=fewer)).table.set_index("tick").loc["k=3"]
    d = y[:4, 0, 1] - y[:4, 1, 1]
    assert row["value"] == pytest.approx(y[:, 1, 1].mean() + d.mean(), **EXACT)
    assert (row["half_width"], row["n"]) == (pytest.approx(half_width(y[:4, 0, 1], y[:4, 1, 1]), **EXACT), 4)


# --- tuned against tuned, step by step ------------------------------------------------------------------------------


def test_tuned_against_tuned_step_by_step():
    """Three methods of three settings: the best mean on seeds 0 to 3, paired t tests of seeds 4 to 9, Holm by hand."""
    methods = [PLAIN[0]] + [
        (name, "sgd", {"k": k, "alpha": 0.5, "pullback": "none"} | ({"s": 5, "h": 0.5} if "nested" in name else {}))
        for name in ("lookahead", "nested_lookahead")
        for k in (3, 5, 10)
    ]
    noise = np.random.default_rng(3).normal(0, 0.5, (7, 10))
    task = make_task(methods, seeds=10, final=lambda i, seed: 80 + seed + 0.4 * (i > 0) + noise[i, seed])
    y = task.final.pivot_table(index="group", columns="seed", values="value").to_numpy()
    best = [0, 1 + y[1:4, :4].mean(axis=1).argmax(), 4 + y[4:, :4].mean(axis=1).argmax()]
    tests = [stats.ttest_rel(y[best[i], 4:], y[best[i - 1], 4:]) for i in (1, 2)]
    p = [test.pvalue for test in tests]
    low, high = np.argsort(p)
    holm = {low: min(1, 2 * p[low]), high: max(min(1, 2 * p[low]), p[high])}
    table = tuned(replace(task, tuning_seeds=(0, 1, 2, 3))).comparisons
    assert table["label"].tolist() == ["Lookahead (SGD)", "Nested Lookahead (SGD)"]
    for i, (test, (_, row)) in enumerate(zip(tests, table.iterrows(), strict=True)):
        assert row["n"] == 6
        assert row["difference"] == pytest.approx((y[best[i + 1], 4:] - y[best[i], 4:]).mean(), **EXACT)
        interval = test.confidence_interval(row["level"])
        assert (row["low"], row["high"]) == (
            pytest.approx(interval.low, **EXACT),
            pytest.approx(interval.high, **EXACT),
        )
        assert (row["p"], row["p_holm"]) == (pytest.approx(p[i], **EXACT), pytest.approx(holm[i], **EXACT))


# --- failures: every way in which they could have fallen ------------------------------------------------------------


@pytest.mark.parametrize("lost", [({0, 1, 2, 3, 4, 5}, {5}), ({0}, {1, 2}), ({0, 1, 2}, set()), ({0}, {1})])
def test_unequal_failures_by_counting_all_ways(lost):
    """McNemar's exact test: of the seeds on which one alone diverged, each could as well have been the other's."""
    broken = {(i, seed) for i in (0, 1) for seed in lost[i]}
    task = make_task([PLAIN[0], GRID[0]], seeds=8, diverged={(1 - i, seed) for i, seed in broken})
    (row,) = task.comparisons.to_dict("records")
    alone = lost[0] ^ lost[1]
    seen = len(lost[0] - lost[1])
    ways = [sum(way) for way in itertools.product((0, 1), repeat=len(alone))]
    as_far = np.mean([abs(count - len(alone) / 2) >= abs(seen - len(alone) / 2) for count in ways])
    assert (row["failed"], row["baseline_failed"]) == (len(lost[0]), len(lost[1]))
    assert row["p_failures"] == pytest.approx(as_far, **EXACT)


# --- random effects: the equation that REML solves, and published numbers -------------------------------------------

BCG = [
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232), (17, 1699, 65, 1600),
    (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
]  # fmt: skip
"""Colditz et al. (1994): vaccinated ill and well, others ill and well."""


def root_of_reml(y, v):
    """tau² at which the restricted likelihood's derivative is 0; 0 where it falls from there on."""

    def slope(tau2):
        w = 1 / (v + tau2)
        mean = np.sum(w * y) / np.sum(w)
        return np.sum(w**2 * (y - mean) ** 2) - np.sum(w) + np.sum(w**2) / np.sum(w)

    return optimize.brentq(slope, 0, 100 * np.var(y) + 1, xtol=1e-14) if slope(0) > 0 else 0.0


def test_reml_gives_the_published_numbers_of_the_bcg_trials():
    """Viechtbauer (2010, J. Stat. Softw. 36(3)): tau² = 0.3132, log risk ratio −0.7145, standard error 0.1798."""
    a, b, c, d = np.array(BCG, dtype=float).T
    y, v = np.log(a / (a + b)) - np.log(c / (c + d)), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    tau2 = pooled.reml(y, v)
    w = 1 / (v + tau2)
    seen = (tau2, np.sum(w * y) / np.sum(w), np.sum(w) ** -0.5)
    assert seen == tuple(pytest.approx(x, abs=5e-5) for x in (0.3132, -0.7145, 0.1798))
    assert tau2 == pytest.approx(root_of_reml(y, v), **EXACT)


@pytest.mark.parametrize("tau", [0.0, 0.5, 3.0])
def test_random_effects_by_the_score_equation_and_hartung_and_knapp(tau):
    """Strata of unequal size, in pairs and not: variances from the pooled spread, q at least 1."""
    rng = np.random.default_rng(5)
    truths = rng.normal(0.4, tau, 6)
    samples = [rng.normal(truth, 1, n) for truth, n in zip(truths, (3, 4, 8, 5, 3, 6), strict=True)]
    strata = [Stratum([x], [1.0]) for x in samples[:4]]
    others = [rng.normal(0, 1, 4) for _ in range(2)]
    strata += [Stratum([x, other], [1.0, -1.0]) for x, other in zip(samples[4:], others, strict=True)]
    every = [*samples, *others]
    spread = sum(np.sum((x - x.mean()) ** 2) for x in every) / sum(len(x) - 1 for x in every)
    y = np.array([x.mean() for x in samples]) - np.array([0, 0, 0, 0, *(x.mean() for x in others)])
    v = spread * np.array([1 / len(x) for x in samples]) + spread * np.array([0, 0, 0, 0, 1 / 4, 1 / 4])
    tau2 = root_of_reml(y, v)
    w = 1 / (v + tau2)
    mean = np.sum(w * y) / np.sum(w)
    q = np.sum(w * (y - mean) ** 2) / 5
    error = math.sqrt(max(1.0, q) / np.sum(w))
    found, seen = pooled.random_effects(strata)
    assert (found.mean, found.error, seen**2) == tuple(pytest.approx(x, **EXACT) for x in (mean, error, tau2))
    half = stats.t.ppf(0.975, 5) * error
    assert found.interval() == (pytest.approx(mean - half, **EXACT), pytest.approx(mean + half, **EXACT))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / error, 5), **EXACT)


def test_strata_that_differ_are_told_by_the_analysis_of_variance():
    samples = [RNG.normal(m, 1, n) for m, n in ((0, 3), (1, 5), (0.5, 4), (2, 6))]
    found = pooled.heterogeneity([Stratum([x], [1.0]) for x in samples])
    assert found.p == pytest.approx(stats.f_oneway(*samples).pvalue, **EXACT)
