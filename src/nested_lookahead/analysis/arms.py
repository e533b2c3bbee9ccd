"""A fair comparison's arms: each by the weights that it ships, at its chosen settings, on fresh seeds alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from nested_lookahead.analysis.collect import Study, collect, concat
from nested_lookahead.errors import UserError
from nested_lookahead.runs import fair

SHIPPED = "shipped"
"""The kind of weights that stands for whichever an arm chose."""
PAIRS = "contrasts"
"""Column of a table of runs: the pairs of arms to compare, by family, as JSON."""
TRIED = "tried"
"""Column of a table of runs: the number of settings that the arm chose from."""
PRIMARY = "primary"
"""The family of what a fair study asks first; those of several studies that are read together are one."""
_READ_BY = "#"
"""After the path of a run that is several arms', and before the arm."""
CHOICE = "choice"
"""Column of a table of runs: what was chosen, and from what, as JSON; see `choices`."""


def gathered(folder: Path) -> Study:
    """The final runs of a fair study, once for each arm that they are of; tuning runs have had their say.

    Raises:
        UserError: what was chosen cannot be read, or no final run is finished.
    """
    try:
        found = fair.read(folder)
        assert found is not None
        return _told_apart(collect([folder / fair.FINAL]), folder, found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / fair.FILE}: cannot be read ({type(error).__name__}: {error})") from None


def made(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs that were made, of which several arms may read one: a row of each."""
    read = zip(runs["path"], runs["group"], strict=True)
    paths = pd.Series([str(path).removesuffix(f"{_READ_BY}{arm}") for path, arm in read], index=runs.index)
    return runs[~paths.duplicated()]


def _told_apart(study: Study, folder: Path, found: fair.Comparison) -> Study:
    parts = [_of_arm(study, name, found) for name in found.chosen]
    runs = pd.concat([runs for runs, _ in parts], ignore_index=True)
    there = set(runs["group"])
    missing = [name for name in found.chosen if name not in there]
    pairs = {family: [pair for pair in own if {*pair} <= there] for family, own in found.contrasts.items() if own}
    runs = runs.assign(
        task=folder.name + ": " + runs["task"], task_key=folder.name + runs["task_key"], **{PAIRS: json.dumps(pairs)}
    )
    notes = [f"{folder.name}: no final run yet of {', '.join(missing)}"] if missing else []
    metrics = concat([metrics for _, metrics in parts if len(metrics)])
    return replace(study, runs=runs, metrics=metrics, notes=[*study.notes, *notes])


def _of_arm(study: Study, name: str, found: fair.Comparison) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Its runs, as a group with the arm's name, and the metrics of its weights, called shipped."""
    chosen, arm = found.chosen[name], found.arms[name]
    runs = study.runs[study.runs["group"] == chosen.group]
    rows = study.metrics[study.metrics["path"].isin(runs["path"])]
    kinds = set(rows["weights"].unique())
    rows = rows[rows["weights"] == (chosen.weights if chosen.weights in kinds else "fast")]
    several = [one.group for one in found.chosen.values()].count(chosen.group) > 1
    names = {path: f"{path}{_READ_BY}{name}" if several else path for path in runs["path"]}  # a path is one run's
    metrics = rows.assign(
        path=rows["path"].astype(object).map(names).astype("category"), weights=pd.Categorical([SHIPPED] * len(rows))
    )
    if arm["runs_of"] or arm["follows"]:  # it has no method of its own
        inner = runs["inner"].where(runs["inner"] != "", runs["method"])
        runs = runs.assign(method=name, inner=inner)
    tuned = found.arms.get(arm["runs_of"] or arm["follows"], arm)  # whose space the settings are from
    told: dict[str, Any] = {TRIED: len(arm["trials"]), CHOICE: json.dumps(_choice(chosen, arm, tuned["space"]))}
    return runs.assign(group=name, path=runs["path"].map(names), **told), metrics


def _choice(chosen: fair.Chosen, arm: Mapping[str, Any], space: Mapping[str, str]) -> dict[str, Any]:
    settings = {key: chosen.settings[key] for key in space if key in chosen.settings}
    trials = [
        {seed: math.nan if value is None else value for seed, value in trial["values"][kind].items()}
        for trial in arm["trials"]
        for kind in [chosen.weights]
    ]
    return {
        "weights": chosen.weights,
        "settings": settings,
        "places": {} if arm["follows"] else fair.places(space, settings),
        "trials": [list(values.values()) for values in trials],
        "trial": chosen.trial,
    }


def choices(groups: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By arm, of a task's groups: the ``weights`` and ``settings`` that were chosen of its space, their ``places`` in
    their ranges from 0 to 1, the number of the ``trial``, and each of the ``trials``' validation values by seed, as
    recorded, NaN where it diverged. Empty where they are no arms."""
    if CHOICE not in groups:
        return {}
    return {str(arm): json.loads(text) for arm, text in groups[CHOICE].dropna().items()}


def pairs(groups: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Family, arm, and the arm that it is compared with, of a task's groups; none where they are no arms. Those of arms
    that a filter has taken away are not asked."""
    if PAIRS not in groups or not len(groups) or not isinstance(text := groups[PAIRS].iloc[0], str):
        return
    families: dict[str, list[Any]] = json.loads(text)
    for family, own in families.items():
        yield from ((family, arm, other) for arm, other in own if {arm, other} <= {*groups.index})
