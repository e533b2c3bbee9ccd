"""Hydra 1.3 and 1.4: what each is told; and a sweep with the one that is not installed here."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, runs_below

from nested_lookahead.runs import versions

OTHER = (
    ["hydra-core>=1.3.8,<1.4", "omegaconf>=2.3,<2.4"]
    if versions.NEWER
    else ["hydra-core>=1.4.0rc3,<1.5", "omegaconf>=2.4.1rc1,<2.5"]
)
QUICK = ("model=mlp", "epochs=1", "evaluation.train_samples=100", "threads=1")


def test_an_older_hydra_is_told_its_version_and_nothing_else(monkeypatch):
    monkeypatch.setattr(versions, "NEWER", False)
    assert versions.main_settings(["trust=[mine]"]) == {"version_base": "1.3"}
    assert versions.newer(replace=True) == {}


def test_a_newer_one_may_call_what_is_trusted_and_no_more(monkeypatch):
    monkeypatch.setattr(versions, "NEWER", True)
    (allowed,) = versions.main_settings(["-m", "lr=0.1"]).values()
    assert "nested_lookahead.*" in allowed
    assert not {"*", "os.*", "hydra.*", "mine.*"} & set(allowed)
    (with_mine,) = versions.main_settings(["lr=0.1", "trust=[mine,my.other]"]).values()
    assert with_mine == [*allowed, "mine.*", "my.other.*"]


CALLBACK = """
from hydra.experimental.callback import Callback

class Says(Callback):
    def on_job_end(self, **kwargs):
        print("said by a callback", flush=True)
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Type train.py with the other Hydra."""
    place = tmp_path_factory.mktemp("other")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, *OTHER]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("the other Hydra cannot be had here")
    path = os.pathsep.join(map(str, (place, ROOT / "src")))

    def run(folder, *arguments):
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, ROOT / "train.py", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.slow
def test_a_sweep_with_the_other_hydra_says_nothing_that_it_does_not_say_with_this_one(other, tmp_path):
    """No warning of what it will refuse some day; in worker processes, too."""
    status, out, err = other(tmp_path, "-m", "hydra/launcher=joblib", "seed=0,1", *QUICK)
    assert (status, err) == (0, "")
    assert "2 runs: 2 completed" in out
    assert "Warning" not in out
    assert len(runs_below(tmp_path)) == 2
    status, out, err = other(tmp_path, "experiment=noisy_quadratic", "hydra/launcher=list")  # the preset sets the mode
    assert (status, err) == (0, "")
    assert out.endswith("60 runs, 60 directories; nothing was trained\n")
    status, out, err = other(tmp_path, "optimizer.kk=3")
    assert (status, err.partition(";")[0]) == (1, "error: optimizer.kk: no such key")


@pytest.mark.slow
def test_code_of_ones_own_with_the_other_hydra(other, tmp_path):
    """A model that is called by `build`, and a callback that is called by Hydra."""
    (tmp_path / "mine/conf/hydra/callbacks").mkdir(parents=True)
    (tmp_path / "mine/mine.py").write_text(f"from nested_lookahead.tasks.models import mlp\n{CALLBACK}")
    (tmp_path / "mine/conf/hydra/callbacks/says.yaml").write_text("says: {_target_: mine.Says}\n")
    (tmp_path / "mine/conf/model").mkdir()
    (tmp_path / "mine/conf/model/mine.yaml").write_text("name: mine\n_target_: mine.mlp\nhidden: [8]\n")
    own = ("--config-dir", "mine/conf", "model=mine", "hydra/callbacks=says", *QUICK[1:])
    status, out, err = other(tmp_path, *own, "trust=[mine]")
    assert (status, err) == (0, "")
    assert "said by a callback" in out
    status, _, err = other(tmp_path, *own, "seed=1")
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
