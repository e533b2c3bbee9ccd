"""Each method at the setting that was chosen for it, compared on seeds that had no part in the choice."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from nested_lookahead.analysis.budget import best_setting
from nested_lookahead.analysis.differences import compare
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.task import Task, once


@dataclass(frozen=True)
class Tuned:
    """``comparisons``: as `compare` makes them, a row per method and its baseline, each at its chosen setting.
    ``final``: the results that they are of. ``how``: in words, which seeds chose and which were compared."""

    comparisons: pd.DataFrame
    final: pd.DataFrame
    how: str


@once
def tuned(task: Task) -> Tuned | None:
    """None where no method that is compared has several settings, or two methods have no fresh seed in common.

    Settings are chosen by `Task.chosen_by` over `Task.tuning_seeds`, or else the seeds that every setting of every
    tuned method has; all others are fresh. Where that leaves none, the first half of the seeds chooses, and the second
    is compared. (Choosing for each seed on all others would use every seed, but those choices share their luck: of 27
    equal settings the t test then calls up to 27% of studies different.)
    """
    ours = task.groups[task.groups["source"] != REFERENCE]
    rows = task.comparisons
    if rows.empty:
        return None
    counts = ours.groupby("label").size()
    own = rows[rows["group"].isin(ours.index) & (rows["label"] != rows["baseline_label"])]
    own = own[(own["label"].map(counts) > 1) | (own["baseline_label"].map(counts) > 1)]
    against = {
        str(label): str(part["baseline_label"].mode().iloc[0]) for label, part in own.groupby("label", sort=False)
    }
    members = {str(label): part.index.tolist() for label, part in ours.groupby("label", sort=False)}
    members = {label: groups for label, groups in members.items() if label in {*against, *against.values()}}
    if not against:
        return None
    tuning, fresh, how = _split(task, members)
    final = _on_fresh(task, members, tuning, fresh) if tuning else None
    if final is None:
        return None
    found = compare(_described(task, members, final), final, task.delta, against, task.metric)
    return Tuned(found.assign(sentence=f"Tuned against tuned, {how}: " + found["sentence"]), final, how)


def _split(task: Task, members: dict[str, list[str]]) -> tuple[list[int], list[int], str]:
    """Tuning seeds, fresh seeds, and the two in words."""
    seeds = _seeds(task, members)
    common = sorted(set.intersection(*(each for label in seeds if len(seeds[label]) > 1 for each in seeds[label])))
    every = sorted({seed for each in seeds.values() for one in each for seed in one})
    tuning = common if task.tuning_seeds is None else [seed for seed in common if seed in task.tuning_seeds]
    fresh, said = [seed for seed in every if seed not in tuning], "fresh seeds"
    if not fresh:
        tuning, fresh, said = common[: len(common) // 2], common[len(common) // 2 :], "the other half"
    split = "validation" if task.chosen_by is not task.final else task.split
    how = f"each method at the setting chosen on {split} over seeds {_listed(tuning)}, on {said}"
    return tuning, fresh, how


def _seeds(task: Task, members: dict[str, list[str]]) -> dict[str, list[set[int]]]:
    """Of each method, the seeds of each of its settings."""
    of = {str(group): set(part["seed"]) for group, part in task.final.groupby("group")}
    return {label: [of[group] for group in groups] for label, groups in members.items()}


def _on_fresh(task: Task, members: dict[str, list[str]], tuning: list[int], fresh: list[int]) -> pd.DataFrame | None:
    """Results of the chosen settings on fresh seeds, the method in the place of the group; None where two methods have
    not one such seed in common."""
    parts = []
    for label, groups in members.items():
        chosen = best_setting(task.chosen_by[task.chosen_by["seed"].isin(tuning)], groups, task.metric.sign)
        rows = task.final[(task.final["group"] == chosen) & task.final["seed"].isin(fresh)]
        parts.append(rows.assign(group=label, chosen=chosen))
    seeds = [set(part["seed"]) for part in parts]
    return pd.concat(parts, ignore_index=True) if set.intersection(*seeds) else None


def _described(task: Task, members: dict[str, list[str]], final: pd.DataFrame) -> pd.DataFrame:
    """As `Task.groups`, a row per method, with the chosen setting."""
    chosen = final.drop_duplicates("group").set_index("group")["chosen"]
    return task.groups.loc[chosen[list(members)]].set_axis(list(members))


def _listed(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
