"""The final result against the learning rate: what people look for first in a tuning study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.families import Family, families, plane
from nested_lookahead.analysis.figures.learning import label_edges, panels_for
from nested_lookahead.analysis.figures.names import MAX_DIRECT_LABELS, Name, named_lines, tag
from nested_lookahead.analysis.labels import LEARNING_RATES, setting
from nested_lookahead.analysis.statistics import t_half_width
from nested_lookahead.drawing import SMALL, grid, new_figure
from nested_lookahead.metric import Metric

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

MAX_METHODS = 32
ROW = 0.06
"""Height of the text of diverged runs, as a share of the axes."""


@dataclass(frozen=True)
class Tuned:
    """A method's results at several learning rates; ``fixed``: its other settings, as far as it was tried with others.

    ``cells``: a row per learning rate, in order: lr, group, and what `_cell` says.
    """

    family: Family
    fixed: str
    cells: pd.DataFrame

    @property
    def label(self) -> str:
        return f"{self.family.label}\n{self.fixed}({len(self.cells)} learning rates)"


def tuned(task: Task) -> list[Tuned]:
    """The methods that were tried at two learning rates or more, with all other settings equal."""
    found, finals = [], dict(iter(task.final.groupby("group")["value"]))
    for family in families(task, by=("label", "pullback")):
        key = next((key for key in LEARNING_RATES if key in family.keys), None)
        if key is None:
            continue
        part = plane(family, (key,))
        numbers = [(value, group) for group, value in part.column(key).items() if isinstance(value, int | float)]
        rows = [
            {"lr": float(value), "group": str(group)} | _cell(finals[str(group)])
            for value, group in sorted(numbers)
            if value > 0
        ]
        if len(rows) > 1:
            others = [other for other in family.keys if other != key]
            fixed = "".join(f"{setting(other, part.column(other).iloc[0])} " for other in others)
            found.append(Tuned(part, fixed, pd.DataFrame(rows)))
    return found


def _cell(values: pd.Series[float]) -> dict[str, Any]:
    """The mean over completed runs, its half-width (NaN below three), n, the values (%), and how many diverged."""
    there = values.dropna()
    half_width = t_half_width(there.to_numpy())
    return {
        "value": there.mean() if len(there) else np.nan,
        "half_width": np.nan if half_width is None else half_width,
        "n": len(there),
        "values": there.tolist(),
        "diverged": len(values) - len(there),
        "runs": len(values),
    }


def learning_rates(task: Task, options: Options) -> Drawn | None:
    """Final accuracy against the learning rate on a log axis: a line per method, a dot per seed."""
    every = tuned(task)
    shown = every[:MAX_METHODS]
    if not shown:
        return None
    label = f"final {task.split} {task.metric.axis}"
    if len(shown) <= MAX_DIRECT_LABELS:
        figure, (ax,) = new_figure(1, 1, 3.0)
        broken = [method.label for method in shown if method.cells["diverged"].any()]
        names = [plot_rates(ax, one, broken.index(one.label) if one.label in broken else 0) for one in shown]
        rate_axis([ax], shown, rows=len(broken))
        ax.set_xlabel("learning rate")
        ax.set_ylabel(label)
        named_lines(figure, ax, names)
    else:
        figure, axes = panels_for(len(shown), [method.label for method in shown])
        names = [plot_rates(ax, method) for ax, method in zip(axes, shown, strict=True)]
        for ax, method in zip(axes, shown, strict=True):
            _backdrop(ax, [other for other in shown if other is not method])
        rate_axis(axes, shown)
        label_edges(axes, "learning rate", label)
    caption = (
        "Lines: mean over completed runs; bars: 95% t intervals of each mean (none below three seeds); dots: single "
        "seeds; ×: diverged runs, in no mean. A method with other settings is shown at those that were tried with most "
        "learning rates. A best value at the end of a line asks for more."
    )
    if len(shown) > MAX_DIRECT_LABELS:
        caption += " Grey: the other methods."
    if len(every) > len(shown):
        caption += f" The first {MAX_METHODS} of {len(every)} methods."
    title = f"final {task.split} {task.metric.name} against the learning rate, {task.weights} weights"
    return finish(
        figure,
        task,
        title,
        caption,
        ["Best learning rates.", *(_said(method, task.metric) for method in shown)],
        _table(every),
    )


def plot_rates(ax: Axes, method: Tuned, row: int = 0) -> Name:
    """One method's line, bars and dots; its diverged runs in a row of their own at the foot."""
    cells, look = method.cells, method.family.look
    for _, cell in cells.iterrows():
        tag(ax.scatter([cell["lr"]] * len(cell["values"]), cell["values"], s=7, color=look.color, alpha=0.35, lw=0),
            cell["group"])  # fmt: skip
        if np.isfinite(cell["half_width"]):
            bar = ax.errorbar(cell["lr"], cell["value"], cell["half_width"], color=look.color, lw=0.9)
            tag(bar.get_children(), cell["group"])
        if cell["diverged"]:
            text = ax.text(cell["lr"], 0.01 + ROW * row, f"×{cell['diverged']}", ha="center", va="bottom",
                           transform=ax.get_xaxis_transform(), fontsize=SMALL, color=look.color)  # fmt: skip
            tag(text, cell["group"])
    there = cells.dropna(subset=["value"])
    (line,) = ax.plot(there["lr"], there["value"], **look.line() | {"markevery": 1, "label": method.label})
    return Name("", float(there["value"].iloc[-1]) if len(there) else np.nan, method.label, look.color, line)


def _backdrop(ax: Axes, others: Sequence[Tuned]) -> None:
    for other in others:
        ax.plot(other.cells["lr"], other.cells["value"], color="#B8B8B8", lw=0.5, zorder=0)


def rate_axis(axes: Sequence[Axes], shown: Sequence[Tuned], rows: int = 1) -> None:
    """Log x with the rates themselves as ticks where they are few; room at the foot for what diverged."""
    rates = sorted({rate for method in shown for rate in method.cells["lr"]})
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for ax in axes:
        ax.set_xscale("log")
        if len(rates) <= (8 if len(axes) == 1 else 3):
            ax.set_xticks(rates)
        else:
            ax.xaxis.set_major_locator(LogLocator(numticks=6 if len(axes) == 1 else 4))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(plain)
        grid(ax)
    if any(method.cells["diverged"].any() for method in shown):
        low, high = axes[0].get_ylim()
        room = 0.04 + ROW * rows
        axes[0].set_ylim(low - room / (1 - room) * (high - low), high)


def _said(method: Tuned, metric: Metric) -> str:
    cells = method.cells.dropna(subset=["value"])
    if cells.empty:
        return f"{method.family.label}: all diverged."
    best = cells.sort_values("value").iloc[-1 if metric.sign > 0 else 0]
    return f"{method.family.label}: {best['lr']:g}, {metric.number(best['value'])}."


def _table(every: Sequence[Tuned]) -> pd.DataFrame:
    tables = [
        method.cells.assign(method=method.family.label, settings=method.fixed.strip()).drop(columns="values")
        for method in every
    ]
    first = ["group", "method", "settings", "lr"]
    whole: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return whole.reindex(columns=[*first, *(column for column in whole if column not in first)])
