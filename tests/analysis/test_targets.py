"""Times to a target, of which some are infinite; and results against a value fixed beforehand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import make_run
from scipy import stats

from nested_lookahead.analysis import collect, figures, targets
from nested_lookahead.analysis.figures.outcomes import outcomes
from nested_lookahead.analysis.figures.speed import profile_table
from nested_lookahead.analysis.statistics import quantile
from nested_lookahead.analysis.targets import above, performance_ratios, time_ratio
from nested_lookahead.analysis.task import tasks

RNG = np.random.default_rng(0)
INF = math.inf


def task(root):
    (found,) = tasks(collect.collect([root]), "fast", "test", 0.5)
    return found


def test_where_all_reach_the_target_the_ratio_is_the_geometric_mean():
    a, b = RNG.lognormal(0, 0.3, 8), RNG.lognormal(0.4, 0.3, 8)
    found = time_ratio(a, b)
    logs = stats.ttest_1samp(np.log(a / b), 0)
    assert found.ratio == pytest.approx(stats.gmean(a / b))
    assert (found.low, found.high) == tuple(pytest.approx(math.exp(x)) for x in logs.confidence_interval())
    assert (found.p, found.by, found.sign) == (pytest.approx(logs.pvalue), "t", -1)


def test_a_miss_is_an_infinite_time():
    found = time_ratio([10, 20, 30, 40, 50, INF, INF], [20, 40, INF, 80, INF, INF, 50])
    assert (found.n, found.ratio, found.by) == (
        6,
        pytest.approx(0.5),
        "ranks",
    )  # where neither got there, there is no pair
    assert (found.low, found.high) == (0, INF)
    assert time_ratio([10.0] * 7, [INF] * 7).p == pytest.approx(2 / 2**7)
    nothing = time_ratio([INF], [INF])
    assert nothing.n == 0
    assert math.isnan(nothing.p)
    assert math.isnan(time_ratio([1, INF], [2, 3]).low)  # no interval of two


times = st.lists(st.tuples(*[st.sampled_from([1.0, 2.0, 4.0, 9.0, INF])] * 2), min_size=1, max_size=9)


@given(times)
def test_the_other_way_round_the_ratio_is_its_inverse(pairs):
    one, other = time_ratio(*zip(*pairs, strict=True)), time_ratio(*reversed(list(zip(*pairs, strict=True))))
    assert one.n == other.n
    assert one.sign == -other.sign
    for a, b in ((one.ratio, other.ratio), (one.low, other.high), (one.p, 1 / other.p if other.p else INF)):
        assert (math.isnan(a) and math.isnan(b)) or a * b == pytest.approx(1) or {a, b} == {0, INF}


def test_performance_ratios_by_hand():
    ratios = performance_ratios(np.array([[10.0, INF, 30], [20, INF, INF]]))
    np.testing.assert_array_equal(ratios, [[1, INF, 1], [2, INF, INF]])


def test_a_fixed_value_is_tested_one_sided():
    x = RNG.normal(94.1, 0.1, 10)
    assert above(x, 94) == (pytest.approx(stats.ttest_1samp(x, 94, alternative="greater").pvalue), "t")
    with_failures = np.array([94.2] * 9 + [math.nan])
    assert above(with_failures, 94) == (pytest.approx(stats.binomtest(9, 10, alternative="greater").pvalue), "signs")
    assert math.isnan(above([95.0, 95.0], 94)[0])
    assert above(np.full(5, math.nan), 94)[0] == 1


def test_times_and_ratios_of_a_task(tmp_path):
    """Nested reaches 60% at its fourth evaluation, plain Lookahead at its last but on one seed never."""
    for seed in range(6):
        make_run(tmp_path, "lookahead", seed=seed, final=0.6 if seed else 0.5)
        make_run(tmp_path, seed=seed, final=0.64, status="diverged" if seed == 5 else "completed")
    found = task(tmp_path)
    (row,) = targets.speeds(found, 60.0).itertuples()
    assert (row.n, row.reached, row.baseline_reached) == (6, 5, 5)
    assert row.steps == pytest.approx(80 / 200)
    assert row.seconds == pytest.approx(4 / 10)
    assert (row.steps_low, row.steps_high) == (0, INF)
    assert row.verdict == "unresolved"
    made = figures.draw("speed", found, figures.Options(target=60.0))
    assert "The target was set by the reader" in made.caption
    assert "×0.40 [0, ∞] unresolved\nreached 5/6, 5/6" in [text.get_text() for text in made.figure.axes[0].texts]
    assert "known only after the runs" in figures.draw("speed", found).caption


def test_faster_on_every_seed_is_faster(tmp_path):
    for seed in range(6):
        make_run(tmp_path, "lookahead", seed=seed, final=0.6)
        make_run(tmp_path, seed=seed, final=0.63 + seed / 100)
    (row,) = targets.speeds(task(tmp_path), 60.0).itertuples()
    assert row.verdict == "faster"
    assert row.steps_high < 1


def test_a_profile_over_tasks(tmp_path):
    for model, seed in itertools.product(("cnn", "mlp"), range(3)):
        make_run(tmp_path, "sgd", seed=seed, model=model, final=0.6 if model == "cnn" else 0.64)
        make_run(tmp_path, "adam", seed=seed, model=model, final=0.64 if model == "cnn" else 0.5)
    found = list(tasks(collect.collect([tmp_path]), "fast", "test", 0.5))
    table = profile_table(found, 60.0).set_index(["label", "task"])["ratio"]
    assert sorted(table.tolist()) == [1, 1, 2.5, INF]
    made = figures.draw_together("speed", found, figures.Options(target=60.0))
    lines = {line.get_label(): line.get_ydata()[-1] for line in made.figure.axes[0].get_lines()}
    assert lines == {"SGD": 1, "Adam": 0.5}
    assert figures.draw_together("speed", found[:1]) is None
    assert figures.draw_together("forest", found) is None


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.sampled_from([0.1, 0.5]))
def test_quantiles_are_numpys_where_nothing_diverged(values, q):
    assert quantile(values, q) == pytest.approx(np.quantile(values, q))


def test_a_diverged_run_is_below_any_other():
    assert quantile([1.0, 2, 3, math.nan], 0.5) == 1.5
    assert math.isnan(quantile([1.0, 2, 3, math.nan], 0.1))
    assert math.isnan(quantile([math.nan], 0.5))


def test_the_seeds_themselves(tmp_path):
    for seed in range(5):
        make_run(tmp_path, "sgd", seed=seed, final=0.5 + seed / 100)
        make_run(tmp_path, "adam", seed=seed, final=0.6, status="diverged" if seed == 0 else "completed")
    found = task(tmp_path)
    table = outcomes(found, 49.0).set_index("label")
    assert table.loc["SGD", ["n", "failed", "median"]].tolist() == [5, 0, 52]
    assert table.loc["Adam", ["n", "failed", "median"]].tolist() == [5, 1, 60]
    assert table.loc["SGD", "p"] == pytest.approx(2 * stats.ttest_1samp(range(1, 6), 0, alternative="greater").pvalue)
    assert table.loc["Adam", "p"] == pytest.approx(stats.binomtest(4, 5, alternative="greater").pvalue)
    made = figures.draw("seeds", found)
    assert "×1" in [text.get_text() for text in made.figure.axes[0].texts]
