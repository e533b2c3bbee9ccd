"""Learning curves: together where they are few, else a panel for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nested_lookahead.analysis.figures.curves import (
    AXES,
    BANDS,
    curve_table,
    looks_of,
    means,
    metric_axis,
    named,
    number,
    plot_curves,
    plot_mean,
    plot_runs,
)
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.looks import Look
from nested_lookahead.analysis.figures.names import MAX_DIRECT_LABELS, Name, named_lines, tag, wrap
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.drawing import SMALL, WIDTH, new_figure

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

MAX_METHODS = 32
"""With a panel of their own."""
BACKDROP = "#B8B8B8"


def learning_curves(task: Task, options: Options) -> Drawn | None:
    """A metric over training: each run faint, each group's mean bold in its interval.

    Up to six groups share a panel, and have the last fifth in another; more have panels of their own, a method each.
    """
    table = curve_table(task, options.metric, options.x, options.smooth)
    if table.empty:
        return None
    styles = looks_of(task, table)
    if len(styles) <= MAX_DIRECT_LABELS:
        figure, names = _together(task, table, styles, options)
        said, panels = "Bold: mean over completed runs at each evaluation; faint: single runs.", len(names)
    else:
        figure, names, said = _apart(task, table, styles, options)
        panels = len(figure.axes)
    shown = task.metric.name if options.metric == "accuracy" else options.metric
    title = f"{task.split} {shown} over training, {task.weights} weights"
    ended = sorted(names, key=lambda name: name.y, reverse=options.metric == "accuracy" and task.metric.sign > 0)
    alt = [
        f"{name.label.replace(chr(10), ' ')} ends at {number(task, options.metric, name.y)}."
        for name in ended
        if np.isfinite(name.y)
    ]
    return finish(
        figure,
        task,
        title,
        f"{said} {BANDS} {_said_of_curves(task, options, styles)}".strip(),
        [f"Learning curves of {len(styles)} settings in {panels} panels, best first.", *alt],
        _some_epochs(table, styles, shown),
    )


def _together(task: Task, table: pd.DataFrame, styles: dict[str, Look], options: Options) -> tuple[Figure, list[Name]]:
    """The whole training, and its last fifth."""
    figure, (whole, tail) = new_figure(1, 2, 2.8, width_ratios=(3, 2))
    epochs = sorted(table["epoch"].unique())
    first = min(epochs[-1] - round(epochs[-1] / 5) + 1, epochs[-2:][0])  # two evaluations at the least
    names = plot_curves(whole, table, styles)
    plot_curves(tail, table[table["epoch"] >= first], styles)
    for ax in (whole, tail):
        ax.set_xlabel(AXES[options.x])
        metric_axis(ax, options.metric)
    tail.set_title("the last fifth", loc="left")
    whole.set_ylabel(f"{task.split} {named(task, options.metric)}")
    named_lines(figure, tail, names)
    return figure, names


def _said_of_curves(task: Task, options: Options, styles: dict[str, Look]) -> str:
    said = []
    if any(look.diverged for look in styles.values()):
        said.append(
            "Diverged runs are in no mean; single ones are drawn up to where they end, and may leave the frame."
        )
    if options.smooth and options.smooth > 1:
        said.append(f"Every curve is a running mean over {options.smooth} evaluations.")
    if options.metric != "accuracy":
        said.append("Log scale; a value of 0 is drawn at half the least other one.")
    if (task.groups["source"] == REFERENCE).any():
        said.append("Thin and greyer: published numbers, of other code.")
    if options.x == "seconds" and len(set(task.runs.get("device_name", ()))) > 1:
        said.append("The runs were made on different hardware: do not compare their seconds.")
    if task.weights != "fast":
        said.append(f"Methods without {task.weights} weights are shown by their fast ones.")
    return " ".join(said)


def _some_epochs(table: pd.DataFrame, styles: dict[str, Look], metric: str) -> pd.DataFrame:
    """One row per group, with its means at up to eight epochs."""
    epochs = sorted(table["epoch"].unique())
    chosen = sorted({epochs[round(i)] for i in np.linspace(0, len(epochs) - 1, 8)})
    means = table[table["completed"]].pivot_table(index="group", columns="epoch", values="y")
    means = means.reindex(index=list(styles), columns=chosen)
    means.columns = pd.Index([f"{metric}, epoch {epoch:g}" for epoch in chosen])
    means.insert(0, "label", [look.label.replace("\n", " ") for look in styles.values()])
    return means.rename_axis("group").reset_index()


# --- a panel for each method ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A method with one kind of pullback: the groups that are its settings, and the best of them."""

    label: str
    groups: Sequence[str]
    best: str


def methods(task: Task, groups: Sequence[str]) -> tuple[list[Method], str]:
    """The methods of these groups, in display order; and how the best setting of each was chosen.

    It is chosen on the validation split where there is one. A diverged run counts as the worst of all.
    """
    there = task.groups.loc[[group for group in task.groups.index if group in set(groups)]]
    final = task.chosen_by
    split = "validation" if (task.metrics["split"] == "validation").any() else task.split
    gain = task.metric.sign * final["value"]
    value = final.assign(value=gain.fillna(gain.min())).groupby("group")["value"].mean()
    found = []
    for (label, _), part in there.groupby(["label", "pullback"], sort=False):
        ids = [str(group) for group in part.index]
        best = str(value.reindex(ids).fillna(-np.inf).idxmax())
        found.append(Method(str(label), ids, best))
    return found, f"chosen by {split} {task.metric.name}" + (
        ", on the runs that are shown" if split == task.split else ""
    )


def _apart(
    task: Task, table: pd.DataFrame, styles: dict[str, Look], options: Options
) -> tuple[Figure, list[Name], str]:
    """A panel for each method, all on the same axes; the names are those of its best settings."""
    every, chosen = methods(task, list(styles))
    shown = every[:MAX_METHODS]
    figure, axes = panels_for(len(shown), [_title(method, styles) for method in shown])
    mean = means(table)
    own = dict(iter(mean.groupby("group", sort=False)))
    nothing = mean.iloc[:0]
    best = {method.best: own.get(method.best, nothing)[["x", "y"]].to_numpy() for method in shown}
    names = []
    for ax, method in zip(axes, shown, strict=True):
        others = [line for group, line in best.items() if group != method.best]
        ax.add_collection(LineCollection(others, colors=BACKDROP, linewidths=0.5, zorder=0), autolim=False)
        for group in method.groups:
            if group != method.best and len(one := own.get(group, nothing)):
                tag(ax.plot(one["x"], one["y"], color=styles[group].color, lw=0.5, alpha=0.5), group)
        curves = table[table["group"] == method.best]
        if len(method.groups) == 1:
            plot_runs(ax, curves, styles[method.best], method.best)
        names.append(plot_mean(ax, own.get(method.best, nothing), styles[method.best], method.best, curves["y"]))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    frame_on_end(axes, mean, options.metric)
    label_edges(axes, AXES[options.x], f"{task.split} {named(task, options.metric)}")
    said = "A panel for each method, all on the same axes, which leave out the first third of training where it would "
    said += "hide the rest; grey: the other panels' bold lines. Bold: mean over completed runs at each evaluation"
    if any(len(method.groups) > 1 for method in shown):
        said += f" of the method's best setting, {chosen}; thin: the means of its other settings"
    if any(len(method.groups) == 1 for method in shown):
        said += "; faint: single runs of a method with one setting"
    said += f". The first {MAX_METHODS} of {len(every)} methods." if len(every) > len(shown) else "."
    return figure, names, said


def _title(method: Method, styles: dict[str, Look]) -> str:
    settings = styles[method.best].label.split("\n")[1]
    if len(method.groups) == 1:
        return f"{method.label}\n{settings}"
    return f"{method.label}\nbest of {len(method.groups)}: {settings}"


def panels_for(count: int, titles: Sequence[str], height: float = 1.15) -> tuple[Figure, list[Axes]]:
    """So many small panels on the same axes, with titles that are wrapped to their width."""
    columns = min(count, 3 if count <= 9 else 4)
    height = 2.2 if count == 1 else height
    rows = -(-count // columns)
    texts = [wrap(title, WIDTH / columns - 0.35) for title in titles]
    lines = max(text.count("\n") + 1 for text in texts)
    figure, axes = new_figure(rows, columns, rows * (height + 0.125 * lines + 0.1) + 0.6, sharex=True, sharey=True)
    for ax in axes[count:]:
        ax.remove()
    for ax, text in zip(axes[:count], texts, strict=True):
        ax.set_title(text, loc="left", fontsize=SMALL)
    return figure, axes[:count]


def label_edges(axes: Sequence[Axes], x: str, y: str) -> None:
    """Labels for all panels together; ticks below the last panel of each column."""
    figure = axes[0].get_figure()
    assert isinstance(figure, Figure)
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    columns = {ax.get_subplotspec().colspan.start: ax for ax in axes}  # type: ignore[union-attr]
    for ax in columns.values():  # an incomplete last row leaves those above it without
        ax.tick_params(labelbottom=True)


def frame_on_end(axes: Sequence[Axes], mean: pd.DataFrame, metric: str) -> None:
    """Limit the shared axes to the means after the first third: what comes before would hide all differences."""
    for ax in axes:
        metric_axis(ax, metric)
    late = mean.loc[mean["x"] >= mean["x"].min() + (mean["x"].max() - mean["x"].min()) / 3, "y"].dropna()
    if late.empty or late.min() == late.max():
        return
    low, high = float(late.min()), float(late.max())
    if metric == "accuracy":
        axes[0].set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    else:
        axes[0].set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
