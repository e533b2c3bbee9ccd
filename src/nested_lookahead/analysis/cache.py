"""What was read of each run, kept in one file: plain arrays and JSON, nothing that could run."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nested_lookahead.analysis.metrics import NAMES, Curve, Kinds, join, known_kinds, split
from nested_lookahead.inputs import opened
from nested_lookahead.runs import files, identity

LARGEST = 2**31
"""Bytes of a cache, which is not compressed: of the metrics of a hundred thousand runs."""
VERSION = [3, files.VERSION, identity.RULE, list(files.COLUMNS), identity.ADDED]
"""Of the cache, and of all that decides what is made of a run; a cache with another one is made anew."""


@dataclass
class Found:
    """One run: how its files looked when it was read, its row, its metrics, and what a reader should know of it."""

    stamp: list[list[int]]
    row: dict[str, Any]
    curve: Curve = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(path: Path | None) -> tuple[dict[str, Found], Kinds]:
    """What was kept, by path; nothing from a file that is not ours, or of another version."""
    nothing: tuple[dict[str, Found], Kinds] = ({}, known_kinds())
    if path is None:
        return nothing
    try:
        with opened(path, LARGEST) as file, np.load(file, allow_pickle=False) as stored:
            index = json.loads(stored["index"].tobytes())
            if index["version"] != VERSION:
                return nothing
            columns = {column: stored[f"column{i}"] for i, column in enumerate(index["columns"])}
        curves = split(columns, {entry["path"]: entry["count"] for entry in index["runs"]})
        found = {}
        for entry in index["runs"]:
            curve = {column: curves[entry["path"]][column] for column in (*files.COLUMNS, *entry["more"])}
            found[entry["path"]] = Found(entry["stamp"], entry["row"], curve, entry["notes"])
        return found, {name: list(index["kinds"][name]) for name in NAMES}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return nothing


def write(path: Path, found: Mapping[str, Found], kinds: Kinds) -> None:
    columns = join([run.curve for run in found.values()]) if found else {}
    runs = [
        {
            "path": name,
            "stamp": run.stamp,
            "count": len(run.curve["step"]),
            "more": [column for column in run.curve if column not in files.COLUMNS],
            "row": run.row,
            "notes": run.notes,
        }
        for name, run in found.items()
    ]
    index = json.dumps({"version": VERSION, "columns": list(columns), "kinds": kinds, "runs": runs}).encode()
    arrays = {"index": np.frombuffer(index, dtype=np.uint8)}
    arrays |= {f"column{i}": values for i, values in enumerate(columns.values())}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
