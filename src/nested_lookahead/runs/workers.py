"""Worker processes that make runs side by side, and what a process does before it makes one."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any


def in_worker() -> bool:
    """Whether this is one of several worker processes of one machine, which share a terminal."""
    return multiprocessing.parent_process() is not None


def worker_number() -> int | None:
    """Which of the worker processes of one machine this is, counted from 0; None outside of one."""
    if not in_worker():
        return None
    return int(multiprocessing.current_process().name.rpartition("-")[2]) - 1  # such as LokyProcess-3


def jobs_at_once(device: str) -> int:
    """How many runs to make side by side: two per GPU (one computes while the other prepares), else one per core."""
    gpus = 0
    if device in ("auto", "cuda"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        known = Path("/proc/driver/nvidia/gpus")  # asking torch would import it
        if visible is not None:
            gpus = len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
        elif known.is_dir():
            gpus = len(list(known.iterdir()))
    if gpus:
        return 2 * gpus
    from joblib import cpu_count

    return int(cpu_count())


STOPS = (signal.SIGINT, signal.SIGTERM)
"""What ends a sweep, and of a worker its job alone."""


def start_workers_deaf() -> None:
    """Have joblib start its workers with the `STOPS` blocked; each listens once it has a job, see `signals`.

    Python's own handlers would end a worker that has had no job yet, when a terminal or a cluster sends a signal to all
    processes, and joblib kills the others when one dies. A worker's initializer would come a second late; a mask is
    inherited and holds from the beginning, which is how Python itself starts multiprocessing's resource tracker. joblib
    starts workers where the first job is submitted, and replaces them in a thread that it starts there.
    """
    from joblib.parallel import LokyBackend, register_parallel_backend

    resource_tracker.ensure_running()  # joblib sees to it when it starts a worker, and Python 3.11 unblocks both there

    class Deaf(LokyBackend):  # type: ignore[misc]
        def configure(self, *args: Any, **settings: Any) -> Any:
            with _deaf():
                return super().configure(*args, **settings)

        def submit(self, *args: Any, **settings: Any) -> Any:
            with _deaf():
                return super().submit(*args, **settings)

    register_parallel_backend("loky", Deaf)


@contextmanager
def _deaf() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def importing() -> Iterator[None]:
    """For large libraries: nothing is garbage while they are imported, and what they have made never will be.

    The collector would look at all of their objects, a third of a million for torch, again and again: for a fifth of
    the import's time, and for 0.2 s at every full collection from then on.
    """
    was_on, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.collect()  # else garbage of the imports would stay, and with it the frames that they ran in
            gc.freeze()
            atexit.register(gc.unfreeze)  # or some libraries would report that they leak
        if was_on:
            gc.enable()
