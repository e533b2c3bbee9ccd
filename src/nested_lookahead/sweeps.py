"""What happens around a job: skip, resume, stop; and around all jobs of a sweep: launch, relaunch, report."""

from __future__ import annotations

import logging
import math
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import Timeout
from hydra.core.utils import JobReturn, JobStatus, filter_overrides

from nested_lookahead import records
from nested_lookahead.config import computed
from nested_lookahead.errors import Busy, Interrupted, UserError, explain, flatten

log = logging.getLogger(__name__)

# --- one job --------------------------------------------------------------------------------------------------------


def finished_before(path: Path, config: dict[str, Any]) -> float | None:
    """The result of a run that is over; None if it is yet to be made or finished."""
    try:
        stored, summary = records.read_config(path), records.read_summary(path)
        intact = summary is None or records.is_intact(path, summary)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s: its configuration or summary cannot be read (%s) and is written anew", path, error)
        return None
    if computed(stored) != computed(config):
        raise UserError(f"{path}: holds a run of another configuration; move it away, or set overwrite=true")
    if summary is None:
        return None
    if not intact:
        log.warning("%s: its summary and metrics are not as they were written, and are made anew", path)
        return None
    log.info("%s: %s already, skipped (overwrite=true trains anew)", path, summary["status"])
    return result_of(summary, config)


def resume(
    run: records.Run, config: dict[str, Any], choices: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """The last checkpoint and the metrics until then; None if there is nothing to go on from."""
    state = run.load_checkpoint()
    if state is None:
        return None
    log.info("%s: resumed after step %d", run.path, state["progress"]["step"])
    return state, run.resume(state, config, choices)


def result_of(summary: dict[str, Any], config: dict[str, Any]) -> float:
    """Final validation accuracy; NaN of a diverged run."""
    if summary["status"] != records.COMPLETED:
        return math.nan
    return records.objective(summary, config["evaluation"]["weights"])


class Signals:
    """Lets signals end a run when its state is whole: at the end of a step, when it looks here whether one `came`.

    In a ``with`` block, SIGINT and SIGTERM (a cluster's warning) wait to be obeyed, and SIGUSR1 and SIGUSR2 where
    somebody listens to them. A second one, other than a repetition within a second, ends the process at once. Does
    nothing in a thread other than the main one, where Python allows no signal handlers.
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
        if self._received and time.monotonic() - self._received[0][1] > 1:
            signal.signal(signum, self._before[signum])
            os.kill(os.getpid(), signum)
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


# --- a sweep of jobs ------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """One run of a sweep."""

    overrides: list[str]
    path: Path | None = None
    """Its run directory; None where the settings cannot be resolved."""
    config: dict[str, Any] | None = None
    refused: Exception | None = None
    """Why they cannot; its launch will say so, too."""
    result: JobReturn | None = None

    def is_over(self, since: float) -> bool:
        """Whether its run has ended: since then or, unless it is overwritten, at all."""
        finished = finished_at(self.path) if self.path else None
        return finished is not None and (finished >= since or not (self.config or {}).get("overwrite"))

    def objective(self, since: float) -> float | None:
        """Its result, None if it is not over."""
        if self.path is None or self.config is None or not self.is_over(since):
            return None
        try:
            summary = records.read_summary(self.path)
            return None if summary is None else result_of(summary, self.config)
        except (ValueError, KeyError, TypeError):  # not one of ours: its launch will say so
            return None

    def look(self, since: float) -> None:
        """Take the result from the run directory if the run is over."""
        if self.path is None or self.config is None or not self.is_over(since):
            return
        try:
            value = finished_before(self.path, self.config)
        except UserError:  # likewise
            return
        if value is not None:
            self.result = JobReturn(overrides=self.overrides, status=JobStatus.COMPLETED, _return_value=value)

    def outcome(self, since: float) -> str:
        """completed, resumed, diverged: since then; skipped: before; failed; unfinished."""
        if self.error(since):
            return "failed"
        finished = finished_at(self.path) if self.path else None
        if self.path is None or finished is None:
            return "unfinished"
        if finished < since:
            return "skipped"
        status = records.read_status(self.path)
        return "resumed" if status["status"] == records.COMPLETED and status.get("resumed") else str(status["status"])

    def error(self, since: float) -> str | None:
        """Why it failed, in one line; None if it has not."""
        if self.result is not None:
            error = self.result._return_value
            failed = self.result.status is not JobStatus.COMPLETED
            return explain(error) or flatten(f"{type(error).__name__}: {error}") if failed else None
        if self.path is not None and (_modified(self.path / records.STATUS) or 0) >= since:  # it has ended the sweep
            status = records.read_status(self.path)
            return flatten(f"{status['error']}") if status["status"] == records.FAILED else None
        return None


def finished_at(path: Path) -> float | None:
    """When a run ended, seconds since the epoch; None if it has not."""
    return _modified(path / records.SUMMARY)


def _modified(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


Launch = Callable[[list[list[str]]], Sequence[JobReturn]]


def run_all(jobs: Sequence[Job], launch: Launch, since: float) -> None:
    """Launch what is not finished until every job has a result.

    Runs that another process has in hand are left to it while there is anything else to do; then they are waited for,
    and launched once they are free: finished, or given up. When an engine breaks off because a worker process died,
    it launches again: runs resume.

    Raises:
        UserError: an engine broke off three times in a row without a run coming to its end.
    """
    broken, done = 0, -1
    while True:
        for job in jobs:
            if job.result is None:
                job.look(since)
        todo = [job for job in jobs if job.result is None]
        if not todo:
            return
        try:
            results = launch([job.overrides for job in todo])
        except Exception as error:
            if not _is_broken_engine(error):
                raise
            finished = sum(job.path is not None and finished_at(job.path) is not None for job in jobs)
            broken, done = (broken + 1 if finished == done else 1), finished
            if broken == 3:
                raise UserError(
                    "worker processes died three times in a row without finishing a run (is there enough memory?): "
                    f"{flatten(str(error))}; the same command goes on"
                ) from None
            log.warning("a worker process died; its runs go on from their last checkpoints")
            continue
        busy = []
        for job, result in zip(todo, results, strict=True):
            if isinstance(result._return_value, Busy):
                busy.append(job)
            else:
                job.result = result
        if busy:
            _wait_for_one([job.path for job in busy if job.path is not None])


def _is_broken_engine(error: Exception) -> bool:
    """Whether worker processes failed, rather than what they were given."""
    return isinstance(error, BrokenExecutor) or type(error).__module__.partition(".")[0] in ("submitit", "ray")


def _wait_for_one(paths: Sequence[Path]) -> None:
    """Until a run that other processes have in hand is free."""
    locks = [records.lock_of(path) for path in paths]
    log.info("%d of the runs in progress elsewhere: waiting (%s: %s)", len(paths), paths[0], records.holder(locks[0]))
    while True:
        for lock in locks:
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):
                continue
            lock.release()
            return
        time.sleep(1)


@contextmanager
def stopping_workers(jobs: Sequence[Job]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to this process's workers, and leave when their runs are saved.

    Raises:
        Interrupted: a signal came.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        for number, handler in before.items():
            signal.signal(number, handler)  # a second signal ends this process at once
        ours: dict[Path, int] = {}
        for path in [job.path for job in jobs if job.path is not None]:
            status = records.read_status(path)
            if (status.get("host"), status.get("parent")) == (socket.gethostname(), os.getpid()):
                ours[path] = status["pid"]
        running = {path: pid for path, pid in ours.items() if (path / records.LOCK).exists()}
        for pid in running.values():
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while any((path / records.LOCK).exists() for path in running) and time.monotonic() < deadline:
            time.sleep(0.05)
        raise Interrupted(signum)

    before: dict[int, Any] = {}
    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, stop)
    except ValueError:
        before.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report(jobs: Sequence[Job], since: float) -> str:
    """A sweep's end: how many runs ended how and, for each failed one, why and how to repeat it.

    ``since`` is when the sweep began, seconds since the epoch.
    """
    outcomes = [job.outcome(since) for job in jobs]
    names = ("completed", "resumed", "skipped", "diverged", "failed", "unfinished")
    counts = {name: outcomes.count(name) for name in names}
    lines = [f"{len(jobs)} runs: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)]
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome == "failed":
            lines.append(f"failed: {job.error(since)}")
            overrides = [part for part in filter_overrides(job.overrides) if not part.startswith("hydra.")]
            lines.append(f"  again: python {Path(sys.argv[0]).name} {shlex.join([*overrides, 'hydra.mode=RUN'])}")
    return "\n".join(lines)


def raise_if_failed(jobs: Sequence[Job]) -> None:
    """Raises:
    UserError: at least one job of the sweep failed.
    """
    failed = sum(job.result is not None and job.result.status is not JobStatus.COMPLETED for job in jobs)
    if failed:
        raise UserError(f"{failed} of {len(jobs)} runs failed; the others are recorded, and the same command goes on")
