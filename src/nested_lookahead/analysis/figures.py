"""Figures. Each is a function from tidy rows to axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nested_lookahead.analysis.labels import in_order, method_name, settings
from nested_lookahead.errors import UserError
from nested_lookahead.records import COMPLETED

# Okabe-Ito colours with a contrast of at least 3:1 on white, fixed for each method and never given by order.
METHOD_COLORS = {
    "sgd": "#000000",
    "adam": "#009E73",
    "adamw": "#00543D",
    "lookahead": "#0072B2",
    "nested_lookahead": "#D55E00",
    "multilayer_lookahead": "#CC79A7",
}
OTHER_COLOR = "#595959"
LINE_STYLES = {"none": "-", "pullback": "--", "reset": ":"}
OTHER_LINE_STYLE = "-."  # a scope such as reset_inner, or a pair of modes
MARKERS = {"": "o", "sgd": "s", "adam": "^", "adamw": "v"}
OTHER_MARKER = "D"

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}
MAX_DIRECT_LABELS = 6
MAX_LEGEND_LABELS = 20  # the results table is the place for more

Color = tuple[float, float, float]


def method_color(method: str, methods: Sequence[str]) -> str:
    """A method's own colour; one method of a figure may be without.

    Raises:
        UserError: two methods of the figure have none, and would look the same.
    """
    unknown = sorted({name for name in methods if name not in METHOD_COLORS})
    if len(unknown) > 1:
        raise UserError(f"methods without a colour of their own: {', '.join(unknown)}; add them to METHOD_COLORS")
    return METHOD_COLORS.get(method, OTHER_COLOR)


def learning_curves(runs: pd.DataFrame, metrics: pd.DataFrame, weights: str = "fast", split: str = "test") -> Figure:
    """Accuracy over epochs, and its last fifth in a panel of its own: each run faint, each group's mean bold."""
    groups = in_order(runs.drop_duplicates("group").set_index("group"))
    with mpl.rc_context(STYLE):
        direct = len(groups) <= MAX_DIRECT_LABELS
        legend = not direct and len(groups) <= MAX_LEGEND_LABELS
        extra = 0.17 * ((len(groups) + 1) // 2) if legend else 0
        figure, (whole, tail) = plt.subplots(1, 2, figsize=(7.0, 2.9 + extra), width_ratios=(3, 2))
        rows = metrics[(metrics["split"] == split) & (metrics["weights"] == weights)]
        if rows.empty:
            raise UserError(f"no {weights} weights were measured in these runs; take another choice of --weights")
        epochs = sorted(rows["epoch"].unique())
        first = min(epochs[-1] - round(epochs[-1] / 5) + 1, epochs[-2:][0])  # two evaluations at the least
        labels = accuracy_curves(whole, groups, runs, rows)
        accuracy_curves(tail, groups, runs, rows[rows["epoch"] >= first])
        unnamed = "" if direct or legend else f"; {len(groups)} settings, named in the results table"
        figure.suptitle(f"{groups['task'].iloc[0]}: {weights} weights{unnamed}", x=0.01, ha="left")
        tail.set_title("the last fifth", loc="left")
        whole.set_ylabel(f"{split} accuracy (%)")
        if direct:
            end_labels(tail, labels)
        elif legend:
            handles = {
                str(line.get_label()).replace("\n", " "): line
                for line in whole.get_lines()
                if not str(line.get_label()).startswith("_")
            }
            figure.legend(
                handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=7, handlelength=4
            )
    return figure


def accuracy_curves(
    ax: Axes, groups: pd.DataFrame, runs: pd.DataFrame, rows: pd.DataFrame
) -> list[tuple[float, str, Color]]:
    """Draw every group; return (height of its last point, label, colour) for each."""
    rows = rows.merge(runs[["path", "group"]], on="path")
    shown = settings(groups, always=False)
    methods = groups["method"].tolist()
    labels = []
    for group in groups.index:
        described: Any = groups.loc[group]
        curves = rows[rows["group"] == group]
        if curves.empty:  # diverged before its first evaluation
            continue
        kind = ["method", "inner", "pullback"]
        alike = groups.index[(groups[kind] == described[kind]).all(axis="columns")]
        color = shade(method_color(described["method"], methods), alike.get_loc(group), len(alike))
        completed = runs.loc[(runs["group"] == group) & (runs["status"] == COMPLETED), "path"]
        whole = curves[curves["path"].isin(completed)]
        n, count = whole["path"].nunique(), curves["path"].nunique()
        name = method_name(described["method"], described["inner"])
        label = f"{name}\n" + f"{shown[group]} (n={n}{f' of {count}' if n < count else ''})".strip()
        if count > 1 or n < count:
            for _, run in curves.groupby("path"):
                ax.plot(run["epoch"], 100 * run["accuracy"], color=color, alpha=0.25, lw=0.6, rasterized=True)
        # A mean over those still running at each epoch would jump where one diverges.
        mean = 100 * whole.groupby("epoch")["accuracy"].mean()
        ax.plot(
            mean.index,
            mean,
            color=color,
            label=label,
            linestyle=LINE_STYLES.get(described["pullback"], OTHER_LINE_STYLE),
            marker=MARKERS.get(described["inner"], OTHER_MARKER),
            markersize=3.5,
            markevery=max(1, len(mean) // 6),
        )
        height = mean if len(mean) else 100 * curves.groupby("epoch")["accuracy"].mean()
        labels.append((float(height.iloc[-1]), label, color))
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.grid(axis="y", lw=0.4, alpha=0.4)
    return labels


def shade(color: str, index: int, count: int) -> Color:
    """The ``index``-th of ``count`` variants of a method: from its own colour toward a darker one."""
    factor = 1 - 0.65 * index / max(1, count - 1)
    base = np.maximum(to_rgb(color), 0.45 if count > 1 and color == "#000000" else 0)
    red, green, blue = factor * base
    return float(red), float(green), float(blue)


def end_labels(ax: Axes, labels: list[tuple[float, str, Color]]) -> None:
    """Two-line names at the lines' ends, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    gap = 0.115 * (high - low)  # two lines of 7 points on axes two inches high
    labels = sorted(labels, key=lambda entry: entry[0])
    places: list[float] = []
    for height, _, _ in labels:
        places.append(max(height, places[-1] + gap) if places else height)
    for i in reversed(range(len(places))):  # and back down from the top
        places[i] = min(places[i], high - gap / 2 - gap * (len(places) - 1 - i))
    for place, (height, label, color) in zip(places, labels, strict=True):
        ax.annotate(
            label,
            xy=(1.0, height),
            xytext=(1.05, place),
            xycoords=ax.get_yaxis_transform(),
            textcoords=ax.get_yaxis_transform(),
            va="center",
            fontsize=7,
            color=color,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.5, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )


def save(figure: Figure, path: Path) -> list[Path]:
    """Write PNG and PDF beside each other; returns their paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")]
    with mpl.rc_context(STYLE):
        for target in paths:
            figure.savefig(target, metadata={"CreationDate": None} if target.suffix == ".pdf" else None)
    plt.close(figure)
    return paths
