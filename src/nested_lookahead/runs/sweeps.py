"""Around all runs of a sweep: launch, relaunch, wait, report."""

from __future__ import annotations

import logging
import shlex
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from pathlib import Path

from filelock import Timeout
from hydra.core.utils import JobReturn, JobStatus, filter_overrides

from nested_lookahead.command import explain, invocation
from nested_lookahead.errors import Busy, UserError, one_line
from nested_lookahead.metric import Metric
from nested_lookahead.runs import files
from nested_lookahead.runs.directory import holder, lock_of
from nested_lookahead.runs.identity import identity
from nested_lookahead.runs.job import finished_before, result_of
from nested_lookahead.runs.schema import Config

log = logging.getLogger(__name__)


@dataclass
class PlannedRun:
    """One run of a sweep."""

    overrides: list[str]
    path: Path | None = None
    """Its run directory; None where the settings cannot be resolved."""
    config: Config | None = None
    choices: dict[str, str] = field(default_factory=dict)
    """The chosen options of Hydra's groups."""
    refused: Exception | None = None
    """Why they cannot: it is not launched, and the others are."""
    result: JobReturn | None = None

    def is_over(self, since: float) -> bool:
        """Whether its run has ended: since then or, unless it is overwritten, at all."""
        finished = finished_at(self.path) if self.path else None
        return finished is not None and (finished >= since or not (self.config is not None and self.config.overwrite))

    def has_checkpoint(self) -> bool:
        """Whether it was begun before."""
        return self.path is not None and (self.path / files.CHECKPOINT).exists()

    def objective(self, since: float) -> tuple[float, str] | None:
        """Its result, of which more is better, and that in words; None if it is not over."""
        if self.path is None or self.config is None or not self.is_over(since):
            return None
        try:
            summary = files.read_summary(self.path)
            if summary is None:
                return None
            value, metric = result_of(summary, self.config), Metric.read(summary.get("metric"))
            return value, metric.said(metric.sign * value)
        except (OSError, ValueError, KeyError, TypeError):  # not one of ours: its launch will say so
            return None

    def look(self, since: float) -> None:
        """Take the result from the run directory if the run is over."""
        if self.path is None or self.config is None or not self.is_over(since):
            return
        made = (finished_at(self.path) or 0) >= since  # in this sweep: by a stack, or a worker that has died since
        try:
            value = finished_before(self.path, self.config, say=not made)
        except (UserError, OSError):  # likewise
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
        status = files.read_status(self.path)
        return "resumed" if status["status"] == files.COMPLETED and status.get("resumed") else str(status["status"])

    def error(self, since: float) -> str | None:
        """Why it failed, in one line; None if it has not."""
        if self.result is not None:
            error = self.result._return_value
            failed = self.result.status is not JobStatus.COMPLETED
            return explain(error) or one_line(f"{type(error).__name__}: {error}") if failed else None
        if self.path is not None and (_modified(self.path / files.STATUS) or 0) >= since:  # it has ended the sweep
            status = files.read_status(self.path)
            return one_line(f"{status['error']}") if status["status"] == files.FAILED else None
        return None


def finished_at(path: Path) -> float | None:
    """When a run ended, seconds since the epoch; None if it has not."""
    return _modified(path / files.SUMMARY)


def _modified(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


Launch = Callable[[list[list[str]]], Sequence[JobReturn]]


def run_all(jobs: Sequence[PlannedRun], launch: Launch, since: float) -> None:
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
            if job.refused is not None:
                job.result = JobReturn(job.overrides, status=JobStatus.FAILED, _return_value=job.refused)
            elif job.result is None:
                job.look(since)
        todo = [job for job in jobs if job.result is None]
        if not todo:
            return
        try:
            results = launch([job.overrides for job in todo])
        except Exception as error:
            if not _is_broken_engine(error):
                _explain_engine(error)
                raise
            finished = sum(job.path is not None and finished_at(job.path) is not None for job in jobs)
            broken, done = (broken + 1 if finished == done else 1), finished
            if broken == 3:
                raise UserError(
                    "worker processes died three times in a row without finishing a run (is there enough memory?): "
                    f"{one_line(str(error))}; the same command goes on"
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


def _explain_engine(error: Exception) -> None:
    """Raises:
    UserError: the engine itself refused what it was given, or is not to be had here.
    """
    *_, (raised_in, _) = traceback.walk_tb(error.__traceback__)
    if explain(error) is None and raised_in.f_globals.get("__name__", "").partition(".")[0] in ENGINES:
        raise UserError(f"hydra/launcher: {one_line(str(error)) or type(error).__name__}") from error


ENGINES = ("joblib", "submitit", "ray", "hydra_plugins", "multiprocessing", "subprocess")
"""Packages that launchers are made of."""


def refuse_shared_directories(jobs: Sequence[PlannedRun]) -> None:
    """Raises:
    UserError: two different runs would have one directory, as with ``hydra.sweep.subdir=same``.
    """
    owners: dict[Path, tuple[str, int]] = {}
    for job in jobs:
        if job.path is None or job.config is None:
            continue
        run = (identity(job.config.plain()), job.config.seed)
        if owners.setdefault(job.path, run) != run:
            raise UserError(
                f"{job.path}: would be the directory of several runs of this sweep; leave hydra.sweep.subdir as it is"
            )


def _wait_for_one(paths: Sequence[Path]) -> None:
    """Until a run that other processes have in hand is free."""
    locks = [lock_of(path) for path in paths]
    log.info("%d of the runs in progress elsewhere: waiting (%s: %s)", len(paths), paths[0], holder(locks[0]))
    while True:
        for lock in locks:
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):
                continue
            lock.release()
            return
        time.sleep(1)


def report(jobs: Sequence[PlannedRun], since: float) -> str:
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
            lines.append(f"  again: {invocation('train')} {shlex.join([*overrides, 'hydra.mode=RUN'])}")
    return "\n".join(lines)


def raise_if_failed(jobs: Sequence[PlannedRun]) -> None:
    """Raises:
    UserError: at least one job of the sweep failed.
    """
    failed = sum(job.result is not None and job.result.status is not JobStatus.COMPLETED for job in jobs)
    if failed:
        raise UserError(f"{failed} of {len(jobs)} runs failed; the others are recorded, and the same command goes on")
