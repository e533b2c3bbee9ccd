"""Methods beside each other: paired differences, what tuning is worth, sensitivity, divergences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nested_lookahead.analysis.budget import counted_by_seed
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.looks import Look, looks, mix, our_groups
from nested_lookahead.analysis.figures.names import Name, extremes, named_lines, row_height, row_labels, tag
from nested_lookahead.analysis.sentences import bound, signed
from nested_lookahead.analysis.statistics import expected_best as expected_best_of
from nested_lookahead.analysis.task import Task, once
from nested_lookahead.analysis.tuned import tuned as tuned_of
from nested_lookahead.drawing import SMALL, grid, new_figure
from nested_lookahead.metric import ACCURACY, Metric
from nested_lookahead.runs.files import COMPLETED


def forest(task: Task, options: Options) -> Drawn | None:
    """Paired differences from each group's baseline, with the intervals that decided, and verdicts."""
    if task.comparisons.empty:
        return None
    title = f"difference from the baseline in final {task.split} {task.metric.name}, {task.weights} weights"
    caption = "Mean difference from the baseline"
    return _forest(task, task.comparisons, task.final, looks(task), title, caption)


def tuned(task: Task, options: Options) -> Drawn | None:
    """As the forest, of each method at the setting that was chosen for it, on seeds without a part in the choice."""
    found = tuned_of(task)
    if found is None:
        return None
    every = looks(task)
    styles = {str(label): every[str(part.index[0])] for label, part in our_groups(task).groupby("label", sort=False)}
    title = f"tuned against tuned: difference in final {task.split} {task.metric.name}, {task.weights} weights"
    caption = f"{found.how[0].upper()}{found.how[1:]}. Mean difference from the baseline"
    return _forest(task, found.comparisons, found.final, styles, title, caption)


def _forest(
    task: Task, whole: pd.DataFrame, final: pd.DataFrame, styles: dict[str, Look], title: str, caption: str
) -> Drawn:
    table, more = extremes(whole, task.metric.sign * whole["difference"], "comparisons")
    labels = [
        f"{row['label']} {row['shown']}".strip()
        + f"\n− {row['baseline_label']} {row['baseline_shown']}".rstrip()
        + f" (n={row['n']:.0f}{'' if row['paired'] else ', unpaired'})"
        for _, row in table.iterrows()
    ]
    figure, (ax,) = new_figure(1, 1, row_height(labels) * len(labels) + 0.9)
    row_labels(ax, labels, table["group"].tolist())
    plot_forest(ax, table, paired_differences(table, final), styles, task.delta, task.metric)
    caption += (
        ", over pairs of runs with the same seed where not said otherwise; bars: the intervals that decided, t "
        f"intervals of {_levels(table)} (adjusted for the number of comparisons by Holm's procedure; none below three "
        f"pairs); faint dots: single pairs; shaded: differences that do not matter, "
        f"±{task.delta:g} {task.metric.difference}."
    )
    if table["diverged"].any():
        caption += " × at the left: seeds on which the method diverged, at the right, its baseline; ranks decide there."
    caption += more
    alt = [f"{row['label']} {row['shown']}".strip() + f": {_said(row, task.metric)}." for _, row in whole.iterrows()]
    return finish(
        figure, task, title, caption, [f"Differences from the baselines in {task.metric.difference}.", *alt], whole
    )


def _levels(table: pd.DataFrame) -> str:
    """``95%``, or ``90% to 99.2%``."""
    levels = table.loc[table["low"].notna(), "level"].tolist() or [0.95]
    ends = dict.fromkeys(f"{100 * level:.4g}%" for level in (min(levels), max(levels)))
    return " to ".join(ends)


def paired_differences(comparisons: pd.DataFrame, final: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of runs with the same seed: group, baseline, seed, difference (points)."""
    values = final.dropna(subset=["value"])[["group", "seed", "value"]]
    ours = comparisons.loc[comparisons["paired"].astype(bool), ["group", "baseline"]].merge(values, on="group")
    both = ours.merge(values.rename(columns={"group": "baseline"}), on=["baseline", "seed"], suffixes=("", "_baseline"))
    return both.assign(difference=both["value"] - both["value_baseline"])[["group", "baseline", "seed", "difference"]]


def plot_forest(
    ax: Axes,
    table: pd.DataFrame,
    differences: pd.DataFrame,
    styles: dict[str, Look],
    delta: float,
    metric: Metric = ACCURACY,
) -> None:
    """A row per comparison, the first on top, on axes that have their row labels."""
    ax.axvspan(-delta, delta, color="#000000", alpha=0.07, lw=0)
    ax.axvline(0, color="#000000", lw=0.8)
    for y, (_, row) in enumerate(table.iterrows()):
        group, look = str(row["group"]), styles[str(row["group"])]
        mine = (differences["group"] == group) & (differences["baseline"] == row["baseline"])  # it may have several
        single = differences.loc[mine, "difference"]
        tag(ax.scatter(single, [y + 0.22] * len(single), s=9, color=look.color, alpha=0.35, lw=0), group)
        if np.isfinite(row["low"]):
            tag(ax.plot([row["low"], row["high"]], [y, y], color=look.color, lw=look.width), group)
        tag(ax.plot(row["difference"], y, color=look.color, marker=look.marker, ms=5, ls=""), group)
        _crosses(ax, y, row)
        text = ax.text(1.02, y, _said(row, metric), transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL)
        text.set_fontweight("bold" if row["verdict"] in ("better", "worse", "equivalent") else "normal")
        tag(text, group)
    ax.set_xlabel(f"difference ({metric.difference})" + (", less is better" if metric.sign < 0 else ""))
    ax.spines["left"].set_visible(False)
    grid(ax, "x")


def _crosses(ax: Axes, y: float, row: Any) -> None:
    """Seeds on which the method diverged, at the left edge; its baseline, at the right."""
    for x, side, count in ((0.005, "left", row["failed"]), (0.995, "right", row["baseline_failed"])):
        if count:
            text = f"×{count} of {row['seeds']}"
            made = ax.text(x, y - 0.22, text, transform=ax.get_yaxis_transform(), ha=side, va="center", fontsize=6.5)
            tag(made, str(row["group"]))


def _said(row: Any, metric: Metric) -> str:
    if not np.isfinite(row["difference"]):
        return f"no pair: {row['verdict']}"
    low, high = (bound(row[key], metric.digits) for key in ("low", "high"))
    mean = signed(row["difference"], metric.digits)
    interval = f" [{low}, {high}]" if np.isfinite(row["low"]) else ""
    return f"{mean}{interval}".replace("-", "−") + f" {row['verdict']}"


# --- what tuning is worth -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tried:
    """The settings tried of one method: ``means`` has the mean final metric of each, ``chosen_by`` that on the
    split that settings are chosen on, ``broken`` how many of them had a diverged run."""

    label: str
    groups: Sequence[str]
    means: Any
    chosen_by: Any
    broken: int
    look: Look


@once
def tried(task: Task) -> list[Tried]:
    """By method and inner optimizer. A diverged run counts as the worst of its method's runs."""
    styles = looks(task)
    found = []
    for label, groups in our_groups(task).groupby("label", sort=False):
        final = task.final[task.final["group"].isin(groups.index)]
        if final["value"].isna().all():
            continue
        values, chosen_by = (
            counted_by_seed(f, groups.index, task.metric.sign).mean(axis=1) for f in (task.final, task.chosen_by)
        )
        means = values[groups.index].to_numpy(), chosen_by[groups.index].to_numpy()
        counts = final["group"].value_counts()
        n = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()}–{counts.max()}"
        many = f"{len(values)} setting{'s' if len(values) > 1 else ''}"
        broken = len(set(final.loc[final["value"].isna(), "group"]))
        ids = [str(group) for group in groups.index]
        found.append(Tried(f"{label}\n({many}, n={n})", ids, *means, broken, styles[ids[0]]))
    return found


def expected_best(task: Task, options: Options) -> Drawn | None:
    """What the best of n settings is expected to be, if n of those tried are drawn at random."""
    methods = tried(task)
    if not any(len(method.means) > 1 for method in methods):
        return None
    sign, column = task.metric.sign, EXPECTED.format(task.metric.unit or task.metric.name)
    table = pd.DataFrame(
        [
            {"method": method.label.split("\n")[0], "settings tried": n, column: sign * value}
            for method in methods
            for n, value in enumerate(expected_best_of(sign * method.means, sign * method.chosen_by), start=1)
        ]
    )
    figure, (ax,) = new_figure(1, 1, 2.8)
    names = plot_expected_best(ax, table, methods, column)
    ax.set_ylabel(f"expected best {task.split} {task.metric.axis}")
    unnamed = named_lines(figure, ax, names)
    title = f"expected best of n tried settings, {task.weights} weights{unnamed}"
    caption = (
        f"Expected final {task.split} {task.metric.name} of the best of n settings drawn without replacement from "
        "those tried; a setting's value is its mean over seeds. The best is chosen "
    )
    if task.chosen_by is task.final:
        caption += "and reported on the same runs, which flatters every method, and most the one with most settings."
    else:
        caption += f"on the validation split of the same runs, and reported on {task.split}."
    if sum(method.broken for method in methods):
        caption += " A diverged run counts as the worst run of its method."
    alt = [f"{name.label.replace(chr(10), ' ')}: {task.metric.number(name.y)}{task.metric.unit}." for name in names]
    return finish(figure, task, title, caption, ["Expected best of all settings tried.", *alt], table)


EXPECTED = "expected best ({})"


def plot_expected_best(
    ax: Axes, table: pd.DataFrame, methods: Sequence[Tried], column: str = EXPECTED.format("%")
) -> list[Name]:
    """One line per method, from its first setting to its last."""
    names = []
    for method in methods:
        rows = table[table["method"] == method.label.split("\n")[0]]
        y = rows[column]
        names.append(_line(ax, rows["settings tried"], y, method, method.label))
    ax.set_xlabel("settings tried")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    grid(ax)
    return names


def _line(ax: Axes, x: Any, y: Any, method: Tried, label: str, **kwargs: Any) -> Name:
    """A line for a whole method: it belongs to a group only where the method has no other."""
    group = method.groups[0] if len(method.groups) == 1 else ""
    (line,) = ax.plot(x, y, label=label, **method.look.line(len(x)) | kwargs)
    tag(line, group)
    return Name(group, float(np.asarray(y)[-1]), label, method.look.color, line)


def sensitivity(task: Task, options: Options) -> Drawn | None:
    """How many of a method's settings come close to its best."""
    methods = [method for method in tried(task) if len(method.means) > 1]
    if not methods:
        return None
    table = pd.DataFrame(
        [
            {
                "method": method.label.split("\n")[0],
                f"{task.metric.difference} from the best": gap,
                "share of settings": share,
            }
            for method in methods
            for gap, share in zip(*_shares(method, task.metric.sign), strict=True)
        ]
    )
    figure, (ax,) = new_figure(1, 1, 2.8)
    names = plot_sensitivity(ax, methods, task.metric)
    unnamed = named_lines(figure, ax, names)
    title = f"settings within x {task.metric.difference} of the method's best, {task.weights} weights{unnamed}"
    caption = (
        f"Share of a method's settings whose mean final {task.split} {task.metric.name} is at most x "
        f"{task.metric.difference} worse than that of its "
        "own best setting: a line at the top left is a method that hardly needs tuning. Settings, not seeds, are "
        "counted, and only those that were tried."
    )
    if sum(method.broken for method in methods):
        caption += " A diverged run counts as the worst run of its method."
    alt = [f"{name.label.replace(chr(10), ' ')}." for name in names]
    return finish(figure, task, title, caption, ["Distance of the worst setting from the best.", *alt], table)


def _shares(method: Tried, sign: int) -> tuple[Any, Any]:
    gaps = np.sort((sign * method.means).max() - sign * method.means)
    return gaps, np.arange(1, len(gaps) + 1) / len(gaps)


def plot_sensitivity(ax: Axes, methods: Sequence[Tried], metric: Metric = ACCURACY) -> list[Name]:
    """A step function per method, up to its worst setting; the axes end with the worst of all."""
    names = []
    end = max(float(np.ptp(method.means)) for method in methods) * 1.02
    for method in methods:
        gaps, shares = _shares(method, metric.sign)
        x, y = np.array([*gaps, max(end, 1e-3)]), np.array([*shares, 1.0])
        name, count = method.label.split("\n")
        worse = f",\n{method.broken} with diverged runs" if method.broken else ""
        gap = f"{'−' if metric.sign > 0 else '+'}{metric.number(gaps[-1])}"
        label = f"{name}\n{count.removesuffix(')')}, worst {gap}{worse})"
        names.append(_line(ax, x, y, method, label, drawstyle="steps-post", markevery=max(1, len(x) // 8)))
    ax.set_xlabel(f"{metric.difference} from the method's best setting")
    ax.set_ylabel("share of settings")
    ax.set_ylim(0, 1.05)
    ax.set_xlim(left=0)
    grid(ax)
    return names


def divergences(task: Task, options: Options) -> Drawn | None:
    """How many runs of each group diverged."""
    failed = task.runs[task.runs["status"] != COMPLETED]
    if failed.empty:
        return None
    styles = looks(task)
    rows = [
        {
            "group": group,
            "label": look.label.split("\n")[0],
            "settings": look.label.split("\n")[1].rsplit("(n=", 1)[0].strip(),
            "diverged": look.diverged,
            "runs": look.n + look.diverged,
            "first step": failed.loc[failed["group"] == group].get("diverged_step", pd.Series(dtype=float)).min(),
        }
        for group, look in styles.items()
    ]
    table = pd.DataFrame(rows)
    shown = table if len(table) <= 20 else table[table["diverged"] > 0]
    labels = (shown["label"] + "\n" + shown["settings"]).str.strip().tolist()
    figure, (ax,) = new_figure(1, 1, row_height(labels) * len(labels) + 0.9)
    row_labels(ax, labels, shown["group"].tolist())
    plot_divergences(ax, shown, styles)
    hidden = len(table) - len(shown)
    caption = "Runs that diverged, of all runs made; the number at the bar also says the first step at which one did."
    caption += f" {hidden} settings without a divergence are not shown." if hidden else ""
    few = table[table["diverged"] > 0]
    alt = [f"{r['label']} {r['settings']} {r['diverged']} of {r['runs']}." for _, r in few.iterrows()]
    return finish(figure, task, "diverged runs", caption, ["Diverged runs.", *alt], table)


def plot_divergences(ax: Axes, table: pd.DataFrame, styles: dict[str, Look]) -> None:
    """A bar per group, the first on top, on axes that have their row labels."""
    for y, (_, row) in enumerate(table.iterrows()):
        look, group = styles[row["group"]], str(row["group"])
        share = row["diverged"] / row["runs"]
        tag(ax.barh(y, share, height=0.55, color=mix(look.color, "#FFFFFF", 0.25)).patches, group)
        step = f", from step {row['first step']:.0f}" if np.isfinite(row["first step"]) and row["diverged"] else ""
        text = f" {row['diverged']}/{row['runs']}{step}"
        tag(ax.text(share, y, text, va="center", fontsize=SMALL), group)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of runs")
    grid(ax, "x")
