"""What is measured over training, as tables and lines; and the time to a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from nested_lookahead.analysis import statistics, targets
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.looks import Look, looks
from nested_lookahead.analysis.figures.names import Name, named_lines, tag
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.task import Task, once
from nested_lookahead.drawing import grid, new_figure
from nested_lookahead.runs.files import COMPLETED

BANDS = "Bands: 95% t intervals over seeds (none below three); of runs with the same seeds, whose difference is surer."
AXES = {"epoch": "epoch", "step": "optimizer step", "seconds": "seconds of training"}
MAX_POINTS = 200
"""Of a faint run; more are thinned to the least and the greatest value of each stretch."""


@once
def measured(task: Task) -> pd.DataFrame:
    """The rows of the task's split and weights, with each run's group; without slow weights a run has its only ones."""
    rows = task.metrics[task.metrics["split"] == task.split]
    has = set(rows.loc[rows["weights"] == task.weights, "path"])
    rows = rows[(rows["weights"] == task.weights) | ((rows["weights"] == "fast") & ~rows["path"].isin(has))]
    rows = rows.astype({"path": object}).merge(task.runs[["path", "group", "seed", "status"]], on="path")
    return rows.sort_values(["path", "epoch", "step"], kind="stable")


@once
def curve_table(task: Task, metric: str, x: str, smooth: int | None = None) -> pd.DataFrame:
    """Tidy rows of what is drawn: group, path, seed, completed, epoch, at (which evaluation), x, y."""
    rows = measured(task)
    recorded = task.metric.scale * rows["accuracy"]
    y = {"accuracy": recorded, "error": 100 - recorded, "loss": rows["loss"]}[metric]
    at = rows["epoch"] if rows["step"].isna().any() else rows["step"]
    table = rows[["group", "path", "seed", "epoch"]].assign(
        completed=rows["status"] == COMPLETED, at=at, x=rows[x].astype(float), y=y.astype(float)
    )
    if smooth and smooth > 1:
        table["y"] = table.groupby("path", sort=False)["y"].transform(lambda y: y.rolling(smooth, 1).mean())
    if metric != "accuracy" and (table["y"] <= 0).any():  # a log axis has no place for 0
        positive = table.loc[table["y"] > 0, "y"]
        table["y"] = table["y"].clip(lower=positive.min() / 2 if len(positive) else 1e-3)
    table["y"] = table["y"].where(np.isfinite(table["y"]))
    # A publication has accuracies by epoch; what stands for its steps is none.
    published = rows["path"].isin(task.runs.loc[task.runs["source"] == REFERENCE, "path"])
    return table[~(published & (table["y"].isna() | (x != "epoch")))].dropna(subset=["x"])


def named(task: Task, metric: str) -> str:
    """What curves of a metric show: ``accuracy (%)``, ``bits per character``."""
    loss = f"loss ({task.metric.loss_unit})" if task.metric.loss_unit else "loss"
    return {"accuracy": task.metric.axis, "error": "error (%)", "loss": loss}[metric]


def number(task: Task, metric: str, value: float) -> str:
    """A value of what curves of a metric show; a loss, which no difference is asked of, to four figures."""
    return f"{value:.4g}" if metric == "loss" else task.metric.number(value)


def looks_of(task: Task, table: pd.DataFrame) -> dict[str, Look]:
    """Of the groups that the table has rows of."""
    there = set(table["group"])
    return {group: look for group, look in looks(task).items() if group in there}


def plot_curves(ax: Axes, table: pd.DataFrame, styles: dict[str, Look]) -> list[Name]:
    """Draw every group of a `curve_table`; return the names of their lines."""
    parts = dict(iter(table.groupby("group", sort=False)))
    mean = means(table)
    own = dict(iter(mean.groupby("group", sort=False)))
    names = []
    for group, look in styles.items():
        curves = parts.get(group, table.iloc[:0])
        if len(set(curves["path"])) > 1 or look.diverged:
            plot_runs(ax, curves, look, group)
        names.append(plot_mean(ax, own.get(group, mean.iloc[:0]), look, group, curves["y"]))
    ax.autoscale_view()
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return names


def plot_runs(ax: Axes, curves: pd.DataFrame, look: Look, group: str) -> None:
    """Each run of a group, faint."""
    for completed, part in curves.groupby("completed"):
        runs = [thin(run[["x", "y"]].to_numpy()) for _, run in part.groupby("path", observed=True)]
        faint = LineCollection(runs, colors=[(*look.color, 0.25)], linewidths=0.6, label="_runs")
        tag(faint, group)
        # What diverged decides about the frame only where nothing else does.
        ax.add_collection(faint, autolim=bool(completed or not curves["completed"].any()))


def plot_mean(ax: Axes, mean: pd.DataFrame, look: Look, group: str, else_at: Any = ()) -> Name:
    """A group's mean, of a table as `means` makes, in its interval; its name is at the end of the mean.

    Args:
        else_at: values at the last of which the name is where there is no mean.
    """
    (line,) = ax.plot(mean["x"], mean["y"], label=look.label, **look.line(len(mean)))
    tag(line, group)
    plot_band(ax, mean, look.color, group)
    finite = (mean["y"] if len(mean) else pd.Series(else_at, dtype=float)).dropna()
    return Name(group, float(finite.iloc[-1]) if len(finite) else np.nan, look.label, look.color, line)


def plot_band(ax: Axes, mean: pd.DataFrame, color: Any, group: str) -> None:
    """The interval of a mean; it does not decide about the frame."""
    if not mean["half"].notna().any():
        return
    frame, low = ax.dataLim.frozen(), mean["y"] - mean["half"]
    low = low.where(
        (low > 0) | (mean["y"] <= 0), mean["y"] / 100
    )  # an error or a loss has no place below 0, nor a log axis for 0
    tag(ax.fill_between(mean["x"], low, mean["y"] + mean["half"], color=color, alpha=0.15, lw=0), group)
    ax.dataLim.set(frame)


def means(table: pd.DataFrame, by: str = "group") -> pd.DataFrame:
    """Over the completed runs of a `curve_table`, at each evaluation of each group: ``x``, ``y``, and ``half``, the
    half-width of the 95% t interval (NaN below three runs).

    A mean over those still running at each epoch would jump where one diverges.
    """
    from scipy.special import stdtrit

    parts = table[table["completed"]].groupby([by, "at"], sort=False)
    found = parts.agg(x=("x", "mean"), y=("y", "mean"), sd=("y", "std"), n=("y", "count")).sort_index().reset_index()
    n = found["n"].where(found["n"] >= 3).to_numpy(float)
    return found.assign(half=stdtrit(n - 1, 0.975) * found["sd"] / np.sqrt(n))


def metric_axis(ax: Axes, metric: str) -> None:
    """Log for what has its best at 0."""
    if metric == "accuracy":
        grid(ax)
    else:
        log_axis(ax)


def thin(points: Any) -> Any:
    """At most so many of an (n, 2) array's points: the least and the greatest y of each stretch, so no peak is lost."""
    if len(points) <= MAX_POINTS:
        return points
    kept: set[int] = {0, len(points) - 1}
    for stretch in np.array_split(np.arange(len(points)), MAX_POINTS // 2 - 1):
        y = points[stretch, 1]
        if np.isfinite(y).any():
            kept |= {int(stretch[np.nanargmin(y)]), int(stretch[np.nanargmax(y)])}
    return points[sorted(kept)]


def log_axis(ax: Axes) -> None:
    """Log y with plain numbers at 1, 2 and 5 of each decade, or more where the axis is short."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    decades = np.log10(high / low)
    steps: tuple[float, ...] = (1, 2, 5) if decades < 3 else (1,)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if decades < 0.7:  # such as 2.1 to 2.9
        ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.yaxis.set_minor_locator(MaxNLocator(1))
    else:
        ax.yaxis.set_major_locator(LogLocator(subs=steps))
    ax.yaxis.set_major_formatter(plain)
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    grid(ax)


def time_to_target(task: Task, options: Options) -> Drawn | None:
    """The share of runs that reached a target, against epochs."""
    target, level = targets.target_of(task, options.target)
    table = reached(task, target)
    if table.empty or not np.isfinite(target):
        return None
    styles = looks_of(task, table)
    figure, (ax,) = new_figure(1, 1, 2.8)
    names = plot_reached(ax, table, styles, task.metrics["epoch"].max())
    metric = task.metric
    within = f"{level} or {'more' if metric.sign > 0 else 'less'}"
    ax.set_ylabel(f"share of runs at {within}")
    unnamed = named_lines(figure, ax, names)
    chosen = "fixed by the reader" if options.target is not None else "the median of the settings' final means"
    caption = (
        f"Share of all runs whose {task.split} {task.metric.name} ({task.weights} weights) has once been {within}, "
        f"measured at evaluations only. Target: {chosen}. A run that diverged, or never got there, counts as a miss."
    )
    said = [f"{name.label.replace(chr(10), ' ')}." for name in names]
    title = f"epochs to {level} {task.split} {metric.name}{unnamed}"
    return finish(figure, task, title, caption, [f"Target {level}.", *said], table)


def reached(task: Task, target: float) -> pd.DataFrame:
    """One row per run: group, path, seed, and the epoch at which it first reached the target, or infinity."""
    rows, sign = [], task.metric.sign
    for path, run in measured(task).groupby("path", observed=True):
        first = run.iloc[0]
        values = sign * task.metric.scale * run["accuracy"].to_numpy()
        epoch = statistics.time_to_target(run["epoch"].to_numpy(), values, sign * target)
        epoch = epoch if first["status"] == COMPLETED else np.inf
        rows.append({"group": first["group"], "path": path, "seed": first["seed"], "epoch": epoch})
    return pd.DataFrame(rows, columns=["group", "path", "seed", "epoch"])


def plot_reached(ax: Axes, table: pd.DataFrame, styles: dict[str, Look], last: float) -> list[Name]:
    """A step function per group of a table as `reached` makes."""
    names = []
    parts = table.groupby("group", sort=False)["epoch"]
    for group, look in styles.items():
        epochs = np.sort(parts.get_group(group).to_numpy(dtype=float))
        hits = epochs[np.isfinite(epochs)]
        share = np.arange(len(hits) + 1) / len(epochs)
        x, y = np.array([0, *hits, last]), np.array([*share, share[-1]])
        label = look.label.split("\n")
        settings = label[1].rsplit("(n=", 1)[0]
        median = np.median(epochs)
        said = f"reached {len(hits)}/{len(epochs)}, median {f'{median:g}' if np.isfinite(median) else '∞'}"
        text = f"{label[0]}\n{settings}({said})"
        (line,) = ax.step(x, y, where="post", label=text, **look.line() | {"markevery": max(1, len(x) // 8)})
        tag(line, group)
        names.append(Name(group, float(share[-1]), text, look.color, line))
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlim(left=0)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    grid(ax)
    return names
