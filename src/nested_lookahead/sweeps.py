"""What happens around a job: skip, resume, stop; and what is said of a whole sweep."""

from __future__ import annotations

import logging
import math
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides

from nested_lookahead import records
from nested_lookahead.config import computed
from nested_lookahead.errors import Interrupted, UserError, explain, flatten

if TYPE_CHECKING:
    from nested_lookahead.training import Trainer

log = logging.getLogger(__name__)


def finished_before(run: records.Run, config: dict[str, Any]) -> float | None:
    """The result of a run that is over; None if it is yet to be made or finished."""
    try:
        stored, summary = records.read_config(run.path), records.read_summary(run.path)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s: its configuration or summary cannot be read (%s) and is written anew", run.path, error)
        return None
    if computed(stored) != computed(config):
        raise UserError(f"{run.path}: holds a run of another configuration; move it away, or set overwrite=true")
    if summary is None:
        return None
    log.info("%s: %s already, skipped (overwrite=true trains anew)", run.path, summary["status"])
    return result_of(summary, config)


def resume(
    run: records.Run, trainer: Trainer, config: dict[str, Any], choices: Mapping[str, str]
) -> list[dict[str, Any]] | None:
    """Bring the trainer to the last checkpoint; the metrics until then, or None if there is nothing to go on from."""
    state = run.load_checkpoint()
    if state is None:
        return None
    metrics = run.resume(state["progress"]["evaluated"], config, choices)
    if metrics is None:
        log.warning("%s: the metrics do not reach the checkpoint, the run starts anew", run.path)
        return None
    trainer.load_state_dict(state)
    log.info("%s: resumed after epoch %d", run.path, trainer.epoch)
    return metrics


def result_of(summary: dict[str, Any], config: dict[str, Any]) -> float:
    """Final validation accuracy; NaN of a diverged run."""
    if summary["status"] != records.COMPLETED:
        return math.nan
    return records.objective(summary, config["evaluation"]["weights"])


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
