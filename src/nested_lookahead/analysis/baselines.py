"""Which group each group is compared with."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis.labels import setting_keys
from nested_lookahead.methods import default_settings


def baselines(groups: pd.DataFrame, name: str | None = None) -> dict[str, str]:
    """The group that each group is compared with.

    By default plain Lookahead over the same inner optimizer, for Lookahead that inner optimizer itself, and where
    there is neither the method's central setting (`central`); of several, the one whose settings differ least. Plain
    optimizers are compared with each other, with the first of them, where there is nothing else. With a name (of a
    method, with or without its inner optimizer, or the id of a group): that one, for all others.
    """
    wanted = named(groups, name)
    centres: dict[tuple[str, ...], str] = {}
    chosen = {}
    for group, row in ((str(index), row) for index, row in groups.iterrows()):
        own = (groups["source"] == row["source"]) & (groups.index != group)
        if "config.variant" in groups:  # of a published method; which settings it stands for is not known
            own &= groups["config.variant"].fillna("") == (
                "" if pd.isna(row["config.variant"]) else row["config.variant"]
            )
        ranks = _usual(groups, row, own) if name is None else [own & wanted & ~wanted[group]]
        for mask in ranks:
            if mask.any():
                chosen[group] = _nearest(groups, group, mask)
                break
        else:
            if name is None and not (row["inner"] == "" and _has_wrapped(groups, row)):
                alike = groups[own | (groups.index == group)]
                alike = alike[(alike["method"] == row["method"]) & (alike["inner"] == row["inner"])]
                key = tuple(map(str, alike.index))
                centres[key] = centres.get(key) or central(alike)
                if centres[key] != group:
                    chosen[group] = centres[key]
    return chosen


def _usual(groups: pd.DataFrame, row: Any, own: pd.Series[bool]) -> list[pd.Series[bool]]:
    """Groups that a group (row) is compared with, the first kind that there is."""
    plain = own & (groups["method"] == row["inner"]) & (groups["inner"] == "")
    lookahead = own & (groups["method"] == "lookahead") & (groups["inner"] == row["inner"])
    ranks = []
    if row["method"] == "lookahead":
        ranks = [plain]
    elif row["inner"]:
        ranks = [lookahead, plain]
    elif not _has_wrapped(groups, row):
        first = groups.loc[groups["source"] == row["source"], "method"].iloc[0]
        ranks = [own & (groups["method"] == first)] if row["method"] != first else []
    return ranks


def _has_wrapped(groups: pd.DataFrame, row: Any) -> bool:
    """Whether anything is wrapped around an optimizer: plain ones are then what it is compared with."""
    return bool((groups.loc[groups["source"] == row["source"], "inner"] != "").any())


def central(alike: pd.DataFrame) -> str:
    """Of one method's groups, the one that the others are variants of: with the fewest departures from the papers'
    settings; of several, the one from which most others differ in one setting alone, or in the middle of the values.
    In fp32, where precisions differ."""
    columns = {key: alike[f"config.{key}"] for key in setting_keys(alike)}
    columns = {key: column for key, column in columns.items() if len(set(column.astype(str))) > 1}
    codes = np.array([pd.factorize(column.astype(str))[0] for column in columns.values()]).reshape(
        len(columns), len(alike)
    )
    differing = (codes[:, :, None] != codes[:, None, :]).sum(axis=0)
    single = (differing == 1).sum(axis=0)
    middle = np.sum([[0.0] * len(alike), *(_from_middle(column) for column in columns.values())], axis=0)

    def rank(place: int) -> tuple[float, ...]:
        row = alike.iloc[place]
        departures = sum(_departs(row, key, value) for key, value in default_settings().items())
        return departures, row.get("config.precision") in ("bf16", "fp16"), -single[place], middle[place]

    return str(alike.index[min(range(len(alike)), key=rank)])


def _from_middle(column: pd.Series[Any]) -> list[float]:
    """How far each value is from the middle of all, in values."""
    values = list(dict.fromkeys(column.dropna()))
    with suppress(TypeError):  # numbers and names do not sort
        values.sort()
    half = (len(values) - 1) / 2
    return [abs(values.index(value) - half) if value in values else half + 1 for value in column]


def _departs(row: Any, key: str, value: Any) -> bool:
    own = row.get(f"config.optimizer.{key}", row.get(key))
    return not (own is None or pd.isna(own) or own == value)


def named(groups: pd.DataFrame, name: str | None) -> pd.Series[bool]:
    """Whether each group is meant by a name: of a method, with or without its inner optimizer, or the group's id."""
    full = [f"{m}_{i}" if i else m for m, i in zip(groups["method"], groups["inner"], strict=True)]
    wanted = (name or "").lower().replace("-", "_")
    return (groups["method"] == wanted) | (pd.Series(full, index=groups.index) == wanted) | (groups.index == name)


def is_default(row: Any) -> bool:
    """Whether a group has the papers' settings, as far as it has them."""
    return bool(row["inner"]) and not any(_departs(row, key, value) for key, value in default_settings().items())


def _nearest(groups: pd.DataFrame, group: str, mask: pd.Series[bool]) -> str:
    """Of the groups in the mask, the one with the fewest settings that differ; another inner optimizer is far away."""

    def of(row: Any) -> dict[str, Any]:
        found = {}
        for key in setting_keys(groups):
            value = row[f"config.{key}"]
            if not pd.isna(value):  # a plain optimizer's settings are an inner one's
                found[key.replace("optimizer.inner.", "optimizer.")] = value
        return found

    mine, own = of(groups.loc[group]), groups.loc[group]
    best, least = "", math.inf
    for other, row in groups[mask].iterrows():
        theirs = of(row)
        inner = row["inner"] or row["method"]
        distance = sum(mine[key] != theirs[key] for key in mine.keys() & theirs.keys())
        distance += 100 * (inner != (own["inner"] or own["method"]))
        if distance < least:
            best, least = str(other), distance
    return best
