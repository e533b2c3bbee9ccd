"""Each group against its baseline: which one, by how much, and in which words."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run

from nested_lookahead.analysis import collect
from nested_lookahead.analysis.budget import budget
from nested_lookahead.analysis.task import final_values, tasks
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


def test_a_diverged_run_has_no_difference_and_is_lost(tmp_path):
    for seed in range(6):
        make_run(tmp_path, "lookahead", seed=seed, final=0.5 + seed / 100)
        make_run(tmp_path, seed=seed, final=0.6 + seed / 90, status="diverged" if seed == 2 else "completed")
    (row,) = task(tmp_path).comparisons.itertuples()
    assert (row.n, row.diverged) == (5, 1)
    assert row.improvement == pytest.approx(5 / 6)
    assert "1 diverged and count as lost" in row.sentence


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


def test_slow_weights_are_compared_with_the_only_ones_that_sgd_has(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=0.8)
        make_run(tmp_path, "lookahead", seed=seed, final=0.8 + seed / 100)
    (row,) = task(tmp_path, weights="slow").comparisons.itertuples()
    assert row.difference == pytest.approx(2)


def test_the_budget_scores_the_choice_on_other_seeds(tmp_path):
    """k = 3 is best on validation, and its luck on the test split is that of one seed."""
    for seed, k in itertools.product(range(3), (3, 5)):
        lucky = 0.99 if (k, seed) == (3, 0) else 0.8 if k == 3 else 0.81
        make_run(tmp_path, seed=seed, k=k, final=lucky, validation=0.9 if k == 3 else 0.7)
    found = task(tmp_path)
    (row,) = budget(found, final_values(found.runs, found.metrics, "fast", "validation")).itertuples(index=False)
    named = row._asdict()
    assert (named["method"], named["runs"]) == ("Nested Lookahead (SGD)", 6)
    assert list(named.values())[1:3] == [2, "k × 2"]
    assert named["default"] == pytest.approx(81)
    assert named["best"] == pytest.approx((99 + 80 + 80) / 3)
