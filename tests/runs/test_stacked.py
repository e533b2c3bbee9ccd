"""hydra/launcher=stacked: runs that differ in numbers alone, as one, and each recorded as if it had been alone."""

import errno
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from conftest import metrics_less_seconds, runs_below
from states import assert_same_state
from test_schema import resolved
from test_sweeps import times_begun

from nested_lookahead.runs import checkpoints, files, stacked
from nested_lookahead.runs.directory import Run
from nested_lookahead.runs.job import Job
from nested_lookahead.runs.stacking import chunks, grouped, in_common
from nested_lookahead.training.stack import Stack
from nested_lookahead.training.trainer import Trainer

STACKED = ("-m", "hydra/launcher=stacked")
TINY = ("dataset=mnist1d", "dataset.train_samples=150", "dataset.test_samples=50", "model=mlp", "model.hidden=[8]")
TINY += ("epochs=3", "lr=0.05", "threads=1", "device=cpu", "progress=false", "evaluation.every=2")
SWEEP = (*TINY, "optimizer.k=2,3", "optimizer.s=2", "seed=0,1")


def by_name(folder):
    return {run.relative_to(folder): run for run in runs_below(folder)}


def assert_same_runs(ours, theirs, resumed=False):
    """Directories, rows, checkpoints and summaries, but for times and rounding."""
    ours, theirs = by_name(ours), by_name(theirs)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, run in ours.items():
        _assert_same_metrics(metrics_less_seconds(run), metrics_less_seconds(theirs[name]))
        one, other = files.read_summary(run), files.read_summary(theirs[name])
        for key in ("status", "run", "metric", "steps", "planned_steps", "epochs", "parameters", "versions"):
            assert one[key] == other[key]
        assert files.is_intact(run, one)
        assert files.read_status(run)["resumed"] is resumed
        own, alone = (checkpoints.read(folder / files.CHECKPOINT) for folder in (run, theirs[name]))
        _assert_same_metrics(own.pop("metrics"), alone.pop("metrics"))
        assert torch.equal(own["random"]["cpu"], alone["random"]["cpu"])
        assert_same_state(own, alone)


def _assert_same_metrics(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            if key in ("loss", "accuracy", "lr"):
                assert float(one[key]) == pytest.approx(float(value), rel=1e-4, abs=0.02 if key == "accuracy" else 0)
            elif key != "seconds":
                assert one[key] == value


@pytest.fixture
def plain(command):
    """The sweep one run after another."""
    assert command("train.py", "-m", *SWEEP, "output_dir=plain")[0] == 0
    return "plain"


@pytest.mark.slow
def test_each_run_is_recorded_as_if_it_had_been_alone(command, plain):
    status, out, err = command("train.py", *STACKED, *SWEEP)
    assert (status, err) == (0, "")
    assert "4 runs as one: mlp on mnist1d (cpu, 1 thread(s), fp32)" in out
    assert "not stacked" not in out
    assert "skipped" not in out
    assert out.endswith("4 runs: 4 completed\n")
    assert_same_runs("outputs", plain)
    for run in runs_below("outputs"):
        assert files.read_summary(run)["hardware"]["stacked"] == 4
        text = (run / "train.log").read_text()
        assert times_begun(run) == 1
        assert text.count(" epoch ") == 2
        assert "test accuracy" in text
        assert "runs as one" not in text
        assert not (run / "lock").exists()
    status, out, _ = command("train.py", *STACKED, *SWEEP)  # again
    assert status == 0
    assert out.count("completed already, skipped") == 4
    assert "runs as one" not in out
    assert command("train.py", *STACKED, *SWEEP, "overwrite=true")[1].endswith("4 runs: 4 completed\n")
    assert [times_begun(run) for run in runs_below("outputs")] == [2] * 4


def interrupt_at(monkeypatch, step, of):
    """A SIGTERM while a trainer of this class is at that step; once."""
    usual = of.train_step

    def train_step(trainer, *batch):
        if trainer.step == step:
            monkeypatch.setattr(of, "train_step", usual)
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(trainer, *batch)

    monkeypatch.setattr(of, "train_step", train_step)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 5, 7])
def test_all_runs_of_an_interrupted_stack_go_on_as_one_or_by_themselves(command, plain, monkeypatch, step):
    for place, again in (("one", STACKED), ("alone", ("-m",))):
        interrupt_at(monkeypatch, step, Stack)
        status, out, _ = command("train.py", *STACKED, *SWEEP, f"output_dir={place}")
        assert status == 143
        assert f"interrupted at step {step + 1}" in out
        assert out.endswith("4 runs: 4 unfinished\n") or "4 runs: 4 interrupted" in out
        for run in runs_below(place):
            assert files.read_status(run)["status"] == "interrupted"
            assert checkpoints.read(run / files.CHECKPOINT)["progress"]["step"] == step + 1
            assert not (run / "lock").exists()
        status, out, _ = command("train.py", *again, *SWEEP, f"output_dir={place}")
        assert status == 0
        assert out.endswith("4 runs: 4 resumed\n")
        assert ("4 runs as one" in out) == (place == "one")
        assert_same_runs(place, plain, resumed=True)


@pytest.mark.slow
def test_runs_that_were_begun_by_themselves_go_on_in_a_stack_of_their_own(command, plain, monkeypatch):
    for number in (0, 1):
        interrupt_at(monkeypatch, 4, Trainer)
        settings = (*TINY, "optimizer.k=2", "optimizer.s=2", f"seed={number}")
        assert command("train.py", *settings)[0] == 143
    status, out, _ = command("train.py", *STACKED, *SWEEP)
    assert status == 0
    assert out.count("2 runs as one") == 2
    assert out.endswith("4 runs: 2 completed, 2 resumed\n")
    resumed = [run for run in runs_below("outputs") if files.read_status(run)["resumed"]]
    assert {run.parent.name.split("-")[2] for run in resumed} == {"k2"}
    for name, run in by_name("outputs").items():
        _assert_same_metrics(metrics_less_seconds(run), metrics_less_seconds(by_name(plain)[name]))


@pytest.mark.slow
def test_a_run_that_diverges_is_recorded_as_such_and_the_others_go_on(command):
    sweep = (*TINY, "lr=0.05,1e9,0.02", "optimizer.k=2")
    assert command("train.py", "-m", *sweep, "output_dir=plain")[0] == 0
    status, out, _ = command("train.py", *STACKED, *sweep)
    assert status == 0
    assert "3 runs as one" in out
    assert out.endswith("3 runs: 2 completed, 1 diverged\n")
    for name, run in by_name("outputs").items():
        one, other = files.read_summary(run), files.read_summary(by_name("plain")[name])
        assert [one[key] for key in ("status", "steps", "epochs")] == [
            other[key] for key in ("status", "steps", "epochs")
        ]
        assert one.get("diverged") == other.get("diverged")
        if one["status"] == "completed":
            _assert_same_metrics(metrics_less_seconds(run), metrics_less_seconds(by_name("plain")[name]))
        else:
            assert metrics_less_seconds(run) == metrics_less_seconds(by_name("plain")[name])
            assert "diverged: training loss is not finite" in (run / "train.log").read_text()


def test_a_stack_in_which_all_diverge(command):
    status, out, _ = command("train.py", *STACKED, *TINY, "lr=1e9,1e10")
    assert status == 0
    assert out.endswith("2 runs: 2 diverged\n")


@pytest.mark.slow
def test_an_evaluation_that_is_not_finite_ends_its_run(command, monkeypatch):
    usual = Stack.evaluate

    def evaluate(stack, evaluation):
        found = usual(stack, evaluation)
        if stack.epoch == 2:
            found[1][1]["loss"] = math.inf
        return found

    monkeypatch.setattr(Stack, "evaluate", evaluate)
    status, out, _ = command("train.py", *STACKED, *TINY, "seed=0,1,2")
    assert status == 0
    assert out.endswith("3 runs: 2 completed, 1 diverged\n")
    (run,) = (run for run in runs_below("outputs") if run.name == "seed=1")
    summary = files.read_summary(run)
    assert summary["diverged"] == {"step": 6, "cause": "validation loss is not finite"}
    assert {row["epoch"] for row in metrics_less_seconds(run)} == {"2"}


@pytest.mark.slow
def test_what_cannot_be_stacked_is_made_one_by_one_and_each_reason_said_once(command):
    grids = "[{optimizer:nested_lookahead,optimizer/inner:'sgd,rmsprop'},{optimizer:muon},{optimizer:rmsprop}]"
    status, out, _ = command("train.py", *STACKED, *TINY, "seed=0,1", f"hydra.sweeper.grids={grids}")
    assert status == 0
    assert out.count("not stacked: 4 runs (optimizer: RMSprop is none of SGD, Adam, AdamW)") == 1
    assert out.count("not stacked: 2 runs (optimizer: OptimizerList is none of") == 1
    assert out.count("2 runs as one") == 1
    assert out.endswith("8 runs: 8 completed\n")


@pytest.mark.slow
def test_a_run_unlike_the_others_is_made_by_itself(command):
    status, out, _ = command("train.py", *STACKED, *TINY, "batch_size=32,64")
    assert status == 0
    assert "not stacked: 2 runs (no other is like it but for numbers)" in out
    assert out.endswith("2 runs: 2 completed\n")


@pytest.mark.slow
def test_what_cannot_be_built_fails_as_ever(command):
    settings = [setting for setting in TINY if not setting.startswith("model")]
    status, out, err = command("train.py", *STACKED, *settings, "seed=0,1", "model=cnn")
    assert (status, err[:25]) == (1, "error: 2 of 2 runs failed")
    assert out.count("not stacked: 2 runs (model=cnn: cnn takes 2-D samples") == 1
    assert out.count("failed: model=cnn") == 2


@pytest.mark.slow
def test_stacks_are_no_larger_than_asked_for(command):
    status, out, _ = command("train.py", *STACKED, *TINY, "seed=range(5)", "hydra.launcher.max_size=2")
    assert status == 0
    assert (out.count("2 runs as one"), out.count("1 runs as one")) == (2, 1)
    assert out.endswith("5 runs: 5 completed\n")
    status, _, err = command("train.py", *STACKED, *TINY, "seed=0,1", "hydra.launcher.max_size=1")
    assert status == 1
    assert err.endswith("hydra.launcher.max_size=1: must be an integer >= 2\n")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_stack_that_breaks_leaves_its_runs_to_be_made_one_by_one(command, plain, monkeypatch):
    usual = Stack.train_step

    def broken(stack, *batch):
        if stack.step == 7:
            raise RuntimeError("vmap: there is no rule for this")
        return usual(stack, *batch)

    monkeypatch.setattr(Stack, "train_step", broken)
    status, out, _ = command("train.py", *STACKED, *SWEEP)
    assert status == 0
    assert "not stacked: 4 runs go on one by one (vmap: there is no rule for this)" in out
    assert out.endswith("4 runs: 4 resumed\n")  # from the evaluation before
    assert_same_runs("outputs", plain, resumed=True)
    for run in runs_below("outputs"):
        assert "Traceback" in (run / "train.log").read_text()
    assert "Traceback" not in out


@pytest.mark.slow
def test_runs_that_were_trained_to_the_end_and_lack_a_summary_get_one(command, plain, monkeypatch):
    assert command("train.py", *STACKED, *SWEEP)[0] == 0
    for run in runs_below("outputs"):
        (run / files.SUMMARY).unlink()
    monkeypatch.delattr(Stack, "train_step")
    monkeypatch.delattr(Trainer, "train_step")
    status, out, _ = command("train.py", *STACKED, *SWEEP)
    assert status == 0
    assert "4 runs as one" in out
    assert_same_runs("outputs", plain, resumed=True)


def test_the_locks_of_a_stack_are_watched_at_the_same_time(command, monkeypatch):
    """Whether a process on another machine is dead shows after a minute and a half, for each of its runs."""
    all_there, usual = threading.Barrier(3, timeout=60), Job.enter

    def enter(own, stack):
        if not own.directory.path.exists():
            all_there.wait()
        return usual(own, stack)

    monkeypatch.setattr(Job, "enter", enter)
    status, out, _ = command("train.py", *STACKED, *TINY, "seed=range(3)")
    assert status == 0
    assert "3 runs as one" in out


@pytest.mark.slow
def test_a_run_whose_files_fail_leaves_its_stack_and_is_tried_by_itself(command, plain, monkeypatch):
    usual, failed = Run.save_checkpoint, []

    def save(run, state):
        if "k3" in str(run.path) and run.path.name == "seed=1" and not failed:
            failed.append(run.path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        usual(run, state)

    monkeypatch.setattr(Run, "save_checkpoint", save)
    status, out, _ = command("train.py", *STACKED, *SWEEP)
    assert status == 0
    assert f"{failed[0]}: leaves its stack (" in out
    assert out.endswith("4 runs: 4 completed\n")
    assert_same_runs("outputs", plain)
    stacks = [files.read_summary(run)["hardware"].get("stacked") for run in runs_below("outputs")]
    assert stacks == [4, 4, 4, None]


def test_a_full_disk_ends_the_sweep_in_one_line(command, monkeypatch):
    def save(run, state):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Run, "save_checkpoint", save)
    status, _, err = command("train.py", *STACKED, *SWEEP)
    assert status == 1
    assert err == "error: no space left on the disk; make room, and the same command goes on\n"


HOLD = "import sys, time; from nested_lookahead.runs.directory import Run; from pathlib import Path\n"
HOLD += "with Run(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"


@pytest.mark.slow
def test_a_run_that_another_process_has_in_hand_is_left_to_it(command, plain):
    """And made when that process is gone."""
    run = Path("outputs") / next(iter(by_name(plain)))
    process = subprocess.Popen([sys.executable, "-c", HOLD, run], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"

    def end():
        process.kill()
        process.wait()  # else it counts as alive until its lock is old

    timer = threading.Timer(10, end)
    timer.start()
    status, out, _ = command("train.py", *STACKED, *SWEEP)
    timer.join()
    assert status == 0
    assert "3 runs as one" in out
    assert out.endswith("4 runs: 4 completed\n")
    assert_same_runs("outputs", plain)


@pytest.mark.slow
def test_the_stages_of_a_fair_sweep_are_stacked(command, tmp_path):
    preset = tmp_path / "conf/experiment/mine.yaml"
    preset.parent.mkdir(parents=True)
    arms = {"sgd": {"optimizer": "sgd"}, "lookahead": {"optimizer": "lookahead", "optimizer.k": "int(interval(2, 5))"}}
    sweeper = {"params": {"lr": "tag(log, interval(0.01, 0.1))"}, "arms": arms, "trials": 2, "finalists": 2}
    sweeper |= {"tuning_seeds": "10,11", "finalist_seeds": "12", "final_seeds": "0,1"}
    content = {
        "defaults": [{"override /hydra/sweeper": "fair"}, "_self_"],
        "hydra": {"mode": "MULTIRUN", "sweeper": sweeper},
    }
    preset.write_text("# @package _global_\n" + yaml.safe_dump(content))
    settings = [setting for setting in TINY if not setting.startswith("lr=")]
    status, out, err = command("train.py", "--config-dir", "conf", "experiment=mine", STACKED[1], *settings)
    assert (status, err) == (0, "")
    assert [out.count(f"{count} runs as one") for count in (4, 2)] == [2, 4]  # of each arm: tuning; finalists, final
    assert {files.read_summary(run)["hardware"]["stacked"] for run in runs_below("outputs")} == {2, 4}


# --- which runs can be one stack --------------------------------------------------------------------------------------

BASE = ("optimizer=nested_momentum", "dataset=mnist1d", "model=mlp")
MORE = ("optimizer=multilayer_lookahead", "optimizer/inner=adam", "dataset=mnist1d", "model=mlp")


@pytest.mark.parametrize(
    ("base", "change"),
    [
        *[(BASE, change) for change in ("seed=7", "lr=0.3", "weight_decay=0.1", "optimizer.k=7", "optimizer.s=2")],
        *[(BASE, change) for change in ("optimizer.alpha=0.7", "optimizer.h=1.3", "optimizer.outer_momentum=0.7")],
        (BASE, "optimizer.inner.momentum=0.3"),
        (MORE, "optimizer.inner.betas=[0.5,0.9]"),
        (MORE, "optimizer.inner.eps=1e-3"),
        (MORE, "optimizer.layers=[[2,0.3],[7,0.5],[1,0.9]]"),
    ],
)
def test_runs_that_differ_in_numbers_go_together(base, change):
    one, other = resolved(*base), resolved(*base, change)
    assert one.plain() != other.plain()
    assert in_common(one) == in_common(other)


@pytest.mark.parametrize(
    ("base", "change"),
    [
        *[(BASE, change) for change in ("epochs=3", "batch_size=32", "model.hidden=[9]", "dataset.train_samples=300")],
        *[(BASE, change) for change in ("scheduler=constant", "evaluation.every=2", "label_smoothing=0.1", "ema=0.9")],
        *[(BASE, change) for change in ("pullback=reset", "optimizer.nesterov=false", "optimizer/inner=adam")],
        *[(BASE, change) for change in ("optimizer.s=0", "optimizer.outer_momentum=0", "optimizer.inner.momentum=0")],
        *[(BASE, change) for change in ("grad_clip=1", "dataset.split.seed=3", "threads=2", "decay=matrices")],
        (MORE, "optimizer.layers=[[5,0.5],[5,0.5]]"),
        (MORE, "optimizer.layers=[[5,0.5],[5,0.5],[2,0.5,reset]]"),
        (MORE, "optimizer/inner=adamw"),
    ],
)
def test_others_do_not(base, change):
    assert in_common(resolved(*base)) != in_common(resolved(*base, change))


def test_groups_and_chunks_keep_the_order():
    assert grouped([("a", 1), ("b", 2), ("a", 3)]) == [[1, 3], [2]]
    assert chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert chunks([], 2) == []


def test_a_log_of_its_own_has_what_its_thread_says(tmp_path):
    from types import SimpleNamespace

    member = SimpleNamespace(path=tmp_path, _format=logging.Formatter("%(message)s"))
    log = logging.getLogger("train")
    log.setLevel(logging.INFO)
    with stacked.Member.own_log(member):
        log.info("mine")
        thread = threading.Thread(target=lambda: log.info("another's"))
        thread.start()
        thread.join()
    log.info("after")
    assert (tmp_path / "train.log").read_text() == "mine\n"
