"""What a person sees of a run and of a sweep: bars where the output is a terminal, and lines in the log."""

from __future__ import annotations

import copy
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from nested_lookahead.command import invocation
from nested_lookahead.runs.workers import in_worker

if TYPE_CHECKING:
    from nested_lookahead.training.trainer import Trainer


class TerminalHandler(logging.Handler):
    """Writes to the standard output, above the bars. Of worker processes, only what calls for attention."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or not in_worker():
            shown = copy.copy(record)
            shown.exc_info = shown.exc_text = None  # the run's log has the traceback
            with suppress(OSError):  # nobody reads along any more, which is no reason to end a run
                tqdm.write(self.format(shown), file=sys.stdout)


class ProgressBar:
    """Steps done, epoch, loss, the metric and speed. Reads the loss twice a second at most: it has to wait for it."""

    interval = 0.5

    def __init__(self, trainer: Trainer, enabled: bool) -> None:
        self._bar = tqdm(
            total=trainer.total_steps,
            initial=trainer.step,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=None if enabled and not in_worker() else True,  # None: where the output is no terminal
        )
        self._metric, self._score = trainer.data.objective.metric, ""
        self._read = 0.0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.close()

    def on_step(self, trainer: Trainer) -> None:
        if self._bar.disable:
            return
        now = time.perf_counter()
        if now - self._read >= self.interval:
            self._read = now
            loss = trainer.losses[(trainer.step - 1) % len(trainer.batches)].mean().item()  # of a stack's runs
            speed, unit = trainer.speed()
            self._bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.epochs}", refresh=False)
            self._bar.set_postfix_str(f"loss {loss:.4f}{self._score}, {speed:,.0f} {unit}/s", refresh=False)
        self._bar.update(trainer.step - self._bar.n)

    def on_evaluation(self, rows: Sequence[Mapping[str, Any]]) -> None:
        name, row = _shown(rows)
        self._score = f", {name} {self._metric.text(row['accuracy'], max(1, self._metric.digits - 1))}"


class SweepProgress:
    """Runs done of a sweep, time left and the best so far: a bar where there is a terminal, else a line now and then.

    It looks at what is there, whoever makes it: this process, its workers, a cluster, another launch.

    Args:
        runs: of each run, a name and a function that returns its result, of which more is better, and that in words; or
            None if it is not over.
        name: of the sweep, or of its stage.
    """

    interval = 1.0

    def __init__(
        self, runs: Sequence[tuple[str, Callable[[], tuple[float, str] | None]]], enabled: bool, name: str = "sweep"
    ) -> None:
        self._name = name
        self._open, self._all = list(runs), len(runs)
        self._best: tuple[float, str, str] | None = None
        self._look()
        self._started, self._before = time.monotonic(), self._done
        self._bar = tqdm(
            total=self._all,
            initial=self._done,
            desc=name,
            unit="run",
            leave=False,
            dynamic_ncols=True,
            disable=None if enabled else True,
        )
        self._log = logging.getLogger("sweep")
        self._log.propagate, self._log.level = False, logging.INFO  # it is nothing that a run's log should have
        self._log.handlers = [TerminalHandler()] if enabled else []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> SweepProgress:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()
        self._bar.close()

    @property
    def _done(self) -> int:
        return self._all - len(self._open)

    def _watch(self) -> None:
        while not self._end.wait(self.interval):
            before = self._done
            self._look()
            if self._done == before:
                continue
            if self._bar.disable:
                self._log.info("%-13s  %s", self._name, self)
            else:
                self._bar.set_postfix_str(self._best_text(), refresh=False)
                self._bar.update(self._done - before)

    def _look(self) -> None:
        still_open = []
        for name, objective in self._open:
            found = objective()
            if found is None:
                still_open.append((name, objective))
            elif not math.isnan(found[0]) and (self._best is None or found[0] > self._best[0]):
                self._best = *found, name
        self._open = still_open

    def _best_text(self) -> str:
        return f"best {self._best[1]} ({self._best[2]})" if self._best else ""

    def __str__(self) -> str:
        """Such as ``3/20 runs, 01:12 left, best 98.33% (optimizer.k=5)``."""
        rate = (self._done - self._before) / (time.monotonic() - self._started)
        left = f"{tqdm.format_interval(len(self._open) / rate)} left" if rate and self._open else ""
        return ", ".join(filter(None, (f"{self._done}/{self._all} runs", left, self._best_text())))


def evaluation_line(trainer: Trainer, rows: Sequence[Mapping[str, Any]]) -> str:
    """Such as ``epoch  3/15  train loss 0.0521  validation 97.22% (slow 96.11%)  12,345 samples/s``."""
    metric = trainer.data.objective.metric
    value = {(row["weights"], row["split"]): row for row in rows}
    parts = [f"epoch {trainer.epoch:>{len(str(trainer.epochs))}}/{trainer.epochs}"]
    parts.append(f"train loss {value['fast', 'train']['loss']:.4f}")
    shown, row = _shown(rows)
    score = f"{shown} {metric.said(row['accuracy'])}"
    others = [weights for weights, split in value if split == shown and weights != "fast"]
    if others:
        said = ", ".join(f"{weights} {metric.text(value[weights, shown]['accuracy'])}" for weights in others)
        score += f" ({said})"
    parts.append(score)
    parts.append("{:,.0f} {}/s".format(*trainer.speed()))
    return "  ".join(parts)


def _shown(rows: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    """Of the fast weights, the row that tells most while a run goes on, and its split."""
    fast = {row["split"]: row for row in rows if row["weights"] == "fast"}
    name = "validation" if "validation" in fast else "test"
    return name, fast[name]


def stack_line(trainer: Trainer, found: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Of the runs of a stack, such as ``epoch  3/15  64 runs, validation 61.20% to 83.10%  12,345 samples/s``."""
    metric = trainer.data.objective.metric
    shown = [_shown(rows) for rows in found]
    values = [row["accuracy"] for _, row in shown]
    text = f"epoch {trainer.epoch:>{len(str(trainer.epochs))}}/{trainer.epochs}  {len(found)} runs, {shown[0][0]}"
    return f"{text} {metric.text(min(values))} to {metric.said(max(values))}  " + "{:,.0f} {}/s".format(
        *trainer.speed()
    )


def closing_text(summary: dict[str, Any], trainer: Trainer, path: Path) -> str:
    """The end of a run: the metric on test data, time, where the results lie, what to type next."""
    metric, optimum = trainer.data.objective.metric, trainer.data.objective.optimum
    tests = {weights: splits["test"] for weights, splits in summary["final"].items()}
    score = _by_weights({weights: row["accuracy"] for weights, row in tests.items()}, metric.text)
    named = f"test {metric.name}"
    folder = os.path.relpath(path)
    took = f"{trainer.epoch} epochs, {trainer.step} steps, {trainer.seconds:.1f} s"
    if trainer.compile_seconds:
        took += f", besides {trainer.compile_seconds:.1f} s of compiling"
    held_out = "validation" in next(iter(summary["final"].values()), {"validation": None})
    lines = [
        f"{named:<13}  {score or 'none: no epoch was finished'}",
        f"training       {summary['status']} after {took}",
        *([] if held_out else [f"result         test {metric.name}: nothing is held out for validation"]),
        f"results        {folder}",
        f"next           {invocation('analyze')} {os.path.relpath(path.parent.parent)}",
    ]
    if optimum is not None and tests:
        over = {weights: None if row["loss"] is None else row["loss"] - optimum for weights, row in tests.items()}
        lines.insert(
            1, f"over the best  {_by_weights(over, '{:.4f} nats'.format)}; no loss is below {optimum:.4f} nats"
        )
    return "\n".join(lines)


def _by_weights(values: Mapping[str, float | None], text: Callable[[float], str]) -> str:
    """Such as ``97.22% (fast weights), 96.11% (slow weights)``."""
    shown = {weights: "not finite" if value is None else text(value) for weights, value in values.items()}
    return ", ".join(f"{value} ({weights} weights)" for weights, value in shown.items())
