"""Many runs: shared, side by side, stopped, killed, and typed again."""

import gc
import importlib.util
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import ROOT, free_port, metrics_less_seconds, runs_below, seen_in_a_terminal

from nested_lookahead.command import hydra_arguments
from nested_lookahead.errors import Busy, Interrupted, UserError
from nested_lookahead.runs import directory, files, job, signals, workers
from nested_lookahead.runs.directory import Run
from nested_lookahead.runs.progress import SweepProgress
from nested_lookahead.training import trainer as training
from nested_lookahead.training.fit import COLUMNS

CONFIG = {"optimizer": {"name": "sgd"}, "seed": 0}
SHORT = ("model=cnn", "model.width=4", "epochs=4", "dataset.split.train_size=200", "pullback=pullback", "threads=1")
MIDDLE = (*SHORT[:2], "epochs=16", *SHORT[4:])  # to be disturbed early
LONG = ("model=cnn", "model.width=4", "epochs=40", "pullback=pullback", "threads=1")


def start(folder, *arguments, **options):
    """A command in a process of its own, output in ``<folder>/printed``."""
    with open(folder / "printed", "ab") as printed:
        return subprocess.Popen(
            [sys.executable, ROOT / "train.py", *arguments], cwd=folder, stdout=printed, stderr=printed, **options
        )


def printed(folder):
    return (folder / "printed").read_text()


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows_below(folder):
    return sum(len((run / "metrics.csv").read_bytes().splitlines()) for run in runs_below(folder))


def metrics_below(folder):
    """Metrics less seconds of each run, by its directory below the study's."""
    return {run.relative_to(folder): metrics_less_seconds(run) for run in runs_below(folder)}


def times_begun(run):
    """How often a run was begun or resumed, as its log has it."""
    return (run / "train.log").read_text().count(" train: nested_lookahead")


# --- one directory, two processes -----------------------------------------------------------------------------------

HOLDER = "import sys, time; from nested_lookahead.runs.directory import Run; from pathlib import Path\n"
HOLDER += "with Run(Path(sys.argv[1])) as run:\n    run.start({'optimizer': {'name': 'sgd'}, 'seed': 0}, {}, [])\n"
HOLDER += "    print('in', flush=True); time.sleep(60)"


@pytest.fixture
def other(tmp_path):
    """Another process, at work on ``tmp_path/run``."""
    path = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    yield path, process
    process.kill()
    process.wait()


def test_a_run_in_progress_is_left_alone_and_the_holder_named(other):
    path, process = other
    with pytest.raises(Busy, match=f"process {process.pid} on {socket.gethostname()} is at work on it; left alone"):
        Run(path).__enter__()
    assert files.read_status(path)["pid"] == process.pid


def test_the_lock_of_a_dead_process_is_taken_over(other, caplog):
    path, process = other
    process.kill()
    process.wait()
    assert (path / "lock").exists()
    with caplog.at_level("INFO"), Run(path) as run:
        run.start(CONFIG, {}, COLUMNS)
        assert files.read_status(path)["pid"] == os.getpid()
    assert f"taken over from process {process.pid} on {socket.gethostname()}, which is gone" in caplog.text
    assert not (path / "lock").exists()


@pytest.mark.slow
def test_a_process_on_another_machine_is_dead_when_it_gives_no_sign_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "LEASE", 0.5)
    with Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        text = (tmp_path / "lock").read_text()
    elsewhere = re.sub(r"host=.*", "host=elsewhere", text)
    assert elsewhere != text
    (tmp_path / "lock").write_text(elsewhere)
    with pytest.raises(Busy, match="on elsewhere is at work"):  # it was there just now
        Run(tmp_path).__enter__()
    time.sleep(0.6)
    with Run(tmp_path):
        assert f"host={socket.gethostname()}" in (tmp_path / "lock").read_text()


def test_a_process_that_was_taken_for_dead_writes_nothing_more(tmp_path):
    with pytest.raises(UserError, match="has taken it over; nothing more is written"), Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        lock = tmp_path / "lock"
        lock.write_text(re.sub(r"pid=.*", f"pid={os.getppid()}", lock.read_text()))
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        run.append([dict.fromkeys(COLUMNS, 0)])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_second_process_leaves_a_run_alone_and_says_which(tmp_path, command):
    process = start(tmp_path, *LONG)
    wait_for(lambda: rows_below("outputs") > 10)
    status, _, err = command("train.py", *LONG)
    assert status == 1
    assert err.count("\n") == 1
    assert f"process {process.pid} on {socket.gethostname()} is at work on it; left alone" in err
    assert process.wait() == 0
    assert command("train.py", *LONG, "output_dir=undisturbed")[0] == 0
    assert metrics_below("outputs") == metrics_below("undisturbed")


@pytest.mark.slow
def test_two_launches_of_a_sweep_share_the_work(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    sweep = ("-m", *LONG[:2], "epochs=8", "threads=1", "seed=range(4)")
    both = [start(tmp_path, *sweep) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    runs = runs_below("outputs")
    assert len(runs) == 4
    assert [times_begun(run) for run in runs] == [1] * 4
    makers = {files.read_status(run)["pid"] for run in runs}
    assert makers == {process.pid for process in both}
    assert command("train.py", *sweep, "output_dir=undisturbed")[0] == 0
    assert metrics_below("outputs") == metrics_below("undisturbed")


@pytest.mark.slow
def test_a_sweep_takes_over_a_run_that_was_given_up_elsewhere(tmp_path, monkeypatch):
    """It waits for it, having done the others, and goes on when its process is killed."""
    monkeypatch.chdir(tmp_path)
    endless = [argument for argument in LONG if "epochs" not in argument] + ["epochs=4000"]
    first = start(tmp_path, *endless, "seed=0")
    wait_for(lambda: runs_below("outputs") and rows_below("outputs") > 10)
    (run,) = runs_below("outputs")
    second = start(tmp_path, "-m", *endless, "seed=0,1")
    wait_for(lambda: len(runs_below("outputs")) == 2)  # it has passed by the first
    first.kill()
    first.wait()
    second.send_signal(signal.SIGTERM)
    assert second.wait() == 143
    text = printed(tmp_path)
    assert "2 runs: 2 unfinished" in text
    assert files.read_status(run)["status"] == "running"  # as the kill left it
    third = start(tmp_path, "-m", *endless, "seed=0,1")
    wait_for(lambda: files.read_status(run)["pid"] == third.pid)
    wait_for(lambda: "taken over from process" in printed(tmp_path))
    third.send_signal(signal.SIGINT)
    assert third.wait() == 130
    assert files.read_status(run)["status"] == "interrupted"


@pytest.mark.slow
def test_a_sweep_waits_for_what_is_in_progress_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    single = start(tmp_path, *LONG, "seed=0")
    wait_for(lambda: runs_below("outputs") and rows_below("outputs") > 10)
    assert start(tmp_path, "-m", *LONG, "seed=0").wait() == 0
    assert single.wait() == 0
    text = printed(tmp_path)
    assert "1 of the runs in progress elsewhere: waiting" in text
    assert f"process {single.pid} on" in text
    assert text.endswith("1 runs: 1 completed\n")


# --- the end of a sweep ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fail_fast(command):
    sweep = ("-m", *SHORT, "lr=0.1,-1,0.2")
    status, out, err = command("train.py", *sweep, "fail_fast=true")
    assert (status, err) == (1, "error: optimizer/inner=sgd: Invalid learning rate: -1.0\n")
    assert "3 runs: 1 completed, 2 unfinished" in out
    status, out, _ = command("train.py", *sweep)
    assert status == 1
    assert "3 runs: 1 completed, 1 skipped, 1 failed" in out


def test_fail_fast_names_the_run_that_broke(command, monkeypatch):
    def broken(trainer, *_):
        raise MemoryError("too much")

    monkeypatch.setattr(training.Trainer, "train_step", broken)
    status, out, err = command("train.py", "-m", *SHORT, "seed=0,1", "fail_fast=true")
    assert status == 1
    assert "2 runs: 1 failed, 1 unfinished\nfailed: MemoryError: too much\n  again: python train.py" in out
    assert err.startswith("error: MemoryError: too much (traceback in ")


@pytest.mark.parametrize("sweep", ["seed=range(0)", "seed=range(5,1)"])
def test_a_sweep_over_nothing_is_one_line(command, sweep):
    assert command("train.py", "-m", sweep) == (1, "", f"error: {sweep}: sweeps over nothing\n")


@pytest.mark.slow
def test_a_value_that_cannot_be_fails_its_own_run_alone(command):
    """Also where the name of its directory is what fails."""
    status, out, err = command("train.py", *SHORT, "seed=-1,0,1", "-m")
    assert (status, err) == (1, "error: 1 of 3 runs failed; the others are recorded, and the same command goes on\n")
    assert "3 runs: 2 completed, 1 failed\nfailed: seed=-1: must be an integer >= 0\n" in out
    assert [run.name for run in runs_below("outputs")] == ["seed=0", "seed=1"]


def test_runs_do_not_share_a_directory(command):
    status, _, err = command("train.py", "-m", *SHORT, "seed=0,1", "hydra.sweep.subdir=same")
    assert status == 1
    assert err == (
        "error: outputs/digits/same: would be the directory of several runs of this sweep; leave hydra.sweep.subdir as "
        "it is\n"
    )
    assert not runs_below(".")


@pytest.mark.parametrize(
    ("plugin", "settings", "said"),
    [
        ("hydra_joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "n_jobs == 0 in Parallel"),
        ("hydra_submitit_launcher", ["hydra/launcher=slurm"], 'Could not detect "srun"'),
    ],
)
def test_what_a_launcher_refuses_is_one_line(command, monkeypatch, plugin, settings, said):
    pytest.importorskip(f"hydra_plugins.{plugin}")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)  # there is Slurm on some machines
    status, _, err = command("train.py", "-m", *SHORT, "seed=0,1", *settings)
    assert status == 1
    assert err.startswith(f"error: hydra/launcher: {said}")
    assert err.count("\n") == 1


def test_a_place_that_is_no_folder_is_one_line(command):
    Path("file").write_text("")
    for sweep in ([], ["-m"]):
        status, _, err = command("train.py", *sweep, *SHORT, "output_dir=file")
        assert status == 1
        assert err.startswith("error: file/digits")
        assert err.endswith(": Not a directory\n")


def test_flags_may_stand_anywhere():
    assert hydra_arguments(["train.py", "a=1", "-m", "b=2"]) == ["train.py", "a=1", "b=2", "-m"]
    assert hydra_arguments(["train.py", "--dry-run", "a=1"]) == ["train.py", "a=1", "hydra/launcher=list", "-m"]
    assert hydra_arguments(["train.py", "--multirun", "-m"]) == ["train.py", "-m"]
    assert hydra_arguments(["train.py", "a=1"]) == ["train.py", "a=1"]


@pytest.mark.slow
def test_overwriting_trains_every_run_once_more(command):
    sweep = ("-m", *SHORT, "seed=0,1")
    assert command("train.py", *sweep)[0] == 0
    status, out, _ = command("train.py", *sweep, "overwrite=true")
    assert status == 0
    assert "2 runs: 2 completed" in out
    assert [times_begun(run) for run in runs_below("outputs")] == [2, 2]


def test_progress_of_a_sweep():
    values = [(0.5, "50.00%"), None, (math.nan, "nan%"), None]
    runs = [(f"seed={i}", lambda i=i: values[i]) for i in range(4)]
    progress = SweepProgress(runs, enabled=False)
    assert str(progress) == "2/4 runs, best 50.00% (seed=0)"  # how fast it goes is yet to be seen
    progress._started -= 10
    values[1] = (0.75, "75.00%")
    progress._look()
    assert str(progress) == "3/4 runs, 00:10 left, best 75.00% (seed=1)"
    values[3] = (0.6, "60.00%")
    progress._look()
    assert str(progress) == "4/4 runs, best 75.00% (seed=1)"


@pytest.fixture
def watched(monkeypatch):
    """A sweep that looks so often that it sees a run of a second."""
    monkeypatch.setattr(SweepProgress, "interval", 0.05)
    return ("-m", *LONG, "optimizer.k=3,5", "epochs=12", "evaluation.every=4")


@pytest.mark.slow
def test_lines_where_there_is_no_terminal(command, watched):
    status, out, _ = command("train.py", *watched)
    assert status == 0
    assert re.search(r"^sweep +1/2 runs, \d\d:\d\d left, best \d\d\.\d\d% \(optimizer\.k=3\)$", out, re.MULTILINE)
    for run in runs_below("outputs"):
        assert "sweep" not in (run / "train.log").read_text()


@pytest.mark.slow
def test_two_bars_in_a_terminal(tmp_path, watched):
    text = seen_in_a_terminal(watched, tmp_path)
    assert re.search(r"sweep: +50%.* 1/2 .*best \d\d\.\d\d% \(optimizer\.k=3\)", text)
    assert "epoch 12/12" in text


# --- signals --------------------------------------------------------------------------------------------------------


def test_a_signal_that_somebody_else_handles_is_passed_on_when_all_is_saved():
    """As submitit does: SIGUSR2 to queue the job again, SIGTERM to be ignored."""
    seen = []
    before = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        with signals.Signals() as received:
            for number in before:
                assert not received.came
                os.kill(os.getpid(), number)
                assert received.came
                assert not seen
                received.obey()
                assert seen.pop() == number
        os.kill(os.getpid(), signal.SIGUSR2)
        assert seen == [signal.SIGUSR2]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_was_to_be_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.Signals() as received:
            os.kill(os.getpid(), signal.SIGINT)
            assert not received.came
    finally:
        signal.signal(signal.SIGINT, before)


def test_interruptions_come_back_from_other_processes():
    import pickle

    error = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert (error.signum, error.code) == (15, 143)


@pytest.mark.slow
def test_what_is_imported_is_not_looked_at_again(tmp_path, monkeypatch):
    (tmp_path / "just_now.py").write_text("classes = [type('C', (), {}) for _ in range(100)]")
    monkeypatch.syspath_prepend(tmp_path)
    collected = []

    def on_collection(phase, info):
        collected.append(phase)

    gc.unfreeze()
    gc.callbacks.append(on_collection)
    try:
        with workers.importing():
            import math  # noqa: F401
        assert gc.get_freeze_count() == 0  # nothing new: the garbage there is stays garbage
        collected.clear()
        with workers.importing():
            import just_now

            made = [[] for _ in range(10_000)]  # enough for a dozen collections
            assert not collected
        assert gc.get_freeze_count() >= 10_000
        assert not any(known is just_now.classes[0] for known in gc.get_objects())
        del made
    finally:
        gc.unfreeze()
        gc.callbacks.remove(on_collection)
    assert gc.isenabled()


@pytest.mark.slow
def test_a_run_leaves_its_memory_to_the_next(command, monkeypatch):
    build, held, alive = job.build, {}, []

    def watched(*args):
        alive.append([name for name, reference in held.items() if reference() is not None])
        trainer = build(*args)
        things = {"trainer": trainer, "model": trainer.model, "optimizer": trainer.optimizer}
        held.update({name: weakref.ref(thing) for name, thing in things.items()})
        gc.disable()  # which would find them some time
        return trainer

    monkeypatch.setattr(job, "build", watched)
    try:
        assert command("train.py", "-m", *SHORT, "epochs=1", "seed=range(3)")[0] == 0
    finally:
        gc.enable()
    assert alive == [[], [], []]


# --- side by side ---------------------------------------------------------------------------------------------------

JOBLIB = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.mark.slow
def test_runs_side_by_side_are_those_of_the_plain_launcher(tmp_path, command):
    # Of the default number of threads, which side by side is the cores' share.
    plain = [argument for argument in SHORT if argument != "threads=1"]
    status, out, err = command("train.py", *JOBLIB, *plain, "seed=0,1,-1", "lr=0.1,-1")
    assert status == 1
    assert "6 runs: 2 completed, 4 failed" in out
    assert "\nfailed: seed=-1: must be an integer >= 0\n" in out
    assert err == "error: 4 of 6 runs failed; the others are recorded, and the same command goes on\n"
    assert "epoch 1/4" not in out  # several at once would be a jumble
    assert "epoch 1/4" in (runs_below("outputs")[0] / "train.log").read_text()
    threads = {files.read_summary(run)["hardware"]["threads"] for run in runs_below("outputs")}
    assert threads == {max(1, workers.jobs_at_once("cpu") // 2)}
    assert command("train.py", "-m", *SHORT, "seed=0,1", "output_dir=plain")[0] == 0
    assert metrics_below("outputs") == metrics_below("plain")


def worker_of(run):
    wait_for(lambda: "pid" in files.read_status(run))  # which is written after the first line of the metrics
    return files.read_status(run)["pid"]


@pytest.mark.slow
def test_a_killed_worker_does_not_lose_the_sweep(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    process = start(tmp_path, *JOBLIB, *MIDDLE, "seed=range(3)")
    wait_for(lambda: [(run / "checkpoint.pt").exists() for run in runs_below("outputs")[:2]] == [True, True])
    os.kill(worker_of(runs_below("outputs")[0]), signal.SIGKILL)
    assert process.wait() == 0
    text = printed(tmp_path)
    assert "a worker process died; its runs go on from their last checkpoints" in text
    assert re.search(r"3 runs: .*resumed", text)
    assert command("train.py", "-m", *MIDDLE, "seed=range(3)", "output_dir=plain")[0] == 0
    assert metrics_below("outputs") == metrics_below("plain")


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_sweep(tmp_path, monkeypatch):
    """As of too little memory: no endless loop."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(
        "import multiprocessing, os, sys\n\n"
        "class Deadly:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'nested_lookahead.training' and multiprocessing.parent_process(): os.kill(os.getpid(), 9)\n"
        "sys.meta_path.insert(0, Deadly())\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}"}
    process = start(tmp_path, *JOBLIB, *SHORT, "seed=range(3)", env=environment)
    assert process.wait() == 1
    text = printed(tmp_path)
    assert text.count("a worker process died") == 2
    assert "3 runs: 3 unfinished" in text
    assert "error: worker processes died three times in a row without finishing a run (is there enough memory?)" in text


@pytest.mark.slow
def test_a_signal_lets_workers_save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = start(tmp_path, *JOBLIB, *LONG, "seed=range(3)")
    wait_for(lambda: [rows_below(run) > 10 for run in runs_below("outputs")] == [True, True])
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert [files.read_status(run)["status"] for run in runs_below("outputs")] == ["interrupted"] * 2
    steps = [torch.load(run / "checkpoint.pt", weights_only=True)["progress"]["step"] for run in runs_below("outputs")]
    assert any(step % 20 for step in steps)  # saved within an epoch of 20 steps, not just at its end
    text = printed(tmp_path)
    assert "3 runs: 3 unfinished" in text
    assert "Traceback" not in text


def workers_of(process, library=""):
    """How many worker processes of joblib's are in the group of a process, and have loaded a library."""
    found = 0
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            of_joblib = b"LokyProcess" in command.read_bytes() and os.getpgid(int(command.parent.name)) == process.pid
            found += of_joblib and library in command.with_name("maps").read_text()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "epochs", "ended", "left"),
    [
        (signal.SIGINT, "1,400", ["completed", "interrupted"], "2 runs: 1 completed, 1 unfinished"),
        (signal.SIGTERM, "400", ["interrupted"], "1 runs: 1 unfinished"),
    ],
)
def test_a_signal_reaches_an_idle_worker_too_and_the_other_saves(tmp_path, monkeypatch, signum, epochs, ended, left):
    """As from a terminal, or a cluster: to every process of a group. The idle one has had its run, or none yet."""
    monkeypatch.chdir(tmp_path)
    process = start(tmp_path, *JOBLIB, *LONG, f"epochs={epochs}", start_new_session=True)
    over = len(ended) - 1
    wait_for(lambda: len(list(Path("outputs").rglob("summary.json"))) == over and rows_below("outputs") > 60)
    assert workers_of(process) == 2
    os.killpg(process.pid, signum)
    assert process.wait(timeout=120) == 128 + signum
    assert sorted(files.read_status(run)["status"] for run in runs_below("outputs")) == ended
    text = printed(tmp_path)
    assert left in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_ctrl_c_while_the_workers_start_ends_in_silence(tmp_path):
    process = start(tmp_path, *JOBLIB, *LONG, "seed=0,1", start_new_session=True)
    wait_for(lambda: workers_of(process, "_struct") == 2)  # Python is up in them, joblib is not yet
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == 130
    text = printed(tmp_path)
    assert "2 runs: 2 unfinished" in text
    assert "Traceback" not in text


def at_work(target, *paths):
    """A worker of this process, when it has the first of the runs in hand."""
    worker = multiprocessing.get_context("fork").Process(target=target, args=paths)
    worker.start()
    wait_for(lambda: directory.lock_of(paths[0]).owner is not None)
    return worker


def test_a_dead_worker_is_not_waited_for(tmp_path, monkeypatch):
    """A zombie, even: this process has not asked yet how it ended."""

    def die(path):
        with Run(path):
            os.kill(os.getpid(), signal.SIGKILL)

    worker = at_work(die, tmp_path)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert (tmp_path / "lock").exists()
    monkeypatch.setattr(signals.time, "sleep", lambda _: pytest.fail("waits"))
    with pytest.raises(Interrupted), signals.stopping_workers([tmp_path]):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_a_worker_begins_while_the_sweep_stops_is_ended_too(tmp_path):
    def two(first, second):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        with Run(first):
            signal.sigwait([signal.SIGTERM])
            other = Run(second).__enter__()
        signal.sigwait([signal.SIGTERM])
        other.__exit__(None, None, None)

    paths = [tmp_path / "first", tmp_path / "second"]
    worker = at_work(two, *paths)
    with pytest.raises(Interrupted), signals.stopping_workers(paths):
        os.kill(os.getpid(), signal.SIGTERM)
    worker.join(30)
    worker.kill()
    assert worker.exitcode == 0


@pytest.mark.parametrize(("a_worker", "obeyed"), [(False, [signal.SIGTERM]), (True, [])])
def test_a_second_signal_ends_a_process_at_once_but_no_worker(monkeypatch, a_worker, obeyed):
    seen = []
    signal.signal(signal.SIGTERM, lambda signum, _: seen.append(signum))
    monkeypatch.setattr(signals, "in_worker", lambda: a_worker)
    with signals.Signals() as received:  # raised in this thread: another may take what is sent to the process, later
        signal.raise_signal(signal.SIGINT)
        later = time.monotonic() + 2
        monkeypatch.setattr(signals.time, "monotonic", lambda: later)
        signal.raise_signal(signal.SIGTERM)
        assert received.came
    assert seen == obeyed


def test_a_signal_ends_the_job_of_a_worker_and_no_idle_worker(monkeypatch):
    monkeypatch.setattr(signals, "in_worker", lambda: True)
    signal.pthread_sigmask(signal.SIG_BLOCK, workers.STOPS)  # as it is started
    for signum in workers.STOPS:
        signal.raise_signal(signum)
    with pytest.raises(Interrupted), signals.ending_the_job_alone():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("goes on")
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(signum)


def test_devices_are_taken_in_turn(monkeypatch):
    import multiprocessing

    from nested_lookahead.training import hardware

    assert workers.worker_number() is None
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-4")
    assert workers.worker_number() == 3
    chosen = []
    monkeypatch.setattr(hardware, "_find_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for turn in (0, 1, 2, 3):
        where = hardware.Hardware.choose("auto", "fp32", None, None, turn=turn)
        assert where.device == torch.device("cuda", turn % 2)
    assert chosen == [torch.device("cuda", i % 2) for i in range(4)]


def test_how_many_at_once(monkeypatch):
    import joblib

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert workers.jobs_at_once("auto") == 4
    assert workers.jobs_at_once("cpu") == joblib.cpu_count()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert workers.jobs_at_once("auto") == joblib.cpu_count()


@pytest.mark.parametrize(("group", "choice", "module"), [("launcher", "ray", "ray"), ("sweeper", "optuna", "optuna")])
def test_an_engine_that_is_not_installed(command, group, choice, module):
    if importlib.util.find_spec(f"hydra_plugins.hydra_{module}_{group}"):
        pytest.skip(f"{module} is installed")
    status, _, err = command("train.py", "-m", f"hydra/{group}={choice}")
    assert (status, err) == (1, f"error: hydra/{group}={choice}: not installed here; pip install -e '.[{choice}]'\n")


def test_slurm_is_set_up_to_queue_again(command):
    status, out, _ = command("train.py", "hydra/launcher=slurm", "--cfg", "hydra", "--package", "hydra.launcher")
    assert status == 0
    assert "SlurmLauncher" in out
    assert "max_num_timeout: 100" in out


@pytest.mark.slow
def test_submitit_queues_a_run_again_that_has_reached_its_time_out(tmp_path, monkeypatch, command):
    """The signal that a cluster sends before it, to the process that trains."""
    monkeypatch.chdir(tmp_path)
    process = start(tmp_path, "-m", "hydra/launcher=submitit_local", *MIDDLE)
    wait_for(lambda: runs_below("outputs") and rows_below("outputs") > 20)
    (run,) = runs_below("outputs")
    os.kill(worker_of(run), signal.SIGUSR2)
    assert process.wait() == 0
    assert "1 runs: 1 resumed" in printed(tmp_path)
    assert "interrupted at step" in (run / "train.log").read_text()
    assert command("train.py", *MIDDLE, "output_dir=plain")[0] == 0
    assert metrics_below("outputs") == metrics_below("plain")


# --- several processes, one run -------------------------------------------------------------------------------------

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
MLP = ("model=mlp", "epochs=4", "dataset.split.train_size=201", "batch_size=41", "pullback=pullback", "threads=1")


def torchrun(folder, *arguments):
    with open(folder / "printed", "ab") as printed:
        arguments = [*TORCHRUN, ROOT / "train.py", *arguments]
        return subprocess.Popen(arguments, cwd=folder, stdout=printed, stderr=printed)


def assert_close(folder, reference):
    ours, theirs = (files.read_metrics(runs_below(path)[0]) for path in (folder, reference))
    keys = ["step", "epoch", "split", "weights", "lr"]
    assert ours[keys].equals(theirs[keys])
    torch.testing.assert_close(*[torch.tensor(table["loss"].to_numpy()) for table in (ours, theirs)], rtol=1e-4, atol=0)


@pytest.mark.slow
def test_two_nodes_train_as_one_process(tmp_path, command):
    """As docs/sweeps.md has it, both on this machine: 201 samples in batches of 41, of which the parts differ in size,
    in the last batch as in the others."""
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=two"]
    node = [*TORCHRUN[:3], "--nnodes=2", "--nproc-per-node=1", *rendezvous, ROOT / "train.py", *MLP]
    nodes = [subprocess.Popen(node, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    text = "".join(process.communicate()[0].decode() for process in nodes)
    assert [process.returncode for process in nodes] == [0, 0], text
    assert "2 processes share each batch of 41" in text
    assert text.count("epoch 4/4") == 1  # of the first process of all
    assert command("train.py", *MLP, "output_dir=one")[0] == 0
    assert_close("outputs", "one")
    (run,) = runs_below("outputs")
    summary = files.read_summary(run)
    assert summary["hardware"]["processes"] == 2
    assert not (run / "lock").exists()
    assert torchrun(tmp_path, *MLP).wait() == 0
    assert "completed already, skipped" in printed(tmp_path)


@pytest.mark.slow
def test_two_processes_resume_where_they_were_stopped(tmp_path, command):
    longer = [argument for argument in MLP if "epochs" not in argument] + ["epochs=60", "evaluation.every=5"]
    process = torchrun(tmp_path, *longer)
    wait_for(lambda: runs_below("outputs") and rows_below("outputs") > 20)
    process.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    (run,) = runs_below("outputs")
    assert files.read_status(run)["status"] == "interrupted"
    step = torch.load(run / "checkpoint.pt", weights_only=True)["progress"]["step"]
    assert torchrun(tmp_path, *longer).wait() == 0
    assert f"resumed after step {step}" in printed(tmp_path)
    assert torchrun(tmp_path, *longer, "output_dir=undisturbed").wait() == 0
    assert metrics_below("outputs") == metrics_below("undisturbed")


@pytest.mark.slow
def test_workers_go_on_with_another_number_of_processes(tmp_path, command):
    """Stopped on two, resumed on one: as on one from the beginning, to rounding."""
    typed = (
        "workers=local",
        "workers.group_size=2",
        "workers.skew=0.5",
        "model=mlp",
        "threads=1",
        "optimizer.k=3",
        "lr=0.003",
    )
    longer = [*typed, "epochs=40", "evaluation.every=2", "augment=standard"]
    process = torchrun(tmp_path, *longer)
    wait_for(lambda: runs_below("outputs") and rows_below("outputs") > 20)
    process.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    assert "4 workers train apart, on 2 process(es)" in printed(tmp_path)
    assert command("train.py", *longer)[0] == 0
    assert command("train.py", *longer, "output_dir=one")[0] == 0
    assert_close("outputs", "one")


ENDS_THE_SECOND_PROCESS = """
import os, signal, torch
class Bad(torch.optim.SGD):
    steps = 0
    def step(self, closure=None):
        self.steps += 1
        if self.steps == 12 and os.environ["RANK"] == "1" and not os.path.exists("ended"):
            open("ended", "w").close()
            {how}
        return super().step(closure)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("raise ValueError('of the second alone')", "  ValueError: of the second alone\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "traceback : Signal 9 (SIGKILL)"),
    ],
    ids=["error", "killed"],
)
def test_what_ends_one_of_several_processes_is_told_and_the_run_goes_on(tmp_path, monkeypatch, how, why):
    (tmp_path / "mine.py").write_text(ENDS_THE_SECOND_PROCESS.format(how=how))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    typed = (*MLP, "optimizer.inner={_target_: mine.Bad}", "trust=[mine]")
    assert torchrun(tmp_path, *typed).wait() != 0
    text = printed(tmp_path)
    assert "error: one of the 2 processes has ended, or did not answer for 10 minutes; the same command goes on" in text
    assert why in text
    assert torchrun(tmp_path, *typed).wait() == 0
    assert "resumed after step 10" in printed(tmp_path)


@pytest.mark.slow
def test_a_mistake_is_told_once_by_several_processes(tmp_path):
    assert torchrun(tmp_path, *MLP, "lr=-1").wait() != 0
    assert printed(tmp_path).count("error: optimizer/inner=sgd: Invalid learning rate: -1.0\n") == 1
    assert not (tmp_path / "outputs/digits").exists() or not list((tmp_path / "outputs/digits").iterdir())


# --- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A command that mounts a file system of so many KiB on ``small``, for the shell commands that follow."""
    mount = f"mkdir -p small && mount -t tmpfs -o size=%dk tmpfs {tmp_path}/small"
    if subprocess.run(["unshare", "-Urm", "sh", "-c", mount % 64], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    return mount


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_a_run_that_goes_on(tmp_path, command, small_disk):
    """A real one, full at a later checkpoint; `test_faults` has all places."""
    train = f"{sys.executable} {ROOT / 'train.py'} -m model=cnn epochs=4 threads=1 output_dir=small"
    steps = [
        small_disk % 600,
        f"({train}; echo status $?) > first 2> first.err",
        "mount -o remount,size=20m small",
        f"({train}; echo status $?) > second 2> second.err",
        "cp -r small kept",
    ]
    shell = ["unshare", "-Urm", "sh", "-c", " && ".join(steps)]
    subprocess.run(shell, cwd=tmp_path, check=True, timeout=120)
    read = {name: (tmp_path / name).read_text() for name in ("first", "first.err", "second", "second.err")}
    assert read["first"].endswith("status 1\n")
    assert read["first.err"] == "error: no space left on the disk; make room, and the same command goes on\n"
    assert "Traceback" not in read["first"]
    assert read["second"].endswith("status 0\n")
    assert read["second.err"] == ""
    assert "1 resumed" in read["second"]
    plain = ("model=cnn", "epochs=4", "threads=1")
    assert command("train.py", *plain, "output_dir=plain")[0] == 0
    assert metrics_below(tmp_path / "kept") == metrics_below(Path("plain").absolute())


def test_status_of_a_run_is_json_with_its_maker(tmp_path):
    with Run(tmp_path) as run:
        run.start(CONFIG, {}, COLUMNS)
        status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["pid"], status["parent"]) == ("running", os.getpid(), os.getppid())
