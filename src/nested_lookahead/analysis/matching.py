"""Runs and groups by their settings, as people type them: ``k=5``, ``optimizer=lookahead``, ``lr=0.1,0.3``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from nested_lookahead.analysis.arms import PAIRS
from nested_lookahead.errors import UserError

if TYPE_CHECKING:
    from nested_lookahead.analysis.collect import Study

COLUMNS = {"optimizer": "method", "method": "method", "inner": "inner", "pullback": "pullback", "seed": "seed"}
"""Of a table of runs, by the names that are typed for them."""
GROUPS = ("dataset", "model", "augment", "scheduler")
"""Of the configuration, that are meant by their names."""


def filtered(study: Study, filters: Sequence[str]) -> Study:
    """The runs that have all of these settings, and their metrics; of a study that was planned before its runs, with a
    note that this is no longer what it planned to compare.

    Args:
        filters: ``key=value``, or ``key=value,value`` for any of several.

    Raises:
        UserError: a filter that is none, a setting that there is not, or a value that no run has.
    """
    runs = study.runs
    for text in filters:
        key, equals, values = text.partition("=")
        if not (key and equals and values):
            raise UserError(f"--filter {text}: must be key=value, such as k=5 or optimizer=lookahead")
        runs = runs[having(runs, key.strip(), values.split(","), f"--filter {text}")]
    if len(runs) == len(study.runs):
        return study
    kept = study.metrics["path"].isin(runs["path"])
    notes = [*study.notes]
    if _planned(study.runs):
        notes.append(
            f"a filter leaves {len(runs)} of {len(study.runs)} runs of a study that fixed beforehand what it compares: "
            "Holm's correction is over what is left to compare, and what decides is the report without it"
        )
    runs, metrics = runs.reset_index(drop=True), study.metrics[kept].reset_index(drop=True)
    return replace(study, runs=runs, metrics=metrics, notes=notes)


def _planned(runs: pd.DataFrame) -> bool:
    """Whether a family was fixed before the runs were made: by a fair study, or in their node ``analysis``."""
    return PAIRS in runs or any(runs[c].notna().any() for c in runs if str(c).startswith("config.analysis."))


def meant(groups: pd.DataFrame, settings: str, option: str) -> pd.Series[bool]:
    """Whether each run or group has all of ``k=5,alpha=0.5``.

    Raises:
        UserError: a part that is no ``key=value``, a setting that there is not, or a value that none has.
    """
    mask = pd.Series(True, groups.index)
    for part in settings.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise UserError(f"{option}: {part!r} must be key=value")
        mask &= having(groups, key.strip(), [value], option)
    return mask


def having(table: pd.DataFrame, key: str, values: Sequence[str], option: str) -> pd.Series[bool]:
    """Whether each row has one of the values of a setting.

    Raises:
        UserError: there is no such setting, or no row has such a value.
    """
    columns = _columns(table, key)
    if not columns:
        known = sorted({*COLUMNS, *GROUPS, *map(_short, _settings(table))} - {"name"})
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"{option}: no run has a setting {key!r}; {hint}there are {', '.join(known)}")
    mask = pd.Series(False, table.index)
    for value in values:
        found = pd.Series(False, table.index)
        for column in columns:
            found |= table[column].map(lambda one, value=value: _is(one, value)).astype(bool)
        if not found.any():
            there = sorted({_text(one) for column in columns for one in table[column].dropna()} - {""}, key=_in_order)
            listed = ", ".join(there[:8]) + (", …" if len(there) > 8 else "")
            raise UserError(f"{option}: no run has {key}={value}; there are {listed}")
        mask |= found
    return mask


def _settings(table: pd.DataFrame) -> list[str]:
    return [str(c).removeprefix("config.") for c in table if str(c).startswith("config.")]


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _columns(table: pd.DataFrame, key: str) -> list[str]:
    """The columns that a typed key may mean: the whole key, or its last part below the optimizer, else anywhere."""
    if key in COLUMNS:
        return [COLUMNS[key]]
    key = {"α": "alpha"}.get(key, key)
    keys = _settings(table)
    for found in (
        [f"{key}.name"] if key in GROUPS and f"{key}.name" in keys else [],
        [key] if key in keys else [],
        [one for one in (f"optimizer.{key}", f"optimizer.inner.{key}") if one in keys],
        [one for one in keys if _short(one) == key and key != "name"],
    ):
        if found:
            return [f"config.{one}" for one in found]
    return []


def _is(value: Any, typed: str) -> bool:
    """As a number where both are one; ``true`` and ``null`` as YAML has them."""
    typed = typed.strip()
    if isinstance(value, bool):
        return typed.lower() == str(value).lower()
    if value is None or (isinstance(value, float) and value != value):
        return typed.lower() in ("null", "none")
    try:
        return float(value) == float(typed)
    except (TypeError, ValueError):
        return str(value).lower() == typed.lower().replace("-", "_") or str(value).lower() == typed.lower()


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_order(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text
