"""What several fair studies say of the same questions: a panel per question, a row per study, in units of δ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from matplotlib.ticker import FixedLocator, NullLocator

from nested_lookahead.analysis.arms import PRIMARY
from nested_lookahead.analysis.cells import Question, fair_tasks, questions
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish
from nested_lookahead.analysis.figures.looks import Color, looks
from nested_lookahead.analysis.task import together
from nested_lookahead.drawing import SMALL, grid, new_figure

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

MAX_QUESTIONS = 16
COLUMNS = 4
TICKS = (-100, -20, -5, -1, 0, 1, 5, 20, 100)
LINEAR = 2.0
"""In units of δ: so far from 0 the axis is linear, and logarithmic beyond."""


def cells(task: Task, options: Options) -> Drawn | None:
    """One study's pairs are its forest."""
    return None


def cells_over(tasks: Sequence[Task], options: Options) -> Drawn | None:
    """A row of the first questions that several fair studies ask, the primary ones first."""
    return _panels(tasks, slice(COLUMNS))


def more_over(tasks: Sequence[Task], options: Options) -> Drawn | None:
    """Their further questions."""
    return _panels(tasks, slice(COLUMNS, MAX_QUESTIONS))


def _panels(tasks: Sequence[Task], part: slice) -> Drawn | None:
    asked = questions(tasks)
    shown = asked[part]
    if not shown:
        return None
    studies = list(dict.fromkeys(study for question in asked for study in question.table["study"]))
    rows = -(-len(shown) // COLUMNS)
    columns = min(COLUMNS, len(shown))
    further = any(np.isfinite(question.others.p) for question in shown)
    height = rows * (0.16 * (len(studies) + further) + 0.6) + 0.5
    figure, axes = new_figure(rows, columns, height, sharex=True, sharey=True)
    for ax in axes[len(shown) :]:
        ax.remove()
    for number, (ax, question) in enumerate(zip(axes, shown, strict=False)):
        plot_question(ax, question, studies, _color(tasks, question.arm), further)
        name = f"{question.arm}\n− {question.other}"  # long names of neighbours would meet in one line
        ax.set_title(name, loc="left", fontsize=SMALL, fontweight="normal" if number or part.start else "bold")
    for ax in axes[max(0, len(shown) - columns) : len(shown)]:
        ax.set_xlabel("difference / δ", fontsize=SMALL)
        ax.tick_params(labelbottom=True, labelsize=SMALL)
    cell = fair_tasks(tasks)
    deltas = ", ".join(dict.fromkeys(f"{task.delta:g} {task.metric.difference}" for task in cell))
    primary = sum(len(question.table) for question in asked if question.family == PRIMARY)
    caption = (
        f"Each row is a study: the mean difference over fresh seeds in units of the one that matters ({deltas}), more "
        "being better, with the interval that decided. Filled: better, worse or equivalent; open: unresolved. Holm "
        f"over the {primary} primary comparisons of all studies, and within each study over its secondary ones. "
        "Diamond: what to expect of other such studies (random effects, REML, Hartung and Knapp). Shaded: differences "
        f"that do not matter. The axis is logarithmic beyond ±{LINEAR:g}."
    )
    if len(asked) > len(shown):
        caption += f" {len(shown)} of {len(asked)} questions; cells.csv has all."
    table = pd.concat([question.table for question in shown], ignore_index=True)
    title = f"{'further' if part.start else 'the same'} questions in {len(cell)} fair studies"
    return finish(figure, together(cell), title, caption, [question.sentence for question in shown], table)


def _color(tasks: Sequence[Task], arm: str) -> Color | str:
    return next((looks(task)[arm].color for task in fair_tasks(tasks) if arm in looks(task)), "#000000")


def plot_question(ax: Axes, question: Question, studies: Sequence[str], color: Color | str, further: bool) -> None:
    """A row per study, the first on top, and one for what they come to, if ``further``."""
    ax.axvspan(-1, 1, color="#000000", alpha=0.07, lw=0)
    ax.axvline(0, color="#000000", lw=0.8)
    ax.set_xscale("symlog", linthresh=LINEAR, linscale=0.7)
    ax.xaxis.set_major_locator(FixedLocator(TICKS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}".replace("-", "−"))
    known = {row.study: row for row in question.table.itertuples()}
    for y, study in enumerate(studies):
        row: Any = known.get(study)
        if row is None:
            continue
        if np.isfinite(row.low):
            ax.plot([row.low, row.high], [y, y], color=color, lw=1.0)
        fill = "white" if row.verdict == "unresolved" else color
        ax.plot(row.difference, y, color=color, marker="o", ms=3.6, mfc=fill, ls="")
        if row.failed or row.other_failed:
            said = f"×{row.failed}:{row.other_failed}"
            ax.text(0.99, y, said, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=5)
    if np.isfinite(question.others.p):
        (low, high), y, mean = question.others.interval(), len(studies), question.others.mean
        corners = [(low, y), (mean, y - 0.32), (high, y), (mean, y + 0.32)]
        ax.add_patch(Polygon(corners, facecolor=color, edgecolor=color, lw=1.0))
    names = [*studies, *(["such studies"] if further else [])]
    ax.set_yticks(range(len(names)), names, fontsize=SMALL)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    grid(ax, "x")
