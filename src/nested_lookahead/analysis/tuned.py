"""Each method at the setting that was chosen for it, compared on seeds that had no part in the choice."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from nested_lookahead.analysis import statistics
from nested_lookahead.analysis.budget import best_setting, counted_by_seed
from nested_lookahead.analysis.compare import compare
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.task import Task


@dataclass(frozen=True)
class Tuned:
    """``comparisons``: as `compare` makes them, a row per method and its baseline, each at its chosen setting.
    ``final``: the results that they are of. ``how``: in words, which seeds chose and which were compared."""

    comparisons: pd.DataFrame
    final: pd.DataFrame
    how: str


def tuned(task: Task) -> Tuned | None:
    """None where no method has several settings, or no pair of methods is compared.

    Settings are chosen by `Task.chosen_by` over `Task.tuning_seeds`, or else the seeds that every setting of
    every tuned method has; all others are fresh. Without fresh seeds each seed's setting is chosen on all others, so
    that the choice has still not seen the result.
    """
    ours = task.groups[task.groups["source"] != REFERENCE]
    rows = task.comparisons
    if rows.empty:
        return None
    own = rows[rows["group"].isin(ours.index) & (rows["label"] != rows["baseline_label"])]
    counts = ours.groupby("label").size()
    own = own[(own["label"].map(counts) > 1) | (own["baseline_label"].map(counts) > 1)]
    against = {
        str(label): str(part["baseline_label"].mode().iloc[0]) for label, part in own.groupby("label", sort=False)
    }
    members = {str(label): part.index.tolist() for label, part in ours.groupby("label", sort=False)}
    members = {label: groups for label, groups in members.items() if label in {*against, *against.values()}}
    if not against:
        return None
    seeds = _seeds(task, members)
    common = set.intersection(*(each for label in members if len(members[label]) > 1 for each in seeds[label]))
    tuning = sorted(common if task.tuning_seeds is None else common & set(task.tuning_seeds))
    every = {seed for each in seeds.values() for one in each for seed in one}
    split = "validation" if task.chosen_by is not task.final else task.split
    final = _on_fresh(task, members, tuning, sorted(every - set(tuning))) if tuning else None
    how = f"each method at the setting chosen on {split} over seeds {_listed(tuning)}, on fresh seeds"
    if final is None:
        if len(common) < 3:
            return None
        final = _on_others(task, members, sorted(common))
        how = f"each method, on each seed, at the setting chosen on {split} over the other seeds; no seeds are fresh"
    found = compare(_described(task, members, final), final, task.delta, against)
    lead = f"Tuned against tuned, {how}: "
    return Tuned(found.assign(sentence=lead + found["sentence"]), final, how)


def _seeds(task: Task, members: dict[str, list[str]]) -> dict[str, list[set[int]]]:
    """Of each method, the seeds of each of its settings."""
    of = {str(group): set(part["seed"]) for group, part in task.final.groupby("group")}
    return {label: [of[group] for group in groups] for label, groups in members.items()}


def _on_fresh(task: Task, members: dict[str, list[str]], tuning: list[int], fresh: list[int]) -> pd.DataFrame | None:
    """Results of the chosen settings on fresh seeds, the method in the place of the group; None where two methods have
    not one such seed in common."""
    parts = []
    for label, groups in members.items():
        chosen = best_setting(counted_by_seed(task.chosen_by[task.chosen_by["seed"].isin(tuning)], groups))
        rows = task.final[(task.final["group"] == chosen) & task.final["seed"].isin(fresh)]
        parts.append(rows.assign(group=label, chosen=chosen))
    seeds = [set(part["seed"]) for part in parts]
    return pd.concat(parts, ignore_index=True) if set.intersection(*seeds) else None


def _on_others(task: Task, members: dict[str, list[str]], seeds: list[int]) -> pd.DataFrame:
    parts = []
    for label, groups in members.items():
        test = task.final.pivot_table(index="group", columns="seed", values="value", dropna=False).loc[groups, :]
        by = counted_by_seed(task.chosen_by, groups)
        kept = [seed for seed in seeds if seed in test.columns]
        by, test = by.reindex(groups)[kept], test[kept]
        values = test.to_numpy()[0]
        if len(groups) > 1:
            values = statistics.leave_one_seed_out(test.to_numpy(), by.to_numpy())
        parts.append(pd.DataFrame({"path": "", "group": label, "seed": kept, "value": values, "chosen": ""}))
    return pd.concat(parts, ignore_index=True)


def _described(task: Task, members: dict[str, list[str]], final: pd.DataFrame) -> pd.DataFrame:
    """As `Task.groups`, a row per method: what is shown is the chosen setting."""
    rows = {}
    for label, groups in members.items():
        chosen = str(final.loc[final["group"] == label, "chosen"].iloc[0])
        first = task.groups.loc[chosen or groups[0]].copy()
        first["shown"] = (first["shown"] if chosen else "tuned") if len(groups) > 1 else first["shown"]
        rows[label] = first
    return pd.DataFrame(rows).T


def _listed(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
