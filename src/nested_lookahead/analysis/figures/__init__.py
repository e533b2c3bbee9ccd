"""Figures: each driver makes one of a task's comparable runs, or nothing where there is nothing to show.

The plots themselves are functions from a table to axes, in `curves`, `comparisons` and `grids`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import matplotlib as mpl

from nested_lookahead.analysis.figures import comparisons, curves, grids
from nested_lookahead.analysis.figures.style import (
    LINE_STYLES,
    METHOD_COLORS,
    OTHER_COLOR,
    STYLE,
    Drawn,
    Options,
    looks,
    method_color,
    save,
)

if TYPE_CHECKING:
    from nested_lookahead.analysis.compare import Task

__all__ = [
    "FIGURES",
    "draw",
    "Drawn",
    "Options",
    "save",
    "looks",
    "method_color",
    "METHOD_COLORS",
    "OTHER_COLOR",
    "LINE_STYLES",
    "STYLE",
]

FIGURES: dict[str, Callable[[Task, Options], Drawn | None]] = {
    "learning_curves": curves.learning_curves,
    "forest": comparisons.forest,
    "hyperparameters": grids.hyperparameters,
    "heatmaps": grids.heatmaps,
    "marginals": grids.marginals,
    "interactions": grids.interactions,
    "anova": grids.anova,
    "expected_best": comparisons.expected_best,
    "time_to_target": curves.time_to_target,
    "sensitivity": comparisons.sensitivity,
    "divergences": comparisons.divergences,
}


def draw(name: str, task: Task, options: Options | None = None) -> Drawn | None:
    """The figure of that name in the house style; None where it does not apply."""
    with mpl.rc_context(STYLE):
        return FIGURES[name](task, options or Options())
