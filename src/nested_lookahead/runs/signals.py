"""Signals: a run saves before it obeys one, and a sweep passes it on to its workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from nested_lookahead.errors import Interrupted
from nested_lookahead.runs import files
from nested_lookahead.runs.directory import lock_of
from nested_lookahead.runs.workers import STOPS, in_worker


class Signals:
    """Lets signals end a run when its state is whole: at the end of a step, when it looks here whether one `came`.

    In a ``with`` block, SIGINT and SIGTERM (a cluster's warning) wait to be obeyed, and SIGUSR1 and SIGUSR2 where
    somebody listens to them. A second one, other than a repetition within a second, ends the process at once; not a
    worker, which may have one from the terminal or the cluster and, whenever the sweep gets to it, one from the sweep.
    Does nothing in a thread other than the main one, where Python allows no signal handlers.
    """

    def __init__(self) -> None:
        self._received: list[tuple[int, float]] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        names = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
        for signum in [getattr(signal, name) for name in names if hasattr(signal, name)]:
            handler = signal.getsignal(signum)
            if handler is not signal.SIG_IGN and (signum in (signal.SIGINT, signal.SIGTERM) or callable(handler)):
                try:
                    self._before[signum] = signal.signal(signum, self._receive)
                except ValueError:
                    break
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._received and time.monotonic() - self._received[0][1] > 1 and not in_worker():
            signal.signal(signum, self._before[signum])
            signal.raise_signal(signum)
        self._received.append((signum, time.monotonic()))

    @property
    def came(self) -> bool:
        return bool(self._received)

    def obey(self) -> None:
        """Call the handler that the signal had before (submitit's, to queue the job again), and go on if it returns.

        Raises:
            Interrupted: it had none.
        """
        signum = self._received[0][0] if self._received else int(signal.SIGTERM)  # one of several processes had it
        self._received.clear()
        handler = self._before.get(signum)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(signum, None)
        else:
            raise Interrupted(signum)


@contextmanager
def ending_the_job_alone() -> Iterator[None]:
    """In a worker, around a job: SIGTERM ends the job, not the process, for joblib kills all workers when one dies.

    SIGINT is left to the sweep, which passes it on: a terminal sends it to every process, idle ones included. What came
    before the job is nothing to it: a worker is started with both blocked, and ignores them from its first job on.
    """
    if not in_worker() or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    for signum in STOPS:
        signal.signal(signum, signal.SIG_IGN)  # which drops what has come
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_undisturbed() -> None:
    """Ignore SIGTERM from here on, in a process that is about to end by itself, and has to say why."""
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def stopping_workers(paths: Sequence[Path]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to this process's workers, and leave when their runs are saved.

    Raises:
        Interrupted: a signal came.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        for number, handler in before.items():
            signal.signal(number, handler)  # a second signal ends this process at once
        _stop_workers(paths)
        raise Interrupted(signum)

    before: dict[int, Any] = {}
    try:
        for signum in STOPS:
            before[signum] = signal.signal(signum, stop)
    except ValueError:
        before.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_workers(paths: Sequence[Path]) -> None:
    """Tell each worker once for each of its runs, a new one that it is given meanwhile included; wait for 60 s."""
    told: set[Path] = set()
    deadline = time.monotonic() + 60
    while (running := _in_hand(paths)) and time.monotonic() < deadline:
        for path in running.keys() - told:
            with suppress(ProcessLookupError):
                os.kill(running[path], signal.SIGTERM)
        told |= running.keys()
        time.sleep(0.05)


def _in_hand(paths: Sequence[Path]) -> dict[Path, int]:
    """The runs that living workers of this process are at, with their process ids: a dead one leaves its lock."""
    alive = {worker.pid for worker in multiprocessing.active_children()}  # which lets go of zombies
    owners = {path: lock_of(path).owner for path in paths if (path / files.LOCK).exists()}
    ours = {path: owner.pid for path, owner in owners.items() if owner and owner.hostname == socket.gethostname()}
    return {path: pid for path, pid in ours.items() if pid in alive}
