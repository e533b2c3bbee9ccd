"""A search by Optuna, which is an extra: its runs are made, found, gone on with and reported as those of any sweep."""

import json
import re
import socket
import subprocess
import sys

import pytest
from conftest import ROOT, runs_below
from test_sweeps import wait_for

from nested_lookahead.runs import files
from nested_lookahead.runs.progress import SweepProgress

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
import optuna  # the extra has it

QUICK = ("model=mlp", "epochs=1", "evaluation.train_samples=100", "threads=1", "optimizer=sgd")
SEARCH = ("-m", "hydra/sweeper=optuna", *QUICK, "lr=tag(log, interval(0.01, 1))", "hydra.sweeper.sampler.seed=1")


def trials(state=None):
    study = optuna.load_study(study_name="digits", storage="sqlite:///outputs/digits/optuna.db")
    return [trial for trial in study.trials if state is None or trial.state.name == state]


def test_the_number_of_trials_is_that_of_all(command, monkeypatch):
    monkeypatch.setattr(SweepProgress, "interval", 0.01)  # both trials take less than the usual second
    status, out, err = command("train.py", *SEARCH, "hydra.sweeper.n_trials=2")
    assert (status, err) == (0, "")
    assert re.search(r"^search +2/2 runs, best \d\d\.\d\d% \(lr=0\.\d+\)$", out, re.MULTILINE) or "1/2 runs" in out
    assert out.endswith("2 runs: 2 completed\n")
    best = max(files.read_summary(run)["final"]["fast"]["validation"]["accuracy"] for run in runs_below("outputs"))
    assert f"Best value: {best}" in out
    status, out, err = command("train.py", *SEARCH, "hydra.sweeper.n_trials=2")
    assert (status, err) == (0, "")
    assert out.endswith("2 runs: 2 skipped\n")
    assert command("train.py", *SEARCH, "hydra.sweeper.n_trials=3")[1].endswith("3 runs: 1 completed, 2 skipped\n")
    assert len(runs_below("outputs")) == len(trials("COMPLETE")) == 3  # not the same point, whatever the seed
    assert command("train.py", *SEARCH, "hydra.sweeper.n_trials=1", "overwrite=true")[1].endswith(
        "1 runs: 1 completed\n"
    )
    assert len(trials()) == 1


def test_a_failed_trial_is_said_and_tried_again_and_a_diverged_one_is_over(command):
    choices = ("-m", "hydra/sweeper=optuna", *QUICK, "hydra.sweeper.n_trials=1", "scheduler=constant")
    for _ in range(2):
        status, out, err = command("train.py", *choices, "lr=choice(-1)", "study=failing")
        assert status == 1
        assert "1 runs: 1 failed\nfailed: optimizer=sgd: Invalid learning rate: -1.0\n  again: python train.py" in out
        assert err.count("\n") == 1
    status, out, _ = command("train.py", *choices, "lr=choice(1e30)", "study=diverging")
    assert "1 runs: 1 diverged" in out
    assert "1 runs: 1 skipped" in command("train.py", *choices, "lr=choice(1e30)", "study=diverging")[1]


def test_a_search_needs_something_to_choose_by_and_a_study_of_its_own(command):
    status, out, err = command("train.py", *SEARCH, "dataset.split.val_fraction=0")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "a search chooses by the validation metric, and nothing is held out" in err
    assert command("train.py", *SEARCH, "hydra.sweeper.n_trials=0")[2].startswith(
        "error: hydra.sweeper.n_trials=0: must"
    )
    hold = "import sys, time; from pathlib import Path; from nested_lookahead.runs.directory import lock_of\n"
    hold += "path = Path('outputs/digits'); path.mkdir(parents=True, exist_ok=True)\n"
    hold += "lock = lock_of(path); lock.acquire(); print('in', flush=True); time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        line = f"error: outputs/digits: process {other.pid} on {socket.gethostname()} searches here already\n"
        assert command("train.py", *SEARCH)[::2] == (1, line)
    finally:
        other.kill()
        other.wait()


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_trial_it_had_in_hand(command, tmp_path):
    longer = [*SEARCH, "epochs=60", "hydra.sweeper.n_trials=2"]
    process = subprocess.Popen([sys.executable, ROOT / "train.py", *longer], cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for(lambda: list(tmp_path.rglob("checkpoint.previous.pt")), seconds=300)
    process.kill()
    process.wait()
    (begun,) = runs_below("outputs")
    status, out, _ = command("train.py", *longer)
    assert status == 0
    assert "resumed after step" in out
    assert out.endswith("2 runs: 1 completed, 1 resumed\n")
    assert begun in runs_below("outputs")
    assert [trial.state.name for trial in trials()] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert json.loads((begun / "status.json").read_text())["status"] == "completed"
