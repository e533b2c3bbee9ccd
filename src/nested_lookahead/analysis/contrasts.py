"""The same contrast in several strata: found among a task's comparisons, or several tasks', and pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import pooled, statistics
from nested_lookahead.analysis.arms import PAIRS
from nested_lookahead.analysis.differences import by_seed
from nested_lookahead.analysis.pooled import Heterogeneity, Stratum
from nested_lookahead.analysis.power import LEAST
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.sentences import bound, p_value, signed
from nested_lookahead.analysis.statistics import Difference
from nested_lookahead.analysis.task import Task
from nested_lookahead.analysis.verdicts import ALPHA, Decision, Evidence, decide
from nested_lookahead.methods import method
from nested_lookahead.metric import Metric


@dataclass(frozen=True)
class Named:
    """A stratum, what it is called, and the pairs it is made of."""

    name: str
    stratum: Stratum
    runs: int
    """Pairs; of unpaired runs, of each group."""
    by_seed: pd.Series[float] | None
    """Of pairs: the mean difference of each seed, infinite where a run diverged alone."""


@dataclass(frozen=True)
class Contrast:
    """``decision`` is of the mean over these strata; ``others`` is what to expect of further ones, ``tau`` apart."""

    name: str
    group: str
    """One of the method's groups, for its look."""
    strata: Sequence[Named]
    here: Difference
    decision: Decision
    others: Difference
    tau: float
    spread: Heterogeneity
    seeds_are_blocks: bool
    diverged: int
    tasks: Sequence[str]
    """Their names."""
    metric: Metric

    @property
    def opposed(self) -> bool:
        """Whether strata differ, and one is surely better and one surely worse: a mean of both is neither."""
        ends = [one.stratum.interval() for one in self.strata]
        return self.spread.p < ALPHA and any(low > 0 for low, _ in ends) and any(high < 0 for _, high in ends)

    @property
    def word(self) -> str:
        return "unresolved" if self.opposed else self.decision.word

    @property
    def sentence(self) -> str:
        def number(value: float) -> str:
            return bound(value, self.metric.digits)

        low, high = self.decision.low, self.decision.high
        seen = f"{signed(self.here.mean, self.metric.digits)} {self.metric.difference}"
        if not math.isnan(low):
            seen += f", {100 * self.decision.level:.4g}% CI [{number(low)}, {number(high)}], {p_value(self.decision.p)}"
        text = f"{self.name}, pooled over {len(self.strata)} strata: {seen}, {self.word}."
        if self.opposed:
            text += " It is better in some strata and worse in others, so that their mean answers nothing."
        if not math.isnan(self.others.p):
            ends = ", ".join(number(end) for end in self.others.interval())
            text += (
                f" Of other such strata (random effects, tau = {self.metric.number(self.tau)}): "
                f"{number(self.others.mean)} [{ends}]."
            )
        if not math.isnan(self.spread.p):
            text += f" Strata differ with {p_value(self.spread.p)}, I² = {100 * self.spread.i2:.0f}%."
        if self.diverged:
            text += f" In {self.diverged} pair(s) one run diverged; they rank last, and the numbers are of the others."
        return text


def contrasts(tasks: Sequence[Task]) -> list[Contrast]:
    """Each method against what it is wrapped around or builds upon, over all strata of these tasks: two or more.

    A stratum is a task, an inner optimizer and a pullback, averaged over settings seed by seed; strata that share a
    baseline's runs are one, as those runs' luck would count twice. A fair study's arms are no settings of one another:
    where it has several for one stratum, they are several questions and no contrast. Of several tasks, fair studies
    have questions of their own: see `cells`.
    """
    if len(tasks) > 1:
        tasks = [task for task in tasks if PAIRS not in task.groups]
    found: dict[tuple[str, str, str, Metric], list[tuple[Task, Any]]] = {}
    for task in tasks:
        for _, row in task.comparisons.iterrows():
            group, baseline = task.groups.loc[row["group"]], task.groups.loc[row["baseline"]]
            plain = baseline["method"] == group["inner"]
            if group["method"] != baseline["method"] and (plain or group["inner"]):
                key = (group["source"], group["method"], "" if plain else baseline["method"], task.metric)
                found.setdefault(key, []).append((task, row))
    made = []
    for (source, name, other, _), rows in found.items():
        parts = _parts(rows)
        if any(len(part) > 1 and PAIRS in part[0][0].groups for part in parts):
            continue
        strata = [one for one in (_stratum(part, len(tasks) > 1) for part in parts) if one.runs > 0]
        if len(strata) > 1:
            theirs = method(other).shown if other else "its inner optimizer"
            title = f"{'published ' if source == REFERENCE else ''}{method(name).shown} − {theirs}"
            of = list(dict.fromkeys(task.name for task, _ in rows))
            made.append(_pooled(title, rows[0], strata, of))
    return made


def _parts(rows: list[tuple[Task, Any]]) -> list[list[tuple[Task, Any]]]:
    """Rows by stratum, those that share a baseline together."""
    parts: list[tuple[set[Any], list[tuple[Task, Any]]]] = []
    for task, row in rows:
        group = task.groups.loc[row["group"]]
        marks = {(task.name, row["baseline"]), (task.name, group["inner"], group["pullback"], "stratum")}
        together = [part for part in parts if part[0] & marks]
        parts = [part for part in parts if not part[0] & marks]
        joined = [one for part in together for one in part[1]]
        parts.append((marks.union(*(part[0] for part in together)), [*joined, (task, row)]))
    return [part for _, part in parts]


def _stratum(rows: list[tuple[Task, Any]], several: bool) -> Named:
    task = rows[0][0]
    groups = task.groups.loc[[row["group"] for _, row in rows]]
    pullbacks = ", ".join(dict.fromkeys(groups["pullback"]))
    inner = ", ".join(dict.fromkeys(method(inner).shown for inner in groups["inner"]))
    varies = len(set(task.groups.loc[task.groups["inner"] != "", "pullback"])) > 1
    name = ", ".join(filter(None, [task.name if several else "", inner, f"pullback={pullbacks}" if varies else ""]))
    values = by_seed(task.final)
    if all(row["paired"] for _, row in rows):
        return _of_pairs(name, [_alone(values[row["group"]], values[row["baseline"]], task.metric) for _, row in rows])
    samples: dict[str, float] = {}
    for _, row in rows:
        for group, weight in ((row["group"], 1 / len(rows)), (row["baseline"], -1 / len(rows))):
            samples[group] = samples.get(group, 0.0) + weight
    runs = [values[group].dropna().to_numpy() for group in samples]
    return Named(name, Stratum(runs, list(samples.values())), min(map(len, runs)), None)


def _alone(ours: pd.Series[float], theirs: pd.Series[float], metric: Metric) -> pd.Series[float]:
    """Differences by seed: infinite where one run of a pair diverged, NaN where both did."""
    worst = -metric.sign * math.inf
    seeds = ours.index.intersection(theirs.index)
    a, b = ours[seeds].fillna(worst), theirs[seeds].fillna(worst)
    with np.errstate(invalid="ignore"):
        return a - b


def _of_pairs(name: str, differences: list[pd.Series[float]]) -> Named:
    with np.errstate(invalid="ignore"):
        means = pd.concat(differences, axis="columns").dropna().mean(axis="columns")
    finite = means[np.isfinite(means)]
    return Named(name, Stratum([finite.to_numpy()], [1.0]), len(finite), means)


def _pooled(name: str, first: tuple[Task, Any], strata: list[Named], of: list[str]) -> Contrast:
    """Each contrast is a question of its own: none is adjusted for the others."""
    task, row = first
    sign = task.metric.sign
    result, blocked = _here(strata)
    everything = np.array([d for one in strata if one.by_seed is not None for d in one.by_seed])
    lost = int(np.isinf(everything).sum())
    evidence = Evidence(result.times(sign), statistics.signed_rank(sign * everything) if lost else None)
    decision = decide([evidence], task.delta)[0].times(sign)
    parts = [one.stratum for one in strata]
    others, tau = pooled.random_effects(parts)
    spread, group = pooled.heterogeneity(parts), str(row["group"])
    return Contrast(name, group, strata, result, decision, others, tau, spread, blocked, lost, of, task.metric)


def _here(strata: Sequence[Named]) -> tuple[Difference, bool]:
    """By seed where five seeds or more finished in all strata, else with the strata's pooled spread."""
    series = [one.by_seed for one in strata if one.by_seed is not None]
    if len(series) == len(strata):
        table = pd.concat(series, axis="columns").replace([math.inf, -math.inf], math.nan)
        if table.notna().all(axis=None) and len(table) >= LEAST:
            return pooled.by_seed(table.to_numpy().T), True
    return pooled.stratified([one.stratum for one in strata]), False
