"""Whether a run's metrics can be what was measured. Nothing is mended: where they cannot, the run is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nested_lookahead.analysis.metrics import Curve
from nested_lookahead.runs.files import COMPLETED, METRICS


def fault_of(curve: Curve, row: Mapping[str, Any]) -> str:
    """Why the metrics cannot be those of the run; nothing where they can."""
    step, epoch = curve["step"], curve["epoch"]
    if not len(step):
        return f"completed, but {METRICS} has no rows" if row["status"] == COMPLETED else ""
    if step.min() < 0 or epoch.min() < 0 or (np.diff(step) < 0).any() or (np.diff(epoch) < 0).any():
        return f"{METRICS} goes back in time"
    if _repeated(curve):
        return f"{METRICS} has two rows for one step, split and kind of weights"
    least, most = row["score_least"], row["score_most"]
    wrong = ~(np.isnan(curve["accuracy"]) | ((curve["accuracy"] >= least) & (curve["accuracy"] <= most)))
    if wrong.any():
        name = json.loads(row["metric"])["name"] if row.get("metric") else "accuracy"
        called = "an accuracy" if name == "accuracy" else f"a value of {name}"
        value = curve["accuracy"][wrong][0]
        return f"{METRICS} has {called} of {value:g}, which must be in [{least:g}, {most:g}]"
    reached, planned = int(step.max()), row["planned_steps"]
    if reached > planned:
        return f"{METRICS} goes on to step {reached} of {planned:.0f}"
    if row["status"] == COMPLETED and reached < planned:
        return f"completed, but its metrics end at step {reached} of {planned:.0f}"
    return ""


def _repeated(curve: Curve) -> bool:
    """Of rows whose steps do not fall."""
    which, split, weights = (curve[name].astype(np.int64) for name in ("step", "split", "weights"))
    which = np.cumsum(np.diff(which, prepend=which[0]) != 0)  # counted anew, as a step can be any number
    keys = (which * (split.max() + 1) + split) * (weights.max() + 1) + weights
    return len(np.unique(keys)) < len(keys)
