"""The same question in several fair studies, such as a task and a schedule each: its answers, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from nested_lookahead.analysis import arms, pooled
from nested_lookahead.analysis.differences import seed_by_seed
from nested_lookahead.analysis.pooled import Heterogeneity, Stratum
from nested_lookahead.analysis.sentences import bound, p_value, signed
from nested_lookahead.analysis.statistics import Difference
from nested_lookahead.analysis.task import Task
from nested_lookahead.analysis.verdicts import Decision, Evidence, decide

WORDS = ("better", "worse", "equivalent", "unresolved")
"""Verdicts, in the order in which they are counted."""


class Answer(NamedTuple):
    """One study's. All of it is in units of δ, the difference that matters there; above 0 is to the good."""

    task: Task
    family: str
    arm: str
    other: str
    evidence: Evidence
    differences: Any
    """By seed, of the pairs that finished."""

    @property
    def study(self) -> str:
        return study_name(self.task)


@dataclass(frozen=True)
class Question:
    """``arm`` − ``other`` in these studies, in units of each one's δ.

    ``table``: a row per study, see `questions`. ``others``: what to expect of further such studies, ``tau`` apart.
    """

    family: str
    arm: str
    other: str
    table: pd.DataFrame
    others: Difference
    tau: float
    spread: Heterogeneity

    @property
    def name(self) -> str:
        return f"{self.arm} − {self.other}"

    @property
    def word(self) -> str:
        """Of what to expect of further studies: a question of its own, not adjusted for the others."""
        return decide([Evidence(self.others)], 1.0)[0].word

    @property
    def sentence(self) -> str:
        words = self.table["verdict"].str.removeprefix("suggestive: ")
        counts = ", ".join(f"{int((words == word).sum())} {word}" for word in WORDS if (words == word).any())
        over = int(self.table["family_size"].iloc[0])
        how = f"Holm over the {over} of all studies" if self.family == "primary" else "Holm within each study"
        text = f"{self.name} ({self.family}) in {len(self.table)} studies: {counts} ({how})."
        if not math.isnan(self.others.p):
            low, high = self.others.interval()
            text += (
                f" Of such studies (random effects, τ = {self.tau:.2f}): {signed(self.others.mean)} δ, 95% CI "
                f"[{bound(low)}, {bound(high)}], {p_value(self.others.p)}, {self.word}."
            )
        if not math.isnan(self.spread.p):
            text += f" Studies differ with {p_value(self.spread.p)}, I² = {100 * self.spread.i2:.0f}%."
        return text


def study_name(task: Task) -> str:
    """Of a fair study's task, that of its folder."""
    return task.name.partition(":")[0]


def fair_tasks(found: Sequence[Task]) -> list[Task]:
    """Those that are fair studies."""
    return [task for task in found if arms.PAIRS in task.groups]


def questions(found: Sequence[Task]) -> list[Question]:
    """Each pair of arms that two fair studies or more have fixed, the primary ones first.

    Primary pairs of all studies are one family of Holm's procedure, secondary ones a family in each study. ``table``
    has a row per study: study, task, family, arm, other, n, difference, low, high (the interval that decided, of
    ``level``), p_holm, verdict, decided_by, family_size, and ``own_difference``, ``own_low``, ``own_high`` in the
    metric's own ``unit`` and sign, shown with so many ``digits``; ``failed``, ``other_failed``: runs that diverged.
    """
    cells = fair_tasks(found)
    answers = [answer for task in cells for answer in _answers(task)]
    rows = _decided(answers)
    made = []
    for family, arm, other in sorted(dict.fromkeys(answer[1:4] for answer in answers), key=lambda key: key[0]):
        own = [i for i, answer in enumerate(answers) if answer[1:4] == (family, arm, other)]
        if len(own) < 2:
            continue
        strata = [Stratum([answers[i].differences], [1.0]) for i in own if len(answers[i].differences)]
        others, tau = pooled.random_effects(strata)
        table = pd.DataFrame([rows[i] for i in own])
        made.append(Question(family, arm, other, table, others, tau, pooled.heterogeneity(strata)))
    return made


def _answers(task: Task) -> list[Answer]:
    scaled = task.final.assign(value=task.metric.sign * task.final["value"] / task.delta)
    values = {str(group): part.set_index("seed")["value"] for group, part in scaled.groupby("group")}
    made = []
    for family, arm, other in arms.pairs(task.groups):
        evidence, _ = seed_by_seed(values[arm], values[other])
        differences = (values[arm] - values[other]).dropna().to_numpy()
        made.append(Answer(task, family, arm, other, evidence, differences))
    return made


def _decided(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """A row of the table for each."""
    families: dict[Any, list[int]] = {}
    for i, answer in enumerate(answers):
        families.setdefault("primary" if answer.family == "primary" else (answer.study, answer.family), []).append(i)
    rows: dict[int, dict[str, Any]] = {}
    for members in families.values():
        decisions = decide([answers[i].evidence for i in members], 1.0)
        size = sum(not math.isnan(decision.p) for decision in decisions)
        rows |= {i: _row(answers[i], decision, size) for i, decision in zip(members, decisions, strict=True)}
    return [rows[i] for i in range(len(answers))]


def _row(answer: Answer, decision: Decision, size: int) -> dict[str, Any]:
    task, unit = answer.task, answer.task.metric.sign * answer.task.delta
    failed = task.final["value"].isna().groupby(task.final["group"]).sum()
    ends = sorted((unit * decision.low, unit * decision.high)) if decision.low == decision.low else [math.nan] * 2
    return {
        "study": answer.study,
        "task": task.name,
        "family": answer.family,
        "arm": answer.arm,
        "other": answer.other,
        "n": len(answer.differences),
        "difference": answer.evidence.difference.mean,
        "low": decision.low,
        "high": decision.high,
        "level": decision.level,
        "p_holm": decision.p,
        "verdict": decision.word,
        "decided_by": decision.by,
        "family_size": size,
        "own_difference": unit * answer.evidence.difference.mean,
        "own_low": ends[0],
        "own_high": ends[1],
        "unit": task.metric.difference,
        "digits": task.metric.digits,
        "failed": int(failed[answer.arm]),
        "other_failed": int(failed[answer.other]),
    }


def readable(asked: Sequence[Question]) -> pd.DataFrame:
    """A row per study, a column per question: the difference in the study's own unit, its interval, and the verdict."""
    columns: dict[str, dict[str, str]] = {}
    for question in asked:
        columns[question.name] = {str(row.study): _cell(row) for row in question.table.itertuples()}
    table = pd.DataFrame(columns).fillna("–")
    return table.rename_axis("study").reset_index()


def _cell(row: Any) -> str:
    text = signed(row.own_difference, row.digits)
    if row.own_low == row.own_low:
        text += f" [{bound(row.own_low, row.digits)}, {bound(row.own_high, row.digits)}]"
    return f"{text} {row.verdict}"
