"""What each value of a setting does over training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nested_lookahead.analysis.figures.curves import (
    AXES,
    BANDS,
    curve_table,
    means,
    named,
    number,
    plot_band,
)
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish, panels
from nested_lookahead.analysis.figures.families import MAX_PANELS, Family, families, is_complete, plane, stop
from nested_lookahead.analysis.figures.learning import frame_on_end
from nested_lookahead.analysis.figures.looks import shade
from nested_lookahead.analysis.figures.names import tag, wrap
from nested_lookahead.analysis.labels import setting, symbol
from nested_lookahead.drawing import SMALL, WIDTH

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

MAX_VALUES = 8
"""Of a setting, in one panel: its least and its greatest, and others evenly between them."""


@dataclass(frozen=True)
class Values:
    """One setting of a method: the groups that have each value. All else is averaged over, or the same."""

    family: Family
    key: str
    groups: dict[Any, list[str]]

    @property
    def label(self) -> str:
        others = [key for key in self.family.keys if key != self.key]
        averaged = [symbol(key) for key in others if len(self.family.values(key)) > 1]
        said = [f"averaged over {', '.join(averaged)}"] if averaged else []
        said += [f"fixed: {self.family.fixed}"] if self.family.fixed else []
        return f"{self.family.label}\n{symbol(self.key)}; {'; '.join(said)}".rstrip("; ")


def values(task: Task) -> list[Values]:
    """Each method's varying settings: over its whole grid where that is complete, else with all others the same."""
    found = []
    for family in families(task, by=("label", "pullback")):
        whole = is_complete(family)
        for key in family.keys:
            part = family if whole else plane(family, (key,))
            if len(part.values(key)) > 1:
                groups = {value: part.with_value(**{key: value}) for value in part.values(key)}
                found.append(Values(part, key, groups))
    return found


def settings_over_training(task: Task, options: Options) -> Drawn | None:
    """A metric over training, with a line for each value of a setting and a panel for each setting."""
    every = values(task)
    shown = every[:MAX_PANELS]
    if not shown:
        return None
    table = curve_table(task, options.metric, options.x, options.smooth)
    columns = min(len(shown), 2)
    figure, axes = panels(len(shown), 2.1, columns)
    tables = []
    for ax, one in zip(axes, shown, strict=True):
        mean = of_values(table, one)
        plot_values(ax, mean, one, options.metric)
        ax.set_title(wrap(one.label, WIDTH / columns - 0.6), loc="left", fontsize=SMALL)
        ax.set_xlabel(AXES[options.x], fontsize=SMALL)
        ax.set_ylabel(f"{task.split} {named(task, options.metric)}", fontsize=SMALL)
        tables.append(_ends(mean, one))
    whole = pd.concat(tables, ignore_index=True)
    caption = (
        "A line for each value of a setting, over completed runs; each seed is averaged over the other settings first. "
        f"{BANDS} Each panel has a scale of its own, which leaves out the first third of training where it would hide "
        f"the rest.{stop(every)}"
    )
    if task.groups["diverged"].any():
        caption += " With divergences, values are averaged over different other settings."
    alt = [
        f"{row['method']} {row['value']} ends at {number(task, options.metric, row['end'])}."
        for _, row in whole.iterrows()
    ]
    metric = task.metric.name if options.metric == "accuracy" else options.metric
    title = f"{task.split} {metric} over training by setting, {task.weights} weights"
    return finish(figure, task, title, caption, [f"{len(every)} settings of methods.", *alt], whole)


def of_values(table: pd.DataFrame, one: Values) -> pd.DataFrame:
    """A table as `means` makes, by the place of each value; each seed's mean over the groups first."""
    place = {group: i for i, groups in enumerate(one.groups.values()) for group in groups}
    rows = table[table["completed"] & table["group"].isin(place)]
    rows = rows.assign(group=rows["group"].map(place))
    return means(rows.groupby(["group", "seed", "at"], as_index=False)[["x", "y"]].mean().assign(completed=True))


def plot_values(ax: Axes, mean: pd.DataFrame, one: Values, metric: str) -> None:
    """The first value in the method's own colour, the last in the darkest; a band where few lines leave room for it."""
    chosen = sorted({round(i) for i in np.linspace(0, len(one.groups) - 1, min(len(one.groups), MAX_VALUES))})
    names = list(one.groups)
    look: dict[str, Any]
    for i in chosen:
        color, line = shade(one.family.look.color, i, len(names)), mean[mean["group"] == i]
        group = one.groups[names[i]][0] if len(one.groups[names[i]]) == 1 else ""
        look = {"marker": "os^vDP*X"[i % 8], "ms": 3, "markevery": max(1, len(line) // 6), "lw": 1.1}
        tag(ax.plot(line["x"], line["y"], color=color, label=setting(one.key, names[i]), **look), group)
        if len(chosen) <= 4:
            plot_band(ax, line, color, group)
    frame_on_end([ax], mean, metric)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    look = {"handlelength": 1.6, "labelspacing": 0.25, "borderaxespad": 0.1, "fontsize": SMALL - 1}
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), **look)  # a corner inside may have lines


def _ends(mean: pd.DataFrame, one: Values) -> pd.DataFrame:
    last = mean.groupby("group").last()
    names = [setting(one.key, value) for value in one.groups]
    return pd.DataFrame(
        {
            "method": one.family.label,
            "value": [names[i] for i in last.index],
            "settings": [len(list(one.groups.values())[i]) for i in last.index],
            "seeds": last["n"].to_numpy(),
            "end": last["y"].to_numpy(),
            "half_width": last["half"].to_numpy(),
        }
    )
