import copy
import csv
import fcntl
import functools
import gc
import logging
import os
import pty
import signal
import socket
import struct
import sys
import termios
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]  # conftest, made_data; train.py, analyze.py


def free_port():
    """Of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def runs_below(path):
    return sorted(p.parent for p in Path(path).rglob("metrics.csv"))


def metrics_less_seconds(run):
    with open(run / "metrics.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def typed(script, *arguments):
    """Type a command of the README in this process: its exit status."""
    from hydra._internal.hydra import Hydra

    import analyze
    import train
    from nested_lookahead.command import run_command

    parse_settings_once()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        if not may_set_the_mode(arguments):
            patch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        try:
            return run_command({"train.py": train.main, "analyze.py": analyze.main}[script])
        except SystemExit as end:
            return end.code


def may_set_the_mode(arguments):
    """Whether they may set ``hydra.mode``: to see that, Hydra composes all settings once more for every command."""
    return any(part in argument for argument in arguments for part in ("hydra.mode", "experiment", "-c", "--config"))


@functools.cache
def resolved_once(overrides):
    import hydra

    from nested_lookahead.runs import schema

    schema.register()
    parse_settings_once()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return schema.resolve(hydra.compose("config", overrides=list(overrides)))


def resolved(*overrides):
    """The configuration that these compose to."""
    return copy.deepcopy(resolved_once(overrides))


@functools.cache
def parse_settings_once():
    """Hydra parses each file of ``conf/`` anew for each command, for a sixth of what the shortest ones take."""
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # which loads the class below anew
    source = SourcesRegistry.instance().resolve("file")
    load, known = source.load_config, {}

    def load_config(self, config_path):
        if self.path != str(ROOT / "conf"):
            return load(self, config_path)
        if config_path not in known:
            known[config_path] = load(self, config_path)
        return copy.deepcopy(known[config_path])

    source.load_config = load_config


def seen_in_a_terminal(arguments, folder):
    """What train.py writes to a terminal, 80 columns wide, in place of this process's output."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = []

    def read():
        with suppress(OSError):  # the other end is closed
            while chunk := os.read(leader, 65536):
                seen.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with own_log(), pytest.MonkeyPatch.context() as patch, open(follower, "w") as terminal:
        patch.chdir(folder)
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        status = typed("train.py", *arguments)
    reader.join()
    os.close(leader)
    text = b"".join(seen).decode()
    assert status == 0, text
    return text


@contextmanager
def own_log():
    """Hydra's handlers write to this test's captured output, and go with it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


def pytest_collection_finish():
    """What has been imported is no garbage: the collector need not look at it, 0.05 s each time."""
    gc.collect()
    gc.freeze()


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
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        status = typed(script, *arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    with own_log():
        yield run
    if loky := sys.modules.get("joblib.externals.loky"):  # its workers outlive a sweep, and stay in this test's folder
        loky.get_reusable_executor().shutdown(wait=True)
