"""Runs that may stand together, as groups of one configuration each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pandas as pd

from nested_lookahead.analysis.arms import SHIPPED
from nested_lookahead.analysis.baselines import named
from nested_lookahead.analysis.collect import Study
from nested_lookahead.analysis.differences import asked_first, compare
from nested_lookahead.analysis.labels import in_order, method_names, settings
from nested_lookahead.analysis.opponents import families, pairs
from nested_lookahead.analysis.run_rows import REFERENCE, metric_of
from nested_lookahead.errors import UserError
from nested_lookahead.metric import ACCURACY, Metric
from nested_lookahead.runs.files import COMPLETED

P = ParamSpec("P")
R = TypeVar("R")


def once(function: Callable[P, R]) -> Callable[P, R]:
    """Keep what a function found of a task, its first argument, as long as the task lives: several figures ask for it,
    and none changes it."""

    @wraps(function)
    def kept(*args: P.args, **kwargs: P.kwargs) -> R:
        found: dict[Any, Any] = vars(args[0]).setdefault("_found", {})
        key = function, args[1:], tuple(kwargs.items())
        if key not in found:
            found[key] = function(*args, **kwargs)
        return found[key]  # type: ignore[no-any-return]

    return kept


@dataclass(frozen=True)
class Task:
    """Runs on the same data, model and budget, and measured alike, so that they may be compared."""

    name: str
    runs: pd.DataFrame
    """One row per finished run, as in `Study.runs`."""
    metrics: pd.DataFrame
    """As in `Study.metrics`."""
    groups: pd.DataFrame
    """One row per configuration less seed, its id the index, in display order: ``label`` (the method), ``shown`` (the
    settings that tell it apart), ``n`` finished runs, of which ``diverged``; and a run's columns."""
    final: pd.DataFrame
    """One row per run: path, group, seed, ``value``: the metric as it is shown (accuracy in %) at the last epoch; NaN
    of a diverged run."""
    chosen_by: pd.DataFrame
    """As ``final``, of the validation split where there is one: what settings are chosen by. Else ``final`` itself."""
    comparisons: pd.DataFrame
    """One row per group that has a baseline; see `compare`."""
    weights: str
    split: str
    delta: float
    """The difference that matters, in points, or in the metric itself."""
    tuning_seeds: tuple[int, ...] | None = None
    """Seeds that settings are chosen on, so that the others are fresh; None: those that all settings have."""
    metric: Metric = ACCURACY
    """With digits enough for ``delta``."""


def together(tasks: Sequence[Task]) -> Task:
    """All runs of several tasks, for what is said of all of them; the rest is the first one's."""
    if len(tasks) == 1:
        return tasks[0]
    return replace(tasks[0], name=f"{len(tasks)} tasks", runs=pd.concat([task.runs for task in tasks]))


def tasks(
    study: Study,
    weights: str,
    split: str,
    delta: float | None = None,
    baseline: str | None = None,
    tuning_seeds: tuple[int, ...] | None = None,
    family: str = "baseline",
) -> Iterator[Task]:
    """A study's tasks, one after another. Published runs stand beside every task of ours on the same data; those that
    have none, and all where there are only published ones, are tasks of their own.

    Args:
        delta: the difference that matters; None: the metric's own.
        family: which comparisons there are, see `opponents.pairs`. What several fair studies ask first is one family
            of Holm's procedure, so that each one's verdict is the same alone and together.

    Raises:
        UserError: ``baseline`` names no group of any task, or no run was measured with such weights.
    """
    kinds = list(study.metrics["weights"].unique())
    if not {weights, SHIPPED} & {*kinds}:
        raise UserError(f"--weights {weights}: no run was measured with such; there are {', '.join(sorted(kinds))}")
    published = study.runs["source"] == REFERENCE
    ours = [part for _, part in study.runs[~published].groupby("task_key", sort=False)]
    theirs = [part for _, part in study.runs[published].groupby("task_key", sort=False)]
    parts = [pd.concat([part, *(other for other in theirs if same_data(other, part))]) for part in ours]
    parts += [other for other in theirs if not any(same_data(other, part) for part in ours)]
    if baseline is not None and not any(named(_groups(part), baseline).any() for part in parts):
        raise UserError(f"--baseline {baseline}: no such method or group among these runs")
    made = [_task(study, runs, weights, split, delta, tuning_seeds) for runs in parts]
    first = [asked_first(task.groups, task.final, task.delta, task.metric) for task in made]
    for number, task in enumerate(made):
        opposed = pairs(task.groups, baseline, family)
        beside = [each for other, own in enumerate(first) if other != number for each in own]
        told = (task.groups, task.final, task.delta, opposed, task.metric, families(task.groups, opposed), beside)
        yield replace(task, comparisons=compare(*told))


def _task(
    study: Study,
    runs: pd.DataFrame,
    weights: str,
    split: str,
    delta: float | None,
    tuning_seeds: tuple[int, ...] | None,
) -> Task:
    """Without comparisons."""
    metrics = study.metrics[study.metrics["path"].isin(runs["path"])]
    kind = SHIPPED if (metrics["weights"] == SHIPPED).any() else weights
    metric = metric_of(runs)
    matters = metric.delta if delta is None else delta
    final = final_values(runs, metrics, kind, split)
    return Task(
        name=str(runs["task"].iloc[0]),
        runs=runs,
        metrics=metrics,
        groups=_groups(runs),
        final=final,
        chosen_by=validated(runs, metrics, kind, final),
        comparisons=pd.DataFrame(),
        weights=kind,
        split=split,
        delta=matters,
        tuning_seeds=tuning_seeds,
        metric=metric.telling(matters),
    )


def same_data(published: pd.DataFrame, ours: pd.DataFrame) -> bool:
    """Whether published runs are on the data set of ours, as far as names tell: ``cifar_variation`` and ``cifar10``.

    Where our configuration does not say which it has, they are.
    """
    name = ours["config.dataset.name"].iloc[0] if "config.dataset.name" in ours else None
    if not isinstance(name, str):
        return True
    study = str(published["task"].iloc[0]).removeprefix("published: ")
    one, other = (re.split(r"[^a-z0-9]", text.lower())[0] for text in (study, name))
    return bool(one) and bool(other) and (one.startswith(other) or other.startswith(one))


def _groups(runs: pd.DataFrame) -> pd.DataFrame:
    groups = in_order(runs.drop_duplicates("group").set_index("group"))
    members = runs.groupby("group")
    return groups.assign(
        label=method_names(groups),
        shown=settings(groups, always=False),
        n=members.size(),
        diverged=members["status"].agg(lambda status: int((status != COMPLETED).sum())),
    )


def final_values(runs: pd.DataFrame, metrics: pd.DataFrame, weights: str, split: str) -> pd.DataFrame:
    """Accuracy (%), or the runs' own metric, of each run at its last epoch; NaN of a diverged run.

    A method without such weights is measured by its fast ones, as its fast weights are what it would deploy.
    """
    rows = metrics[metrics["split"] == split]
    last = rows[rows["step"] == rows.groupby("path", observed=True)["step"].transform("max")]
    values = last.pivot_table(index="path", columns="weights", values="accuracy", observed=True)
    chosen = values.get(weights, values.get("fast"))
    if chosen is None:
        raise UserError(f"nothing was measured on the {split} split")
    if weights != "fast" and "fast" in values:
        chosen = chosen.fillna(values["fast"])
    final = runs[["path", "group", "seed"]].copy()
    recorded = final["path"].map(chosen).astype(float)
    final["value"] = metric_of(runs).scale * recorded.where(runs["status"] == COMPLETED)
    return final.reset_index(drop=True)


def validated(runs: pd.DataFrame, metrics: pd.DataFrame, weights: str, final: pd.DataFrame) -> pd.DataFrame:
    """`final_values` of the validation split; of runs without one, ``final``'s, which one of the reported split is."""
    if not (metrics["split"] == "validation").any():
        return final
    chosen = final_values(runs, metrics, weights, "validation")
    diverged = runs["status"].to_numpy() != COMPLETED
    return chosen.assign(value=chosen["value"].where(chosen["value"].notna() | diverged, final["value"]))
