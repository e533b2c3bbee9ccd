"""What was tried and chosen of a fair study's arms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis.arms import choices
from nested_lookahead.analysis.statistics import expected_best
from nested_lookahead.analysis.task import Task
from nested_lookahead.runs.fair import EDGE


def bought(task: Task) -> pd.DataFrame:
    """arm, trials, value (as it is shown): expected best of so many trials; empty where nothing was tuned."""
    rows, sign = [], task.metric.sign
    for arm, choice in choices(task.groups).items():
        shared = min(map(len, choice["trials"]), default=0)
        means = np.array([sign * task.metric.scale * np.mean(trial[:shared]) for trial in choice["trials"]])
        if len(means) < 2 or np.isnan(means).all():
            continue
        filled = np.where(np.isnan(means), np.nanmin(means), means)
        rows += [{"arm": arm, "trials": n, "value": sign * v} for n, v in enumerate(expected_best(filled), start=1)]
    return pd.DataFrame(rows)


def said(arm: str, choice: dict[str, Any]) -> str:
    """What was chosen, and what of it lies at the edge of its range."""
    edges = [key for key, place in choice["places"].items() if place < EDGE or place > 1 - EDGE]
    settings = " ".join(f"{key.removeprefix('optimizer.')}={value}" for key, value in choice["settings"].items())
    text = f"{arm}: {settings}, {choice['weights']} weights"
    return text + (f", at the edge: {', '.join(key.removeprefix('optimizer.') for key in edges)}." if edges else ".")


def chosen(task: Task) -> pd.DataFrame:
    """A row per arm of a fair study: arm, trials, of which diverged, weights, validation (of the chosen trial, as it is
    shown), chosen (settings with their places in their ranges in %), at the edge; empty of other tasks."""
    rows = []
    for arm, choice in choices(task.groups).items():
        trials, places = choice["trials"], choice["places"]
        own = trials[choice["trial"]] if choice["trial"] is not None and trials else []
        value = float(np.mean(own)) if own else math.nan
        rows.append(
            {
                "arm": arm,
                "trials": len(trials),
                "diverged": sum(any(math.isnan(value) for value in trial) for trial in trials),
                "weights": choice["weights"],
                "validation": task.metric.text(value) if not math.isnan(value) else "–",
                "chosen": ", ".join(_setting(key, value, places) for key, value in choice["settings"].items()) or "–",
                "at the edge": ", ".join(key for key, at in places.items() if at < EDGE or at > 1 - EDGE) or "–",
            }
        )
    return pd.DataFrame(rows)


def _setting(key: str, value: str, places: dict[str, float]) -> str:
    short = key.removeprefix("optimizer.")
    return f"{short}={value} ({100 * places[key]:.0f}%)" if key in places else f"{short}={value}"
