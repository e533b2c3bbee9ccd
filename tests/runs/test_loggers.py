"""Loggers as a run sees them, with a made-up one; the real ones are in tests/ecosystem."""

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import ROOT, metrics_less_seconds, runs_below
from logged import SMALL, as_logged, less_seconds
from test_schema import resolved, said
from test_train import QUICK, cut_off

from nested_lookahead.runs import files, loggers
from nested_lookahead.training import fit


class Made:
    """Keeps what it is told, by the order in which it was opened."""

    told: ClassVar[list] = []
    fails = None
    """Where: open, log (of the second evaluation) or close."""

    def __init__(self, run):
        self.run, self.steps, self.ends, self.name, self.place = run, {}, [], "made-1", "nowhere"
        self.told.append(self)
        if self.fails == "open":
            raise RuntimeError("no server\nat all")

    def log(self, step, values):
        if self.fails == "log" and self.steps:
            raise OSError(28, "No space left on device")
        assert step not in self.steps
        self.steps[step] = dict(values)

    def close(self, status):
        self.ends.append(status)
        if self.fails == "close":
            raise TimeoutError("too slow")


@pytest.fixture
def made(monkeypatch):
    kind = type("Made", (Made,), {"told": []})
    monkeypatch.setitem(loggers.LOGGERS, "made", kind)
    return kind


def test_it_is_told_what_the_metrics_have_and_the_configuration(command, made):
    status, out, err = command("train.py", *SMALL, "logger=made", "study=mine/first")
    assert (status, err) == (0, "")
    assert "made: nowhere\n" in out
    (run,), (logger,) = runs_below("outputs"), made.told
    rows = metrics_less_seconds(run)
    assert len(rows) == 3 * 3 * 2
    assert less_seconds(logger.steps) == as_logged(rows)
    assert all(values["seconds"] > 0 for values in logger.steps.values())
    assert logger.ends == ["completed"]
    assert logger.run.config == files.read_config(run)
    assert (logger.run.study, logger.run.method) == ("mine/first", run.parent.name)
    assert logger.run.name == f"{run.parent.name}/seed=0"
    assert logger.run.settings()["optimizer.inner.lr"] == 0.1
    assert (logger.run.known_as, logger.run.anew) == (None, False)
    assert json.loads((run / files.LOGGERS).read_text()) == {"made": "made-1"}


def test_a_metric_of_the_tasks_own_has_its_name(command, made):
    text = ("dataset=markov", "dataset.context=8", "dataset.samples=64", "dataset.length=4000")
    small = ("epochs=1", "model=gpt", "model.layers=1", "model.width=8", "model.heads=1")
    assert command("train.py", *text, *small, "logger=made")[0] == 0
    (run,), (logger,) = runs_below("outputs"), made.told
    name = files.read_summary(run)["metric"]["name"].replace(" ", "_")
    assert name != "accuracy"
    assert less_seconds(logger.steps) == as_logged(metrics_less_seconds(run), name)


@pytest.mark.slow
def test_a_run_with_a_logger_is_the_run_without_it(command, made):
    assert command("train.py", *SMALL)[0] == 0
    (run,) = runs_below("outputs")
    before = (run / "metrics.csv").read_bytes()
    assert "completed already, skipped" in command("train.py", *SMALL, "logger=made")[1]
    assert made.told == []
    assert command("train.py", *SMALL, "logger=made", "output_dir=logged")[0] == 0
    (logged,) = runs_below("logged")
    assert logged.relative_to("logged") == run.relative_to("outputs")
    assert metrics_less_seconds(logged) == metrics_less_seconds(run)
    assert (run / "metrics.csv").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("open", "RuntimeError: no server at all"),
        ("log", "OSError: [Errno 28] No space"),
        ("close", "TimeoutError: too"),
    ],
)
def test_one_that_fails_fails_no_run_and_no_other_logger(command, made, monkeypatch, where, said):
    broken = type("Broken", (Made,), {"told": [], "fails": where})
    monkeypatch.setitem(loggers.LOGGERS, "broken", broken)
    assert command("train.py", *SMALL, "output_dir=undisturbed")[0] == 0
    status, out, err = command("train.py", *SMALL, "logger=[broken,made]")
    assert (status, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("logger=")]
    assert line.startswith(f"logger=broken: {said}")
    assert line.endswith("; the run goes on without it")
    (run,), (reference,) = runs_below("outputs"), runs_below("undisturbed")
    assert metrics_less_seconds(run) == metrics_less_seconds(reference)
    assert files.read_summary(run)["status"] == files.read_status(run)["status"] == "completed"
    assert list(made.told[0].steps) == [4, 8, 12]
    assert list(broken.told[0].steps) == {"open": [], "log": [4], "close": [4, 8, 12]}[where]
    assert broken.told[0].ends == (["completed"] if where == "close" else [])


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_one_that_is_not_installed_has_a_line_with_its_extra(command, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    status, out, err = command("train.py", *SMALL, f"logger={name}")
    assert (status, err) == (0, "")
    said = f"logger={name}: not installed here; pip install -e '.[{name}]'; the run goes on without it"
    assert [line for line in out.splitlines() if line.startswith("logger=")] == [said]
    assert f"\n{name} = [" in (ROOT / "pyproject.toml").read_text()
    (run,) = runs_below("outputs")
    assert not (run / files.LOGGERS).exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 6, 10])
def test_a_resumed_run_is_the_loggers_same_run_and_it_is_told_all_of_it(command, made, monkeypatch, step):
    cut_off(command, monkeypatch, step, (*SMALL, "logger=made"))
    (run,) = runs_below("outputs")
    assert made.told[0].ends == ["failed"]
    assert command("train.py", *SMALL, "logger=made")[0] == 0
    first, second = made.told
    assert list(first.steps) == [done for done in (4, 8) if done <= step]
    assert (second.run.known_as, second.run.anew) == ("made-1", False)
    assert less_seconds(second.steps) == as_logged(metrics_less_seconds(run))
    assert {done: second.steps[done] for done in first.steps} == first.steps
    assert second.ends == ["completed"]


def test_one_that_comes_to_a_half_done_run_is_told_what_was_before(command, made, monkeypatch):
    cut_off(command, monkeypatch, 6, SMALL)
    (run,) = runs_below("outputs")
    assert command("train.py", *SMALL, "logger=made")[0] == 0
    assert list(made.told[0].steps) == [4, 8, 12]
    assert made.told[0].run.known_as is None
    assert run.exists()


def test_what_it_was_told_is_in_a_checkpoint(command, made, monkeypatch):
    """A run that is killed while it tells of an evaluation tells of it again."""

    def killed(self, step, values):
        if step == 8:
            raise KeyboardInterrupt
        Made.log(self, step, values)

    with monkeypatch.context() as patch:
        patch.setattr(made, "log", killed, raising=False)
        assert command("train.py", *SMALL, "logger=made")[0] == 130
    assert made.told[0].ends == ["interrupted"]
    assert "resumed after step 8" in command("train.py", *SMALL, "logger=made")[1]
    assert list(made.told[1].steps) == [4, 8, 12]


def test_a_run_that_begins_anew_replaces_what_a_logger_has(command, made):
    assert command("train.py", *SMALL, "logger=made")[0] == 0
    assert command("train.py", *SMALL, "logger=made", "overwrite=true")[0] == 0
    assert (made.told[1].run.known_as, made.told[1].run.anew) == ("made-1", True)
    assert list(made.told[1].steps) == [4, 8, 12]


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{", "[]", '{"made": 1}', '{"made": "*"}', '{"made": "../x"}', '{"made": ""}'])
def test_a_name_that_is_none_is_not_gone_by(command, made, content):
    """It becomes part of a path: a star would stand for other people's runs."""
    assert command("train.py", *SMALL, "logger=made")[0] == 0
    (run,) = runs_below("outputs")
    (run / files.LOGGERS).write_text(content)
    assert command("train.py", *SMALL, "logger=made", "overwrite=true")[0] == 0
    assert made.told[1].run.known_as is None
    assert json.loads((run / files.LOGGERS).read_text())["made"] == "made-1"


def test_how_a_run_ended(command, made, monkeypatch):
    assert command("train.py", *QUICK, "optimizer=sgd", "lr=1e30", "scheduler=constant", "logger=made")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(fit, "measure", lambda *_: 1 / 0)
        assert command("train.py", *QUICK, "logger=made")[0] == 1
    assert [logger.ends for logger in made.told] == [["diverged"], ["failed"]]


def test_values_that_are_not_finite_are_told_as_they_are(command, made, monkeypatch):
    monkeypatch.setattr(fit, "measure", lambda *_: (float("nan"), 0.1))
    assert command("train.py", *SMALL, "logger=made")[0] == 0
    assert str(made.told[0].steps[4]["test/loss/fast"]) == "nan"


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("logger=wandb", ["wandb"]),
        ("logger=[tensorboard,mlflow]", ["tensorboard", "mlflow"]),
        ("logger=[mlflow,wandb,mlflow]", ["mlflow", "wandb"]),
        ("logger=null", []),
        ("logger=[]", []),
        ("seed=0", []),
    ],
)
def test_how_it_is_typed(typed, names):
    assert resolved(typed).logger == names


@pytest.mark.parametrize("typed", ["logger=wand", "logger=[tensorboard,wand]", "logger=3", "logger={wandb: 1}"])
def test_a_mistake_has_a_line(typed):
    assert said(typed).startswith("logger=")
    assert "must be one of tensorboard, wandb, mlflow" in said(typed)


@pytest.mark.slow
def test_without_one_none_is_imported(tmp_path):
    script = f"import sys; sys.argv=['train.py', *{SMALL!r}]; sys.path.insert(0, {str(ROOT)!r})\nimport train\n"
    script += f"train.main()\nassert not {{*{list(loggers.LOGGERS)!r}}} & {{*sys.modules}}"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = runs_below(tmp_path / "outputs")
    assert not (Path(run) / files.LOGGERS).exists()
