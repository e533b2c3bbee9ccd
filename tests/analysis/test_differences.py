"""Each group against its baseline: which one, by how much, and in which words."""

import itertools
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from made_runs import make_run, unsigned

from nested_lookahead.analysis import collect
from nested_lookahead.analysis.baselines import baselines
from nested_lookahead.analysis.budget import budget
from nested_lookahead.analysis.power import seeds_range, stated_effect
from nested_lookahead.analysis.sentences import bound, p_value, signed
from nested_lookahead.analysis.task import tasks
from nested_lookahead.errors import UserError


def task(root, **options):
    chosen = {"weights": "fast", "split": "test", "delta": 0.5} | options
    (found,) = tasks(collect.collect([Path(root)]), **chosen)
    return found


def pairs(found):
    """label [shown] → the baseline's."""
    rows = found.comparisons
    return {f"{r.label} {r.shown}".strip(): f"{r.baseline_label} {r.baseline_shown}".strip() for r in rows.itertuples()}


def test_every_method_against_its_own_baseline(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed)
        make_run(tmp_path, "adam", seed=seed)
        for inner, pullback in itertools.product(("sgd", "adam"), ("none", "reset")):
            make_run(tmp_path, "lookahead", seed=seed, inner=inner, pullback=pullback)
            make_run(tmp_path, seed=seed, inner=inner, pullback=pullback)
    expected = {}
    for inner in ("SGD", "Adam"):
        for pullback in ("pullback=none", "pullback=reset"):
            expected[f"Lookahead ({inner}) {pullback}"] = inner
            expected[f"Nested Lookahead ({inner}) {pullback}"] = f"Lookahead ({inner}) {pullback}"
    assert pairs(task(tmp_path)) == expected
    against_sgd = pairs(task(tmp_path, baseline="sgd"))
    assert set(against_sgd.values()) == {"SGD"}
    assert len(against_sgd) == 9
    against_adams = pairs(task(tmp_path, baseline="lookahead-adam"))
    assert against_adams["SGD"] == "Lookahead (Adam) pullback=none"
    assert against_adams["Nested Lookahead (SGD) pullback=reset"] == "Lookahead (Adam) pullback=reset"
    assert "Lookahead (Adam) pullback=reset" not in against_adams
    with pytest.raises(UserError, match="--baseline lion: no such method or group among these runs"):
        task(tmp_path, baseline="lion")


def test_variants_are_compared_with_the_default_where_there_is_nothing_else(tmp_path):
    for seed, k in itertools.product(range(3), (3, 5, 10)):
        make_run(tmp_path, seed=seed, k=k)
    assert pairs(task(tmp_path)) == {f"Nested Lookahead (SGD) k={k}": "Nested Lookahead (SGD) k=5" for k in (3, 10)}


def test_a_grid_without_the_default_cell_has_a_centre(tmp_path):
    for seed, k, alpha in itertools.product(range(3), (3, 7, 10), (0.2, 0.4, 0.8)):
        make_run(tmp_path, seed=seed, k=k, alpha=alpha)
    found = pairs(task(tmp_path))
    assert len(found) == 8
    assert set(found.values()) == {"Nested Lookahead (SGD) k=7 α=0.4"}


def test_plain_optimizers_are_compared_where_there_is_nothing_else(tmp_path):
    for seed, method in itertools.product(range(3), ("adam", "lion", "sgd")):
        make_run(tmp_path, method, seed=seed)
    assert pairs(task(tmp_path)) == {"Adam": "SGD", "lion": "SGD"}
    for seed in range(3):
        make_run(tmp_path, "lookahead", seed=seed)
    assert pairs(task(tmp_path)) == {"Lookahead (SGD)": "SGD"}


def test_settings_of_a_plain_optimizer_are_compared_with_the_middle_one(tmp_path):
    for seed, lr in itertools.product(range(3), (0.01, 0.1, 1.0)):
        make_run(tmp_path, "sgd", seed=seed, lr=lr)
    assert set(pairs(task(tmp_path)).values()) == {"SGD lr=0.1"}


def test_half_precision_is_compared_with_full(tmp_path):
    for seed, precision in itertools.product(range(3), ("bf16", "fp32")):
        path = unsigned(make_run(tmp_path / precision, seed=seed))
        text = (path / "config.yaml").read_text()
        (path / "config.yaml").write_text(text.replace("  epochs:", f"  precision: {precision}\n  epochs:"))
    assert pairs(task(tmp_path)) == {"Nested Lookahead (SGD) precision=bf16": "Nested Lookahead (SGD) precision=fp32"}


def test_many_groups_have_their_baselines_soon(tmp_path):
    """Each of 900 settings against the nearest of 90, in a second: it took a minute with a look-up per pair."""
    rows = [("nested_lookahead", k, a) for k in range(30) for a in range(30)] + [
        ("lookahead", k, a) for k in range(30) for a in range(3)
    ]
    groups = pd.DataFrame(
        {"source": "run", "method": [r[0] for r in rows], "inner": "sgd", "pullback": "none",
         "config.optimizer.k": [r[1] for r in rows], "config.optimizer.alpha": [float(r[2]) for r in rows],
         "config.seed": 0},
        index=[str(i) for i in range(len(rows))],
    )  # fmt: skip
    start = time.process_time()
    found = baselines(groups)
    assert time.process_time() - start < 5
    assert found["0"] == "900"
    assert found[str(30 * 7 + 2)] == str(900 + 3 * 7 + 2)


def test_differences_are_paired_by_seed(tmp_path):
    """Seeds differ by far more than methods do."""
    gains = [0.011, 0.009, 0.012, 0.008, 0.010]
    for seed, gain in enumerate(gains):
        make_run(tmp_path, "lookahead", seed=seed, final=0.5 + seed / 20)
        make_run(tmp_path, seed=seed, final=0.5 + seed / 20 + gain)
    make_run(tmp_path, seed=7, final=0.1)  # without a partner
    (row,) = task(tmp_path).comparisons.itertuples()
    assert (row.n, row.left_out, row.verdict, row.paired) == (5, "7", "better", True)
    assert row.difference == pytest.approx(1.0)
    half = 2.776445 * np.std([100 * gain for gain in gains], ddof=1) / math.sqrt(5)
    assert (row.low, row.high) == (pytest.approx(1 - half), pytest.approx(1 + half))
    assert (row.improvement, row.improvement_high) == (1, 1)
    assert row.sentence.startswith(
        "Nested Lookahead (SGD) is better than Lookahead (SGD): +1.00 points, 95% CI [+0.80, "
    )


def study(tmp_path, ours, theirs):
    """The comparison of Nested with plain Lookahead, of results by seed; NaN is a diverged run."""
    for method, values in (("nested_lookahead", ours), ("lookahead", theirs)):
        for seed, value in enumerate(values):
            lost = math.isnan(value)
            made = 0.5 if lost else value
            make_run(tmp_path, method, seed=seed, final=made, status="diverged" if lost else "completed")
    (row,) = task(tmp_path).comparisons.itertuples()
    return row


def test_survivors_alone_decide_nothing(tmp_path):
    """Better on each of the five seeds that it finished, and diverged on the other nine."""
    rng = np.random.default_rng(0)
    theirs = 0.5 + 0.001 * rng.standard_normal(14)
    ours = np.where(np.arange(14) < 5, theirs + 0.03 + 0.001 * rng.standard_normal(14), np.nan)
    row = study(tmp_path, ours, theirs)
    assert row.low95 > 0  # as the five say
    assert (row.n, row.seeds, row.failed, row.baseline_failed, row.verdict) == (5, 14, 9, 0, "unresolved")
    assert row.improvement == pytest.approx(5 / 14)
    assert row.p_failures == pytest.approx(2 * 0.5**9)
    assert "Diverged: 9 of 14, of the baseline's 0 (McNemar's exact p = 0.004)." in row.sentence
    assert "the ranks of all 14 seeds have p = " in row.sentence


def test_better_in_spite_of_a_diverged_run_says_what_decided(tmp_path):
    ours = [0.6 + 0.001 * seed for seed in range(12)]
    row = study(tmp_path, [*ours[:11], math.nan], [0.5] * 12)
    assert (row.n, row.diverged, row.verdict, row.decided_by) == (11, 1, "better", "ranks and t")
    assert row.p_holm == pytest.approx(row.p_ranks)
    assert "The ranks of all seeds, diverged runs last, and the interval of the pairs agree." in row.sentence


def test_a_method_that_fails_is_worse_by_its_ranks(tmp_path):
    row = study(tmp_path, [math.nan] * 8, [0.5 + 0.001 * seed for seed in range(8)])
    assert (row.n, row.verdict, row.decided_by) == (0, "worse", "ranks")
    assert "no pair finished" in row.sentence
    assert "Diverged: 8 of 8, of the baseline's 0" in row.sentence


def test_where_all_diverged_it_is_said(tmp_path):
    row = study(tmp_path, [math.nan] * 3, [math.nan] * 3)
    assert row.verdict == "unresolved"
    assert "in every pair both diverged, so there is nothing to compare. Diverged: 3 of 3" in row.sentence


@pytest.mark.parametrize(
    ("seeds", "word"),
    [(1, "too few for an interval"), (2, "too few for an interval"), (4, "suggests better"), (5, "is better than")],
)
def test_how_much_is_said_of_how_many_seeds(tmp_path, seeds, word):
    for seed in range(seeds):
        make_run(tmp_path, "lookahead", seed=seed, final=0.5)
        make_run(tmp_path, seed=seed, final=0.6 + seed / 1000)
    assert word in task(tmp_path).comparisons["sentence"][0]


def test_no_seed_in_common(tmp_path):
    make_run(tmp_path, "lookahead", seed=0)
    make_run(tmp_path, seed=1)
    assert task(tmp_path).comparisons["sentence"][0].endswith("no seed in common.")


def test_numbers_are_written_as_people_write_them(tmp_path):
    assert [signed(x) for x in (-0.004, 0.0, 0.006, -1.239)] == ["0.00", "0.00", "+0.01", "-1.24"]
    assert [p_value(p) for p in (0.0499, 0.0496, 0.0504)] == ["p = 0.0499", "p = 0.0496", "p = 0.0504"]
    assert [bound(x) for x in (-0.004, 0.0, 1e-9, 0.0049, -0.02)] == ["-0.004", "0.00", "0.00", "+0.005", "-0.02"]
    assert [p_value(p) for p in (0.0, 0.0004, 0.0123, 1.0)] == ["p < 0.001", "p < 0.001", "p = 0.012", "p = 1.000"]
    row = study(tmp_path, [0.6 + 0.0001 * seed for seed in range(6)], [0.5] * 6)
    assert "p < 0.001" in row.sentence


def test_a_difference_that_is_there_and_does_not_matter(tmp_path):
    row = study(tmp_path, [0.5002 + 0.0001 * (seed % 2) for seed in range(8)], [0.5] * 8)
    assert row.verdict == "equivalent"
    assert "are equivalent to within 0.5 points: +0.02 points, 90% CI [+0.02, +0.03]" in row.sentence
    assert row.sentence.endswith("; there is a difference, and it does not matter.")


def test_what_could_have_been_shown_is_of_the_family(tmp_path):
    rng = np.random.default_rng(0)
    for seed, k in itertools.product(range(5), (3, 5, 7, 10)):
        make_run(tmp_path, seed=seed, k=k, final=0.5 + 0.02 * rng.standard_normal())
    rows = task(tmp_path).comparisons
    assert set(rows["family"]) == {3}
    row = rows[rows["verdict"] == "unresolved"].iloc[0]
    assert row["detectable"] == pytest.approx(row["sd"] * stated_effect(5, None, 0.05 / 3))
    assert (row["seeds_needed"], row["seeds_low"], row["seeds_high"]) == seeds_range(0.5, row["sd"], 5, True, 0.05 / 3)
    assert f"and {row['seeds_needed']:.0f} seeds ({row['seeds_low']:.0f} to " in row["sentence"]
    assert row["sentence"].endswith("find 0.5 with 80% power, as one of 3 comparisons.")


def test_nothing_is_claimed_of_fewer_than_five(tmp_path):
    row = study(tmp_path, [0.5, 0.51, 0.53, 0.49], [0.5] * 4)
    assert math.isnan(row.detectable)
    assert "fewer than 5 show nothing for sure, and" in row.sentence
    assert row.seeds_needed >= 5


def test_slow_weights_are_compared_with_the_only_ones_that_sgd_has(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=0.8)
        make_run(tmp_path, "lookahead", seed=seed, final=0.8 + seed / 100)
    (row,) = task(tmp_path, weights="slow").comparisons.itertuples()
    assert row.difference == pytest.approx(2)


@pytest.mark.parametrize(
    ("weights", "difference"), [("fast", 1), ("slow", 2), ("ema0.9", -1), ("ema0.99", -2), ("tail", -4)]
)
def test_an_average_is_compared_as_any_weights_are(tmp_path, weights, difference):
    """Lookahead leads by a point with its fast weights; it kept no average, so they stand for it."""
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=0.8 + seed / 100, averages=("ema0.9", "ema0.99", "tail"))
        make_run(tmp_path, "lookahead", seed=seed, final=0.81 + seed / 100)
    (row,) = task(tmp_path, weights=weights).comparisons.itertuples()
    assert row.difference == pytest.approx(difference)


def test_the_budget_scores_the_choice_on_other_seeds(tmp_path):
    """k = 3 is best on validation, and its luck on the test split is that of one seed."""
    for seed, k in itertools.product(range(3), (3, 5)):
        lucky = 0.99 if (k, seed) == (3, 0) else 0.8 if k == 3 else 0.81
        make_run(tmp_path, seed=seed, k=k, final=lucky, validation=0.9 if k == 3 else 0.7)
    found = task(tmp_path)
    (row,) = budget(found).itertuples(index=False)
    named = row._asdict()
    assert (named["method"], named["runs"]) == ("Nested Lookahead (SGD)", 6)
    assert list(named.values())[1:3] == [2, "k × 2"]
    assert named["default"] == pytest.approx(81)
    assert named["best"] == pytest.approx((99 + 80 + 80) / 3)


def test_the_best_setting_is_not_one_that_diverges(tmp_path):
    """k = 3 has the best survivor, and lost the other two runs."""
    for seed, k in itertools.product(range(3), (3, 5)):
        lost = k == 3 and seed > 0
        make_run(
            tmp_path,
            seed=seed,
            k=k,
            final=0.9 if k == 3 else 0.85 + seed / 100,
            status="diverged" if lost else "completed",
        )
    ((_, row),) = budget(task(tmp_path)).iterrows()
    assert row["best setting"] == "k=5"
    assert row["best"] == pytest.approx(86)
    assert row["diverged"] == 2


def test_published_runs_have_no_hours():
    study = collect.collect([], references=[ROOT / "docs/published_epoch_accuracy.csv"])
    assert budget(next(tasks(study, "fast", "test", 0.5)))["hours of training"].isna().all()
