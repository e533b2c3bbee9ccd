"""One setting at a time: variants against the default, and each value averaged over the other settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish, panels
from nested_lookahead.analysis.figures.families import (
    MAX_PANELS,
    PAIRED,
    complete_grids,
    crosses,
    default,
    families,
    grid_label,
    plot_summaries,
    results,
    stop,
    summary,
)
from nested_lookahead.analysis.figures.looks import looks
from nested_lookahead.analysis.figures.names import CHARACTER, short, tag, wrap
from nested_lookahead.analysis.labels import setting
from nested_lookahead.drawing import SMALL, WIDTH, grid

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

MAX_VARIANTS = 12
"""Of a method with more settings, only those are called variants that differ from the default in one."""


def hyperparameters(task: Task, options: Options) -> Drawn | None:
    """Per method, its variants against its default."""
    styles, found = looks(task), results(task)
    drawn: list[tuple[str, pd.DataFrame]] = []
    others = 0
    for family in families(task):
        reference = default(family)
        own = {key: family.column(key).to_dict() for key in family.keys}
        rows: list[dict[str, Any]] = [
            {"group": reference, "key": "", "tick": "default", "color": styles[reference].color}
        ]
        for many in (1, 2, 3, 4):
            for group in family.groups.index:
                changed = [key for key in family.keys if own[key][group] != own[key][reference]]
                if len(changed) == many and (many == 1 or len(family.groups) <= MAX_VARIANTS):
                    tick = " ".join(setting(key, own[key][group]) for key in changed)
                    key = changed[0] if many == 1 else "several"
                    rows.append({"group": str(group), "key": key, "tick": tick, "color": styles[str(group)].color})
        rows.sort(key=lambda row, keys=["", *family.keys, "several"]: keys.index(row["key"]))  # type: ignore[misc]
        others += len(family.groups) - len(rows)
        if len(rows) > 1:
            table = pd.DataFrame([row | summary(found, [row["group"]], [reference]) for row in rows])
            settings = " ".join(setting(key, own[key][reference]) for key in family.keys)
            drawn.append((f"{family.label}\ndefault: {settings}", table))
    caption = (
        "Variants against the method's default, named by what differs; dashed: the default's mean, which each variant "
        f"is compared with. Each panel has a scale of its own. {PAIRED}"
    )
    if others:
        caption += f" {others} settings that differ from the default in several are not shown here."
    return _category_figure(task, drawn, "variants against each method's default", caption)


def marginals(task: Task, options: Options) -> Drawn | None:
    """Per complete grid and varying setting, the mean over all other settings for each value."""
    drawn, found = [], results(task)
    parts, refused = complete_grids(task)
    for family in parts:
        rows = [
            {"group": "", "key": key, "tick": setting(key, value), "color": family.look.color}
            | summary(found, family.with_value(**{key: value}), family.groups.index.tolist())
            for key in family.keys
            for value in family.values(key)
        ]
        drawn.append((grid_label(family), pd.DataFrame(rows)))
    caption = (
        "Mean over a grid's settings that have the value, as it differs from the mean over the whole grid. Each panel "
        f"has a scale of its own. {PAIRED}{refused}"
    )
    if any(family.groups["diverged"].any() for family in parts):
        caption += " With divergences, values are averaged over different other settings."
    return _category_figure(task, drawn, "each setting's values, averaged over the other settings", caption)


def _category_figure(task: Task, drawn: list[tuple[str, pd.DataFrame]], title: str, caption: str) -> Drawn | None:
    if not drawn:
        return None
    shown = drawn[:MAX_PANELS]
    columns = 1 if max(len(table) for _, table in shown) > 12 else 2
    inches = WIDTH / min(columns, len(shown)) - 0.7
    ticks = max(len(short(tick)) for _, table in shown for tick in table["tick"])
    turned = any(
        table["tick"].map(short).str.len().max() + 1 > inches / CHARACTER / (len(table) + 1.5) for _, table in shown
    )
    figure, axes = panels(len(shown), 2.3 + (0.65 * ticks * CHARACTER if turned else 0), columns)
    for ax, (label, table) in zip(axes, shown, strict=True):
        plot_categories(ax, table, turned)
        ax.set_title(wrap(label, inches), loc="left", fontsize=SMALL)
        ax.set_ylabel(f"{task.split} {task.metric.axis}", fontsize=SMALL)
    table = pd.concat([t.assign(method=label.split("\n")[0]) for label, t in drawn]).drop(columns=["color", "values"])
    there = table[table["n"] > 0]
    alt = [f"{r['method']} {r['tick']} {task.metric.number(r['value'])}." for _, r in there.iterrows()]
    said = f"{caption}{stop(drawn)}"
    return finish(figure, task, f"{title}, {task.weights} weights", said, [f"Mean {task.metric.axis}.", *alt], table)


def plot_categories(ax: Axes, table: pd.DataFrame, turned: bool = False) -> None:
    """Mean and interval of each row, its seeds faint; a gap between settings, a dashed line at the default's mean."""
    gaps = (table["key"] != table["key"].shift()).cumsum() - 1
    x = np.arange(len(table)) + 0.6 * gaps.to_numpy()
    plot_summaries(ax, x, table, 0.13, {"s": 9, "alpha": 0.35}, {"marker": "o", "ms": 4, "elinewidth": 1.2})
    for place, (_, row) in zip(x, table.iterrows(), strict=True):
        group, color = row["group"], row["color"]
        if row["diverged"]:
            crosses(ax, place, row["diverged"], group)
        if row["tick"] == "default":
            tag(ax.axhline(row["value"], color=color, lw=0.8, ls="--", alpha=0.7), group)
    if table["diverged"].any():
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.15 * (high - low), high)
    angle: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    ax.set_xticks(x, [short(tick) for tick in table["tick"]], fontsize=SMALL, **angle)
    ax.set_xlim(-0.6, x[-1] + 0.6)
    grid(ax)
