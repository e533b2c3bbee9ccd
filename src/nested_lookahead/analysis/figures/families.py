"""The settings of one method: which vary, which of them form complete grids, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nested_lookahead.analysis.baselines import central
from nested_lookahead.analysis.figures.looks import Look, looks, our_groups
from nested_lookahead.analysis.figures.names import tag
from nested_lookahead.analysis.labels import PULLBACK, main_keys, setting, setting_keys, symbol
from nested_lookahead.analysis.statistics import t_half_width
from nested_lookahead.analysis.task import Task, once
from nested_lookahead.drawing import SMALL

PAIRS = (("k", "alpha"), ("s", "h"), ("k", "s"), ("alpha", "h"))
PAIR_KEYS = [(f"optimizer.{x}", f"optimizer.{y}") for x, y in PAIRS]
MAX_PANELS = 12
Array = np.ndarray[Any, Any]
PAIRED = (
    "Bars: 95% t intervals of that difference, paired by seed (none below three); dots: single seeds, less what their "
    "seed has in common; ×: diverged runs, in no mean."
)


@dataclass(frozen=True)
class Family:
    """The groups of one method, and the keys of the configuration in which they differ."""

    label: str
    groups: pd.DataFrame
    keys: Sequence[str]
    look: Look

    @property
    def fixed(self) -> str:
        """The periods, step sizes and learning rate that all groups share."""
        first = {key: self.column(key).iloc[0] for key in main_keys(self.groups)}
        skip = (*self.keys, PULLBACK)
        return " ".join(setting(key, value) for key, value in first.items() if key not in skip and value != "")

    def values(self, key: str) -> list[Any]:
        """Those of a setting, numbers in order; a setting that is not set is the empty text."""
        values = list(dict.fromkeys(self.column(key)))
        return sorted(values, key=lambda value: (isinstance(value, str), value))

    @cached_property
    def _columns(self) -> dict[str, pd.Series[Any]]:
        return {}

    def column(self, key: str) -> pd.Series[Any]:
        """The value of a setting in each group; the empty text where it is not set."""
        if key not in self._columns:
            self._columns[key] = self._column(key)
        return self._columns[key]

    def _column(self, key: str) -> pd.Series[Any]:
        column = self.groups[f"config.{key}"].astype(object)
        plain = [v if isinstance(v, int | float) and not isinstance(v, bool) else str(v) for v in column]
        return pd.Series(plain, self.groups.index, dtype=object).where(column.notna(), "")

    def with_value(self, **fixed: Any) -> list[str]:
        """Ids of the groups that have those values."""
        columns = [(self.column(key).to_list(), value) for key, value in fixed.items()]
        return [
            str(group)
            for i, group in enumerate(self.groups.index)
            if all(column[i] == value for column, value in columns)
        ]


@once
def families(task: Task, by: Sequence[str] = ("label",), varying: int = 1) -> list[Family]:
    """The methods with so many varying settings or more."""
    styles = looks(task)
    found = []
    for _, groups in our_groups(task).groupby(list(by), sort=False):
        keys = [key for key in setting_keys(groups) if _differ(groups[f"config.{key}"].astype(str))]
        label = str(groups["label"].iloc[0])
        if "pullback" in by and _differ(task.groups.loc[task.groups["label"] == label, "pullback"]):
            label += f", pullback={groups['pullback'].iloc[0]}"
        if len(keys) >= varying:
            found.append(Family(label, groups, keys, styles[str(groups.index[0])]))
    return found


def _differ(values: pd.Series[Any]) -> bool:
    return len(set(values)) > 1


def default(family: Family) -> str:
    """The group that the others are variants of."""
    return central(family.groups)


def grid_label(family: Family) -> str:
    size = " × ".join(f"{len(family.values(key))} {symbol(key)}" for key in family.keys)
    return f"{family.label}\n{size}{f'; fixed: {family.fixed}' if family.fixed else ''}"


@once
def complete_grids(task: Task) -> tuple[list[Family], str]:
    """Each method's grid, if every combination is there; else those of its pullbacks, or their planes over a pair.

    Also a sentence on the methods without.
    """
    found, refused = [], []
    by_pullback = families(task, by=("label", "pullback"), varying=2)
    for family in families(task, varying=2):
        parts = [family]
        if not is_complete(family):
            own = [part for part in by_pullback if set(part.groups.index) <= set(family.groups.index)]
            whole = [part for part in own if is_complete(part)]
            planes = [plane(part, keys) for part in own if not is_complete(part) for keys in PAIR_KEYS]
            parts = [part for part in whole + planes if len(part.keys) > 1 and is_complete(part)]
        found += parts
        refused += [f"{family.label} ({len(family.groups)} settings)"] if not parts else []
    return found, f" Refused, as the grid has gaps: {', '.join(refused)}." if refused else ""


def plane(family: Family, keys: Sequence[str]) -> Family:
    """The largest part of a method's groups that differ in these settings alone; of several, that with the default."""
    others = [key for key in family.keys if key not in keys]
    if not others:
        return family
    at = list(zip(*(family.column(key) for key in others), strict=True))
    usual = at[family.groups.index.get_loc(default(family))]
    best = max(dict.fromkeys(at), key=lambda values: (at.count(values), values == usual))
    groups = family.groups[[values == best for values in at]]
    part = replace(family, groups=groups)
    return replace(part, keys=[key for key in keys if key in family.keys and len(part.values(key)) > 1])


def is_complete(family: Family) -> bool:
    """Whether every combination of the values is there."""
    combinations = set(zip(*(family.column(key) for key in family.keys), strict=True))
    size = int(np.prod([len(family.values(key)) for key in family.keys]))
    return len(combinations) == size == len(family.groups)


@dataclass(frozen=True)
class Results:
    """Final accuracies (%), groups × seeds: NaN where a run diverged, or is not ``there``."""

    final: Array
    there: Array
    places: dict[str, int]
    """The row of each group."""

    def of(self, groups: Sequence[str]) -> tuple[Array, Array]:
        rows = [self.places[group] for group in groups]
        return self.final[rows], self.there[rows]


@once
def results(task: Task) -> Results:
    values = task.final.pivot_table(index="group", columns="seed", values="value", dropna=False)
    counts = task.final.pivot_table(index="group", columns="seed", values="path", aggfunc="count", observed=True)
    there = counts.reindex_like(values).fillna(0).to_numpy() > 0
    return Results(values.to_numpy(float), there, {str(group): i for i, group in enumerate(values.index)})


def summary(found: Results, groups: Sequence[str], against: Sequence[str] = ()) -> dict[str, Any]:
    """Mean final accuracy (%) over seeds of these groups, and how far it is from that of others, seed by seed.

    A seed's value is its mean over the groups. What all runs of a seed have in common says nothing of the settings: so
    the interval is that of the paired difference from the mean of ``against``, as far as those groups finished all
    their seeds, and a seed's dot is where it would be if its common part were the average one.

    Returns:
        value and half_width (NaN where there is none), n (seeds), values (by seed; none of what is compared with
        itself), diverged and runs (counts).
    """
    own, there = found.of(groups)
    others, others_there = found.of(against)
    whole = ~(others_there & np.isnan(others)).any(axis=1)
    values = _mean(own)
    common = others[whole].mean(axis=0) if whole.any() else np.full(len(values), np.nan)
    known, both = ~np.isnan(values), ~np.isnan(values) & ~np.isnan(common)
    half_width = None
    if list(groups) == list(against):  # less what each seed has in common, they would lie on the mean
        values, dots = values[known], values[:0]
    elif both.any():
        values = dots = values[both] - common[both] + common[~np.isnan(common)].mean()
        half_width = t_half_width(values)
    else:
        values = dots = values[known]
    return {
        "value": float(values.mean()) if len(values) else np.nan,
        "half_width": np.nan if half_width is None else half_width,
        "n": len(values),
        "values": dots.tolist(),
        "diverged": int((there & np.isnan(own)).sum()),
        "runs": int(there.sum()),
    }


def _mean(values: Array) -> Array:
    """Of each column, less what is NaN; NaN where all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=0) / known.sum(axis=0))


def plot_summaries(ax: Axes, x: Any, table: pd.DataFrame, shift: float, dots: Any, bars: Any) -> None:
    """The seeds of each row (as `summary` makes them, with ``group`` and ``color``) as faint dots, and its
    interval; one artist for all rows of no group."""
    for (group, color), part in table.assign(x=x).groupby(["group", "color"], sort=False):
        many = part[part["n"] > 1]
        places = np.repeat(many["x"].to_numpy() + shift, many["values"].map(len))
        if len(places):
            values = np.concatenate([np.asarray(values) for values in many["values"]])
            tag(ax.scatter(places, values, color=color, lw=0, **dots), str(group))
        if len(there := part[part["n"] > 0]):
            half = there["half_width"] if there["half_width"].notna().any() else None
            tag(ax.errorbar(there["x"], there["value"], half, color=color, ls="", **bars).get_children(), str(group))


def stop(many: Sequence[Any]) -> str:
    return f" The first {MAX_PANELS} of {len(many)} panels." if len(many) > MAX_PANELS else ""


def crosses(ax: Axes, x: float, count: int, group: str) -> None:
    """So many diverged runs, at the foot of the axes."""
    text = ax.text(x, 0.01, f"×{count}", transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=SMALL)
    tag(text, group)
