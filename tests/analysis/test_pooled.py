"""One contrast over several strata, against closed forms, simulation, and the published data."""

import itertools
import math

import numpy as np
import pytest
from conftest import ROOT
from made_runs import make_run
from scipy import stats

from nested_lookahead.analysis import collect, figures, pooled
from nested_lookahead.analysis.contrasts import contrasts
from nested_lookahead.analysis.pooled import Stratum
from nested_lookahead.analysis.task import tasks

RNG = np.random.default_rng(0)


def pair(*differences):
    return Stratum([np.array(differences, dtype=float)], [1.0])


def found(root, **options):
    return list(tasks(collect.collect([root]), **({"weights": "fast", "split": "test", "delta": 0.5} | options)))


def test_stratified_is_the_analysis_of_variance():
    """Two samples per stratum, of equal size: the F test of the method in a two-way table with interaction."""
    y = RNG.normal(size=(2, 4, 5)) + np.array([0.8, 0])[:, None, None]  # method, stratum, run
    result = pooled.stratified([Stratum([y[0, k], y[1, k]], [1, -1]) for k in range(4)])
    method = 20 * np.sum((y.mean(axis=(1, 2)) - y.mean()) ** 2)
    error = np.sum((y - y.mean(axis=2, keepdims=True)) ** 2) / 32
    assert result.p == pytest.approx(stats.f.sf(method / error, 1, 32))
    assert result.mean == pytest.approx(y[0].mean() - y[1].mean())
    assert result.df == 32


def test_one_stratum_of_pairs_is_the_paired_test():
    d = RNG.normal(0.5, 1, 7)
    result = pooled.stratified([pair(*d)])
    assert result.p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    blocked = pooled.by_seed(np.array([d, d]))  # what a seed does in both strata counts once
    assert (blocked.p, blocked.low) == (pytest.approx(result.p), pytest.approx(result.low))


def test_reml_by_its_closed_form_and_by_brute_force():
    """With equal variances: the strata's own variance less the noise, none below 0."""
    y = RNG.normal(0, 2, 8)
    assert pooled.reml(y, np.full(8, 0.5)) == pytest.approx(np.var(y, ddof=1) - 0.5, rel=1e-5)
    assert pooled.reml([1.0, 1.1, 0.9], [0.5, 0.5, 0.5]) == 0
    v = RNG.uniform(0.1, 3, 8)

    def likelihood(tau2):
        w = 1 / (v + tau2)
        mean = (w * y).sum() / w.sum()
        return 0.5 * (np.log(w).sum() - np.log(w.sum()) - (w * (y - mean) ** 2).sum())

    grid = np.linspace(0, 20, 20001)
    assert pooled.reml(y, v) == pytest.approx(grid[np.argmax([likelihood(t) for t in grid])], abs=2e-3)


def test_random_effects_with_equal_variances_are_a_t_test_of_the_strata():
    """Hartung and Knapp's interval is then Student's over the strata's means."""
    strata = [pair(*(mean + np.array([-1, 0, 1.0]))) for mean in (0.0, 3.0, 5.0, -1.0)]
    result, tau = pooled.random_effects(strata)
    expected = stats.ttest_1samp([0.0, 3.0, 5.0, -1.0], 0)
    assert (result.mean, result.p) == (pytest.approx(1.75), pytest.approx(expected.pvalue))
    assert tau == pytest.approx(math.sqrt(np.var([0, 3, 5, -1], ddof=1) - 1 / 3), rel=1e-5)


def test_degenerate_strata_have_no_interval():
    for strata in ([pair(1, 2, 3)] * 2, [pair(1, 1, 1)] * 4, [pair(1)] * 4):
        assert math.isnan(pooled.random_effects(strata)[0].p)
    assert math.isnan(pooled.stratified([pair(1, 1, 1), pair(1, 1)]).p)
    assert math.isnan(pooled.heterogeneity([pair(1, 1, 1)] * 3).p)
    assert np.isnan(pair(1, 2).interval()).all()


@pytest.mark.slow
def test_intervals_cover_what_they_should():
    """Six strata of three pairs, alike or half a standard deviation apart: the mean over them, and over all such."""
    here, others, differ = [], [], []
    for tau, _ in itertools.product((0.0, 0.5), range(150)):
        truths = RNG.normal(0, tau, 6)
        strata = [pair(*RNG.normal(truth, 1, 3)) for truth in truths]
        result, (other, _) = pooled.stratified(strata), pooled.random_effects(strata)
        here.append(result.low <= truths.mean() <= result.high)
        others.append(other.low <= 0 <= other.high)
        differ += [pooled.heterogeneity(strata).p < 0.05] if tau == 0 else []
    assert np.mean(here) == pytest.approx(0.95, abs=4 * math.sqrt(0.0475 / 300))
    assert np.mean(others) >= 0.91
    assert np.mean(differ) <= 0.05 + 4 * math.sqrt(0.0475 / 150)


def test_the_published_effect():
    """Six separate comparisons, none resolved, are one effect that is."""
    study = collect.collect([], references=[ROOT / "docs/published_epoch_accuracy.csv"])
    every = list(tasks(study, "fast", "test", 0.5))
    lookahead, nested = contrasts(every[:1])
    rows = every[0].comparisons
    assert set(rows.loc[rows["label"].str.contains("Nested"), "verdict"]) == {"unresolved"}
    assert len(nested.strata) == 6
    assert [round(x, 2) for x in (nested.here.mean, nested.here.low, nested.here.high)] == [-1.81, -2.56, -1.05]
    assert (nested.word, nested.here.df) == ("worse", 24)
    assert nested.spread.p == pytest.approx(0.835, abs=0.001)
    assert len(lookahead.strata) == 2  # three pullbacks share one baseline, and its luck
    assert lookahead.word == "unresolved"
    assert "better in some strata and worse in others" in lookahead.sentence
    assert figures.draw("pooled", every[0]).table["difference"].round(2).tolist()[-2:] == [-1.81, -1.81]
    (together,) = [one for one in contrasts(every) if len(one.tasks) > 1]
    assert len(together.strata) == 8


def test_strata_of_our_runs_are_paired_by_seed_and_diverged_runs_rank_last(tmp_path):
    for seed, inner in itertools.product(range(6), ("sgd", "adam")):
        common = seed / 50
        make_run(tmp_path, "lookahead", inner=inner, seed=seed, final=0.5 + common)
        lost = (seed, inner) == (5, "adam")
        final = 0.5 + common + 0.01 + 0.001 * (seed % 3)
        make_run(tmp_path, inner=inner, seed=seed, final=final, status="diverged" if lost else "completed")
    (contrast,) = contrasts(found(tmp_path))
    assert [one.runs for one in contrast.strata] == [6, 5]
    assert contrast.diverged == 1
    assert contrast.decision.by == "ranks and t"
    assert contrast.here.mean == pytest.approx(1.1, abs=0.02)
    assert "In 1 pair(s) one run diverged" in contrast.sentence


def test_a_seed_that_helps_everywhere_counts_once(tmp_path):
    for seed, inner in itertools.product(range(5), ("sgd", "adam", "adamw")):
        make_run(tmp_path, "lookahead", inner=inner, seed=seed, final=0.5)
        make_run(tmp_path, inner=inner, seed=seed, final=0.5 + 0.01 * seed)
    (contrast,) = contrasts(found(tmp_path))
    assert contrast.seeds_are_blocks
    assert contrast.here.df == 4
    assert contrast.here.p == pytest.approx(stats.ttest_1samp(range(5), 0).pvalue)
