"""Tables of results: what is in them, and how people read it."""

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run

from nested_lookahead.analysis import collect, tables
from nested_lookahead.analysis.task import tasks


def results(root):
    study = collect.collect([root])
    return tables.results(study.runs, study.metrics)


def test_the_table_has_mean_and_interval_for_each_kind_of_weights(tmp_path):
    for seed, final in enumerate((0.90, 0.92, 0.94)):
        make_run(tmp_path, seed=seed, final=final)
    make_run(tmp_path, "sgd", final=0.8)
    for seed, final in enumerate((0.7, 0.8)):
        make_run(tmp_path, "adam", seed=seed, final=final)
    table = results(tmp_path)
    assert table["method"].tolist() == ["SGD", "Adam", "Nested Lookahead (SGD)"]
    assert table["n"].tolist() == [1, 2, 3]
    nested = table.iloc[2]
    assert nested["fast_mean"] == pytest.approx(92)
    assert nested["slow_mean"] == pytest.approx(93)
    assert nested["fast_half_width"] == pytest.approx(4.302653 * 2 / np.sqrt(3), rel=1e-6)
    shown = tables.readable(table)
    fast = shown["test accuracy %, fast weights"].tolist()
    assert fast == ["80.00", "70.00, 80.00", "92.00 ± 4.97"]
    assert shown["test accuracy %, slow weights"].tolist() == ["–", "–", "93.00 ± 4.97"]
    assert shown["settings"][2] == "lr=0.1 k=5 α=0.5 s=5 h=0.5 pullback=none"


def test_the_table_has_a_column_for_each_average_that_a_run_kept(tmp_path):
    for seed, final in enumerate((0.80, 0.81, 0.82)):
        make_run(tmp_path, "sgd", seed=seed, final=final, averages=("ema0.9", "ema0.99", "tail"))
        make_run(tmp_path, "lookahead", seed=seed, final=final)
    shown = tables.readable(results(tmp_path)).set_index("method").drop(columns=["settings", "n"])
    assert [column.removeprefix("test accuracy %, ") for column in shown] == [
        f"{kind} weights" for kind in ("fast", "slow", "ema0.9", "ema0.99", "tail")
    ]
    assert shown.loc["SGD"].tolist() == ["81.00 ± 2.48", "–", *(f"{end}.00 ± 2.48" for end in (83, 84, 86))]
    assert shown.loc["Lookahead (SGD)"].tolist() == ["81.00 ± 2.48", "82.00 ± 2.48", "–", "–", "–"]


def test_equal_values_are_said_to_be_equal(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=355 / 360)  # a value whose computed deviation is not exactly 0
    assert tables.readable(results(tmp_path))["test accuracy %, fast weights"][0] == "98.61 (all equal)"


def test_diverged_runs_stay_in_n_and_out_of_the_mean(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=0.8 + seed / 100)
    make_run(tmp_path, "sgd", seed=3, final=0.1, status="diverged")
    table = results(tmp_path)
    assert (table["n"][0], table["diverged"][0]) == (4, 1)
    assert table["fast_mean"][0] == pytest.approx(81)
    assert tables.readable(table)["n"][0] == "4 (1 diverged)"


def test_latex_has_no_sign_that_latex_does_not_know():
    table = pd.DataFrame({"settings": ["α=0.5 k=5_%&"], "value": ["90.0 ± 1.0"], "n": ["–"]})
    assert tables.to_latex(table).isascii()


def test_comparisons_are_read_as_their_sentences_say(tmp_path):
    """No p is zero, no zero has a sign, and an interval has its level."""
    noise = np.array([0, 3, -2, 1, -1]) / 1000
    for seed in range(5):
        make_run(tmp_path, "sgd", seed=seed, final=0.8 + noise[seed])
        make_run(tmp_path, "adam", seed=seed, final=0.9 + noise[seed] + noise[-seed] / 100)
        make_run(tmp_path, "lookahead", seed=seed, final=0.8 + noise[seed] + 4 * noise[-seed])
    (task,) = tasks(collect.collect([tmp_path]), "fast", "test", 0.5, "sgd")
    raw = task.comparisons.set_index("label")
    shown = tables.readable_comparisons(task.comparisons).set_index("method")
    adam, lookahead = shown.loc["Adam"], shown.loc["Lookahead (SGD)"]
    assert adam["p (Holm)"] == "< 0.001"
    assert adam["level"] == "97.5%"
    low, high = (raw.loc["Lookahead (SGD)", end] for end in ("seeds_low", "seeds_high"))
    assert lookahead["seeds needed"].endswith(f" ({low:.0f} to {high:.0f})")
    assert "find 0.5 with 80% power" in raw.loc["Lookahead (SGD)", "sentence"]
    raw["difference"] = -0.001
    assert tables.readable_comparisons(raw.reset_index())["difference (points)"][0].startswith("0.00 [")
