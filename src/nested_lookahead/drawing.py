"""What every figure shares, the theory's and the analysis's: style, width, panels apart from pyplot, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
"""Of a figure, in inches."""
MAX_PIXELS = 4_000
"""Of an image's longer side: a long figure has fewer dots per inch, and the SVG and PDF have all of it."""
SMALL = 7
"""Size of labels, in points."""


def new_figure(
    rows: int, columns: int, height: float, width: float = WIDTH, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, apart from pyplot, which would keep each one open."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, list(axes.flat)


def grid(ax: Axes, axis: Any = "y") -> None:
    ax.grid(axis=axis, lw=0.4, alpha=0.4)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write PNG, SVG and PDF beside each other, the same bytes for the same figure; returns their paths.

    The layout is found once and each file is drawn once; `Figure.savefig` would do both twice for each. It is found at
    the image's own resolution, for which every text has then been measured.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg", "pdf")]
    dpi = min(STYLE["savefig.dpi"], MAX_PIXELS / max(figure.get_size_inches()))
    further: dict[str, Any] = {
        ".png": {"pil_kwargs": {"compress_level": 1}},
        ".svg": {"metadata": {"Date": None}},
        ".pdf": {"metadata": {"CreationDate": None}},
    }
    with mpl.rc_context(STYLE):
        figure.set_dpi(dpi)
        lay_out(figure)
    # No engine from here on, nor a new one after each file: it would lay out again, and draw everything twice.
    with mpl.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
        for target in paths:
            figure.savefig(target, dpi=dpi, **further[target.suffix])
    return paths


def lay_out(figure: Figure) -> None:
    """Give the axes their places, without drawing what is in them.

    What is clipped to its axes cannot need room outside of them, and is not measured: half of the time.
    """
    engine = figure.get_layout_engine()
    if engine is None:
        return
    inside = [artist for ax in figure.axes for artist in (*ax.lines, *ax.collections, *ax.patches)]
    for artist in inside:
        artist.set_in_layout(not artist.get_clip_on())
    engine.execute(figure)
