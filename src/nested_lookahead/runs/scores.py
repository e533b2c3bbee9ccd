"""What a run's metrics come to: final and best evaluation, and one number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nested_lookahead.metric import ACCURACY, Metric

Scores = dict[str, dict[str, dict[str, dict[str, Any]]]]

NO_RESULTS = ("split", "weights", "lr", "seconds")
"""Columns of the metrics that tell where a row belongs, or how training went, and not what was measured."""


def scores(metrics: Sequence[Mapping[str, Any]], metric: Metric = ACCURACY) -> Scores:
    """``{"final": …, "best": …}``, each {weights: {split: {"step", "epoch", "loss", "accuracy", …}}}, whatever metric
    stands under accuracy.

    The best evaluation is chosen on the validation split, for each kind of weights, the first of equals; there is
    none without that split. A value that is not finite is None, as JSON has no name for it.
    """
    result: Scores = {"final": {}, "best": {}}
    for weights in dict.fromkeys(row["weights"] for row in metrics):
        rows = [row for row in metrics if row["weights"] == weights]
        steps = {"final": rows[-1]["step"]}
        validated = [row for row in rows if row["split"] == "validation"]
        if validated:
            steps["best"] = max(validated, key=lambda row: (metric.sign * row["accuracy"], -row["step"]))["step"]
        for name, step in steps.items():
            result[name][weights] = {
                row["split"]: {key: _finite(value) for key, value in row.items() if key not in NO_RESULTS}
                for row in rows
                if row["step"] == step
            }
    return result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def objective(result: Mapping[str, Any], weights: str) -> float:
    """Final validation metric (test metric where nothing is held out), of the fast weights if there are no slow."""
    final = result["final"].get(weights) or result["final"]["fast"]
    return float(final.get("validation", final["test"])["accuracy"])
