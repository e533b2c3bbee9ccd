"""A task's own metric: which way is better, and what it is called, from the summary to the last sentence."""

import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import runs_below
from made_runs import make_run

from nested_lookahead.analysis import figures, targets
from nested_lookahead.analysis.budget import budget
from nested_lookahead.analysis.collect import collect
from nested_lookahead.analysis.contrasts import contrasts
from nested_lookahead.analysis.figures.outcomes import outcomes
from nested_lookahead.analysis.leads import stronger_baselines
from nested_lookahead.analysis.task import tasks
from nested_lookahead.analysis.tuned import tuned
from nested_lookahead.metric import ACCURACY, Metric
from nested_lookahead.runs.job import result_of
from nested_lookahead.runs.scores import scores

GAIN = Metric("gain", "", "up", 100.0, 2, 0.5)
COST = Metric("cost", "", "down", 100.0, 2, 0.5)


def make_study(root, metric):
    """Two inner optimizers, several settings and a diverged run: whatever depends on a direction has work to do."""
    random = np.random.default_rng(0)
    for seed in range(8):
        for inner in ("sgd", "adam"):
            base = 0.8 + 0.02 * random.standard_normal()
            for lr, loss in ((0.1, 0.03), (0.3, 0.0)):
                made = {"metric": metric, "seed": seed, "validation": base - loss}
                make_run(root, inner, final=base - loss, lr=lr, **made)
            for k, lead in ((5, 0.01), (10, 0.04)):
                final = base + lead + 0.004 * random.standard_normal()
                status = "diverged" if (seed, k, inner) == (3, 5, "sgd") else "completed"
                made = {"metric": metric, "seed": seed, "validation": final, "status": status}
                make_run(root, "lookahead", final=final, inner=inner, k=k, **made)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """The same study, of a gain, and of a cost that is the gain with a minus."""
    found = []
    for metric in (GAIN, COST):
        root = tmp_path_factory.mktemp(metric.name)
        make_study(root, metric)
        (task,) = tasks(collect([root]), "fast", "test")
        found.append(task)
    return found


def test_less_is_better_mirrors_all_that_is_said(mirrored):
    gain, cost = (task.comparisons.set_index(["label", "shown", "baseline_shown"]) for task in mirrored)
    assert len(gain) == len(cost) > 3
    cost = cost.loc[gain.index]
    for column in ("verdict", "decided_by", "p_holm", "n", "failed", "improvement", "detectable", "seeds_needed", "sd"):
        pd.testing.assert_series_equal(gain[column], cost[column])
    assert {"better", "worse"} & set(gain["verdict"])
    for one, other in (("difference", "difference"), ("low", "high"), ("low95", "high95"), ("high", "low"), ("g", "g")):
        np.testing.assert_allclose(gain[one], -cost[other])
    swapped = [re.sub(r"cost", "gain", text) for text in cost["sentence"]]
    for text, mirror in zip(gain["sentence"], swapped, strict=True):
        assert re.sub(r"[-+]?\d+\.\d+", "x", text) == re.sub(r"[-+]?\d+\.\d+", "x", mirror)
    assert all("points" not in text for text in cost["sentence"])


def test_less_is_better_mirrors_choices_pools_leads_times_and_tails(mirrored):
    gain, cost = mirrored
    one, other = budget(gain), budget(cost)
    assert one["best setting"].tolist() == other["best setting"].tolist()
    assert len(set(one["best setting"])) > 1
    np.testing.assert_allclose(one["best, other seeds"], -other["best, other seeds"])
    assert tuned(gain).comparisons["verdict"].tolist() == tuned(cost).comparisons["verdict"].tolist()
    pooled = [contrasts([task])[0] for task in mirrored]
    assert pooled[0].word == pooled[1].word == "better"
    assert (pooled[0].decision.low, pooled[0].diverged) == (pytest.approx(-pooled[1].decision.high), 1)
    assert [text.replace("-", "") for text in stronger_baselines([cost])] == stronger_baselines([gain])
    times = [targets.times(task, sign * 82.0).set_index(["group", "seed"]) for task, sign in ((gain, 1), (cost, -1))]
    assert np.isfinite(times[0]["step"]).any()
    by_seed = [table.reset_index().sort_values(["seed", "step"])["step"].tolist() for table in times]
    assert by_seed[0] == by_seed[1]
    tails = [outcomes(task, sign * 82.0).sort_values(["label", "shown"]) for task, sign in ((gain, 1), (cost, -1))]
    np.testing.assert_allclose(tails[0]["decile"], -tails[1]["decile"])
    np.testing.assert_allclose(tails[0]["p"], tails[1]["p"])


@pytest.mark.parametrize("name", ["sensitivity", "expected_best", "learning_rates", "learning_curves"])
def test_figures_name_the_metric_and_know_its_direction(mirrored, name):
    gain, cost = (figures.draw(name, task) for task in mirrored)
    assert cost is not None
    said = f"{cost.title} {cost.caption} {cost.alt} " + " ".join(ax.get_ylabel() for ax in cost.figure.axes)
    assert "accuracy" not in said
    assert "cost" in said
    assert "%" not in cost.alt
    if name == "sensitivity":
        assert gain.table.iloc[:, 1].tolist() == pytest.approx(cost.table.iloc[:, 1].tolist())


def test_the_result_and_the_best_evaluation_follow_the_direction():
    rows = [
        {"step": step, "epoch": step, "split": split, "weights": "fast", "loss": 1.0, "accuracy": value}
        for step, value in ((1, 2.5), (2, 2.1), (3, 2.3))
        for split in ("validation", "test")
    ]
    assert [scores(rows, metric)["best"]["fast"]["validation"]["step"] for metric in (ACCURACY, COST)] == [1, 2]
    summary = {"status": "completed", **scores(rows, COST)}
    config = Namespace(evaluation=Namespace(weights="fast"))
    assert result_of(summary | {"metric": COST.plain()}, config) == -2.3
    assert result_of(summary, config) == 2.3


def test_a_run_without_a_metric_has_accuracy_and_a_foreign_one_is_left_out(tmp_path):
    assert Metric.read(None) == ACCURACY
    assert Metric.read(COST.plain() | {"later": 1}) == COST
    with pytest.raises(ValueError, match="better='sideways': must be up or down"):
        Metric("x", better="sideways")
    make_run(tmp_path, "sgd")
    path = make_run(tmp_path, "sgd", seed=1, metric=COST)
    summary = json.loads((path / "summary.json").read_text())
    del summary["sha256"]
    (path / "summary.json").write_text(json.dumps(summary | {"metric": {"name": "x\ny", "better": "up"}}))
    assert len(collect([tmp_path]).left_out) == 1
    assert ACCURACY.text(0.97222) == ACCURACY.said(0.97222) == "97.22%"
    assert Metric("R²").said(0.5) == "0.5000 R²"


def test_runs_of_different_metrics_are_different_tasks(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed)
        make_run(tmp_path, "lookahead", seed=seed, metric=GAIN)
    assert [len(task.runs) for task in tasks(collect([tmp_path]), "fast", "test")] == [3, 3]


def test_the_difference_that_matters_is_the_metrics_own(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, metric=Metric("R²", delta=0.02))
    study = collect([tmp_path])
    assert next(tasks(study, "fast", "test")).delta == 0.02
    assert next(tasks(study, "fast", "test", 0.3)).delta == 0.3


@pytest.mark.slow
def test_a_report_on_bits_reads_as_one(command):
    arguments = ["dataset=markov", "model=gpt", "model.layers=1", "model.width=8", "dataset.length=2000", "epochs=1"]
    arguments += ["dataset.samples=16", "batch_size=8", "optimizer=sgd,lookahead", "seed=0,1,2", "threads=1"]
    status, out, err = command("train.py", "-m", *arguments, "dataset.split.val_fraction=0")
    assert (status, err) == (0, "")
    assert re.search(r"\ntest bits per character  \d\.\d{4} \(fast weights\)\n", out)
    assert re.search(r"\nover the best  \d\.\d{4} nats \(fast weights\); no loss is below \d\.\d{4} nats\n", out)
    assert " tokens/s" in out
    assert "accuracy" not in out
    summary = json.loads((runs_below("outputs")[0] / "summary.json").read_text())
    assert summary["metric"]["better"] == "down"
    assert summary["tokens_per_second"] == pytest.approx(32 * summary["images_per_second"])
    status, out, err = command("analyze.py", "outputs/markov", "--metric", "error")
    assert (status, err) == (0, "")
    assert "test bits per character, fast weights" in out
    assert "test bits per character of the fast weights" in out
    html = Path("outputs/markov/analysis/report.html").read_text()
    assert not re.search(r"(?<![\w.])accuracy(?![\w.])", re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S))
