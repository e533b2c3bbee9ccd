"""What a person sees of a run: a bar where the output is a terminal, and a line per evaluation in the log."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

if TYPE_CHECKING:
    from nested_lookahead.training import Trainer


class ProgressBar:
    """Steps done, epoch, loss, accuracy and speed. Reads the loss twice a second at most: it has to wait for it."""

    interval = 0.5

    def __init__(self, trainer: Trainer, enabled: bool) -> None:
        self._bar = tqdm(
            total=trainer.total_steps,
            initial=trainer.step,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=None if enabled else True,  # None: where the output is no terminal
        )
        self._redirect = logging_redirect_tqdm()
        self._accuracy = ""
        self._read = 0.0

    def __enter__(self) -> ProgressBar:
        self._redirect.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.close()
        self._redirect.__exit__(*exception)

    def on_step(self, trainer: Trainer) -> None:
        if self._bar.disable:
            return
        now = time.perf_counter()
        if now - self._read >= self.interval:
            self._read = now
            loss = trainer.losses[(trainer.step - 1) % len(trainer.batches)].item()
            speed = trainer.step * trainer.batches.batch_size / trainer.seconds if trainer.seconds else 0
            self._bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.epochs}", refresh=False)
            self._bar.set_postfix_str(f"loss {loss:.4f}{self._accuracy}, {speed:,.0f} images/s", refresh=False)
        self._bar.update(trainer.step - self._bar.n)

    def on_evaluation(self, rows: list[dict[str, Any]]) -> None:
        self._accuracy = f", validation {100 * rows[1]['accuracy']:.1f}%" if len(rows) > 1 else ""


def evaluation_line(trainer: Trainer, rows: list[dict[str, Any]]) -> str:
    """Such as ``epoch  3/15  train loss 0.0521  validation 97.22% (slow 96.11%)  12,345 images/s``."""
    value = {(row["weights"], row["split"]): row for row in rows}
    parts = [f"epoch {trainer.epoch:>{len(str(trainer.epochs))}}/{trainer.epochs}"]
    parts.append(f"train loss {value['fast', 'train']['loss']:.4f}")
    shown = "validation" if ("fast", "validation") in value else "test"
    accuracy = f"{shown} {100 * value['fast', shown]['accuracy']:.2f}%"
    if ("slow", shown) in value:
        accuracy += f" (slow {100 * value['slow', shown]['accuracy']:.2f}%)"
    parts.append(accuracy)
    parts.append(f"{trainer.step * trainer.batches.batch_size / max(trainer.seconds, 1e-9):,.0f} images/s")
    return "  ".join(parts)


def closing_text(summary: dict[str, Any], trainer: Trainer, path: Path) -> str:
    """The end of a run: test accuracy, time, where the results lie, what to type next."""
    final = {weights: 100 * splits["test"]["accuracy"] for weights, splits in summary["final"].items()}
    accuracy = ", ".join(f"{value:.2f}% ({weights} weights)" for weights, value in final.items())
    folder = os.path.relpath(path)
    took = f"{trainer.epoch} epochs, {trainer.step} steps, {trainer.seconds:.1f} s"
    lines = [
        f"test accuracy  {accuracy or 'none: no epoch was finished'}",
        f"training       {summary['status']} after {took}",
        f"results        {folder}",
        f"next           python analyze.py {os.path.relpath(path.parent.parent)}",
    ]
    return "\n".join(lines)
