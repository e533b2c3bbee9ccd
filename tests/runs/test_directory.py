"""The run directory, as written and as read."""

import contextlib
import json
import math
import os
import socket
from pathlib import Path

import pytest
import yaml

from nested_lookahead.errors import RunFailed, UserError
from nested_lookahead.runs import checkpoints, earlier, files
from nested_lookahead.runs.directory import Run
from nested_lookahead.runs.provenance import environment
from nested_lookahead.runs.scores import objective
from nested_lookahead.runs.scores import scores as scores_of
from nested_lookahead.training.fit import COLUMNS

CONFIG = {"seed": 0, "optimizer": {"name": "sgd", "lr": 0.1}, "dataset": {"name": "digits"}}


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
        run.start(CONFIG, {"optimizer": "sgd"}, COLUMNS)
        run.append([row(1, loss=0.1 + 0.2), row(2, loss=math.nan)])
        run.finish({"status": "completed"})
    path = tmp_path / "run"
    assert files.find_runs(tmp_path) == [path]
    assert files.read_config(path) == CONFIG
    metrics = files.read_metrics(path)
    assert tuple(metrics.columns) == COLUMNS
    assert metrics["loss"][0] == 0.1 + 0.2  # to the last bit
    assert math.isnan(metrics["loss"][1])
    assert metrics["seconds"][0] == 1 / 3
    summary = files.read_summary(path)
    assert set(summary) == {"version", "run", "status", "sha256"}
    assert files.is_intact(path, summary)
    assert not files.is_intact(path, summary | {"status": "diverged"})
    (path / "metrics.csv").write_text((path / "metrics.csv").read_text().replace("0.5", "0.6", 1))
    assert not files.is_intact(path, summary)
    assert files.read_status(path)["status"] == "completed"
    assert not list(path.glob("*.tmp"))


def test_rows_are_on_the_disk_as_soon_as_they_are_appended(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        run.append([row(1)])
        assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2
        assert files.read_status(tmp_path)["status"] == "running"
        run.finish({"status": "completed"})


def test_starting_anew_removes_what_was_there(tmp_path):
    for _ in range(2):
        with Run(tmp_path) as run:
            run.start(CONFIG, {}, COLUMNS)
            assert files.read_summary(tmp_path) is None
            run.append([row(1)])
            run.finish({"status": "completed"})
    assert len(files.read_metrics(tmp_path)) == 1


@pytest.mark.parametrize(("error", "status"), [(ValueError("boom"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_whatever_ends_a_run_early_is_written_down(tmp_path, error, status):
    with pytest.raises(type(error)), Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        raise error
    written = files.read_status(tmp_path)
    assert written["status"] == status
    assert written["error"] == ("ValueError: boom" if status == "failed" else None)
    assert files.read_summary(tmp_path) is None


def test_a_run_refused_before_its_start_leaves_nothing(tmp_path):
    path = tmp_path / "label" / "seed=0"
    path.mkdir(parents=True)
    (path / "train.log").write_text("")
    with pytest.raises(ValueError, match="no"), Run(path):
        raise ValueError("no")
    assert not path.parent.exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        run.finish({"status": "completed", "n": 1})
    with pytest.raises(TypeError), Run(tmp_path) as run:
        run.finish({"status": "completed", "n": object()})
    assert files.read_summary(tmp_path)["n"] == 1
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
    scores = scores_of(metrics)
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
    assert objective(scores, "slow") == 0.6
    only_test = scores_of([row(1, "test", accuracy=0.3)])
    assert "fast" not in only_test["best"]
    assert objective(only_test, "slow") == 0.3
    assert scores_of([]) == {"final": {}, "best": {}}


def test_environment_names_versions_and_commit():
    found = environment()
    assert {"python", "torch", "hydra-core"} <= set(found["versions"])
    git = found["git"]
    assert git is None or (len(git["commit"]) == 40 and isinstance(git["dirty"], bool))


def test_status_says_who_makes_the_run_and_how_it_fares(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {"optimizer": "sgd"}, COLUMNS)
        status = files.read_status(tmp_path)
        assert set(status) == {"status", "error", "resumed", "host", "pid", "parent", "time"}
        assert (status["host"], status["pid"], status["parent"]) == (socket.gethostname(), os.getpid(), os.getppid())
        assert status["resumed"] is False
        run.append([row(1)])
        run.save_checkpoint({})
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert content == {"version": files.VERSION, "config": CONFIG, "choices": {"optimizer": "sgd"}}
    with Run(tmp_path) as run:
        assert run.resume(run.load_checkpoint(CONFIG), CONFIG, {}, COLUMNS) == [row(1)]
        assert files.read_status(tmp_path)["resumed"] is True


@pytest.mark.parametrize("text", ["", "{", "[]", "3", None])
def test_a_status_that_cannot_be_read_is_unknown(tmp_path, text):
    if text is not None:
        (tmp_path / "status.json").write_text(text)
    assert files.read_status(tmp_path) == {"status": "unknown", "error": None}


def test_a_summary_holds_no_number_that_json_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="JSON"), Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        run.finish({"status": "completed", "seconds": math.nan})
    assert files.read_summary(tmp_path) is None


def test_a_summary_is_signed_whatever_the_order_of_its_keys(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        run.finish({"status": "completed", "b": 1, "a": 2})
    summary = files.read_summary(tmp_path)
    assert files.is_intact(tmp_path, dict(sorted(summary.items(), reverse=True)))
    for key in summary:
        if key != files.CHECKSUM:
            assert not files.is_intact(tmp_path, {k: v for k, v in summary.items() if k != key})


class Payload:
    """Pickled, it is a call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_runs_no_code(tmp_path, caplog):
    import torch

    torch.save({"metrics": [], "payload": Payload(tmp_path / "ran")}, tmp_path / "checkpoint.pt")
    with Run(tmp_path) as run:
        assert run.load_checkpoint(CONFIG) is None
    assert not (tmp_path / "ran").exists()
    assert "checkpoint.pt is damaged (its digest is another one): kept as checkpoint.pt.damaged-1" in caplog.text


def test_columns_that_came_later_are_empty_in_earlier_rows(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        run.append([row(1)])
        run.save_checkpoint({})
    with Run(tmp_path) as run:
        run.resume(run.load_checkpoint(CONFIG), CONFIG, {}, [*COLUMNS, "flavour"])
        run.append([row(2) | {"flavour": 0.5}])
        run.save_checkpoint({})
    metrics = files.read_metrics(tmp_path)
    assert list(metrics.columns) == [*COLUMNS, "flavour"]
    assert metrics["flavour"].isna().tolist() == [True, False]
    with Run(tmp_path) as run:  # and a version without it goes on, too
        rows = run.resume(run.load_checkpoint(CONFIG), CONFIG, {}, COLUMNS)
        assert rows == [row(1), row(2) | {"flavour": 0.5}]
        run.append([row(3)])
    assert files.read_metrics(tmp_path)["step"].tolist() == [1, 2, 3]


def test_an_error_before_the_start_is_noted_and_changes_nothing_else(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        run.append([row(1)])
        run.save_checkpoint({"w": 1})
        run.finish({"status": "completed"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name not in ("status.json", "lock")}
    with pytest.raises(RunFailed), Run(tmp_path) as run:
        run.fail(MemoryError("too much"), CONFIG | {"seed": 1}, {})
        raise RunFailed("too much")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name not in ("status.json", "lock")}
    assert after == before
    assert files.read_status(tmp_path)["status"] == "failed"
    assert files.read_status(tmp_path)["error"] == "MemoryError: too much"


def test_versions_are_those_of_what_computes():
    names = {"python", "nested-lookahead", "torch", "torchvision", "numpy", "hydra-core"}
    assert set(environment()["versions"]) == names


def test_a_package_that_is_not_there_is_left_out(monkeypatch):
    from importlib import metadata

    real = metadata.version

    def version(package):
        if package == "torchvision":
            raise metadata.PackageNotFoundError
        return real(package)

    monkeypatch.setattr(metadata, "version", version)
    assert "torchvision" not in (names := environment()["versions"])
    assert {"numpy", "hydra-core"} <= set(names)


def recorded(path, config=CONFIG, steps=1):
    """A run that is over, with a checkpoint."""
    with Run(path) as run:
        run.start(config, {}, COLUMNS)
        run.append([row(step) for step in range(1, steps + 1)])
        run.save_checkpoint({"w": steps})
        run.finish({"status": "completed"})
    return {
        name: (path / name).read_bytes() for name in ("summary.json", "checkpoint.pt", "metrics.csv", "config.yaml")
    }


def content(path, names):
    return {name: (path / name).read_bytes() for name in names}


def test_a_beginning_that_comes_to_nothing_leaves_what_was_there(tmp_path):
    before = recorded(tmp_path)
    with pytest.raises(ValueError, match="no"), Run(tmp_path) as run:
        run.start(CONFIG | {"seed": 1}, {}, COLUMNS)
        run.append([row(7)])
        assert files.read_summary(tmp_path) is None
        assert files.find_runs(tmp_path) == [tmp_path]  # what is out of the way is no run
        raise ValueError("no")
    with Run(tmp_path):
        assert content(tmp_path, before) == before
    assert not list(tmp_path.glob(".earlier*"))


def test_what_was_there_goes_with_the_first_checkpoint_of_a_new_beginning(tmp_path):
    recorded(tmp_path, steps=3)
    with pytest.raises(ValueError, match="no"), Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        run.append([row(1)])
        run.save_checkpoint({"w": "new"})
        raise ValueError("no")
    with Run(tmp_path) as run:
        assert run.load_checkpoint(CONFIG)["w"] == "new"
        assert files.read_summary(tmp_path) is None
    assert not list(tmp_path.glob(".earlier*"))


@pytest.mark.parametrize("moved", range(5))
def test_moving_away_and_bringing_back_can_stop_anywhere(tmp_path, monkeypatch, moved):
    """In the middle of one, or of the other."""
    before = recorded(tmp_path)
    real, done = os.replace, []

    def replace(source, target):
        if len(done) == moved:
            raise OSError(5, "broken")
        done.append(real(source, target))

    for act in (earlier.move_away, earlier.bring_back):
        with monkeypatch.context() as patch:
            done.clear()
            patch.setattr(os, "replace", replace)
            with contextlib.suppress(OSError):
                act(tmp_path)
    earlier.bring_back(tmp_path)
    assert content(tmp_path, before) == before
    assert not list(tmp_path.glob(".earlier*"))


@pytest.mark.parametrize("name", [".earlier", ".earlier.moving"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.touch, lambda path: path.symlink_to("/etc")])
def test_what_is_in_the_place_of_an_earlier_run_and_is_none_is_put_aside(tmp_path, name, make):
    before = recorded(tmp_path)
    make(tmp_path / name)
    with Run(tmp_path):
        assert content(tmp_path, before) == before
    assert [path.name for path in tmp_path.glob(".earlier*")] == [f"{name}.damaged-1"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), OSError(24, "Too many open files"), MemoryError()])
def test_a_checkpoint_that_cannot_be_read_now_is_not_damaged(tmp_path, monkeypatch, error):
    before = recorded(tmp_path)

    def fails(*args, **options):
        raise error

    with Run(tmp_path) as run:
        with monkeypatch.context() as patch:
            patch.setattr("torch.load", fails)
            with pytest.raises(type(error)):
                run.load_checkpoint(CONFIG)
        assert content(tmp_path, before) == before
        assert run.load_checkpoint(CONFIG)["w"] == 1


def test_a_damaged_checkpoint_is_renamed_and_kept(tmp_path, caplog):
    for number in (1, 2):
        recorded(tmp_path)
        damaged = (tmp_path / "checkpoint.pt").read_bytes()[:-7]
        (tmp_path / "checkpoint.pt").write_bytes(damaged)
        with Run(tmp_path) as run:
            assert run.load_checkpoint(CONFIG) is None
        assert (tmp_path / f"checkpoint.pt.damaged-{number}").read_bytes() == damaged
        assert f"kept as checkpoint.pt.damaged-{number}" in caplog.text


@pytest.mark.parametrize("other", [CONFIG | {"seed": 1}, CONFIG | {"optimizer": {"name": "sgd", "lr": 0.2}}])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other):
    before = recorded(tmp_path)
    with Run(tmp_path) as run, pytest.raises(UserError, match="holds a run of another configuration; move it away"):
        run.load_checkpoint(other)
    assert content(tmp_path, before) == before


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "summary.json", "status.json", "checkpoint.pt"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "huge"])
def test_what_is_no_file_of_ours_is_refused_by_kind_and_size(tmp_path, name, kind):
    recorded(tmp_path)
    (tmp_path / name).unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    elif kind == "folder":
        (tmp_path / name).mkdir()
    else:
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**31)  # sparse
    readers = {"config.yaml": files.read_config, "metrics.csv": files.read_metrics, "summary.json": files.read_summary}
    if name == "status.json":
        assert files.read_status(tmp_path)["status"] == "unknown"
    elif name == "checkpoint.pt":
        with pytest.raises(checkpoints.Damaged, match=r"regular|digest"):
            checkpoints.read(tmp_path / name)
    else:
        with pytest.raises(ValueError, match=r"no regular file|bytes, and can have"):
            readers[name](tmp_path)


BOMB = "".join(f"{a}: &{a} [{', '.join([f'*{b}'] * 9)}]\n" for a, b in zip("bcdefghi", "abcdefgh", strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\n" + BOMB + "config: {x: *i}",
        "config: &c {c: *c}",
        "config: {name: 2020-01-01}",
        "config: {1: 2}",
        "config: {x: .inf}",
        f"config: {{x: {'9' * 400}}}",
        'config: {x: "\\ud800"}',
        "config: !!python/object/apply:os.system [true]",
    ],
)
def test_a_configuration_is_made_of_plain_values(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml|could not|special|surrogate|escape"):
        files.read_config(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"x": Infinity}', '{"x": NaN}', '{"x": 1e999}', '{"x": "\\ud800"}', "[1]", '{"a":' * 90_000, "", "{"]
)
def test_a_summary_is_json(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=r"summary\.json|JSON|surrogate|Expecting|recursion"):
        files.read_summary(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        Run(tmp_path / "file" / "run").__enter__()
