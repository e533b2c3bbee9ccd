import csv
import fcntl
import logging
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]  # conftest, made_data; train.py, analyze.py


def runs_below(path):
    return sorted(p.parent for p in Path(path).rglob("metrics.csv"))


def metrics_less_seconds(run):
    with open(run / "metrics.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def seen_in_a_terminal(arguments, folder):
    """What train.py writes to a terminal of its own, 80 columns wide."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, ROOT / "train.py", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    seen = b""
    try:
        while chunk := os.read(leader, 65536):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0
    return seen.decode()


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _signals():
    """Each test has Python's own handlers: what is done with signals in a worker process outlives its jobs."""
    for signum, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        signal.signal(signum, handler)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Type a command of the README in this process, in an empty folder: ``command("train.py", "seed=1")``."""
    import analyze
    import train
    from nested_lookahead.command import run_command

    monkeypatch.chdir(tmp_path)
    mains = {"train.py": train.main, "analyze.py": analyze.main}

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        try:
            status = run_command(mains[script])
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield run
    root.handlers, root.level = handlers, level  # Hydra's write to this test's captured output
    if loky := sys.modules.get("joblib.externals.loky"):  # its workers outlive a sweep, and stay in this test's folder
        loky.get_reusable_executor().shutdown(wait=True)
