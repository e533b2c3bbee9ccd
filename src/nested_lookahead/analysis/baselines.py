"""Which group each group is compared with."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis.labels import setting_keys
from nested_lookahead.analysis.matching import meant
from nested_lookahead.errors import UserError
from nested_lookahead.methods import default_settings


@dataclass(frozen=True)
class Described:
    """A group as far as its baseline depends on it. Groups are only compared with those of the same ``kind``: own runs,
    or published ones of one variant, of which it is not known which settings it stands for."""

    group: str
    kind: tuple[str, str]
    method: str
    inner: str
    settings: dict[str, Any]


def baselines(groups: pd.DataFrame, name: str | None = None) -> dict[str, str]:
    """The group that each group is compared with.

    By default plain Lookahead over the same inner optimizer, for Lookahead that inner optimizer itself, and where
    there is neither the method's central setting (`central`); of several, the one whose settings differ least. Plain
    optimizers are compared with each other, with the first of them, where there is nothing else. With a name (of a
    method, with or without its inner optimizer, or the id of a group): that one, for all others.
    """
    every = _described(groups)
    if name is not None:
        meant = named(groups, name)
        wanted = [one for one in every if meant[one.group]]
        mine = ((one, [w for w in wanted if w.kind == one.kind]) for one in every if not meant[one.group])
        return {one.group: _nearest(one, others) for one, others in mine if others}
    by_method: dict[tuple[Any, ...], list[Described]] = {}
    for one in every:
        by_method.setdefault((one.kind, one.method, one.inner), []).append(one)
    centres = {key: central(groups.loc[[one.group for one in alike]]) for key, alike in by_method.items()}
    wrapped = {one.kind[0] for one in every if one.inner}
    first = {one.kind[0]: one.method for one in reversed(every)}
    chosen = {}
    for one in every:
        usual = _usual(one, by_method, one.kind[0] in wrapped, first[one.kind[0]])
        centre = centres[one.kind, one.method, one.inner]
        if usual:
            chosen[one.group] = _nearest(one, usual)
        elif centre != one.group and (one.inner or one.kind[0] not in wrapped):
            chosen[one.group] = centre
    return chosen


def _described(groups: pd.DataFrame) -> list[Described]:
    keys = setting_keys(groups)
    settings: list[dict[str, Any]] = [{} for _ in range(len(groups))]
    for key in keys:
        column = groups[f"config.{key}"]
        # A plain optimizer's settings are an inner one's.
        plain = key.replace("optimizer.inner.", "optimizer.")
        for mine, value, known in zip(settings, column, column.notna(), strict=True):
            if known:
                mine[plain] = value
    blank = pd.Series("", groups.index)
    variants = groups["config.variant"].fillna("") if "config.variant" in groups else blank
    columns = (groups.index, groups["source"], variants, groups["method"], groups["inner"], settings)
    return [Described(str(g), (s, v), m, i, own) for g, s, v, m, i, own in zip(*columns, strict=True)]


def _usual(
    one: Described, by_method: dict[tuple[Any, ...], list[Described]], wrapped: bool, first: str
) -> list[Described]:
    """Groups that one is compared with, the first kind that there is. Plain optimizers have none where something is
    ``wrapped`` around them, as they are themselves what that is compared with; else the ``first`` of them."""
    plain = by_method.get((one.kind, one.inner, ""), [])
    if one.method == "lookahead":
        return plain
    if one.inner:
        return by_method.get((one.kind, "lookahead", one.inner)) or plain
    return [] if wrapped or one.method == first else by_method.get((one.kind, first, ""), [])


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
    """Whether each group is meant by a name: of a method, with or without its inner optimizer, or the group's id; or
    by settings, as ``k=5,alpha=0.5``."""
    if name is not None and "=" in name:
        try:
            return meant(groups, name, f"--baseline {name}")
        except UserError:  # of these groups none; `analyze.py` says so where no run at all is meant
            return pd.Series(False, groups.index)
    full = [f"{m}_{i}" if i else m for m, i in zip(groups["method"], groups["inner"], strict=True)]
    wanted = (name or "").lower().replace("-", "_")
    return (groups["method"] == wanted) | (pd.Series(full, index=groups.index) == wanted) | (groups.index == name)


def is_default(row: Any) -> bool:
    """Whether a group has the papers' settings, as far as it has them."""
    return bool(row["inner"]) and not any(_departs(row, key, value) for key, value in default_settings().items())


def _nearest(one: Described, others: list[Described]) -> str:
    """The one with the fewest settings that differ, the first of equals; another inner optimizer is far away."""

    def distance(other: Described) -> int:
        keys = one.settings.keys() & other.settings.keys()
        far = 100 * ((other.inner or other.method) != (one.inner or one.method))
        return far + sum(bool(one.settings[key] != other.settings[key]) for key in keys)

    return min((other for other in others if other.group != one.group), key=distance).group
