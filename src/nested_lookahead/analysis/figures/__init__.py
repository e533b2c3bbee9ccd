"""Figures: each driver makes one of a task's comparable runs, or nothing where there is nothing to show.

The plots themselves are functions from a table to axes, beside their drivers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import matplotlib as mpl

from nested_lookahead.analysis.figures import (
    cells,
    choices,
    comparisons,
    curves,
    learning,
    outcomes,
    pairs,
    pooled,
    rates,
    settings,
    shares,
    speed,
    variants,
)
from nested_lookahead.analysis.figures.drawn import Drawn, Options
from nested_lookahead.analysis.figures.looks import looks
from nested_lookahead.drawing import STYLE, save

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

__all__ = ["FIGURES", "TOGETHER", "Drawn", "Options", "draw", "draw_together", "looks", "save"]

FIGURES: dict[str, Callable[[Task, Options], Drawn | None]] = {
    "learning_curves": learning.learning_curves,
    "learning_rates": rates.learning_rates,
    "forest": comparisons.forest,
    "hyperparameters": variants.hyperparameters,
    "settings_over_training": settings.settings_over_training,
    "heatmaps": pairs.heatmaps,
    "marginals": variants.marginals,
    "interactions": pairs.interactions,
    "anova": shares.anova,
    "expected_best": comparisons.expected_best,
    "time_to_target": curves.time_to_target,
    "sensitivity": comparisons.sensitivity,
    "divergences": comparisons.divergences,
    "pooled": pooled.pooled,
    "tuned": comparisons.tuned,
    "seeds": outcomes.seeds,
    "speed": speed.speed,
    "tuning": choices.tuning,
    "cells": cells.cells,
    "cells_more": cells.cells,
}

TOGETHER: dict[str, Callable[[Sequence[Task], Options], Drawn | None]] = {
    "pooled": pooled.pooled_over,
    "speed": speed.profile,
    "tuning": choices.tuning_over,
    "cells": cells.cells_over,
    "cells_more": cells.more_over,
}
"""Of several tasks at once, by the name of the figure that shows the same of one."""


def draw(name: str, task: Task, options: Options | None = None) -> Drawn | None:
    """The figure of that name in the house style; None where it does not apply."""
    with mpl.rc_context(STYLE):
        return FIGURES[name](task, _of(task, options or Options()))


def draw_together(name: str, tasks: Sequence[Task], options: Options | None = None) -> Drawn | None:
    """As `draw`, of several tasks; None where the figure shows one task only."""
    with mpl.rc_context(STYLE):
        return TOGETHER[name](tasks, _of(tasks[0], options or Options())) if name in TOGETHER else None


def _of(task: Task, options: Options) -> Options:
    """An error is what a percentage lacks: other metrics have none, and are shown themselves."""
    return replace(options, metric="accuracy") if options.metric == "error" and task.metric.unit != "%" else options
