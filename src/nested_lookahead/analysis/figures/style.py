"""What all figures share: colours and line styles, names beside lines, and files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from nested_lookahead.analysis.collect import PUBLISHED
from nested_lookahead.errors import UserError
from nested_lookahead.records import COMPLETED

if TYPE_CHECKING:
    from nested_lookahead.analysis.compare import Task

# Colours with a contrast of at least 3:1 on white, fixed for each method and never given by order; those of the
# methods this project is about are Okabe and Ito's.
METHOD_COLORS = {
    "sgd": "#000000",
    "nesterov": "#5B2A86",
    "adam": "#009E73",
    "adamw": "#00543D",
    "nadam": "#8A75DB",
    "radam": "#5C8001",
    "rmsprop": "#8C6D1F",
    "adagrad": "#A6192E",
    "lookahead": "#0072B2",
    "nested_lookahead": "#D55E00",
    "multilayer_lookahead": "#CC79A7",
    "published_nested_lookahead": "#7A4419",
}
OTHER_COLOR = "#595959"
LINE_STYLES = {"none": "-", "pullback": "--", "reset": ":"}
OTHER_LINE_STYLE = "-."  # a scope such as reset_inner, or a pair of modes
MARKERS = {"": "o", "sgd": "s", "adam": "^", "adamw": "v", "nesterov": "P", "rmsprop": "X", "nadam": "<", "radam": ">"}
OTHER_MARKER = "D"

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "nested-lookahead",
    "text.parse_math": False,  # names come from configurations: a "$" in one is a dollar
    "figure.constrained_layout.use": True,
}
WIDTH = 7.0
SMALL = 7
"""Size of labels, in points."""
CHARACTER = 0.058
"""Width of a character of such a label, in inches, on average."""
MAX_DIRECT_LABELS = 6
MAX_LEGEND_LABELS = 20  # the results table is the place for more

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Options:
    """What a reader may choose about the figures.

    ``metric``: accuracy, error (100 − accuracy) or loss; ``x``: epoch, step or seconds, of learning curves.
    ``target``: accuracy in % for the time to target (default: the median of the groups' final means).
    ``smooth``: evaluations in a running mean of the learning curves.
    """

    metric: str = "accuracy"
    x: str = "epoch"
    target: float | None = None
    smooth: int | None = None


@dataclass(frozen=True)
class Drawn:
    """A figure, and what is said about it.

    ``caption``: what is averaged or fixed, and the intervals; ``alt``: the numbers in words, at most sixty; ``table``:
    the numbers drawn.
    """

    figure: Figure
    title: str
    caption: str
    alt: str
    table: pd.DataFrame


@dataclass(frozen=True)
class Look:
    """How a group of runs is drawn, and called: ``label`` has two lines, the second with settings and n."""

    color: Color
    linestyle: str
    marker: str
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


@dataclass(frozen=True)
class Name:
    """A label for the line that ends at height ``y``; ``group`` is empty where it stands for several."""

    group: str
    y: float
    label: str
    color: Any
    handle: Artist


def method_color(method: str, methods: Sequence[str]) -> str:
    """A method's own colour; one method of a figure may be without.

    Raises:
        UserError: two methods of the figure have none, and would look the same.
    """
    unknown = sorted({name for name in methods if name not in METHOD_COLORS})
    if len(unknown) > 1:
        raise UserError(f"methods without a colour of their own: {', '.join(unknown)}; add them to METHOD_COLORS")
    return METHOD_COLORS.get(method, OTHER_COLOR)


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


def looks(task: Task) -> dict[str, Look]:
    """By group, in display order."""
    methods = task.groups["method"].tolist()
    found = {}
    kind = ["method", "inner", "pullback", "source"]
    for group, described in task.groups.iterrows():
        alike = task.groups.index[(task.groups[kind] == described[kind]).all(axis="columns")]
        color = shade(method_color(described["method"], methods), alike.tolist().index(group), len(alike))
        members = task.runs.loc[task.runs["group"] == group, "status"]
        n, count = int((members == COMPLETED).sum()), len(members)
        published = described["source"] == PUBLISHED
        settings = f"{described['shown']} (n={n}{f' of {count}' if n < count else ''})".strip()
        found[str(group)] = Look(
            mix(color, "#808080", 0.5) if published else color,
            LINE_STYLES.get(described["pullback"], OTHER_LINE_STYLE),
            MARKERS.get(described["inner"], OTHER_MARKER),
            0.9 if published else STYLE["lines.linewidth"],
            f"{described['label']}\n{settings}",
            n,
            count - n,
        )
    return found


def unpublished(task: Task) -> pd.DataFrame:
    """The groups of runs we have the settings of."""
    return task.groups[task.groups["source"] != PUBLISHED]


def new_figure(
    rows: int, columns: int, height: float, width: float = WIDTH, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, apart from pyplot, which would keep each one open."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, list(axes.flat)


def panels(count: int, height: float, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """So many panels of equal size, two beside each other; one alone has the whole width."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, rows * height + 0.4)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


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
    figure.draw_without_rendering()
    heights = [72 * ax.get_window_extent().height / figure.dpi for ax, _ in named]  # points
    needed = [sum(_label_height(name, inches) for name in names) for _, names in named]
    lack = max(need - height for need, height in zip(needed, heights, strict=True))
    if lack > 0:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height * (1 + lack / min(heights)))
        figure.draw_without_rendering()
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


def grid(ax: Axes, axis: Any = "y") -> None:
    ax.grid(axis=axis, lw=0.4, alpha=0.4)


def runs_said(task: Task) -> str:
    """How many runs, and of which code."""
    ours = task.runs[task.runs["source"] != PUBLISHED]
    diverged = int((task.runs["status"] != COMPLETED).sum())
    commits = sorted({str(commit)[:8] for commit in ours.get("commit", pd.Series(dtype=str)).dropna() if commit})
    code = f", code {', '.join(commits[:3])}{' and others' if len(commits) > 3 else ''}" if commits else ""
    return f"{len(task.runs)} run{'s' if len(task.runs) > 1 else ''}, {diverged} diverged{code}."


def in_words(parts: Iterable[str], limit: int = 60) -> str:
    """The parts as one text that ends after so many words, at the end of a part."""
    said: list[str] = []
    left = 0
    for part in parts:
        if left or len(" ".join([*said, part]).split()) > limit - 6:
            left += 1
        else:
            said.append(part)
    return " ".join(said) + (f" {left} more in the table." if left else "")


def finish(figure: Figure, task: Task, title: str, caption: str, alt: Iterable[str], table: pd.DataFrame) -> Drawn:
    """Title the figure, and make the ids of what belongs to a group unique: ``g-<group>-<running number>``."""
    figure.suptitle(wrap(f"{task.name}: {title}", 6.6 if figure.get_figwidth() > 4 else 3.2), x=0.01, ha="left")
    tagged = figure.findobj(lambda artist: str(artist.get_gid() or "").startswith("g-"))
    for number, artist in enumerate(tagged):
        artist.set_gid(f"{artist.get_gid()}-{number}")
    text = re.sub(r"\s+", " ", f"{caption} {runs_said(task)}").strip()
    return Drawn(figure, title, text, in_words(alt), table.reset_index(drop=True))


def save(figure: Figure, path: Path) -> list[Path]:
    """Write PNG, SVG and PDF beside each other, the same bytes for the same figure; returns their paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg", "pdf")]
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with mpl.rc_context(STYLE):
        for target in paths:
            figure.savefig(target, metadata=dates.get(target.suffix))
    return paths
