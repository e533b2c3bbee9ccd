"""One contrast over its strata: a forest, and under it the diamonds of what they come to together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from nested_lookahead.analysis.contrasts import Contrast, contrasts
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.looks import Look, looks
from nested_lookahead.analysis.figures.names import row_height, row_labels
from nested_lookahead.analysis.sentences import bound, signed
from nested_lookahead.analysis.task import together
from nested_lookahead.drawing import SMALL, grid, new_figure
from nested_lookahead.metric import ACCURACY, Metric

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

MAX_CONTRASTS = 6


def pooled(task: Task, options: Options) -> Drawn | None:
    """Each contrast that a task has in two strata or more."""
    return pooled_over([task], options)


def pooled_over(tasks: Sequence[Task], options: Options) -> Drawn | None:
    """Each contrast that these tasks have in two strata or more; of several tasks, those that several have."""
    every = [contrast for contrast in contrasts(tasks) if len(contrast.tasks) > 1 or len(tasks) == 1]
    shown = every[:MAX_CONTRASTS]
    if not shown:
        return None
    styles = {group: look for task in tasks for group, look in looks(task).items()}
    table = pd.concat([rows(contrast) for contrast in every], ignore_index=True)
    parts = [table[table["contrast"] == contrast.name] for contrast in shown]
    labels = [(part["stratum"] + part["n"].map(lambda n: f" (n={n:.0f})" if n == n else "")).tolist() for part in parts]
    heights = [row_height(names) * len(names) + 0.3 for names in labels]
    figure, axes = new_figure(len(shown), 1, sum(heights) + 0.5, height_ratios=heights, sharex=True)
    for ax, contrast, part, names in zip(axes, shown, parts, labels, strict=True):
        row_labels(ax, names, [""] * len(names), inches=2.4)
        plot_pooled(ax, part, styles[contrast.group], tasks[0].delta, contrast.metric)
        ax.set_title(f"{contrast.name}: {contrast.word}", loc="left", fontsize=SMALL)
    axes[-1].set_xlabel(f"difference ({tasks[0].metric.difference})")
    caption = (
        "Each stratum's mean difference with its 95% t interval (none below three); a stratum is an inner optimizer "
        "and a pullback, averaged over settings, and those that share a baseline's runs are one. Filled diamond: the "
        f"mean over these strata, {_how(shown)}, with the interval that decided; open: what to expect of other such "
        "strata (random effects, REML, Hartung and Knapp; three or more). Shaded: differences that do not matter, "
        f"±{tasks[0].delta:g} {tasks[0].metric.difference}."
    )
    if len(every) > len(shown):
        caption += f" The first {len(shown)} of {len(every)} contrasts."
    if sum(contrast.diverged for contrast in shown):
        caption += " Pairs of which one diverged are in no mean, and rank last in the verdict."
    title = (
        f"the same contrast over all strata, final {tasks[0].split} {tasks[0].metric.name}, {tasks[0].weights} weights"
    )
    return finish(
        figure,
        together(tasks) if len(tasks) > 1 else tasks[0],
        title,
        caption,
        [contrast.sentence for contrast in every],
        table,
    )


def _how(shown: Sequence[Contrast]) -> str:
    kinds = {contrast.seeds_are_blocks for contrast in shown}
    words = {True: "over seeds that all strata have", False: "with the spread pooled over all strata"}
    return " or ".join(words[kind] for kind in sorted(kinds, reverse=True))


def rows(contrast: Contrast) -> pd.DataFrame:
    """A row per stratum, one for their mean and one for other strata's: contrast, stratum, kind, n, difference, low,
    high."""
    made = [
        {"stratum": one.name, "kind": "stratum", "n": one.runs, "difference": one.stratum.mean}
        | dict(zip(("low", "high"), one.stratum.interval(), strict=True))
        for one in contrast.strata
    ]
    made.append({"stratum": "these strata", "kind": "here", "n": np.nan, "difference": contrast.here.mean,
                 "low": contrast.decision.low, "high": contrast.decision.high})  # fmt: skip
    if np.isfinite(contrast.others.p):
        low, high = contrast.others.interval()
        name = f"such strata (τ = {contrast.metric.number(contrast.tau)})"
        made.append({"stratum": name, "kind": "others", "n": np.nan,
                     "difference": contrast.others.mean, "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(made).assign(contrast=contrast.name)


def plot_pooled(ax: Axes, table: pd.DataFrame, look: Look, delta: float, metric: Metric = ACCURACY) -> None:
    """A row per row of such a table, the first on top, on axes that have their row labels."""
    ax.axvspan(-delta, delta, color="#000000", alpha=0.07, lw=0)
    ax.axvline(0, color="#000000", lw=0.8)
    for y, (_, row) in enumerate(table.iterrows()):
        known = np.isfinite(row["low"])
        if row["kind"] == "stratum":
            if known:
                ax.plot([row["low"], row["high"]], [y, y], color=look.color, lw=1.0)
            ax.plot(row["difference"], y, color=look.color, marker=look.marker, ms=4, ls="")
        else:
            ends = (row["low"], row["high"]) if known else (row["difference"], row["difference"])
            corners = [(ends[0], y), (row["difference"], y - 0.28), (ends[1], y), (row["difference"], y + 0.28)]
            fill = look.color if row["kind"] == "here" else "none"
            ax.add_patch(Polygon(corners, facecolor=fill, edgecolor=look.color, lw=1.0))
        low, high = (bound(row[key], metric.digits) for key in ("low", "high"))
        mean = signed(row["difference"], metric.digits)
        said = f"{mean} [{low}, {high}]" if known else mean
        text = ax.text(1.02, y, said.replace("-", "−"), transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL)
        text.set_fontweight("bold" if row["kind"] == "here" else "normal")
    ax.autoscale_view()
    ax.spines["left"].set_visible(False)
    grid(ax, "x")
