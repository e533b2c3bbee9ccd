"""Exact shares of the variance over a complete grid of settings."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish, panels
from nested_lookahead.analysis.figures.families import MAX_PANELS, Family, complete_grids, grid_label, stop
from nested_lookahead.analysis.figures.looks import Look, mix
from nested_lookahead.analysis.figures.names import row_labels, wrap
from nested_lookahead.analysis.labels import symbol
from nested_lookahead.analysis.variance import NOISE, SEEDS, anova_intervals, anova_shares
from nested_lookahead.drawing import SMALL, WIDTH, grid

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task


def anova(task: Task, options: Options) -> Drawn | None:
    """Exact variance shares of settings, their interactions and the seeds, on each complete grid."""
    drawn, lost = [], ""
    parts, refused = complete_grids(task)
    for part in parts:
        values, left_out = grid_values(task, part)
        if values is None:
            refused += f" Refused, as runs diverged or seeds differ: {part.label}."
        elif (table := shares(part, values)) is not None:
            drawn.append((f"{grid_label(part)}, n={values.shape[-1]}", table, part.look))
            if left_out:
                lost += f" Left out of {part.label}: {left_out} seed(s) on which a cell diverged or was not run."
    shown = drawn[:MAX_PANELS]
    if not shown:
        return None
    rows = max(len(table) for _, table, _ in shown)
    columns = min(2, len(shown))
    figure, axes = panels(len(shown), 0.17 * rows + 0.75)
    for ax, (label, table, look) in zip(axes, shown, strict=True):
        plot_shares(ax, table, look)
        ax.set_title(wrap(label, WIDTH / columns - 0.9), loc="left", fontsize=SMALL)
    caption = (
        f"Shares of the variance of final {task.metric.name} over a complete grid, by a balanced analysis of variance, "
        "less what noise alone would give (epsilon squared; about 0, or a little below, where there is no effect): "
        "each setting alone, pairs beyond their settings, all higher interactions together, what a seed has in common "
        "over all cells, and noise. Bars: 95% intervals by a bootstrap of the residuals, for these seeds."
    )
    if any(", n=1" in label for label, _, _ in shown):
        caption += " With one seed the highest interaction stands for the noise."
    caption += lost + refused
    alt = [f"{label.splitlines()[0]}: " + ", ".join(f"{r.effect} {r.share:.0%}" for r in table.itertuples()) + "."
           for label, table, _ in drawn]  # fmt: skip
    whole = pd.concat([table.assign(method=label.splitlines()[0]) for label, table, _ in drawn])
    title = f"shares of the variance of final {task.split} {task.metric.name}, {task.weights} weights"
    columns_told = ["method", "effect", "kind", "share", "low", "high"]
    return finish(figure, task, title, caption + stop(drawn), alt, whole[columns_told])


def grid_values(task: Task, family: Family) -> tuple[Any, int]:
    """Final accuracies, an axis per varying setting and a last one for the seeds that all cells have finished; None
    with gaps. And how many seeds some cells have finished and others not."""
    by_seed = task.final[task.final["group"].isin(family.groups.index)].pivot_table(
        index="group", columns="seed", values="value", dropna=False
    )
    whole = by_seed.dropna(axis="columns")
    left_out = by_seed.shape[1] - whole.shape[1]
    if whole.shape[1] == 0 or len(whole) < len(family.groups):
        return None, left_out
    order = [
        family.with_value(**dict(zip(family.keys, values, strict=True)))[0]
        for values in itertools.product(*(family.values(key) for key in family.keys))
    ]
    return whole.loc[order].to_numpy().reshape(*(len(family.values(key)) for key in family.keys), -1), left_out


def shares(family: Family, values: Any) -> pd.DataFrame | None:
    """Rows effect, kind (main, pair, higher, seeds, noise), share, low and high; None where all values are equal."""
    found = anova_shares(values)
    if not np.isfinite(found[NOISE]):
        return None
    spans = anova_intervals(values)
    rows: list[dict[str, Any]] = []
    for effect, share in found.items():
        if isinstance(effect, str):
            rows.append({"effect": effect, "kind": effect, "share": share})
        elif len(effect) > 2:
            continue
        else:
            name = " × ".join(symbol(family.keys[axis]) for axis in effect)
            rows.append({"effect": name, "kind": "main" if len(effect) == 1 else "pair", "share": share})
        rows[-1] |= dict(zip(("low", "high"), spans[effect], strict=True))
    higher = [share for effect, share in found.items() if not isinstance(effect, str) and len(effect) > 2]
    if higher:
        place = next(i for i, row in enumerate(rows) if row["kind"] in (SEEDS, NOISE))
        rows.insert(place, {"effect": "higher", "kind": "higher", "share": sum(higher), "low": np.nan, "high": np.nan})
    return pd.DataFrame(rows)


def plot_shares(ax: Axes, table: pd.DataFrame, look: Look) -> None:
    """A bar per effect with its interval, the first on top."""
    paler = {"main": 0.0, "pair": 0.35, "higher": 0.6}
    grey = {SEEDS: "#B5B5B5", NOISE: "#8C8C8C"}
    for y, (_, row) in enumerate(table.iterrows()):
        color = grey.get(row["kind"]) or mix(look.color, "#FFFFFF", paler[row["kind"]])
        share, end = max(0.0, row["share"]), max(0.0, row["share"])
        ax.barh(y, share, height=0.7, color=color)
        if np.isfinite(row["low"]):
            low, end = max(0.0, row["low"]), min(1.0, max(end, row["high"]))
            ax.plot([low, end], [y, y], color="#222222", lw=0.8)
        ax.text(end, y, f" {share:.1%}", va="center", fontsize=SMALL)
    row_labels(ax, table["effect"].tolist(), [""] * len(table), inches=1.2)
    ax.set_xlim(0, 1.17)
    ax.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    ax.set_xlabel("share of the variance")
    grid(ax, "x")
