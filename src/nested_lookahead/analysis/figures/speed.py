"""How much sooner a method reaches a target: ratios of times, and over several tasks a performance profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nested_lookahead.analysis import targets
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.looks import Look, looks
from nested_lookahead.analysis.figures.names import Name, extremes, named_lines, row_height, row_labels, tag
from nested_lookahead.analysis.task import together
from nested_lookahead.drawing import SMALL, grid, new_figure

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task


def speed(task: Task, options: Options) -> Drawn | None:
    """The ratio of each method's time to a target to its baseline's."""
    target, level = targets.target_of(task, options.target)
    whole = targets.speeds(task, target) if np.isfinite(target) and len(task.comparisons) else pd.DataFrame()
    if whole.empty:
        return None
    table, more = extremes(whole, -whole["steps"], "comparisons")
    labels = [
        f"{row['label']} {row['shown']}".strip() + f"\n/ {row['baseline_label']} {row['baseline_shown']}".rstrip()
        for _, row in table.iterrows()
    ]
    figure, (ax,) = new_figure(1, 1, row_height(labels) * len(labels) + 0.9)
    row_labels(ax, labels, table["group"].tolist())
    plot_speed(ax, table, looks(task))
    caption = (
        f"Time until {task.split} {task.metric.name} ({task.weights} weights) was first {level}, over the baseline's, "
        "paired by seed: steps (filled, with 95% interval) and seconds of training (open, above; only of runs on the "
        "same device). "
        "Where all runs reached it, the geometric mean and Student's interval of the logarithms; else the median, with "
        "its interval by order statistics (from six pairs on) and signed ranks, to which a miss is an infinite time. "
        "Verdicts are of steps, adjusted for the number of comparisons (Holm). " + said_of(options)
    )
    caption += more
    alt = [
        f"{row['label']} {row['shown']}".strip() + f": {_said(row)}.".replace("\n", ", ") for _, row in whole.iterrows()
    ]
    title = f"time to {level} {task.split} {task.metric.name}, as a multiple of the baseline's"
    return finish(figure, task, title, caption, ["Ratios of steps.", *alt], whole)


def said_of(options: Options) -> str:
    if options.target is not None:
        return "The target was set by the reader."
    return "The target is the median of the settings' final means, known only after the runs; --target sets one."


def plot_speed(ax: Axes, table: pd.DataFrame, styles: dict[str, Look]) -> None:
    """A row per comparison, the first on top, on axes that have their row labels."""
    numbers = table[["steps", "steps_low", "steps_high", "seconds"]].to_numpy(dtype=float)
    known = numbers[np.isfinite(numbers) & (numbers > 0)]
    span = max(1.5, float(np.max(np.maximum(known, 1 / known))) * 1.15) if len(known) else 2.0
    span = min(span, 100.0)
    ax.set_xscale("log")
    ax.set_xlim(1 / span, span)
    ax.axvline(1, color="#000000", lw=0.8)
    for y, (_, row) in enumerate(table.iterrows()):
        group, look = str(row["group"]), styles[str(row["group"])]
        if not np.isnan(row["steps_low"]):
            ends = np.clip([row["steps_low"], row["steps_high"]], 1 / span, span)
            tag(ax.plot(ends, [y, y], color=look.color, lw=look.width), group)
        for place, key, face in ((y, "steps", look.color), (y - 0.24, "seconds", "white")):
            if not np.isnan(row[key]):
                marker = look.marker if 1 / span < row[key] < span else "<" if row[key] < 1 else ">"
                at = float(np.clip(row[key], 1 / span, span))
                tag(ax.plot(at, place, color=look.color, marker=marker, mfc=face, ms=4, ls="", clip_on=False), group)
        tag(ax.text(1.02, y, _said(row), transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL), group)
    _plain_log(ax, span)
    ax.set_xlabel("ratio of times (below 1: faster than the baseline)")
    grid(ax, "x")


def _plain_log(ax: Axes, span: float) -> None:
    steps: tuple[float, ...] = (1, 2, 5) if span > 4 else (1, 1.25, 1.5, 2, 3, 5, 6.667, 8)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_minor_locator(LogLocator(subs=(1,)))


def _said(row: Any) -> str:
    if np.isnan(row["steps"]):
        ratio = "–"
    else:
        ratio = "×" + _number(row["steps"])
        if not np.isnan(row["steps_low"]):
            ratio += f" [{_number(row['steps_low'])}, {_number(row['steps_high'])}]"
    return f"{ratio} {row['verdict']}\nreached {row['reached']}/{row['n']}, {row['baseline_reached']}/{row['n']}"


def _number(value: float) -> str:
    """A ratio, with more digits where two would be none."""
    return "∞" if np.isinf(value) else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


# --- over tasks -----------------------------------------------------------------------------------------------------


def profile_table(tasks: Sequence[Task], target: float | None) -> pd.DataFrame:
    """A row per method and task: label, task, steps (median over seeds of the method's fastest setting, infinite where
    half did not get there) and ratio to the fastest method. Methods that were run on all tasks."""
    parts = []
    for task in tasks:
        found = targets.times(task, targets.target_of(task, target)[0])
        medians = found.groupby("group")["step"].median()
        best = medians.groupby(task.groups["label"].reindex(medians.index)).min()
        parts.append(pd.DataFrame({"label": best.index, "task": task.name, "steps": best.to_numpy()}))
    table = pd.concat(parts, ignore_index=True)
    table = table[table.groupby("label")["task"].transform("nunique") == len(tasks)]
    if table.empty:
        return table.assign(ratio=[])
    wide = table.pivot_table(index="label", columns="task", values="steps", sort=False, dropna=False)
    ratios = pd.DataFrame(targets.performance_ratios(wide.to_numpy()), wide.index, wide.columns)
    long = ratios.reset_index().melt("label", var_name="task", value_name="ratio")
    return table.merge(long, on=["label", "task"])


def profile(tasks: Sequence[Task], options: Options) -> Drawn | None:
    """The share of tasks on which a method is within a factor of the fastest one; None for one task or one method."""
    table = profile_table(tasks, options.target) if len(tasks) > 1 else pd.DataFrame()
    if table.empty or table["label"].nunique() < 2 or not np.isfinite(table["ratio"]).any():
        return None
    styles = {str(look.label.split("\n")[0]): look for task in reversed(tasks) for look in looks(task).values()}
    figure, (ax,) = new_figure(1, 1, 2.8)
    names = plot_profile(ax, table, styles)
    unnamed = named_lines(figure, ax, names)
    caption = (
        "Share of tasks on which a method's steps to the target are at most x times those of the fastest method there "
        "(Dolan and Moré): the height at 1 is how often it is the fastest. Of each method its fastest setting, by the "
        "median over seeds, with a miss as infinite. " + said_of(options)
    )
    alt = [f"{name.label.replace(chr(10), ' ')}: {name.y:.0%} reached." for name in names]
    title = f"performance profile of the time to a target{unnamed}"
    return finish(figure, together(tasks), title, caption, alt, table)


def plot_profile(ax: Axes, table: pd.DataFrame, styles: dict[str, Look]) -> list[Name]:
    """A step function per method."""
    count = table["task"].nunique()
    finite = table.loc[np.isfinite(table["ratio"]), "ratio"]
    end = max(2.0, float(finite.max()) * 1.1)
    names = []
    for label, part in table.groupby("label", sort=False):
        ratios = np.sort(part.loc[np.isfinite(part["ratio"]), "ratio"].to_numpy())
        shares = np.arange(1, len(ratios) + 1) / count
        x = np.array([1.0, *ratios, end])
        y = np.array([0.0, *shares, shares[-1] if len(shares) else 0.0])
        look = styles[str(label)]
        (line,) = ax.step(x, y, where="post", label=str(label), **look.line(len(x)) | {"markevery": [len(x) - 1]})
        names.append(Name("", float(y[-1]), str(label), look.color, line))
    ax.set_xscale("log")
    ax.set_xlim(1, end)
    ax.set_ylim(-0.03, 1.05)
    _plain_log(ax, end)
    ax.set_xlabel("times the steps of the fastest method")
    ax.set_ylabel("share of tasks")
    grid(ax)
    return names
