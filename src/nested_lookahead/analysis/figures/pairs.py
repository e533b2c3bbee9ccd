"""Two settings at a time: heat maps of the measured cells, and interactions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish, panels
from nested_lookahead.analysis.figures.families import (
    MAX_PANELS,
    PAIR_KEYS,
    PAIRED,
    crosses,
    families,
    plane,
    plot_summaries,
    results,
    stop,
    summary,
)
from nested_lookahead.analysis.figures.looks import Look, shade
from nested_lookahead.analysis.figures.names import Name, end_labels, tag, wrap
from nested_lookahead.analysis.labels import setting, symbol
from nested_lookahead.analysis.task import Task, once
from nested_lookahead.drawing import SMALL, WIDTH, grid
from nested_lookahead.metric import ACCURACY, Metric


@dataclass(frozen=True)
class Pair:
    """A method's cells over two settings."""

    label: str
    x: str
    y: str
    cells: pd.DataFrame
    look: Look


@once
def pairs(task: Task) -> list[Pair]:
    """Per method, inner optimizer and pullback, each pair of settings of which 2 × 2 values were combined.

    All other settings are averaged over where each cell has as many of them, else fixed.
    """
    found, every = results(task), []
    for family in families(task, by=("label", "pullback"), varying=2):
        for x, y in PAIR_KEYS:
            if not {x, y} <= {*family.keys}:
                continue
            part = family
            sizes = [len(part.with_value(**{x: a, y: b})) for a in part.values(x) for b in part.values(y)]
            if max(sizes) != min(sizes):
                part = plane(family, (x, y))
            rows = []
            for a, b in itertools.product(part.values(x), part.values(y)):
                groups = part.with_value(**{x: a, y: b})
                only = groups[0] if len(groups) == 1 else ""
                rows.append({"x": a, "y": b, "group": only} | summary(found, groups, part.groups.index.tolist()))
            cells = pd.DataFrame(rows)
            there = cells[cells["runs"] > 0].groupby("x")["y"].agg(set)
            if not any(len(one & other) > 1 for one, other in itertools.combinations(there, 2)):
                continue
            averaged = ", ".join(symbol(key) for key in part.keys if key not in (x, y))
            said = "; ".join(
                filter(None, [averaged and f"averaged over {averaged}", part.fixed and f"fixed: {part.fixed}"])
            )
            every.append(
                Pair(f"{part.label}\n{symbol(x)} and {symbol(y)}; {said}".rstrip("; "), x, y, cells, part.look)
            )
    return every


def heatmaps(task: Task, options: Options) -> Drawn | None:
    """Raw cells over pairs of settings, with value, half-width, n and divergences."""
    every = pairs(task)
    shown = every[:MAX_PANELS]
    if not shown:
        return None
    wide = max(pair.cells["x"].nunique() for pair in shown)
    high = max(pair.cells["y"].nunique() for pair in shown)
    columns = 1 if wide > 5 else 2
    figure, axes = panels(len(shown), 0.48 * high + 0.85, columns)
    for ax, pair in zip(axes, shown, strict=True):
        plot_heatmap(ax, pair, task.metric)
        ax.set_title(wrap(pair.label, WIDTH / min(columns, len(shown)) - 0.5), loc="left", fontsize=SMALL)
    caption = (
        "Each cell is measured, none is interpolated: mean over seeds ± half-width of the 95% t interval of its "
        "difference from the mean of the panel's cells, paired by seed (none below three), n seeds, × diverged runs, "
        "which are in no mean; hatched: not tried. Each title says over what a panel is averaged and what is fixed. "
        "Darker is lower, and each panel has a scale of its own."
    )
    said = f"{caption}{stop(every)}"
    title = f"final {task.split} {task.metric.axis} over pairs of settings, {task.weights} weights"
    return finish(
        figure, task, title, said, [f"Mean {task.metric.axis}.", *_best_cells(every, task.metric)], _cells(every)
    )


def _best_cells(every: Sequence[Pair], metric: Metric) -> Iterator[str]:
    for pair in every:
        cells = pair.cells.dropna(subset=["value"]).sort_values("value")
        if len(cells):
            worst, best = (cells.iloc[0], cells.iloc[-1])[:: metric.sign]
            one, other = (
                f"{setting(pair.x, cell['x'])} {setting(pair.y, cell['y'])} {metric.number(cell['value'])}"
                for cell in (best, worst)
            )
            yield f"{pair.label.splitlines()[0]}: best {one}, worst {other}."


def _cells(every: Sequence[Pair]) -> pd.DataFrame:
    tables = [
        pair.cells.assign(method=pair.label.splitlines()[0], x=[setting(pair.x, v) for v in pair.cells["x"]],
                          y=[setting(pair.y, v) for v in pair.cells["y"]])
        for pair in every
    ]  # fmt: skip
    return pd.concat(tables)[["method", "x", "y", "value", "half_width", "n", "diverged", "runs"]]


def plot_heatmap(ax: Axes, pair: Pair, metric: Metric = ACCURACY) -> None:
    """One rectangle per cell; values in it."""
    cells, colors = pair.cells, colormaps["cividis"]
    xs, ys = list(dict.fromkeys(cells["x"])), list(dict.fromkeys(cells["y"]))
    low, high = cells["value"].min(), cells["value"].max()
    for _, cell in cells.iterrows():
        i, j, group = xs.index(cell["x"]), ys.index(cell["y"]), cell["group"]
        if np.isfinite(cell["value"]):
            share = (cell["value"] - low) / (high - low) if high > low else 1.0
            face, hatch = colors(share), None
            ink = "black" if np.dot(np.array(face[:3]) ** 2.2, (0.2126, 0.7152, 0.0722)) > 0.18 else "white"
        else:
            face, ink, hatch = "white", "black", "////" if not cell["runs"] else None
        edge = "#BBBBBB" if hatch else "white"
        box = Rectangle((i - 0.5, j - 0.5), 1, 1, facecolor=face, edgecolor=edge, hatch=hatch)
        tag(ax.add_patch(box), group)
        text = cell_text(cell, metric)
        tag(ax.text(i, j, text, ha="center", va="center", fontsize=6.5, color=ink, linespacing=1.05), group)
    ax.set_xticks(range(len(xs)), [_plain(value) for value in xs])
    ax.set_yticks(range(len(ys)), [_plain(value) for value in ys])
    ax.set_xlabel(symbol(pair.x))
    ax.set_ylabel(symbol(pair.y), rotation=0, ha="right", va="center")
    ax.set_xlim(-0.5, len(xs) - 0.5)
    ax.set_ylim(-0.5, len(ys) - 0.5)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value) or "not set"


def cell_text(cell: Any, metric: Metric) -> str:
    """``97.20``, ``±0.31``, ``n=5 ×1`` below each other."""
    if not cell["runs"]:
        return ""
    lost = f"×{cell['diverged']}" if cell["diverged"] else ""
    if not cell["n"]:
        return lost
    half = [f"±{metric.number(cell['half_width'])}"] if np.isfinite(cell["half_width"]) else []
    return "\n".join([metric.number(cell["value"]), *half, f"n={cell['n']} {lost}".strip()])


def interactions(task: Task, options: Options) -> Drawn | None:
    """Per pair of settings, one line for each value of the second."""
    every = pairs(task)
    shown = every[:MAX_PANELS]
    if not shown:
        return None
    columns = min(2, len(shown))
    figure, axes = panels(len(shown), 2.3)
    named = []
    for ax, pair in zip(axes, shown, strict=True):
        named.append(plot_interaction(ax, pair))
        ax.set_title(wrap(pair.label, WIDTH / columns - 0.8), loc="left", fontsize=SMALL)
        ax.set_ylabel(f"{task.split} {task.metric.axis}", fontsize=SMALL)
    end_labels(figure, list(zip(axes, named, strict=True)))
    caption = (
        "Where lines are not parallel the settings interact. Each point is a mean over seeds, as it differs from the "
        f"mean of the panel's points. Each panel has a scale of its own. {PAIRED}"
    )
    caption += stop(every)
    title = f"interactions of pairs of settings, {task.weights} weights"
    return finish(
        figure,
        task,
        title,
        caption,
        [f"Mean {task.metric.axis}.", *_best_cells(every, task.metric)],
        _cells(every),
    )


def plot_interaction(ax: Axes, pair: Pair) -> list[Name]:
    """Mean against the first setting, the values of the second a little beside each other."""
    xs, ys = list(dict.fromkeys(pair.cells["x"])), list(dict.fromkeys(pair.cells["y"]))
    names = []
    for j, (value, cells) in enumerate(pair.cells.groupby("y", sort=False)):
        color = shade(pair.look.color, j, len(ys))
        x = np.array([xs.index(v) for v in cells["x"]]) + 0.12 * (j - (len(ys) - 1) / 2) / max(1, len(ys) / 3)
        cells = cells.assign(color=to_hex(color))
        plot_summaries(ax, x, cells, 0.0, {"s": 6, "alpha": 0.3}, {"elinewidth": 0.9})
        for place, group, count in zip(x, cells["group"], cells["diverged"], strict=True):
            if count:
                crosses(ax, float(place), count, group)
        (line,) = ax.plot(x, cells["value"], color=color, marker="os^vDP*X"[j % 8], ms=4, lw=1.2)
        last = cells["value"].dropna()
        names.append(Name("", float(last.iloc[-1]) if len(last) else np.nan, setting(pair.y, value), color, line))
    if pair.cells["diverged"].any():
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.15 * (high - low), high)
    ax.set_xticks(range(len(xs)), [_plain(value) for value in xs])
    ax.set_xlabel(symbol(pair.x))
    grid(ax)
    return names
