"""What happens around a job: signals that stop it, and what is said of a whole sweep."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides

from nested_lookahead import records
from nested_lookahead.errors import Interrupted, UserError, explain, flatten


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], None]]:
    """Let SIGINT and SIGTERM (a cluster's warning) end a run at a step's end.

    Yields a function to call there: it raises `Interrupted` once a signal has come. A second signal ends the process
    at once. Does nothing in a thread other than the main one, where Python allows no signal handlers.
    """
    received: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def check() -> None:
        if received:
            raise Interrupted(received[0])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, receive)
    except ValueError:
        before.clear()
    try:
        yield check
    finally:
        restore()


def report(results: Sequence[JobReturn], started: float) -> str:
    """A sweep's end: how many runs ended how and, for each failed one, why and how to repeat it.

    ``started`` is when the sweep began, seconds since the epoch: a summary from before means that a run was skipped.
    """
    outcomes = [_outcome(result, started) for result in results]
    counts = {name: outcomes.count(name) for name in ("completed", "resumed", "skipped", "diverged", "failed")}
    lines = [f"{len(results)} runs: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)]
    for result, outcome in zip(results, outcomes, strict=True):
        if outcome == "failed":
            error = result._return_value
            lines.append(f"failed: {explain(error) or flatten(f'{type(error).__name__}: {error}')}")
            overrides = [part for part in filter_overrides(result.overrides or []) if not part.startswith("hydra.")]
            lines.append(f"  again: python {Path(sys.argv[0]).name} {shlex.join([*overrides, 'hydra.mode=RUN'])}")
    return "\n".join(lines)


def _outcome(result: JobReturn, started: float) -> str:
    if result.status is not JobStatus.COMPLETED:
        return "failed"
    assert result.hydra_cfg is not None
    path = Path(result.hydra_cfg.hydra.runtime.output_dir)
    if (path / records.SUMMARY).stat().st_mtime < started:
        return "skipped"
    status = records.read_status(path)
    return "resumed" if status["status"] == records.COMPLETED and status.get("resumed") else str(status["status"])


def raise_if_failed(results: Sequence[JobReturn]) -> None:
    """Raises:
    UserError: at least one job of the sweep failed.
    """
    failed = sum(result.status is not JobStatus.COMPLETED for result in results)
    if failed:
        raise UserError(
            f"{failed} of {len(results)} runs failed; the others are recorded, and the same command goes on"
        )
