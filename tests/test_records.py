"""The run directory, as written and as read."""

import json
import math

import pytest

from nested_lookahead import records
from nested_lookahead.records import Run

CONFIG = {"seed": 0, "optimizer": {"name": "sgd", "lr": 0.1}}


def row(step, split="test", weights="fast", accuracy=0.5, loss=1.0):
    return {
        "step": step,
        "epoch": step,
        "split": split,
        "weights": weights,
        "loss": loss,
        "accuracy": accuracy,
        "lr": 0.1,
        "seconds": 1 / 3,
    }


def test_what_is_written_is_what_is_read(tmp_path):
    with Run(tmp_path / "run") as run:
        run.start(CONFIG, {"optimizer": "sgd"})
        run.append([row(1, loss=0.1 + 0.2), row(2, loss=math.nan)])
        run.finish({"status": "completed"})
    path = tmp_path / "run"
    assert records.find_runs(tmp_path) == [path]
    assert records.read_config(path) == CONFIG
    metrics = records.read_metrics(path)
    assert tuple(metrics.columns) == records.COLUMNS
    assert metrics["loss"][0] == 0.1 + 0.2  # to the last bit
    assert math.isnan(metrics["loss"][1])
    assert metrics["seconds"][0] == 1 / 3
    summary = records.read_summary(path)
    assert set(summary) == {"status", "sha256"}
    assert records.is_intact(path, summary)
    assert not records.is_intact(path, summary | {"status": "diverged"})
    (path / "metrics.csv").write_text((path / "metrics.csv").read_text().replace("0.5", "0.6", 1))
    assert not records.is_intact(path, summary)
    assert records.read_status(path)["status"] == "completed"
    assert not list(path.glob("*.tmp"))


def test_rows_are_on_the_disk_as_soon_as_they_are_appended(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {})
        run.append([row(1)])
        assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2
        assert records.read_status(tmp_path)["status"] == "running"
        run.finish({"status": "completed"})


def test_starting_anew_removes_what_was_there(tmp_path):
    for _ in range(2):
        with Run(tmp_path) as run:
            run.start(CONFIG, {})
            assert records.read_summary(tmp_path) is None
            run.append([row(1)])
            run.finish({"status": "completed"})
    assert len(records.read_metrics(tmp_path)) == 1


@pytest.mark.parametrize(("error", "status"), [(ValueError("boom"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_whatever_ends_a_run_early_is_written_down(tmp_path, error, status):
    with pytest.raises(type(error)), Run(tmp_path) as run:
        run.start(CONFIG, {})
        raise error
    written = records.read_status(tmp_path)
    assert written["status"] == status
    assert written["error"] == ("ValueError: boom" if status == "failed" else None)
    assert records.read_summary(tmp_path) is None


def test_a_run_refused_before_its_start_leaves_nothing(tmp_path):
    path = tmp_path / "label" / "seed=0"
    path.mkdir(parents=True)
    (path / "train.log").write_text("")
    with pytest.raises(ValueError, match="no"), Run(path):
        raise ValueError("no")
    assert not path.parent.exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {})
        run.finish({"status": "completed", "n": 1})
    with pytest.raises(TypeError), Run(tmp_path) as run:
        run.finish({"status": "completed", "n": object()})
    assert records.read_summary(tmp_path)["n"] == 1
    assert not list(tmp_path.glob("*.tmp"))


def test_checkpoints_load_as_plain_weights(tmp_path):
    import torch

    with Run(tmp_path) as run:
        run.save_checkpoint({"w": torch.arange(3), "progress": {"step": 5}})
    loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert loaded["progress"]["step"] == 5
    assert torch.equal(loaded["w"], torch.arange(3))


def test_scores_choose_the_best_on_validation_and_keep_weights_apart():
    metrics = []
    for step, (validation, test) in enumerate([(0.5, 0.9), (0.8, 0.6), (0.8, 0.7), (math.nan, 0.1)], start=1):
        metrics += [row(step, "validation", "fast", validation), row(step, "test", "fast", test)]
        metrics += [row(step, "validation", "slow", 1 - step / 10), row(step, "test", "slow", step / 10)]
    scores = records.scores(metrics)
    assert scores["best"]["fast"]["test"] == {
        "step": 2,
        "epoch": 2,
        "loss": 1.0,
        "accuracy": 0.6,
    }  # the first of equals
    assert scores["best"]["slow"]["test"]["accuracy"] == 0.1
    assert scores["final"]["fast"]["test"]["accuracy"] == 0.1
    assert scores["final"]["fast"]["validation"]["accuracy"] is None
    json.dumps(scores, allow_nan=False)
    assert records.objective(scores, "slow") == 0.6
    only_test = records.scores([row(1, "test", accuracy=0.3)])
    assert "fast" not in only_test["best"]
    assert records.objective(only_test, "slow") == 0.3
    assert records.scores([]) == {"final": {}, "best": {}}


def test_environment_names_versions_and_commit():
    environment = records.environment()
    assert {"python", "torch", "hydra-core"} <= set(environment["versions"])
    git = environment["git"]
    assert git is None or (len(git["commit"]) == 40 and isinstance(git["dirty"], bool))
