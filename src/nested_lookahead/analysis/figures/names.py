"""Names beside lines, in legends and on rows, none over another."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nested_lookahead.drawing import SMALL, WIDTH, lay_out

CHARACTER = 0.058
"""Width of a character of a small label, in inches, on average."""
MAX_DIRECT_LABELS = 6
MAX_LEGEND_LABELS = 20  # the results table is the place for more
MAX_ROWS = 40
"""Of one figure. More are taller than any page, and their image has fewer than 150 dots per inch."""


@dataclass(frozen=True)
class Name:
    """A label for the line that ends at height ``y``; ``group`` is empty where it stands for several."""

    group: str
    y: float
    label: str
    color: Any
    handle: Artist


def wrap(text: str, inches: float) -> str:
    """Break the text into lines that are about so wide at most."""
    wide = max(10, int(inches / CHARACTER))
    return "\n".join(
        line for part in text.split("\n") for line in textwrap.wrap(part, wide, break_on_hyphens=False) or [""]
    )


def short(text: str, most: int = 24) -> str:
    """The text less its middle, where it is longer."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"


def tag(artists: Artist | Iterable[Artist], group: str) -> None:
    """Note that the artists belong to one group; `finish` makes the ids unique."""
    for artist in [artists] if isinstance(artists, Artist) else artists:
        artist.set_gid(f"g-{group}" if group else None)


def named_lines(figure: Figure, ax: Axes, names: list[Name]) -> str:
    """Names at the lines' ends, up to six, else a legend; returns what the title has to add where there is neither."""
    if len(names) <= MAX_DIRECT_LABELS:
        end_labels(figure, [(ax, names)])
    elif len(names) <= MAX_LEGEND_LABELS:
        legend(figure, names)
    else:
        return f"; {len(names)} settings, named in the results table"
    return ""


def end_labels(figure: Figure, named: Sequence[tuple[Axes, list[Name]]], inches: float = 2.0) -> None:
    """Names beside the right ends of lines, moved apart where they would overlap; the figure grows where it must.

    The limits of all axes must be final.
    """
    lay_out(figure)
    heights = [72 * ax.get_window_extent().height / figure.dpi for ax, _ in named]  # points
    needed = [sum(_label_height(name, inches) for name in names) for _, names in named]
    lack = max(need - height for need, height in zip(needed, heights, strict=True))
    if lack > 0:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height * (1 + lack / min(heights)))
        lay_out(figure)
    for ax, names in named:
        _place_labels(ax, names, inches, 72 * ax.get_window_extent().height / figure.dpi)


def _label_height(name: Name, inches: float) -> float:
    """In points, with some space around."""
    return 1.42 * SMALL * (wrap(name.label, inches).count("\n") + 1) + 2


def _place_labels(ax: Axes, names: list[Name], inches: float, height: float) -> None:
    names = sorted(names, key=lambda name: name.y)
    halves = [0.5 * _label_height(name, inches) / height for name in names]
    ends = [_fraction(ax, name.y) for name in names]
    places: list[float] = []
    for i, end in enumerate(ends):
        places.append(max(end, places[-1] + halves[i - 1] + halves[i]) if places else end)
    top = 1.02
    for i in reversed(range(len(places))):  # and back down from the top
        places[i] = min(places[i], top - halves[i])
        top = places[i] - halves[i]
    for name, end, place in zip(names, ends, places, strict=True):
        line = {"arrowstyle": "-", "color": name.color, "lw": 0.5, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0}
        annotation = ax.annotate(
            wrap(name.label, inches),
            xy=(1.0, end),
            xytext=(1.05, place),
            xycoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color=name.color,
            arrowprops=line,
            annotation_clip=False,
        )
        tag(annotation, name.group)


def _fraction(ax: Axes, y: float) -> float:
    """Height of a value, as a share of the axes; one outside or not finite is at the edge."""
    low, high = ax.get_ylim()
    y = min(max(y if np.isfinite(y) else low, low), high)
    return float(ax.transAxes.inverted().transform(ax.transData.transform((ax.get_xlim()[0], y)))[1])


def legend(figure: Figure, names: list[Name]) -> None:
    """All names below the axes, in two columns where they fit; the figure grows by their height."""
    for columns in (2, 1):
        labels = [name.label.replace("\n", " ").lstrip("_") for name in names]
        labels = labels if columns == 2 else [wrap(label, WIDTH - 0.7) for label in labels]
        made = figure.legend(
            [name.handle for name in names],
            labels,
            loc="outside lower center",
            ncols=columns,
            fontsize=SMALL,
            handlelength=3.5,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
        renderer: Any = figure.canvas
        box = made.get_window_extent(renderer.get_renderer())
        if columns == 1 or box.width < 0.98 * figure.bbox.width:
            break
        made.remove()
    for name, text, handle in zip(names, made.get_texts(), made.legend_handles, strict=True):
        tag([text, *([handle] if handle else [])], name.group)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + box.height / figure.dpi)


def extremes(table: pd.DataFrame, values: Any, name: str) -> tuple[pd.DataFrame, str]:
    """Of a table with more rows than a figure holds, those with the least and the greatest values (NaN, of what nobody
    finished, is the least), in its own order; and a sentence of what is not shown."""
    if len(table) <= MAX_ROWS:
        return table, ""
    order = np.argsort(np.nan_to_num(np.asarray(values, dtype=float), nan=-np.inf), kind="stable")
    chosen = np.sort([*order[: MAX_ROWS // 2], *order[-MAX_ROWS // 2 :]])
    said = f" Of {len(table)} {name} the {MAX_ROWS // 2} best and the {MAX_ROWS // 2} worst; the table has all."
    return table.iloc[chosen], said


def row_labels(ax: Axes, labels: Sequence[str], groups: Sequence[str], inches: float = 3.2) -> None:
    """One row per label, the first on top; the figure's height is made to fit."""
    texts = [wrap(label, inches) for label in labels]
    ax.set_yticks(range(len(texts)), texts, fontsize=SMALL)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(texts) - 0.4, -0.6)
    for text, group in zip(ax.get_yticklabels(), groups, strict=True):
        tag(text, group)
        text.set_linespacing(1.1)


def row_height(labels: Sequence[str], inches: float = 3.2) -> float:
    """Inches that such a row needs."""
    return 0.1 + 0.12 * max(wrap(label, inches).count("\n") + 1 for label in labels)
