"""What happens over training: learning curves, and the time to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from nested_lookahead.analysis import statistics
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.looks import Look, looks
from nested_lookahead.analysis.figures.names import Name, named_lines, tag
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.drawing import grid, new_figure
from nested_lookahead.runs.files import COMPLETED

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

METRICS = {"accuracy": "accuracy (%)", "error": "error (%)", "loss": "loss (nats)"}
AXES = {"epoch": "epoch", "step": "optimizer step", "seconds": "seconds of training"}
MAX_POINTS = 200
"""Of a faint run; more are thinned to the least and the greatest value of each stretch."""


def measured(task: Task) -> pd.DataFrame:
    """The rows of the task's split and weights, with each run's group; without slow weights a run has its only ones."""
    rows = task.metrics[task.metrics["split"] == task.split]
    has = set(rows.loc[rows["weights"] == task.weights, "path"])
    rows = rows[(rows["weights"] == task.weights) | ((rows["weights"] == "fast") & ~rows["path"].isin(has))]
    rows = rows.astype({"path": object}).merge(task.runs[["path", "group", "seed", "status"]], on="path")
    return rows.sort_values(["path", "epoch", "step"], kind="stable")


def curve_table(task: Task, metric: str, x: str, smooth: int | None = None) -> pd.DataFrame:
    """Tidy rows of what is drawn: group, path, seed, completed, epoch, at (which evaluation), x, y."""
    rows = measured(task)
    y = {"accuracy": 100 * rows["accuracy"], "error": 100 - 100 * rows["accuracy"], "loss": rows["loss"]}[metric]
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


def learning_curves(task: Task, options: Options) -> Drawn | None:
    """A metric over training, and its last fifth in a panel of its own: each run faint, each group's mean bold."""
    table = curve_table(task, options.metric, options.x, options.smooth)
    if table.empty:
        return None
    styles = _looks_of(task, table)
    figure, (whole, tail) = new_figure(1, 2, 2.8, width_ratios=(3, 2))
    epochs = sorted(table["epoch"].unique())
    first = min(epochs[-1] - round(epochs[-1] / 5) + 1, epochs[-2:][0])  # two evaluations at the least
    names = plot_curves(whole, table, styles)
    plot_curves(tail, table[table["epoch"] >= first], styles)
    for ax in (whole, tail):
        ax.set_xlabel(AXES[options.x])
        if options.metric == "accuracy":
            grid(ax)
        else:
            log_axis(ax)
    tail.set_title("the last fifth", loc="left")
    whole.set_ylabel(f"{task.split} {METRICS[options.metric]}")
    unnamed = named_lines(figure, tail, names)
    title = f"{task.split} {options.metric} over training, {task.weights} weights{unnamed}"
    ended = sorted(names, key=lambda name: name.y, reverse=options.metric == "accuracy")
    alt = [f"{name.label.replace(chr(10), ' ')} ends at {name.y:.3g}." for name in ended if np.isfinite(name.y)]
    return finish(
        figure,
        task,
        title,
        _said_of_curves(task, options, styles),
        [f"Learning curves of {len(names)} settings, best first.", *alt],
        _some_epochs(table, styles, options.metric),
    )


def _looks_of(task: Task, table: pd.DataFrame) -> dict[str, Look]:
    """Of the groups that the table has rows of."""
    there = set(table["group"])
    return {group: look for group, look in looks(task).items() if group in there}


def _said_of_curves(task: Task, options: Options, styles: dict[str, Look]) -> str:
    said = ["Bold: mean over completed runs at each evaluation; faint: single runs."]
    if any(look.diverged for look in styles.values()):
        said.append("Diverged runs are drawn up to where they end and may leave the frame; they are in no mean.")
    if options.smooth and options.smooth > 1:
        said.append(f"Every curve is a running mean over {options.smooth} evaluations.")
    if options.metric != "accuracy":
        said.append("Log scale; a value of 0 is drawn at half the least other one.")
    if (task.groups["source"] == REFERENCE).any():
        said.append("Thin and greyer: published numbers, of other code.")
    if options.x == "seconds" and len(set(task.runs.get("device_name", ()))) > 1:
        said.append("The runs were made on different hardware: do not compare their seconds.")
    if task.weights == "slow":
        said.append("Methods without slow weights are shown by their only ones.")
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


def plot_curves(ax: Axes, table: pd.DataFrame, styles: dict[str, Look]) -> list[Name]:
    """Draw every group of a `curve_table`; return the names of their lines."""
    names = []
    parts = dict(iter(table.groupby("group", sort=False)))
    for group, look in styles.items():
        curves = parts.get(group, table.iloc[:0])
        # A mean over those still running at each epoch would jump where one diverges.
        mean = _mean(curves)
        if len(set(curves["path"])) > 1 or look.diverged:
            for completed, part in curves.groupby("completed"):
                runs = [thin(run[["x", "y"]].to_numpy()) for _, run in part.groupby("path", observed=True)]
                faint = LineCollection(runs, colors=[(*look.color, 0.25)], linewidths=0.6, label="_runs")
                tag(faint, group)
                # What diverged decides about the frame only where nothing else does.
                ax.add_collection(faint, autolim=bool(completed or not table["completed"].any()))
        (line,) = ax.plot(mean["x"], mean["y"], label=look.label, **look.line(len(mean)))
        tag(line, group)
        finite = (mean if len(mean) else curves)["y"].dropna()
        names.append(Name(group, float(finite.iloc[-1]) if len(finite) else np.nan, look.label, look.color, line))
    ax.autoscale_view()
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return names


def _mean(curves: pd.DataFrame) -> pd.DataFrame:
    return curves[curves["completed"]].groupby("at")[["x", "y"]].mean()


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
    """The share of runs that reached an accuracy, against epochs."""
    means = task.final.groupby("group")["value"].mean()
    target = options.target if options.target is not None else float(means.median())
    table = reached(task, target)
    if table.empty or not np.isfinite(target):
        return None
    styles = _looks_of(task, table)
    figure, (ax,) = new_figure(1, 1, 2.8)
    names = plot_reached(ax, table, styles, task.metrics["epoch"].max())
    ax.set_ylabel(f"share of runs at {target:.4g}% or more")
    unnamed = named_lines(figure, ax, names)
    chosen = "fixed by the reader" if options.target is not None else "the median of the settings' final means"
    caption = (
        f"Share of all runs whose {task.split} accuracy ({task.weights} weights) has once been {target:.4g}% or more, "
        f"measured at evaluations only. Target: {chosen}. A run that diverged, or never got there, counts as a miss."
    )
    said = [f"{name.label.replace(chr(10), ' ')}." for name in names]
    title = f"epochs to {target:.4g}% {task.split} accuracy{unnamed}"
    return finish(figure, task, title, caption, [f"Target {target:.4g}%.", *said], table)


def reached(task: Task, target: float) -> pd.DataFrame:
    """One row per run: group, path, seed, and the epoch at which it first reached the accuracy (%), or infinity."""
    rows = []
    for path, run in measured(task).groupby("path", observed=True):
        first = run.iloc[0]
        epoch = statistics.time_to_target(run["epoch"].to_numpy(), 100 * run["accuracy"].to_numpy(), target)
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
