"""The run directory as a format: its files, their versions, and how they are read. See docs/run_directory.md."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from nested_lookahead.inputs import VALUES, load_yaml, opened, stands_for

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2
"""Of what is written. Readers take a file without one for version 1, and a newer one as far as they understand it."""

CONFIG, METRICS = "config.yaml", "metrics.csv"
CHECKPOINT, PREVIOUS_CHECKPOINT = "checkpoint.pt", "checkpoint.previous.pt"
SUMMARY, STATUS, LOG, LOCK = "summary.json", "status.json", "train.log", "lock"
LOGGERS = "loggers.json"

COMPLETED, DIVERGED = "completed", "diverged"
RUNNING, FAILED, INTERRUPTED = "running", "failed", "interrupted"

CHECKSUM = "sha256"

LARGEST = {CONFIG: 2**20, METRICS: 2**30, SUMMARY: 2**24, STATUS: 2**20}
"""Bytes that these files can have, by far; a larger one is not read."""

COLUMNS = ("step", "epoch", "split", "weights", "loss", "accuracy", "lr", "seconds")
"""Of metrics.csv, that readers know by name. There may be more: what is written is `training.fit.Row`."""


def find_runs(root: Path) -> list[Path]:
    """Directories at or below ``root`` that hold a run, finished or not; none that is hidden."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if CONFIG in names:
            found.append(Path(folder))
    return sorted(found)


def read_bytes(path: Path) -> bytes:
    """The content of one of a run's files; raises as `opened` does."""
    with opened(path, LARGEST.get(path.name)) as file:
        return file.read()


def read_json(path: Path) -> dict[str, Any]:
    """Raises:
    ValueError: it is no JSON object; NaN and Infinity are no JSON.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{path.name} holds {name}, which is no JSON")

    try:
        content = json.loads(read_bytes(path), parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no object")
    _require_plain(path.name, content)
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration, brought to today's shape.

    Raises:
        ValueError, KeyError or TypeError: the file is not one of ours.
    """
    try:
        content = load_yaml(read_bytes(path / CONFIG))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    _require_plain(CONFIG, content)
    config = dict(content["config"])
    return _from_version_1(config) if content.get("version", 1) == 1 else config


def _require_plain(name: str, content: Any) -> None:
    """Raises:
    ValueError: more values than such a file has, or others than text, finite numbers, lists, and mappings with text
        keys.
    """
    if stands_for(content, VALUES) > VALUES:
        raise ValueError(f"{name} stands for more than {VALUES:,} values")
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise ValueError(f"{name} has a key that is no text")
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            value.encode()  # a lone surrogate cannot be written anywhere
        elif isinstance(value, int | float):
            if not math.isfinite(value) if isinstance(value, float) else abs(value) >= 2**63:
                raise ValueError(f"{name} has a number that is not finite, or larger than any that is counted with")
        elif value is not None:
            raise ValueError(f"{name} has a value of another kind, {type(value).__name__}")


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
        return read_json(path / SUMMARY)
    except FileNotFoundError:
        return None


def is_intact(path: Path, summary: Mapping[str, Any]) -> bool:
    """Whether a run's summary and metrics are as they were written; a summary without checksum is taken at its word."""
    return CHECKSUM not in summary or summary[CHECKSUM] == checksum(path, summary)


def read_status(path: Path) -> dict[str, Any]:
    try:
        return {"status": "unknown", "error": None} | read_json(path / STATUS)
    except (OSError, ValueError):
        return {"status": "unknown", "error": None}


def read_metrics(path: Path) -> pd.DataFrame:
    """The metrics.

    Raises:
        ValueError: the file is torn (it does not end with its last line's end), or not one of ours.
    """
    import pandas as pd

    content = read_bytes(path / METRICS)
    if not content.endswith(b"\n"):
        raise ValueError(f"{METRICS} is torn in its last line")
    return pd.read_csv(io.BytesIO(content))


def checksum(path: Path, summary: Mapping[str, Any]) -> str:
    """SHA-256 of the metrics, as they lie on the disk, and of the rest of the summary."""
    rest = {key: value for key, value in summary.items() if key != CHECKSUM}
    content = read_bytes(path / METRICS) + json.dumps(rest, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


@contextmanager
def replacing(path: Path, binary: bool = False) -> Iterator[Any]:
    """Write a file under another name and put it in place when it is whole and on the disk."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb" if binary else "w") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # it would hide the error that led here
            temporary.unlink(missing_ok=True)
