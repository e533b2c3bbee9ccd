"""Settings of one method: variants against the default, heat maps, marginals, interactions, and exact ANOVA shares."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from nested_lookahead.analysis.compare import DEFAULTS
from nested_lookahead.analysis.figures.style import (
    CHARACTER,
    SMALL,
    WIDTH,
    Drawn,
    Look,
    Name,
    Options,
    end_labels,
    finish,
    grid,
    looks,
    mix,
    panels,
    row_labels,
    shade,
    short,
    tag,
    unpublished,
    wrap,
)
from nested_lookahead.analysis.labels import SYMBOLS, setting_keys
from nested_lookahead.analysis.statistics import anova_shares, t_half_width

if TYPE_CHECKING:
    from nested_lookahead.analysis.compare import Task

PAIRS = (("k", "alpha"), ("s", "h"), ("k", "s"), ("alpha", "h"))
PAIR_KEYS = [(f"optimizer.{x}", f"optimizer.{y}") for x, y in PAIRS]
MAX_PANELS = 16
MAX_VARIANTS = 12
"""Of a method with more settings, only those are called variants that differ from the default in one."""
INTERVALS = "Bars: 95% t intervals over seeds (none below three); dots: single seeds; ×: diverged runs, in no mean."


@dataclass(frozen=True)
class Family:
    """The groups of one method, and the keys of the configuration in which they differ."""

    label: str
    groups: pd.DataFrame
    keys: Sequence[str]
    look: Look

    @property
    def fixed(self) -> str:
        """The periods, step sizes and learning rate that all groups share."""
        first = {key: self.column(key).iloc[0] for key in SYMBOLS if f"config.{key}" in self.groups}
        skip = (*self.keys, "optimizer.pullback")
        return " ".join(setting(key, value) for key, value in first.items() if key not in skip and value != "")

    def values(self, key: str) -> list[Any]:
        """Those of a setting, numbers in order; a setting that is not set is the empty text."""
        values = list(dict.fromkeys(self.column(key)))
        return sorted(values, key=lambda value: (isinstance(value, str), value))

    def column(self, key: str) -> pd.Series[Any]:
        column = self.groups[f"config.{key}"].astype(object)
        plain = [v if isinstance(v, int | float) and not isinstance(v, bool) else str(v) for v in column]
        return pd.Series(plain, self.groups.index, dtype=object).where(column.notna(), "")

    def with_value(self, **fixed: Any) -> list[str]:
        """Ids of the groups that have those values."""
        mask = pd.Series(True, self.groups.index)
        for key, value in fixed.items():
            mask &= self.column(key) == value
        return [str(group) for group in self.groups.index[mask]]


def families(task: Task, by: Sequence[str] = ("label",), varying: int = 1) -> list[Family]:
    """The methods with so many varying settings or more."""
    styles = looks(task)
    found = []
    for _, groups in unpublished(task).groupby(list(by), sort=False):
        keys = [key for key in setting_keys(groups) if _differ(groups[f"config.{key}"].astype(str))]
        label = str(groups["label"].iloc[0])
        if "pullback" in by and _differ(task.groups.loc[task.groups["label"] == label, "pullback"]):
            label += f", pullback={groups['pullback'].iloc[0]}"
        if len(keys) >= varying:
            found.append(Family(label, groups, keys, styles[str(groups.index[0])]))
    return found


def _differ(values: pd.Series[Any]) -> bool:
    return len(set(values)) > 1


def symbol(key: str) -> str:
    return SYMBOLS.get(key) or key.removeprefix("optimizer.").removeprefix("inner.").removesuffix(".name")


def setting(key: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, int | float) else str(value)
    return f"{symbol(key)}={text or 'not set'}"


def summary(task: Task, groups: Sequence[str]) -> dict[str, Any]:
    """Mean final accuracy (%) over seeds of these groups, each seed's mean over the groups first.

    Returns:
        value and half_width (NaN where there is none), n (seeds), values (by seed), diverged and runs (counts).
    """
    rows = task.final[task.final["group"].isin(groups)]
    values = rows.groupby("seed")["value"].mean().dropna()
    half_width = t_half_width(values.tolist())
    return {
        "value": values.mean() if len(values) else np.nan,
        "half_width": np.nan if half_width is None else half_width,
        "n": len(values),
        "values": values.tolist(),
        "diverged": int(rows["value"].isna().sum()),
        "runs": len(rows),
    }


def _stop(many: Sequence[Any]) -> str:
    return f" The first {MAX_PANELS} of {len(many)} panels." if len(many) > MAX_PANELS else ""


# --- one setting at a time ------------------------------------------------------------------------------------------


def hyperparameters(task: Task, options: Options) -> Drawn | None:
    """Per method, its variants against its default."""
    styles = looks(task)
    drawn: list[tuple[str, pd.DataFrame]] = []
    others = 0
    for family in families(task):
        reference = default(family)
        own = {key: family.column(key) for key in family.keys}
        rows: list[dict[str, Any]] = [
            {"group": reference, "key": "", "tick": "default", "color": styles[reference].color}
        ]
        for many in (1, 2, 3, 4):
            for group in family.groups.index:
                changed = [key for key in family.keys if own[key][group] != own[key][reference]]
                if len(changed) == many and (many == 1 or len(family.groups) <= MAX_VARIANTS):
                    tick = " ".join(setting(key, own[key][group]) for key in changed)
                    key = changed[0] if many == 1 else "several"
                    rows.append({"group": str(group), "key": key, "tick": tick, "color": styles[str(group)].color})
        rows.sort(key=lambda row, keys=["", *family.keys, "several"]: keys.index(row["key"]))  # type: ignore[misc]
        others += len(family.groups) - len(rows)
        if len(rows) > 1:
            table = pd.DataFrame([row | summary(task, [row["group"]]) for row in rows])
            settings = " ".join(setting(key, own[key][reference]) for key in family.keys)
            drawn.append((f"{family.label}\ndefault: {settings}", table))
    caption = (
        "Variants against the method's default, named by what differs; dashed: the default's mean. Each panel has a "
        f"scale of its own. {INTERVALS}"
    )
    if others:
        caption += f" {others} settings that differ from the default in several are not shown here."
    return _category_figure(task, drawn, "variants against each method's default", caption)


def default(family: Family) -> str:
    """The group with the most of the papers' settings; of several, that with the most variants, or in their middle."""

    def rank(group: Any) -> tuple[float, float, float]:
        mine = {key: family.column(key)[group] for key in family.keys}
        departures = sum(mine.get(f"optimizer.{key}", value) != value for key, value in DEFAULTS.items())
        differing = sum((family.column(key) != value).astype(int) for key, value in mine.items())
        places = [(family.values(key), value) for key, value in mine.items()]
        middle = sum(abs(values.index(value) - (len(values) - 1) / 2) for values, value in places)
        return departures, -int((differing == 1).sum()), middle

    return str(min(family.groups.index, key=rank))


def marginals(task: Task, options: Options) -> Drawn | None:
    """Per complete grid and varying setting, the mean over all other settings for each value."""
    drawn = []
    parts, refused = complete_grids(task)
    for family in parts:
        rows = [
            {"group": "", "key": key, "tick": setting(key, value), "color": family.look.color}
            | summary(task, family.with_value(**{key: value}))
            for key in family.keys
            for value in family.values(key)
        ]
        drawn.append((grid_label(family), pd.DataFrame(rows)))
    caption = (
        f"Mean over a grid's settings that have the value. Each panel has a scale of its own. {INTERVALS}{refused}"
    )
    if any(family.groups["diverged"].any() for family in parts):
        caption += " With divergences, values are averaged over different other settings."
    return _category_figure(task, drawn, "each setting's values, averaged over the other settings", caption)


def grid_label(family: Family) -> str:
    size = " × ".join(f"{len(family.values(key))} {symbol(key)}" for key in family.keys)
    return f"{family.label}\n{size}{f'; fixed: {family.fixed}' if family.fixed else ''}"


def complete_grids(task: Task) -> tuple[list[Family], str]:
    """Each method's grid, if every combination is there; else those of its pullbacks, or their planes over a pair.

    Also a sentence on the methods without.
    """
    found, refused = [], []
    by_pullback = families(task, by=("label", "pullback"), varying=2)
    for family in families(task, varying=2):
        parts = [family]
        if not is_complete(family):
            own = [part for part in by_pullback if set(part.groups.index) <= set(family.groups.index)]
            whole = [part for part in own if is_complete(part)]
            planes = [plane(part, keys) for part in own if not is_complete(part) for keys in PAIR_KEYS]
            parts = [part for part in whole + planes if len(part.keys) > 1 and is_complete(part)]
        found += parts
        refused += [f"{family.label} ({len(family.groups)} settings)"] if not parts else []
    return found, f" Refused, as the grid has gaps: {', '.join(refused)}." if refused else ""


def plane(family: Family, keys: Sequence[str]) -> Family:
    """The largest part of a method's groups that differ in these settings alone; of several, that with the default."""
    others = [key for key in family.keys if key not in keys]
    if not others:
        return family
    at = [tuple(family.column(key)[group] for key in others) for group in family.groups.index]
    usual = at[family.groups.index.get_loc(default(family))]
    best = max(dict.fromkeys(at), key=lambda values: (at.count(values), values == usual))
    groups = family.groups[[values == best for values in at]]
    part = replace(family, groups=groups)
    return replace(part, keys=[key for key in keys if key in family.keys and len(part.values(key)) > 1])


def is_complete(family: Family) -> bool:
    """Whether every combination of the values is there."""
    combinations = {tuple(family.column(key)[group] for key in family.keys) for group in family.groups.index}
    size = int(np.prod([len(family.values(key)) for key in family.keys]))
    return len(combinations) == size == len(family.groups)


def _category_figure(task: Task, drawn: list[tuple[str, pd.DataFrame]], title: str, caption: str) -> Drawn | None:
    if not drawn:
        return None
    shown = drawn[:MAX_PANELS]
    columns = 1 if max(len(table) for _, table in shown) > 12 else 2
    inches = WIDTH / min(columns, len(shown)) - 0.7
    ticks = max(len(short(tick)) for _, table in shown for tick in table["tick"])
    turned = any(
        table["tick"].map(short).str.len().max() + 1 > inches / CHARACTER / (len(table) + 1.5) for _, table in shown
    )
    figure, axes = panels(len(shown), 2.3 + (0.65 * ticks * CHARACTER if turned else 0), columns)
    for ax, (label, table) in zip(axes, shown, strict=True):
        plot_categories(ax, table, turned)
        ax.set_title(wrap(label, inches), loc="left", fontsize=SMALL)
        ax.set_ylabel(f"{task.split} accuracy (%)", fontsize=SMALL)
    table = pd.concat([t.assign(method=label.split("\n")[0]) for label, t in drawn]).drop(columns=["color", "values"])
    alt = [f"{r.method} {r.tick} {r.value:.2f}." for r in table.itertuples() if r.n != 0]
    said = f"{caption}{_stop(drawn)}"
    return finish(figure, task, f"{title}, {task.weights} weights", said, ["Mean accuracy in %.", *alt], table)


def plot_categories(ax: Axes, table: pd.DataFrame, turned: bool = False) -> None:
    """Mean and interval of each row, its seeds faint; a gap between settings, a dashed line at the default's mean."""
    gaps = (table["key"] != table["key"].shift()).cumsum() - 1
    x = np.arange(len(table)) + 0.6 * gaps.to_numpy()
    for place, (_, row) in zip(x, table.iterrows(), strict=True):
        group, color = row["group"], row["color"]
        if row["n"] > 1:
            tag(ax.scatter([place + 0.13] * row["n"], row["values"], s=9, color=color, alpha=0.35, lw=0), group)
        bar = [row["half_width"]] if np.isfinite(row["half_width"]) else None
        if row["n"]:
            tag(ax.errorbar(place, row["value"], bar, marker="o", ms=4, color=color, lw=1.2).get_children(), group)
        if row["diverged"]:
            crosses(ax, place, row["diverged"], group)
        if row["tick"] == "default":
            tag(ax.axhline(row["value"], color=color, lw=0.8, ls="--", alpha=0.7), group)
    if table["diverged"].any():
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.15 * (high - low), high)
    angle: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    ax.set_xticks(x, [short(tick) for tick in table["tick"]], fontsize=SMALL, **angle)
    ax.set_xlim(-0.6, x[-1] + 0.6)
    grid(ax)


def crosses(ax: Axes, x: float, count: int, group: str) -> None:
    """So many diverged runs, at the foot of the axes."""
    text = ax.text(x, 0.01, f"×{count}", transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=SMALL)
    tag(text, group)


# --- two settings at a time -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A method's cells over two settings."""

    label: str
    x: str
    y: str
    cells: pd.DataFrame
    look: Look


def pairs(task: Task) -> Iterator[Pair]:
    """Per method, inner optimizer and pullback, each pair of settings of which 2 × 2 values were combined.

    All other settings are averaged over where each cell has as many of them, else fixed.
    """
    for family in families(task, by=("label", "pullback"), varying=2):
        for x, y in PAIR_KEYS:
            if not {x, y} <= {*family.keys}:
                continue
            part = family
            sizes = [len(part.with_value(**{x: a, y: b})) for a in part.values(x) for b in part.values(y)]
            if max(sizes) != min(sizes):
                part = plane(family, (x, y))
            rows = []
            for a, b in itertools.product(part.values(x), part.values(y)):
                groups = part.with_value(**{x: a, y: b})
                only = groups[0] if len(groups) == 1 else ""
                rows.append({"x": a, "y": b, "group": only} | summary(task, groups))
            cells = pd.DataFrame(rows)
            there = cells[cells["runs"] > 0].groupby("x")["y"].agg(set)
            if not any(len(one & other) > 1 for one, other in itertools.combinations(there, 2)):
                continue
            averaged = ", ".join(symbol(key) for key in part.keys if key not in (x, y))
            said = "; ".join(
                filter(None, [averaged and f"averaged over {averaged}", part.fixed and f"fixed: {part.fixed}"])
            )
            yield Pair(f"{part.label}\n{symbol(x)} and {symbol(y)}; {said}".rstrip("; "), x, y, cells, part.look)


def heatmaps(task: Task, options: Options) -> Drawn | None:
    """Raw cells over pairs of settings, with value, half-width, n and divergences."""
    every = list(pairs(task))
    shown = every[:MAX_PANELS]
    if not shown:
        return None
    wide = max(pair.cells["x"].nunique() for pair in shown)
    high = max(pair.cells["y"].nunique() for pair in shown)
    columns = 1 if wide > 5 else 2
    figure, axes = panels(len(shown), 0.48 * high + 0.85, columns)
    for ax, pair in zip(axes, shown, strict=True):
        plot_heatmap(ax, pair)
        ax.set_title(wrap(pair.label, WIDTH / min(columns, len(shown)) - 0.5), loc="left", fontsize=SMALL)
    caption = (
        "Each cell is measured, none is interpolated: mean over seeds ± half-width of the 95% t interval (none below "
        "three seeds), n seeds, × diverged runs, which are in no mean; hatched: not tried. Each title says over what "
        "a panel is averaged and what is fixed. Darker is lower, and each panel has a scale of its own."
    )
    said = f"{caption}{_stop(every)}"
    title = f"final {task.split} accuracy (%) over pairs of settings, {task.weights} weights"
    return finish(figure, task, title, said, ["Mean accuracy in %.", *_best_cells(every)], _cells(every))


def _best_cells(every: Sequence[Pair]) -> Iterator[str]:
    for pair in every:
        cells = pair.cells.dropna(subset=["value"]).sort_values("value")
        if len(cells):
            best, worst = cells.iloc[-1], cells.iloc[0]
            names = [f"{setting(pair.x, c['x'])} {setting(pair.y, c['y'])} {c['value']:.2f}" for c in (best, worst)]
            yield f"{pair.label.splitlines()[0]}: best {names[0]}, worst {names[1]}."


def _cells(every: Sequence[Pair]) -> pd.DataFrame:
    tables = [
        pair.cells.assign(method=pair.label.splitlines()[0], x=[setting(pair.x, v) for v in pair.cells["x"]],
                          y=[setting(pair.y, v) for v in pair.cells["y"]])
        for pair in every
    ]  # fmt: skip
    return pd.concat(tables)[["method", "x", "y", "value", "half_width", "n", "diverged", "runs"]]


def plot_heatmap(ax: Axes, pair: Pair) -> None:
    """One rectangle per cell; values in it."""
    cells, colors = pair.cells, colormaps["cividis"]
    xs, ys = list(dict.fromkeys(cells["x"])), list(dict.fromkeys(cells["y"]))
    low, high = cells["value"].min(), cells["value"].max()
    for _, cell in cells.iterrows():
        i, j, group = xs.index(cell["x"]), ys.index(cell["y"]), cell["group"]
        if np.isfinite(cell["value"]):
            share = (cell["value"] - low) / (high - low) if high > low else 1.0
            face, hatch = colors(share), None
            ink = "black" if np.dot(np.array(face[:3]) ** 2.2, (0.2126, 0.7152, 0.0722)) > 0.18 else "white"
        else:
            face, ink, hatch = "white", "black", "////" if not cell["runs"] else None
        edge = "#BBBBBB" if hatch else "white"
        box = Rectangle((i - 0.5, j - 0.5), 1, 1, facecolor=face, edgecolor=edge, hatch=hatch)
        tag(ax.add_patch(box), group)
        tag(ax.text(i, j, cell_text(cell), ha="center", va="center", fontsize=6.5, color=ink, linespacing=1.05), group)
    ax.set_xticks(range(len(xs)), [_plain(value) for value in xs])
    ax.set_yticks(range(len(ys)), [_plain(value) for value in ys])
    ax.set_xlabel(symbol(pair.x))
    ax.set_ylabel(symbol(pair.y), rotation=0, ha="right", va="center")
    ax.set_xlim(-0.5, len(xs) - 0.5)
    ax.set_ylim(-0.5, len(ys) - 0.5)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value) or "not set"


def cell_text(cell: Any) -> str:
    """``97.20``, ``±0.31``, ``n=5 ×1`` below each other."""
    if not cell["runs"]:
        return ""
    lost = f"×{cell['diverged']}" if cell["diverged"] else ""
    if not cell["n"]:
        return lost
    half = [f"±{cell['half_width']:.2f}"] if np.isfinite(cell["half_width"]) else []
    return "\n".join([f"{cell['value']:.2f}", *half, f"n={cell['n']} {lost}".strip()])


def interactions(task: Task, options: Options) -> Drawn | None:
    """Per pair of settings, one line for each value of the second."""
    every = list(pairs(task))
    shown = every[:MAX_PANELS]
    if not shown:
        return None
    columns = min(2, len(shown))
    figure, axes = panels(len(shown), 2.3)
    named = []
    for ax, pair in zip(axes, shown, strict=True):
        named.append(plot_interaction(ax, pair))
        ax.set_title(wrap(pair.label, WIDTH / columns - 0.8), loc="left", fontsize=SMALL)
        ax.set_ylabel(f"{task.split} accuracy (%)", fontsize=SMALL)
    end_labels(figure, list(zip(axes, named, strict=True)))
    caption = f"Where lines are not parallel the settings interact. Each panel has a scale of its own. {INTERVALS}"
    caption += _stop(every)
    title = f"interactions of pairs of settings, {task.weights} weights"
    return finish(figure, task, title, caption, ["Mean accuracy in %.", *_best_cells(every)], _cells(every))


def plot_interaction(ax: Axes, pair: Pair) -> list[Name]:
    """Mean against the first setting, the values of the second a little beside each other."""
    xs, ys = list(dict.fromkeys(pair.cells["x"])), list(dict.fromkeys(pair.cells["y"]))
    names = []
    for j, (value, cells) in enumerate(pair.cells.groupby("y", sort=False)):
        color = shade(pair.look.color, j, len(ys))
        x = np.array([xs.index(v) for v in cells["x"]]) + 0.12 * (j - (len(ys) - 1) / 2) / max(1, len(ys) / 3)
        for place, (_, cell) in zip(x, cells.iterrows(), strict=True):
            group = cell["group"]
            if cell["n"] > 1:
                tag(ax.scatter([place] * cell["n"], cell["values"], s=6, color=color, alpha=0.3, lw=0), group)
            if np.isfinite(cell["half_width"]):
                tag(ax.errorbar(place, cell["value"], cell["half_width"], color=color, lw=0.9).get_children(), group)
            if cell["diverged"]:
                crosses(ax, float(place), cell["diverged"], group)
        (line,) = ax.plot(x, cells["value"], color=color, marker="os^vDP*X"[j % 8], ms=4, lw=1.2)
        last = cells["value"].dropna()
        names.append(Name("", float(last.iloc[-1]) if len(last) else np.nan, setting(pair.y, value), color, line))
    if pair.cells["diverged"].any():
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.15 * (high - low), high)
    ax.set_xticks(range(len(xs)), [_plain(value) for value in xs])
    ax.set_xlabel(symbol(pair.x))
    grid(ax)
    return names


# --- shares of the variance -----------------------------------------------------------------------------------------


def anova(task: Task, options: Options) -> Drawn | None:
    """Exact variance shares of settings, their interactions and the seeds, on each complete grid."""
    drawn = []
    parts, refused = complete_grids(task)
    for part in parts:
        values = grid_values(task, part)
        if values is None:
            refused += f" Refused, as runs diverged or seeds differ: {part.label}."
        elif (table := shares(part, values)) is not None:
            drawn.append((f"{grid_label(part)}, n={values.shape[-1]}", table, part.look))
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
        "Exact shares of the variance of final accuracy over a complete grid, by a balanced analysis of variance: each "
        "setting alone, pairs beyond their settings, all higher interactions together, and noise (seeds within a cell)."
    )
    if any(", n=1" in label for label, _, _ in shown):
        caption += " With one seed the noise is part of the highest interaction and cannot be told apart."
    caption += refused
    alt = [f"{label.splitlines()[0]}: " + ", ".join(f"{r.effect} {r.share:.0%}" for r in table.itertuples()) + "."
           for label, table, _ in drawn]  # fmt: skip
    whole = pd.concat([table.assign(method=label.splitlines()[0]) for label, table, _ in drawn])
    title = f"shares of the variance of final {task.split} accuracy, {task.weights} weights"
    return finish(figure, task, title, caption + _stop(drawn), alt, whole[["method", "effect", "kind", "share"]])


def grid_values(task: Task, family: Family) -> Any:
    """Final accuracies, an axis per varying setting and a last one for the seeds all cells have; None with gaps."""
    by_seed = task.final[task.final["group"].isin(family.groups.index)].pivot_table(
        index="group", columns="seed", values="value", dropna=False
    )
    by_seed = by_seed.dropna(axis="columns")
    if by_seed.shape[1] == 0 or len(by_seed) < len(family.groups):
        return None
    order = [
        family.with_value(**dict(zip(family.keys, values, strict=True)))[0]
        for values in itertools.product(*(family.values(key) for key in family.keys))
    ]
    return by_seed.loc[order].to_numpy().reshape(*(len(family.values(key)) for key in family.keys), -1)


def shares(family: Family, values: Any) -> pd.DataFrame | None:
    """Rows effect, kind (main, pair, higher, noise) and share; None where all values are equal."""
    found = anova_shares(values)
    if not np.isfinite(found["noise"]):
        return None
    rows = []
    for kind, order in (("main", 1), ("pair", 2)):
        for axes in itertools.combinations(range(len(family.keys)), order):
            effect = " × ".join(symbol(family.keys[axis]) for axis in axes)
            rows.append({"effect": effect, "kind": kind, "share": found[axes]})
    if len(family.keys) > 2:
        higher = sum(share for axes, share in found.items() if axes != "noise" and len(axes) > 2)
        rows.append({"effect": "higher", "kind": "higher", "share": higher})
    rows.append({"effect": "noise", "kind": "noise", "share": found["noise"]})
    return pd.DataFrame(rows)


def plot_shares(ax: Axes, table: pd.DataFrame, look: Look) -> None:
    """A bar per effect, the first on top."""
    paler = {"main": 0.0, "pair": 0.35, "higher": 0.6}
    for y, (_, row) in enumerate(table.iterrows()):
        color = "#8C8C8C" if row["kind"] == "noise" else mix(look.color, "#FFFFFF", paler[row["kind"]])
        ax.barh(y, row["share"], height=0.7, color=color)
        ax.text(row["share"], y, f" {row['share']:.1%}", va="center", fontsize=SMALL)
    row_labels(ax, table["effect"].tolist(), [""] * len(table), inches=1.2)
    ax.set_xlim(0, 1.12)
    ax.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    ax.set_xlabel("share of the variance")
    grid(ax, "x")
