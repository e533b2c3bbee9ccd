"""Which runs may stand together: what a reader should know before any comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from nested_lookahead.analysis import arms, leads
from nested_lookahead.analysis.arms import SHIPPED, TRIED
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.task import Task
from nested_lookahead.runs.files import COMPLETED

VARYING = {
    "commit": "code versions",
    "dirty": "states of the checkout (with and without uncommitted changes)",
    "versions": "library versions",
    "device_name": "devices",
    "precision": "precisions",
    "threads": "numbers of CPU threads",
    "processes": "numbers of processes",
}


@dataclass(frozen=True)
class Finding:
    level: str
    """``warning``: what is compared can be, with this in mind; ``note``: what is not compared, and why."""
    text: str


def check(task: Task) -> list[Finding]:
    """What speaks against comparing a task's runs."""
    runs = task.runs[task.runs["source"] != REFERENCE]
    found = []
    for column, what in VARYING.items():
        counts = runs[column].astype(str).value_counts()
        if len(counts) > 1:
            found.append(Finding("warning", f"{len(counts)} {what}: {_listed(counts)}"))
        elif column == "dirty" and len(counts) and counts.index[0] == "True":
            found.append(Finding("warning", "all runs were made with uncommitted changes"))
    seeds = [set(part["seed"]) for _, part in runs.groupby("group")]
    if any(others != seeds[0] for others in seeds):
        common = set.intersection(*seeds)
        text = f"seed sets differ: {len(common)} seed(s) are common to all {len(seeds)} groups"
        found.append(Finding("warning", f"{text}; each comparison uses those that its two groups share"))
    made = arms.made(runs)
    if (diverged := int((made["status"] != COMPLETED).sum())) > 0:
        text = (
            f"{diverged} of {len(made)} runs diverged; they rank last in every verdict and choice, and are in no mean"
        )
        found.append(Finding("warning", text))
    if missing := _missing_cells(task):
        found.append(Finding("warning", missing))
    if lacking := _without_such_weights(task):
        text = f"no {task.weights} weights, so that the fast ones stand for them: {', '.join(lacking)}"
        found.append(Finding("warning", text))
    if (tried := _chosen_on_these_seeds(task)) is not None:
        found.append(Finding("warning", tried))
    if (trials := int(task.groups[TRIED].max()) if TRIED in task.groups else 0) > 1:
        text = f"settings are one choice out of {trials} trials: what luck in choosing adds is in no interval"
        found.append(Finding("note", f"{text}; hydra.sweeper.sobol_seed and other seeds make another choice"))
    return [*found, *(Finding("note", text) for text in leads.not_compared(task))]


def check_study(tasks: Sequence[Task]) -> list[Finding]:
    """What is to be known of all tasks together."""
    found = [Finding("warning", text) for text in leads.stronger_baselines(tasks)]
    if len(tasks) > 1:
        names = "; ".join(task.name for task in tasks)
        found.append(Finding("note", f"{len(tasks)} tasks, never compared with each other: {names}"))
    return found


def _without_such_weights(task: Task) -> list[str]:
    """Methods with runs that kept no such average; slow weights are nothing that a plain optimizer could have kept."""
    if task.weights in ("fast", "slow", SHIPPED):
        return []
    has = set(task.metrics.loc[task.metrics["weights"] == task.weights, "path"])
    lacking = set(task.runs.loc[~task.runs["path"].isin(has), "group"])
    return list(task.groups.loc[task.groups.index.isin(lacking), "label"].unique())


def _listed(counts: pd.Series[int]) -> str:
    texts = [f"{str(value)[:60]} ({count})" for value, count in counts.items()]
    return ", ".join(texts[:3]) + (", …" if len(texts) > 3 else "")


def _missing_cells(task: Task) -> str:
    """Of a method whose settings nearly form a grid, how much of it is missing."""
    texts = []
    for label, groups in task.groups[task.groups["inner"] != ""].groupby("label", sort=False):
        keys = [f"config.optimizer.{key}" for key in ("k", "alpha", "s", "h")]
        values = {key: groups[key].nunique() for key in keys if key in groups}
        keys = [key for key, count in values.items() if count > 1]
        if len(keys) < 2:
            continue
        cells, full = groups[keys].drop_duplicates(), math.prod(values[key] for key in keys)
        if len(cells) < full:
            names = " × ".join(key.rpartition(".")[2] for key in keys)
            texts.append(f"{label}: {len(cells)} of {full} cells of its grid over {names}")
    return "incomplete grid, variance shares are of its complete planes alone: " + "; ".join(texts) if texts else ""


def _chosen_on_these_seeds(task: Task) -> str | None:
    """The banner for a best setting that is chosen on the seeds it is reported on."""
    several = task.groups[task.groups["source"] != REFERENCE].groupby("label").size()
    several = several[several > 1]
    if several.empty:
        return None
    return (
        f"{several.max()} settings of a method were tried on the seeds that are reported, so that the best of them "
        "looks better than it is; the budget table scores the choice on seeds that had no part in it"
    )
