"""The seeds themselves: each method's final results as points, and the ones it does not finish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nested_lookahead.analysis import arms, tails, targets
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.looks import Look, looks
from nested_lookahead.analysis.figures.names import extremes, row_height, row_labels, tag
from nested_lookahead.analysis.sentences import p_value
from nested_lookahead.analysis.statistics import holm, quantile
from nested_lookahead.drawing import SMALL, grid, new_figure
from nested_lookahead.metric import ACCURACY, Metric

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task


def seeds(task: Task, options: Options) -> Drawn | None:
    """Final results by group, with median, lowest decile and failures."""
    whole = outcomes(task, options.target)
    if whole["n"].max() < 2 or (whole["failed"] == whole["n"]).all():
        return None
    table, more = extremes(whole, task.metric.sign * whole["median"], "settings")
    styles = looks(task)
    labels = (table["label"] + "\n" + table["shown"]).str.strip().tolist()
    texts = [_said(row, task.metric) for _, row in table.iterrows()]
    figure, (ax,) = new_figure(1, 1, row_height([*labels, *texts]) * len(labels) + 0.9)
    row_labels(ax, labels, table["group"].tolist())
    limit = tails.limit(task) if "behind" in whole else None
    plot_outcomes(ax, table, styles, options.target, task.metric, limit)
    ax.set_xlabel(f"final {task.split} {task.metric.axis}")
    worst = "lowest" if task.metric.sign > 0 else "highest"
    alt = [
        f"{row['label']} {row['shown']}".strip() + f": {_said(row, task.metric, '; ')}." for _, row in whole.iterrows()
    ]
    title = f"final {task.split} {task.metric.name} of each run, {task.weights} weights"
    return finish(
        figure,
        task,
        title,
        _caption(task, options.target, limit) + more,
        [f"Median and {worst} decile of {task.metric.axis}.", *alt],
        whole.drop(columns="values"),
    )


def _caption(task: Task, target: float | None, limit: float | None) -> str:
    worst, side = ("lowest", "below") if task.metric.sign > 0 else ("highest", "above")
    caption = (
        f"Each dot is a run. Long bar: median, short bar: {worst} decile, both of all runs with a diverged one {side} "
        "any other (none where it falls among those); ×: diverged runs. A method can win by its tail and tie in its "
        "median."
    )
    if target is not None:
        caption += (
            f" Dashed: the value fixed beforehand, {target:g}{task.metric.unit}; p is one-sided, that the mean "
            "is better (of the median, by signs, where runs diverged), adjusted for the groups by Holm."
        )
    if limit is not None:
        caption += (
            f" Dotted: more than {tails.FAR} δ behind the best median; a seed beyond it, or diverged, has failed."
        )
    return caption


def outcomes(task: Task, value: float | None = None) -> pd.DataFrame:
    """A row per group: label, shown, n runs, failed, median and decile (%; NaN where a diverged run is there), values;
    of a fair study's arms ``behind``: seeds that diverged or ended far behind, see `tails`; with a ``value`` fixed
    beforehand, Holm's ``p`` that the group is above it."""
    rows, sign = [], task.metric.sign
    finals = {str(group): part.to_numpy(dtype=float) for group, part in task.final.groupby("group")["value"]}
    for group, label, shown in zip(task.groups.index, task.groups["label"], task.groups["shown"], strict=True):
        values = finals[str(group)]
        rows.append(
            {"group": str(group), "label": label, "shown": shown, "n": len(values)}
            | {"failed": int(np.isnan(values).sum()), "median": sign * quantile(sign * values, 0.5)}
            | {"decile": sign * quantile(sign * values, 0.1)}
            | {"values": values[~np.isnan(values)]}
        )
    table = pd.DataFrame(rows)
    if arms.PAIRS in task.groups:
        behind = tails.failed(task).groupby(task.final["group"]).sum()
        table["behind"] = table["group"].map(behind).astype(int)
    if value is not None:
        table["p"] = holm([targets.above(sign * finals[group], sign * value)[0] for group in table["group"]])
    return table


def plot_outcomes(
    ax: Axes,
    table: pd.DataFrame,
    styles: dict[str, Look],
    value: float | None,
    metric: Metric = ACCURACY,
    limit: float | None = None,
) -> None:
    """A row per group, the first on top, on axes that have their row labels."""
    if value is not None:
        ax.axvline(value, color="#000000", lw=0.8, ls="--")
    if limit is not None:
        ax.axvline(limit, color="#000000", lw=0.8, ls=":")
    for y, (_, row) in enumerate(table.iterrows()):
        group, look = row["group"], styles[row["group"]]
        # A fixed pattern of heights: dots apart, and the same picture each time.
        heights = y + 0.13 * (np.arange(len(row["values"])) % 3 - 1)
        tag(ax.scatter(row["values"], heights, s=10, color=look.color, alpha=0.55, lw=0), group)
        for place, half in ((row["median"], 0.34), (row["decile"], 0.2)):
            if np.isfinite(place):
                tag(ax.plot([place, place], [y - half, y + half], color=look.color, lw=1.6), group)
        if row["failed"]:
            made = ax.text(
                0.005, y, f"×{row['failed']}", transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL
            )
            tag(made, group)
        tag(
            ax.text(1.02, y, _said(row, metric), transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL), group
        )
    if table["failed"].any():
        low, high = ax.get_xlim()
        ax.set_xlim(low - 0.08 * (high - low), high)
    grid(ax, "x")


def _said(row: Any, metric: Metric, gap: str = "\n") -> str:
    middle, low = (metric.number(row[key]) if np.isfinite(row[key]) else "diverged" for key in ("median", "decile"))
    more = [f"{row['failed']} of {row['n']} diverged"] if row["failed"] else []
    more += [f"{row['behind']} of {row['n']} failed"] if row.get("behind") else []
    more += [p_value(row["p"])] if "p" in row and np.isfinite(row["p"]) else []
    return f"median {middle}, decile {low}" + (gap + ", ".join(more) if more else "")
