"""A small sweep in which the n-th file operation fails, and what is left of it.

The sweep runs in a fork of this process, which has imported everything already, so that a point takes a fraction of a
second. Operations on files below the sweep's folder are counted: opening, reading, writing, renaming, removing,
listing, asking for size or kind, forcing to the disk. The n-th fails: the process is killed there, the system says that
it cannot, memory runs out, somebody presses Ctrl-C. Of what is written at that moment, half is. Then the same command
runs again, undisturbed.
"""

from __future__ import annotations

import builtins
import contextlib
import csv
import errno
import io
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
KINDS = ("SIGKILL", "EIO", "ENOSPC", "EMFILE", "EACCES", "MemoryError", "KeyboardInterrupt")
SWEEP = ("-m", "dataset=noisy_quadratic", "dataset.coordinates=5", "dataset.samples=4", "model=point", "batch_size=2")
SWEEP += ("epochs=3", "seed=0,1", "threads=1", "device=cpu", "progress=false")
STEPS = 2 * 3 * 2
"""Training steps of all its runs."""
PATIENCE = 60.0
"""Seconds after which a process counts as hanging."""


class Faults:
    """Counts the operations on files below ``root``; the one of number ``at`` (from 1) fails as ``kind`` says.

    A full disk stays full: all that write from then on fail, too. Installed in a process, it stays.
    """

    def __init__(self, root: Path, at: int = 0, kind: str = "") -> None:
        self.root, self.at, self.kind = f"{root}/", at, kind
        self.count = 0
        self.full = False
        self.files: set[int] = set()
        """Descriptors of files below the root."""

    def mine(self, path: Any) -> bool:
        if isinstance(path, int):
            return path in self.files
        with contextlib.suppress(TypeError, ValueError):
            return f"{os.path.abspath(os.fsdecode(path))}/".startswith(self.root)
        return False

    def meet(self, what: str, path: Any, writes: bool = False, torn: Callable[[], object] = lambda: None) -> None:
        """Count an operation; if it is the one, write half of what it writes, and fail."""
        if not self.mine(path):
            return
        self.count += 1
        if self.count != self.at and not (self.full and writes):
            return
        torn()
        self.full = self.kind == "ENOSPC"
        if self.kind == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "MemoryError":
            raise MemoryError
        if self.kind == "KeyboardInterrupt":
            raise KeyboardInterrupt
        number = getattr(errno, self.kind)
        name = path if isinstance(path, str) else None
        raise OSError(number, os.strerror(number), name if what != "write" else None)

    def install(self) -> None:
        for name, writes in {"replace": True, "rename": True, "unlink": False, "remove": False, "mkdir": True,
                             "rmdir": False, "scandir": False, "listdir": False, "stat": False, "lstat": False,
                             "fsync": True}.items():  # fmt: skip
            self._wrap(name, writes)
        self._wrap_descriptors()
        real = io.open

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not self.mine(file) or isinstance(file, int):
                return real(file, mode, *args, **kwargs)
            self.meet("open", file, writes="r" not in mode or "+" in mode)
            return File(real(file, mode, *args, **kwargs), self)

        io.open = builtins.open = opened

    def _wrap(self, name: str, writes: bool) -> None:
        real = getattr(os, name)

        def called(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            self.meet(name, path, writes)
            return real(path, *args, **kwargs)

        setattr(os, name, called)

    def _wrap_descriptors(self) -> None:
        open_, write, close = os.open, os.write, os.close

        def opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            self.meet("open", path, bool(flags & (os.O_WRONLY | os.O_RDWR)))
            number = open_(path, flags, *args, **kwargs)
            if self.mine(path):
                self.files.add(number)
            return number

        def written(number: int, data: Any) -> int:
            self.meet("write", number, True, lambda: write(number, bytes(data)[: len(data) // 2]))
            return write(number, data)

        def closed(number: int) -> None:
            self.files.discard(number)
            close(number)

        os.open, os.write, os.close = opened, written, closed


class File:
    """A file whose reads and writes are counted."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults
        faults.files.add(file.fileno())

    def _tear(self, data: Any) -> None:
        self._file.write(data[: len(data) // 2])
        self._file.flush()

    def write(self, data: Any) -> Any:
        self._faults.meet("write", self._file.fileno(), True, lambda: self._tear(data))
        return self._file.write(data)

    def read(self, *args: Any) -> Any:
        self._faults.meet("read", self._file.fileno())
        return self._file.read(*args)

    def close(self) -> None:
        if not self._file.closed:
            self._faults.files.discard(self._file.fileno())
        self._file.close()

    def __enter__(self) -> File:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass
class Left:
    """How a process ended, and what it had done by then."""

    status: int
    """The exit status; the negative number of the signal that ended it; None of a process that hung."""
    printed: str
    operations: int = 0
    steps: int = 0
    """Training steps taken."""
    saved: dict[str, int] = field(default_factory=dict)
    """By run: the step of the last checkpoint that was written whole; of a run that is over, infinity."""
    hung: bool = False

    def ends_in_one_line(self) -> bool:
        """Nothing unexpected on the terminal: a success, an interruption, or one line that says what is wrong."""
        if "Traceback" in self.printed or self.hung:
            return False
        return self.status in (0, 130, 143, -signal.SIGKILL) or "\nerror: " in f"\n{self.printed}"


def whole_command() -> None:
    """The sweep as it is typed."""
    import train

    sys.argv = ["train.py", *SWEEP]
    train.main()


@cache
def _jobs() -> list[Any]:
    import hydra

    from nested_lookahead.runs import schema

    schema.register()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = [argument for argument in SWEEP if argument != "-m" and not argument.startswith("seed")]
        return [schema.resolve(hydra.compose("config", [*settings, f"seed={seed}"])) for seed in (0, 1)]


def jobs_alone() -> None:
    """The jobs of the sweep without Hydra, which takes most of the time and has few files; one fails, the next runs."""
    from nested_lookahead.errors import UserError
    from nested_lookahead.runs.identity import run_name
    from nested_lookahead.runs.job import Job
    from nested_lookahead.runs.progress import TerminalHandler

    failed = None
    for config in _jobs():
        path = Path("outputs") / run_name(config.plain())
        path.mkdir(parents=True, exist_ok=True)  # as Hydra does
        handler = logging.FileHandler(path / "train.log", delay=True)
        logging.basicConfig(level="INFO", handlers=[TerminalHandler(), handler], force=True)
        try:
            Job(config, path, {}).run()
        except UserError as error:
            failed = error
    if failed is not None:
        raise UserError("a run failed") from failed


def launch(folder: Path, main: Callable[[], object], at: int = 0, kind: str = "") -> Callable[[], Left]:
    """Begin a command in a fork of this process, in ``folder``; what is returned waits for its end."""
    from nested_lookahead.runs.build import import_what_trains

    import_what_trains()  # once, and not in each fork
    _jobs()
    notes, notes_in = os.pipe()
    with open(folder / "printed", "wb") as printed:
        began = time.monotonic()
        if not (pid := os.fork()):
            os.close(notes)
            with contextlib.suppress(BaseException):
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
                sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
                _run(main, folder, Faults(folder / "outputs", at, kind), notes_in)
            os._exit(70)
    os.close(notes_in)

    def end() -> Left:
        hung = False
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() - began > PATIENCE:
                os.kill(pid, signal.SIGKILL)
                hung = True
            time.sleep(0.002)
        with open(notes, "rb") as file:
            lines = file.read().decode().splitlines()
        left = Left(os.waitstatus_to_exitcode(ended[1]), (folder / "printed").read_text(errors="replace"), hung=hung)
        for word, *rest in map(str.split, lines):
            if word == "steps":
                left.steps += 1
            elif word == "operations":
                left.operations = int(rest[0])
            else:
                left.saved[rest[0]] = 10**9 if word == "finished" else int(rest[1])
        return left

    return end


def _run(main: Callable[[], object], folder: Path, faults: Faults, notes: int) -> None:
    """The child's whole life."""
    from nested_lookahead.command import run_command
    from nested_lookahead.runs.directory import Run
    from nested_lookahead.training.trainer import Trainer

    note = lambda text, write=os.write: write(notes, f"{text}\n".encode())  # noqa: E731
    save, finish, train_step = Run.save_checkpoint, Run.finish, Trainer.train_step

    def saved(run: Run, state: dict[str, Any]) -> None:
        save(run, state)
        note(f"saved {run.path.parent.name}/{run.path.name} {state['progress']['step']}")

    def finished(run: Run, summary: Any) -> None:
        finish(run, summary)
        note(f"finished {run.path.parent.name}/{run.path.name}")

    def stepped(trainer: Trainer, *args: Any) -> Any:
        note("steps")
        return train_step(trainer, *args)

    Run.save_checkpoint, Run.finish, Trainer.train_step = saved, finished, stepped  # type: ignore[method-assign]
    os.chdir(folder)
    status = 70
    faults.install()
    try:
        status = run_command(main)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    note(f"operations {faults.count}")
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def metrics(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Of each run below the folder, its rows less the seconds."""
    found = {}
    for file in sorted((folder / "outputs").rglob("metrics.csv")):
        if not any(part.startswith(".") for part in file.relative_to(folder).parts):
            with open(file, newline="") as opened:
                rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(opened)]
            found["/".join(file.parts[-3:-1])] = rows
    return found


Rows = dict[str, list[dict[str, str]]]


def undisturbed(folder: Path, main: Callable[[], object]) -> tuple[int, Rows]:
    """The number of file operations that the sweep takes, and its metrics."""
    left = launch(folder, main)()
    assert left.status == 0, left.printed
    assert left.steps == STEPS
    return left.operations, metrics(folder)


def faults_of(folder: Path, main: Callable[[], object], at: int, kind: str, expected: Rows) -> tuple[str, str]:
    """Fail at one operation, then go on; (class, what is wrong), where the class is ``clear`` if nothing is.

    Classes: ``hang``, ``traceback`` (more than a line is said), ``lost`` (progress, a row, a run), ``silent`` (it ends
    well, and what it leaves is not right).
    """
    first = launch(folder, main, at, kind)()
    if first.hung:
        return "hang", first.printed
    if not first.ends_in_one_line():
        return "traceback", first.printed
    if first.status == 0 and metrics(folder) != expected:
        return "silent", f"exit status 0 and other metrics\n{first.printed}"
    second = launch(folder, main)()
    if second.hung:
        return "hang", second.printed
    if second.status != 0:
        return "lost", f"exit status {second.status} after {first.printed}\n{second.printed}"
    if metrics(folder) != expected:
        return "lost", f"other metrics after {first.printed}\n{second.printed}"
    left = sum(max(0, STEPS // 2 - saved) for saved in first.saved.values())
    left += (2 - len(first.saved)) * (STEPS // 2)
    if second.steps > left:
        return "lost", f"{second.steps} steps again where {left} were left\n{first.printed}\n{second.printed}"
    leftovers = [path for path in (folder / "outputs").rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]
    if leftovers:
        return "lost", f"left behind: {leftovers}"
    return "clear", ""
