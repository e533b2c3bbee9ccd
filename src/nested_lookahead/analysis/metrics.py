"""Many metrics.csv at once: columns by name, whatever their order and whichever else there are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.runs.files import COLUMNS, METRICS

WHOLE, NAMES = ("step", "epoch"), ("split", "weights")
ESSENTIAL = (*WHOLE, *NAMES)
"""Columns without which a row says nothing; any other that a file lacks is NaN."""

Array = np.ndarray[Any, Any]
Curve = dict[str, Array]
"""A run's metrics by column. All of `COLUMNS` are there, and what else its file has; names are codes into `Kinds`."""
Kinds = dict[str, list[str]]
"""The values that have been seen in each column of names."""


def known_kinds() -> Kinds:
    return {"split": ["train", "validation", "test"], "weights": ["fast", "slow"]}


@dataclass
class Parsed:
    """By the name of each file: its curve; what of it was not read; or why it cannot be used."""

    curves: dict[str, Curve] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def parse(contents: Mapping[str, bytes], kinds: Kinds) -> Parsed:
    """Read files with the same header together, as one long file: much faster than one by one.

    Args:
        kinds: grows by the splits and kinds of weights that were not known.
    """
    parsed = Parsed()
    for header, bodies in _by_header(contents).items():
        if missing := [column for column in ESSENTIAL if column not in header]:
            parsed.refused |= dict.fromkeys(bodies, f"{METRICS} has no column {', '.join(missing)}")
            continue
        try:
            whole = _columns(header, b"".join(bodies.values()), kinds)
            parsed.curves |= split(whole, {name: body.count(b"\n") for name, body in bodies.items()})
        except ValueError:  # one of them is damaged, or has a column of texts: find out which
            for name, body in bodies.items():
                _parse_alone(name, header, body, kinds, parsed)
        if lacking := [column for column in COLUMNS if column not in header]:
            for name in bodies.keys() & parsed.curves.keys():
                parsed.notes.setdefault(name, []).append(f"{METRICS} has no column {', '.join(lacking)}")
    return parsed


def _by_header(contents: Mapping[str, bytes]) -> dict[tuple[str, ...], dict[str, bytes]]:
    groups: dict[tuple[str, ...], dict[str, bytes]] = {}
    for name, content in contents.items():
        head, _, body = content.partition(b"\n")
        header = tuple(head.decode(errors="replace").rstrip("\r").split(","))
        groups.setdefault(header, {})[name] = body
    return groups


def _parse_alone(name: str, header: tuple[str, ...], body: bytes, kinds: Kinds, parsed: Parsed) -> None:
    try:
        parsed.curves[name] = _columns(header, body, kinds)
    except ValueError:
        try:
            curve = _columns(header, body, kinds, numbers=COLUMNS)
        except ValueError:
            parsed.refused[name] = f"{METRICS} has a line that is not one of ours"
            return
        skipped = [column for column in header if column not in COLUMNS and column not in curve]
        parsed.curves[name] = curve
        note = f"{METRICS} has columns that are not numbers, and were not read: {', '.join(skipped)}"
        parsed.notes.setdefault(name, []).append(note)


def _columns(header: tuple[str, ...], body: bytes, kinds: Kinds, numbers: tuple[str, ...] | None = None) -> Curve:
    """Args:
        numbers: columns that must be numbers, where not all others than `NAMES` are; a further one is left out where
            it is none.

    Raises:
        ValueError: a line has too few or too many fields, or one that is no number, or no name.
    """
    rows = body.count(b"\n")
    if body.count(b",") != rows * (len(header) - 1):
        raise ValueError("a line with too few or too many fields")
    curve = {column: np.full(rows, np.nan) for column in COLUMNS if column not in header}
    if not rows:
        return curve | {column: np.zeros(0, dtype=_dtype(column)) for column in header}
    types = {column: _kind(column) if numbers is None or column in numbers else "str" for column in header}
    table = pd.read_csv(
        io.BytesIO(body), header=None, names=list(header), index_col=False, dtype=types, skip_blank_lines=False
    )
    if len(table) != rows:
        raise ValueError("not a line for each row")
    for column, kind in types.items():
        if kind == "category":
            curve[column] = _codes(table[column], kinds[column])
        elif kind != "str":
            curve[column] = table[column].to_numpy(_dtype(column))
        elif (values := pd.to_numeric(table[column], errors="coerce")).notna().equals(table[column].notna()):
            curve[column] = values.to_numpy(float)
    return curve


def _kind(column: str) -> Any:
    return "int64" if column in WHOLE else "category" if column in NAMES else "float64"


def _dtype(column: str) -> Any:
    return np.int16 if column in NAMES else np.int64 if column in WHOLE else np.float64


def _codes(column: pd.Series[Any], kinds: list[str]) -> Array:
    named = column.cat
    if (named.codes < 0).any():
        raise ValueError("no name")
    names = [str(name) for name in named.categories]
    kinds += [name for name in names if name not in kinds]
    return np.array([kinds.index(name) for name in names], dtype=np.int16)[named.codes]


def split(columns: Curve, counts: Mapping[str, int]) -> dict[str, Curve]:
    """The rows of each run, which follow one another and are so many."""
    ends = np.cumsum(list(counts.values()), dtype=int)
    return {
        name: {column: values[end - count : end] for column, values in columns.items()}
        for (name, count), end in zip(counts.items(), ends, strict=True)
    }


def join(curves: list[Curve]) -> Curve:
    """One after another; NaN where a run does not have a column that another has."""
    columns = list(dict.fromkeys([*COLUMNS, *(column for curve in curves for column in curve)]))
    return {c: np.concatenate([curve[c] if c in curve else np.full(len(curve["step"]), np.nan) for curve in curves])
            for c in columns}  # fmt: skip


def table(curves: Mapping[str, Curve], kinds: Kinds) -> pd.DataFrame:
    """The rows of all runs, with each one's path."""
    if not curves:
        return pd.DataFrame()
    columns = join(list(curves.values()))
    paths = np.repeat(np.arange(len(curves)), [len(curve["step"]) for curve in curves.values()])
    shown: dict[str, Any] = {"path": pd.Categorical.from_codes(paths, pd.Index(list(curves)))}
    for name, values in columns.items():
        shown[name] = _named(values, kinds[name], known_kinds()[name]) if name in NAMES else values
    return pd.DataFrame(shown, copy=False)


def _named(codes: Array, kinds: list[str], known: list[str]) -> Any:
    """As a categorical of the known kinds, and in alphabetical order of any others that are there."""
    if len(kinds) == len(known):
        return pd.Categorical.from_codes(codes, pd.Index(known))
    others = sorted({kinds[code] for code in np.unique(codes)} - set(known))
    order = np.array([[*known, *others].index(kind) if kind in (*known, *others) else -1 for kind in kinds])
    return pd.Categorical.from_codes(order[codes], pd.Index([*known, *others]))
