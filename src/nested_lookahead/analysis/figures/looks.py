"""How each group of runs is drawn, and what it is called beside its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.task import Task, once
from nested_lookahead.drawing import STYLE
from nested_lookahead.methods import PLAIN, Marker, Method, assign

LINE_STYLES = {"none": "-", "pullback": "--", "reset": ":"}
OTHER_LINE_STYLE = "-."  # a scope such as reset_inner, or a pair of modes

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How a group of runs is drawn, and called: ``label`` has two lines, the second with settings and n."""

    color: Color
    linestyle: str
    marker: Marker
    width: float
    label: str
    n: int
    diverged: int

    @property
    def hex(self) -> str:
        return to_hex(self.color)

    def line(self, points: int = 1) -> dict[str, Any]:
        """Arguments of a line of so many points."""
        return {
            "color": self.color,
            "linestyle": self.linestyle,
            "linewidth": self.width,
            "marker": self.marker,
            "markersize": 3.5,
            "markevery": max(1, points // 6),
        }


def shade(color: Any, index: int, count: int) -> Color:
    """The ``index``-th of ``count`` variants of a method: from its own colour toward a darker one."""
    factor = 1 - 0.65 * index / max(1, count - 1)
    base = np.maximum(to_rgb(color), 0.45 if count > 1 and color == "#000000" else 0)
    red, green, blue = factor * base
    return float(red), float(green), float(blue)


def mix(color: Any, other: str, share: float) -> Color:
    """``color`` with so large a share of the other."""
    red, green, blue = (1 - share) * np.array(to_rgb(color)) + share * np.array(to_rgb(other))
    return float(red), float(green), float(blue)


@once
def looks(task: Task) -> dict[str, Look]:
    """By group, in display order."""
    methods = assign(task.groups["method"])
    inners = assign(inner for inner in task.groups["inner"] if inner)
    alike = task.groups.groupby(["method", "inner", "pullback", "source"], sort=False)
    places = zip(alike.cumcount(), alike["n"].transform("size"), strict=True)
    return {
        str(group): _look(described, methods, inners, place, many)
        for (group, described), (place, many) in zip(task.groups.iterrows(), places, strict=True)
    }


def _look(described: Any, methods: Mapping[str, Method], inners: Mapping[str, Method], place: int, many: int) -> Look:
    """Of a group (row) that is in this place among so many of its kind."""
    count, diverged = int(described["n"]), int(described["diverged"])
    n = count - diverged
    color = shade(methods[described["method"]].color, place, many)
    published = described["source"] == REFERENCE
    settings = f"{described['shown']} (n={n}{f' of {count}' if diverged else ''})".strip()
    return Look(
        mix(color, "#808080", 0.5) if published else color,
        LINE_STYLES.get(described["pullback"], OTHER_LINE_STYLE),
        inners[described["inner"]].marker if described["inner"] else PLAIN,
        0.9 if published else STYLE["lines.linewidth"],
        f"{described['label']}\n{settings}",
        n,
        diverged,
    )


def our_groups(task: Task) -> pd.DataFrame:
    """The groups of runs we have the settings of."""
    return task.groups[task.groups["source"] != REFERENCE]
