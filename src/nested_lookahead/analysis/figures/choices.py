"""What tuning saw of a fair study's arms, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nested_lookahead.analysis.arms import choices
from nested_lookahead.analysis.cells import study_name
from nested_lookahead.analysis.choices import bought, said
from nested_lookahead.analysis.figures.drawn import Drawn, Options, finish, panels
from nested_lookahead.analysis.figures.looks import Look, looks
from nested_lookahead.analysis.figures.names import Name, legend, named_lines, tag
from nested_lookahead.analysis.task import together
from nested_lookahead.drawing import SMALL, grid, new_figure

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task

SHOWN_FROM = 6
"""Trials at which all arms are inside the axis."""
COLUMNS = 4
HOW = (
    "of the best of n trials drawn without replacement from all, each arm read by the weights that it ships; a trial "
    "is its mean over the tuning seeds that all trials have, and the worst of all where a run diverged. This flatters "
    "every arm alike; final results are on fresh seeds."
)


def tuning(task: Task, options: Options) -> Drawn | None:
    """What n trials buy of each arm."""
    table = bought(task)
    if table.empty:
        return None
    figure, (ax,) = new_figure(1, 1, 2.8)
    names = plot_bought(ax, table, looks(task), task.metric.sign)
    ax.set_ylabel(f"expected best validation {task.metric.axis}")
    unnamed = named_lines(figure, ax, names)
    caption = f"Expected validation {task.metric.name} {HOW}"
    alt = [said(arm, choice) for arm, choice in choices(task.groups).items()]
    return finish(figure, task, f"what n trials buy{unnamed}", caption, alt, table)


def tuning_over(tasks: Sequence[Task], options: Options) -> Drawn | None:
    """The same of several fair studies, a panel each."""
    tables = {study_name(task): (task, table) for task in tasks if not (table := bought(task)).empty}
    if len(tables) < 2:
        return None
    figure, axes = panels(len(tables), 1.55, COLUMNS)
    named: dict[str, Name] = {}
    styles: dict[str, Look] = {}
    for ax, (study, (task, table)) in zip(axes, tables.items(), strict=True):
        styles = looks(task) | styles  # an arm looks alike in all, though what it runs does not
        for name in plot_bought(ax, table, styles, task.metric.sign):
            named.setdefault(name.group, name)
        ax.set_title(study, loc="left", fontsize=SMALL)
        ax.set_ylabel(task.metric.axis, fontsize=SMALL)
        ax.tick_params(labelsize=SMALL)
    for ax in axes[:-COLUMNS]:
        ax.set_xlabel("")
    legend(figure, list(named.values()))
    found = [task for task, _ in tables.values()]
    table = pd.concat([table.assign(study=study) for study, (_, table) in tables.items()], ignore_index=True)
    alt = [f"{study}: {_ranked(table, task.metric.sign)}" for study, (task, table) in tables.items()]
    title = f"what n trials buy in {len(tables)} fair studies"
    return finish(figure, together(found), title, f"Expected value on the validation split {HOW}", alt, table)


def _ranked(table: pd.DataFrame, sign: int) -> str:
    """The arms at all their trials, the best first."""
    last = table.groupby("arm", sort=False)["value"].last() * sign
    return f"{', '.join(last.sort_values(ascending=False).index)}."


def plot_bought(ax: Axes, table: pd.DataFrame, styles: dict[str, Look], sign: int = 1) -> list[Name]:
    """One line per arm; the axis begins with the worst of them at a few trials, as one alone may be anything."""
    names = []
    for arm, rows in table.groupby("arm", sort=False):
        look, group = styles[str(arm)], str(arm)
        (line,) = ax.plot(rows["trials"], rows["value"], **look.line(len(rows)))
        tag(line, group)
        names.append(Name(group, float(rows["value"].iloc[-1]), look.label.split("\n")[0], look.color, line))
    ax.set_xlabel("trials")
    early = table[table["trials"] == min(SHOWN_FROM, table["trials"].max())]["value"]
    low, high = (early.min(), table["value"].max()) if sign > 0 else (table["value"].min(), early.max())
    if low < high:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    grid(ax)
    return names
