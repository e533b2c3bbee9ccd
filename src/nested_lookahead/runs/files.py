"""The run directory as a format: its files, their versions, and how they are read. See docs/run_directory.md."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2
"""Of what is written. Readers take a file without one for version 1, and a newer one as far as they understand it."""

CONFIG, METRICS = "config.yaml", "metrics.csv"
CHECKPOINT, PREVIOUS_CHECKPOINT = "checkpoint.pt", "checkpoint.previous.pt"
SUMMARY, STATUS, LOG, LOCK = "summary.json", "status.json", "train.log", "lock"

COMPLETED, DIVERGED = "completed", "diverged"
RUNNING, FAILED, INTERRUPTED = "running", "failed", "interrupted"

CHECKSUM = "sha256"

COLUMNS = ("step", "epoch", "split", "weights", "loss", "accuracy", "lr", "seconds")
"""Of metrics.csv, that readers know by name. There may be more: what is written is `training.fit.Row`."""


def find_runs(root: Path) -> list[Path]:
    """Directories at or below ``root`` that hold a run, finished or not."""
    return sorted(Path(folder) for folder, _, files in os.walk(root) if CONFIG in files)


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration, brought to today's shape.

    Raises:
        ValueError, KeyError or TypeError: the file is not one of ours.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load((path / CONFIG).read_bytes(), Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    config = dict(content["config"])
    return _from_version_1(config) if content.get("version", 1) == 1 else config


def _from_version_1(config: dict[str, Any]) -> dict[str, Any]:
    """What was called otherwise, or lay elsewhere."""
    dataset, optimizer = dict(config["dataset"]), dict(config["optimizer"])
    names = {"val_fraction": "val_fraction", "train_size": "train_size", "split_seed": "seed"}
    dataset["split"] = {name: dataset.pop(key, None) for key, name in names.items()}
    if optimizer.get("name") == "published_nested_lookahead":
        optimizer["name"] = "nested_lookahead_replica"
    for node in (optimizer, inner := dict(optimizer.get("inner") or {})):
        if node.get("name") == "custom":
            node |= {"name": str(node["_target_"]).rpartition(".")[2].lower(), **(node.pop("kwargs", None) or {})}
    return config | {"dataset": dataset, "optimizer": optimizer | ({"inner": inner} if inner else {})}


def read_summary(path: Path) -> dict[str, Any] | None:
    """None if the run is not over.

    Raises:
        ValueError: the file is not one of ours.
    """
    try:
        return dict(json.loads((path / SUMMARY).read_text()))
    except FileNotFoundError:
        return None


def is_intact(path: Path, summary: Mapping[str, Any]) -> bool:
    """Whether a run's summary and metrics are as they were written; a summary without checksum is taken at its word."""
    return CHECKSUM not in summary or summary[CHECKSUM] == checksum(path, summary)


def read_status(path: Path) -> dict[str, Any]:
    try:
        return {"status": "unknown", "error": None} | dict(json.loads((path / STATUS).read_text()))
    except (OSError, ValueError, TypeError):
        return {"status": "unknown", "error": None}


def read_metrics(path: Path) -> pd.DataFrame:
    """The metrics.

    Raises:
        ValueError: the file is torn: it does not end with its last line's end.
    """
    import pandas as pd

    content = (path / METRICS).read_bytes()
    if not content.endswith(b"\n"):
        raise ValueError(f"{METRICS} is torn in its last line")
    return pd.read_csv(io.BytesIO(content))


def checksum(path: Path, summary: Mapping[str, Any]) -> str:
    """SHA-256 of the metrics, as they lie on the disk, and of the rest of the summary."""
    rest = {key: value for key, value in summary.items() if key != CHECKSUM}
    content = (path / METRICS).read_bytes() + json.dumps(rest, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()
