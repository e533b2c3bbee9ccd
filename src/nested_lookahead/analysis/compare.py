"""Runs that may stand together, and each of their methods against its baseline, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import statistics
from nested_lookahead.analysis.collect import PUBLISHED, Study
from nested_lookahead.analysis.labels import in_order, method_name, setting_keys, settings
from nested_lookahead.errors import UserError
from nested_lookahead.records import COMPLETED

DEFAULTS = {"k": 5, "alpha": 0.5, "s": 5, "h": 0.5, "pullback": "none"}
"""The papers' settings; those of the optimizers."""


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
    """One row per run: path, group, seed, ``value``: accuracy in % at the last epoch; NaN of a diverged run."""
    comparisons: pd.DataFrame
    """One row per group that has a baseline; see `compare`."""
    weights: str
    split: str
    delta: float
    """The difference that matters, in points."""


def tasks(study: Study, weights: str, split: str, delta: float, baseline: str | None = None) -> Iterator[Task]:
    """A study's tasks, one after another. Published runs stand beside every task of ours; without one, for themselves.

    Raises:
        UserError: ``baseline`` names no group of any task.
    """
    published = study.runs["source"] == PUBLISHED
    ours = study.runs[~published]
    overlaid = study.runs[published] if len(ours) else study.runs.iloc[:0]
    parts = [part for _, part in (ours if len(ours) else study.runs).groupby("task_key", sort=False)]
    if baseline is not None and not any(_named(_groups(part), baseline).any() for part in parts):
        raise UserError(f"--baseline {baseline}: no such method or group among these runs")
    for part in parts:
        runs = pd.concat([part, overlaid]) if len(overlaid) else part
        metrics = study.metrics[study.metrics["path"].isin(runs["path"])]
        groups, final = _groups(runs), final_values(runs, metrics, weights, split)
        yield Task(
            name=str(part["task"].iloc[0]),
            runs=runs,
            metrics=metrics,
            groups=groups,
            final=final,
            comparisons=compare(groups, final, delta, baselines(groups, baseline)),
            weights=weights,
            split=split,
            delta=delta,
        )


def _groups(runs: pd.DataFrame) -> pd.DataFrame:
    groups = in_order(runs.drop_duplicates("group").set_index("group"))
    members = runs.groupby("group")
    return groups.assign(
        label=[
            ("published " if source == PUBLISHED else "") + method_name(method, inner)
            for source, method, inner in zip(groups["source"], groups["method"], groups["inner"], strict=True)
        ],
        shown=settings(groups, always=False),
        n=members.size(),
        diverged=members["status"].agg(lambda status: int((status != COMPLETED).sum())),
    )


def final_values(runs: pd.DataFrame, metrics: pd.DataFrame, weights: str, split: str) -> pd.DataFrame:
    """Accuracy (%) of each run at its last epoch, NaN of a diverged run.

    A method without slow weights is measured by the only ones it has, as its fast weights are what it would deploy.
    """
    rows = metrics[metrics["split"] == split]
    last = rows[rows["step"] == rows.groupby("path", observed=True)["step"].transform("max")]
    values = last.pivot_table(index="path", columns="weights", values="accuracy", observed=True)
    chosen = values.get(weights, values.get("fast"))
    if chosen is None:
        raise UserError(f"nothing was measured on the {split} split")
    if weights == "slow" and "fast" in values:
        chosen = chosen.fillna(values["fast"])
    final = runs[["path", "group", "seed"]].copy()
    accuracy = final["path"].map(chosen).astype(float)
    final["value"] = 100 * accuracy.where(runs["status"] == COMPLETED)
    return final.reset_index(drop=True)


def baselines(groups: pd.DataFrame, name: str | None = None) -> dict[str, str]:
    """The group that each group is compared with.

    By default plain Lookahead over the same inner optimizer, for Lookahead that inner optimizer itself, and where
    there is neither the method's own default settings; of several, the one whose settings differ least. With a name
    (of a method, with or without its inner optimizer, or the id of a group): that one, for all others.
    """
    named = _named(groups, name)
    chosen = {}
    for group, row in ((str(index), row) for index, row in groups.iterrows()):
        own = (groups["source"] == row["source"]) & (groups.index != group)
        if "config.variant" in groups:  # of a published method; which settings it stands for is not known
            own &= groups["config.variant"].fillna("") == (
                "" if pd.isna(row["config.variant"]) else row["config.variant"]
            )
        if name is not None:
            ranks = [own & named] if not named[group] else []
        elif row["method"] == "lookahead":
            ranks = [own & (groups["method"] == row["inner"]) & (groups["inner"] == "")]
        elif row["inner"]:
            ranks = [
                own & (groups["method"] == "lookahead") & (groups["inner"] == row["inner"]),
                own & (groups["method"] == row["inner"]) & (groups["inner"] == ""),
            ]
        else:
            ranks = []
        if name is None and not _is_default(row):
            same = own & (groups["method"] == row["method"]) & (groups["inner"] == row["inner"])
            ranks.append(same & groups.apply(_is_default, axis="columns"))
        for mask in ranks:
            if mask.any():
                chosen[group] = _nearest(groups, group, mask)
                break
    return chosen


def _named(groups: pd.DataFrame, name: str | None) -> pd.Series[bool]:
    full = [f"{m}_{i}" if i else m for m, i in zip(groups["method"], groups["inner"], strict=True)]
    wanted = (name or "").lower().replace("-", "_")
    return (groups["method"] == wanted) | (pd.Series(full, index=groups.index) == wanted) | (groups.index == name)


def _is_default(row: Any) -> bool:
    return bool(row["inner"]) and all(
        row.get(f"config.optimizer.{key}", row.get(key)) in (value, None)
        or pd.isna(row.get(f"config.optimizer.{key}", row.get(key)))
        for key, value in DEFAULTS.items()
    )


def _nearest(groups: pd.DataFrame, group: str, mask: pd.Series[bool]) -> str:
    """Of the groups in the mask, the one with the fewest settings that differ; another inner optimizer is far away."""

    def of(row: Any) -> dict[str, Any]:
        found = {}
        for key in setting_keys(groups):
            value = row[f"config.{key}"]
            if not pd.isna(value):  # a plain optimizer's settings are an inner one's
                found[key.replace("optimizer.inner.", "optimizer.")] = value
        return found

    mine, own = of(groups.loc[group]), groups.loc[group]
    best, least = "", math.inf
    for other, row in groups[mask].iterrows():
        theirs = of(row)
        inner = row["inner"] or row["method"]
        distance = sum(mine[key] != theirs[key] for key in mine.keys() & theirs.keys())
        distance += 100 * (inner != (own["inner"] or own["method"]))
        if distance < least:
            best, least = str(other), distance
    return best


def compare(groups: pd.DataFrame, final: pd.DataFrame, delta: float, against: dict[str, str]) -> pd.DataFrame:
    """A row for each group and its baseline.

    Paired by seed: the same seed gives every method the same initial weights, split and data order. Published runs
    have no seeds, and are compared by Welch's test. p values are Holm's over all rows. A pair with a diverged run has
    no difference, and counts as lost by the one that diverged.

    ``difference``, ``low``, ``high`` (95%), ``low90``, ``high90``, ``sd`` and ``detectable`` are in points; ``n`` is
    the number of pairs that the difference comes from.
    """
    values = {str(group): part.set_index("seed")["value"] for group, part in final.groupby("group")}
    rows = []
    for group, baseline in against.items():
        ours, theirs = values[group], values[baseline]
        paired = groups.loc[group, "source"] != PUBLISHED
        seeds = sorted(set(ours.index) & set(theirs.index)) if paired else []
        a, b = (ours[seeds], theirs[seeds]) if paired else (ours, theirs)
        if paired:
            both = a.notna() & b.notna()
            result = statistics.paired((a - b)[both].to_numpy())
            filled_a, filled_b = a.fillna(-math.inf), b.fillna(-math.inf)
            wins = float((filled_a > filled_b).sum() + 0.5 * (filled_a == filled_b).sum())
            count = len(seeds)
        else:
            result = statistics.welch(a.dropna().to_numpy(), b.dropna().to_numpy())
            wins = float(np.mean([[(x > y) + 0.5 * (x == y) for y in b] for x in a])) * min(len(a), len(b))
            count = min(len(a), len(b))
        low, high = statistics.clopper_pearson(wins, count) if count else (math.nan, math.nan)
        alone = sorted(set(ours.index) ^ set(theirs.index)) if paired else []
        rows.append(
            {
                "group": group,
                "baseline": baseline,
                "label": groups.loc[group, "label"],
                "shown": groups.loc[group, "shown"],
                "baseline_label": groups.loc[baseline, "label"],
                "baseline_shown": groups.loc[baseline, "shown"],
                "n": result.n,
                "difference": result.mean,
                "low": result.low,
                "high": result.high,
                "low90": result.low90,
                "high90": result.high90,
                "sd": result.sd,
                "dz": result.d,
                "g": result.g,
                "p": result.p,
                "improvement": wins / count if count else math.nan,
                "improvement_low": low,
                "improvement_high": high,
                "detectable": result.detectable,
                "paired": paired,
                "left_out": ", ".join(map(str, alone)),
                "diverged": int(a.isna().sum() + b.isna().sum()),
                "_result": result,
            }
        )
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table["p_holm"] = statistics.holm(table["p"].to_numpy())
    table["verdict"] = [
        statistics.verdict(result, p, delta) for result, p in zip(table["_result"], table["p_holm"], strict=True)
    ]
    table["seeds_needed"] = [
        result.seeds_needed(delta, paired) if word == "unresolved" and result.sd > 0 else math.nan
        for result, paired, word in zip(table["_result"], table["paired"], table["verdict"], strict=True)
    ]
    table["sentence"] = [_sentence(row, delta) for _, row in table.iterrows()]
    return table.drop(columns="_result")


def _sentence(row: Any, delta: float) -> str:
    """One comparison in plain words."""
    one = " ".join(filter(None, (row["label"], row["shown"] and f"[{row['shown']}]")))
    other = " ".join(filter(None, (row["baseline_label"], row["baseline_shown"] and f"[{row['baseline_shown']}]")))
    kind = "seeds" if row["paired"] else "unpaired runs each"
    if row["n"] == 0:
        return f"{one} against {other}: no {'seed in common' if row['paired'] else 'finished runs'}."
    if math.isnan(row["p"]):
        why = "all differences are equal" if row["sd"] == 0 else "too few for an interval"
        return f"{one} against {other}: {row['difference']:+.2f} points, n = {row['n']} {kind}; {why}."
    interval = f"{row['difference']:+.2f} points, 95% CI [{row['low']:+.2f}, {row['high']:+.2f}], n = {row['n']} {kind}"
    interval += f", p = {row['p_holm']:.3f} (Holm)"
    said = {
        "better": f"{one} is better than {other}: {interval}.",
        "worse": f"{one} is worse than {other}: {interval}.",
        "equivalent": f"{one} and {other} are equivalent to within {delta:g} points: {interval}.",
    }.get(row["verdict"], "")
    if not said and row["verdict"] != "unresolved":
        word = row["verdict"].removeprefix("suggestive: ")
        said = f"{one} against {other} suggests {word}, but n = {row['n']} is too few to say so: {interval}."
    if not said:
        said = (
            f"{one} against {other} is unresolved: {interval}; so few could have shown {row['detectable']:.2f} points"
        )
        said += (
            f", and {row['seeds_needed']:.0f} seeds would resolve {delta:g}." if row["seeds_needed"] > row["n"] else "."
        )
    if row["diverged"]:
        said += f" Of the pairs' runs, {row['diverged']} diverged and count as lost."
    return said


# --- what was tried -------------------------------------------------------------------------------------------------


def budget(task: Task, validation: pd.DataFrame) -> pd.DataFrame:
    """Per method: settings tried, runs, epochs, hours, the default's and the best setting's mean, and what choosing
    the best is worth on seeds that had no part in the choice.

    ``validation`` is as `Task.final`, of the validation split where there is one: the best setting is chosen there.
    """
    rows = []
    for (label,), groups in task.groups.groupby(["label"], sort=False):
        runs = task.runs[task.runs["group"].isin(groups.index)]
        test = _by_seed(task.final, groups.index)
        chosen_by = _by_seed(validation, groups.index)
        means = chosen_by.mean(axis=1)
        best = str(means.idxmax()) if means.notna().any() else None
        default = [str(group) for group, row in groups.iterrows() if _is_default(row)]
        complete = len(groups) > 1 and test.shape[1] > 1 and not (test.isna() & chosen_by.isna()).any(axis=None)
        held_out = statistics.leave_one_seed_out(test.to_numpy()) if complete else np.array([])
        rows.append(
            {
                "method": label,
                "settings tried": len(groups),
                "varied": ", ".join(_varied(groups)) or "–",
                "runs": len(runs),
                "diverged": int(groups["diverged"].sum()),
                "hours of training": runs["seconds"].sum() / 3600,
                "default": test.loc[default[0]].mean() if default and default[0] in test.index else math.nan,
                "best": test.loc[best].mean() if best is not None else math.nan,
                "best setting": groups["shown"].to_dict()[best] if best is not None else "",
                "best, other seeds": float(np.nanmean(held_out)) if len(held_out) else math.nan,
            }
        )
    return pd.DataFrame(rows)


def _by_seed(final: pd.DataFrame, groups: Any) -> pd.DataFrame:
    """Groups × seeds; NaN where a run diverged or is not there."""
    return final[final["group"].isin(groups)].pivot_table(index="group", columns="seed", values="value", dropna=False)


def _varied(groups: pd.DataFrame) -> list[str]:
    """The settings in which groups differ, with how many values each."""
    counts = {key: groups[f"config.{key}"].astype(str).nunique() for key in setting_keys(groups)}
    return [f"{key.removeprefix('optimizer.')} × {count}" for key, count in counts.items() if count > 1]
