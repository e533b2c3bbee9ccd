"""The analysis as functions, for a notebook or a script: tables are DataFrames, figures matplotlib's."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nested_lookahead.analysis import figures, matching, opponents, tables
from nested_lookahead.analysis.asked import gathered
from nested_lookahead.analysis.collect import Study
from nested_lookahead.analysis.plan import plan
from nested_lookahead.analysis.task import Task, tasks
from nested_lookahead.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Where = str | PathLike[str]


def load(
    *places: Where,
    filter: str | Sequence[str] = (),
    reference: Where | Sequence[Where] = (),
    cache: Where | None = None,
) -> Study:
    """The finished runs at or below folders, or in archives of them.

    Args:
        places: folders of runs at any depth, or ``.tar.xz`` archives.
        filter: ``"k=5"``, ``"lr=0.1,0.3"``, or several: only runs with all of these settings.
        reference: CSV files of published runs.
        cache: a file in which to keep what is read, so that the next call reads only what changed.

    Returns:
        A study: ``runs`` (a row per run: path, method, inner, pullback, seed, status, ``config.<key>``, …), ``metrics``
        (path, step, epoch, split, weights, loss, accuracy (0 to 1), lr, seconds), ``left_out`` (path, reason), and
        ``notes``. Tables have a row per run in no particular order; join them by ``path``.

    Raises:
        UserError: there is no such folder or archive, no finished run, or no run with such a setting.
    """
    references = [reference] if isinstance(reference, str | PathLike) else reference
    kept = None if cache is None else Path(cache)
    study = gathered([Path(place) for place in places], kept, [Path(path) for path in references])
    return matching.filtered(study, [filter] if isinstance(filter, str) else filter)


def compare(
    study: Study | Where,
    against: Study | Where | None = None,
    *,
    baseline: str | None = None,
    family: str | None = None,
    delta: float | None = None,
    weights: str = "fast",
    split: str = "test",
) -> pd.DataFrame:
    """Each method's final accuracy against its baseline's, paired by seed: a row per comparison, with ``task``.

    Args:
        against: an earlier study: each configuration is compared with itself there.
        baseline: a method (``"sgd"``) or settings (``"k=5,alpha=0.5"``) that all others are compared with.
        family: ``"baseline"``, or ``"all"`` for all pairs.
        delta: the difference that matters, in points. These three are the study's own where they are None.
        weights: ``"fast"``, ``"slow"``, or an average that the runs kept: ``"ema"``, ``"ema0.99"``, ``"tail"``.
        split: ``"test"``, ``"validation"`` or ``"train"``.

    Returns:
        Columns as in comparisons.csv, see docs/analysis.md: ``label``, ``shown``, ``baseline_label``, ``n``,
        ``difference`` (points) with its interval ``low`` to ``high``, ``p_holm``, ``verdict``, ``sentence``, ….

    Raises:
        UserError: there is no such baseline, or nothing was measured for these weights and this split.
    """
    found = _tasks(study, against, baseline, family, delta, weights, split)
    parts = [task.comparisons.assign(task=task.name) for task in found if len(task.comparisons)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def results(study: Study | Where, *, split: str = "test") -> pd.DataFrame:
    """A row per task and configuration: ``task``, ``method``, ``settings``, ``n``, ``diverged``, and mean and
    half-width of the 95% t interval of the final accuracy (%) for each kind of weights.

    Raises:
        UserError: nothing was measured on this split.
    """
    found = _tasks(study, None, None, None, None, "fast", split)
    parts = [tables.results(task.runs, task.metrics, split).assign(task=task.name) for task in found]
    return pd.concat(parts, ignore_index=True).drop(columns="group")


def draw(
    name: str,
    study: Study | Where,
    against: Study | Where | None = None,
    *,
    task: str | None = None,
    metric: str = "accuracy",
    x: str = "epoch",
    target: float | None = None,
    smooth: int | None = None,
    baseline: str | None = None,
    family: str | None = None,
    delta: float | None = None,
    weights: str = "fast",
    split: str = "test",
) -> Figure:
    """A figure of a study, by its name in `nested_lookahead.analysis.figures.FIGURES`, such as ``"learning_curves"``.

    Args:
        task: which one, by its name or a part of it, where the study has several.
        metric: of curves: ``"accuracy"``, ``"error"`` or ``"loss"``.
        x: of curves: ``"epoch"``, ``"step"`` or ``"seconds"``.
        target: accuracy (%) whose time is looked for.
        smooth: evaluations in a running mean of curves.

    The others are as of `compare`.

    Raises:
        UserError: there is no such figure or task, or nothing to draw.
    """
    if name not in figures.FIGURES:
        raise UserError(f"{name}: no such figure; there are {', '.join(figures.FIGURES)}")
    found = [
        each for each in _tasks(study, against, baseline, family, delta, weights, split) if (task or "") in each.name
    ]
    if len(found) != 1:
        there = "; ".join(each.name for each in _tasks(study, against, baseline, family, delta, weights, split))
        raise UserError(f"task={task!r}: is that of {len(found)} tasks, and must be that of one: {there}")
    drawn = figures.draw(name, found[0], figures.Options(metric, x, target, smooth))
    if drawn is None:
        raise UserError(f"{name}: these runs have nothing to show there")
    return drawn.figure


def _tasks(
    study: Study | Where,
    against: Study | Where | None,
    baseline: str | None,
    family: str | None,
    delta: float | None,
    weights: str,
    split: str,
) -> list[Task]:
    study = study if isinstance(study, Study) else load(study)
    if against is not None:
        earlier = against if isinstance(against, Study) else load(against)
        names = ("now", "before") if isinstance(against, Study) else ("now", Path(against).name)
        study = opponents.side_by_side(study, earlier, names)
    asked: dict[str, Any] = {"baseline": baseline, "compare": family, "delta": delta}
    chosen = plan(study, **asked)
    if chosen.compare not in opponents.COMPARE:
        raise UserError(f"family={chosen.compare!r}: must be one of {', '.join(opponents.COMPARE)}")
    return list(tasks(study, weights, split, chosen.delta, chosen.baseline, family=chosen.compare))
