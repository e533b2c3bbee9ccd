"""Run directories with made results, as train.py leaves them."""

import json
from pathlib import Path

from nested_lookahead.metric import ACCURACY
from nested_lookahead.runs.directory import Run
from nested_lookahead.runs.files import COLUMNS
from nested_lookahead.runs.identity import identity
from nested_lookahead.runs.scores import scores


def make_config(optimizer="nested_lookahead", seed=0, epochs=10, inner="sgd", model="cnn", **settings):
    config = {
        "optimizer": {"name": optimizer, "lr": 0.1} | settings,
        "dataset": {"name": "digits"},
        "model": {"name": model},
        "scheduler": {"name": "cosine"},
        "evaluation": {"every": 1},
        "epochs": epochs,
        "batch_size": 64,
        "seed": seed,
        "study": "made",
    }
    if "lookahead" in optimizer:
        wrapper = {"name": optimizer, "k": 5, "alpha": 0.5, "pullback": "none", "inner": {"name": inner, "lr": 0.1}}
        config["optimizer"] = wrapper | ({"s": 5, "h": 0.5} if optimizer.startswith("nested") else {}) | settings
    return config


LEAD = {"fast": 0, "slow": 0.01, "ema": 0.02, "ema0.9": 0.02, "ema0.99": 0.03, "tail": 0.05}
"""By kind of weights: how much higher than the fast ones."""


def make_rows(kinds, final=0.9, validation=None, epochs=10):
    """A curve that ends at ``final``, on the validation split at ``validation``; a tail begins in the middle."""
    return [
        {
            "step": 20 * epoch,
            "epoch": epoch,
            "split": split,
            "weights": weights,
            "loss": 1 / epoch,
            "accuracy": (validation if split == "validation" and validation else final)
            * ((1 - 0.5**epoch) / (1 - 0.5**epochs))
            + LEAD[weights],
            "lr": 0.1,
            "seconds": float(epoch),
        }
        for epoch in range(1, epochs + 1)
        for weights in kinds
        if weights != "tail" or epoch > epochs // 2
        for split in ("train", "validation", "test")
    ]


def make_run(
    root,
    optimizer="nested_lookahead",
    seed=0,
    final=0.9,
    status="completed",
    epochs=10,
    validation=None,
    metric=ACCURACY,
    averages=(),
    **settings,
):
    """A run directory below ``root``, with slow weights where the optimizer has some, and averages; returns its path.

    With a metric of its own, what is recorded is that of accuracy times the sign of what is better.
    """
    config = make_config(optimizer, seed, epochs, **settings)
    kinds = ("fast", *["slow"] * ("lookahead" in optimizer), *averages)
    rows = make_rows(kinds, final, validation, epochs)
    own = {}
    if metric != ACCURACY:
        rows = [row | {"accuracy": metric.sign * row["accuracy"]} for row in rows]
        own = {"metric": metric.plain(), "score": {"least": None, "most": None}}
    path = Path(root) / f"{optimizer}-{identity(config)}" / f"seed={seed}"
    with Run(path) as run:
        run.start(config, {}, COLUMNS)
        run.append(rows)
        run.finish({"status": status, "planned_steps": 20 * epochs, **own, **scores(rows, metric)})
    return path


def unsigned(path):
    """The run without its checksum and its name, as another program may write it."""
    summary = path / "summary.json"
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps({key: value for key, value in content.items() if key not in ("sha256", "run")}))
    return path


def rewrite_metrics(path, change):
    """Replace the run's metrics by what a function makes of their bytes."""
    metrics = path / "metrics.csv"
    metrics.write_bytes(change(metrics.read_bytes()))
    return unsigned(path)
