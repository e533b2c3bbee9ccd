"""Which group each group is compared with."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from nested_lookahead.analysis.labels import setting_keys
from nested_lookahead.methods import default_settings


def baselines(groups: pd.DataFrame, name: str | None = None) -> dict[str, str]:
    """The group that each group is compared with.

    By default plain Lookahead over the same inner optimizer, for Lookahead that inner optimizer itself, and where
    there is neither the method's own default settings; of several, the one whose settings differ least. With a name
    (of a method, with or without its inner optimizer, or the id of a group): that one, for all others.
    """
    wanted = named(groups, name)
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
    if not is_default(row):
        same = own & (groups["method"] == row["method"]) & (groups["inner"] == row["inner"])
        ranks.append(same & groups.apply(is_default, axis="columns"))
    return ranks


def named(groups: pd.DataFrame, name: str | None) -> pd.Series[bool]:
    """Whether each group is meant by a name: of a method, with or without its inner optimizer, or the group's id."""
    full = [f"{m}_{i}" if i else m for m, i in zip(groups["method"], groups["inner"], strict=True)]
    wanted = (name or "").lower().replace("-", "_")
    return (groups["method"] == wanted) | (pd.Series(full, index=groups.index) == wanted) | (groups.index == name)


def is_default(row: Any) -> bool:
    """Whether a group has the papers' settings, as far as it has them."""
    return bool(row["inner"]) and all(
        row.get(f"config.optimizer.{key}", row.get(key)) in (value, None)
        or pd.isna(row.get(f"config.optimizer.{key}", row.get(key)))
        for key, value in default_settings().items()
    )


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
