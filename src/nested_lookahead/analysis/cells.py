"""The same question in several fair studies, such as a task and a schedule each: its answers, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from nested_lookahead.analysis import arms, pooled
from nested_lookahead.analysis.differences import by_seed
from nested_lookahead.analysis.pooled import Heterogeneity, Stratum
from nested_lookahead.analysis.sentences import bound, p_value, signed
from nested_lookahead.analysis.statistics import Difference, t_quantile
from nested_lookahead.analysis.task import Task
from nested_lookahead.analysis.verdicts import ALPHA, Evidence, decide

WORDS = ("better", "worse", "equivalent", "unresolved")
"""Verdicts, in the order in which they are counted."""


class Answer(NamedTuple):
    """One study's."""

    task: Task
    family: str
    row: Any
    """Of its comparisons."""
    differences: Any
    """By seed, of the pairs that finished, in units of δ, the difference that matters there; above 0 is to the good."""

    @property
    def question(self) -> tuple[str, str, str]:
        return self.family, str(self.row.group), str(self.row.baseline)


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
    def single(self) -> tuple[float, float]:
        """Where one further study's true difference lies: the 95% prediction interval, by t with two degrees of freedom
        less than studies (Higgins, Thompson & Spiegelhalter 2009, equation 12)."""
        half = t_quantile(0.975, self.others.n - 2) * math.hypot(self.tau, self.others.error)
        return self.others.mean - half, self.others.mean + half

    @property
    def opposed(self) -> bool:
        """Whether studies differ, and it is better in one and worse in another: a mean of both is neither."""
        return self.spread.p < ALPHA and {"better", "worse"} <= {*self.table["verdict"]}

    @property
    def word(self) -> str:
        """Of what to expect of further studies: a question of its own, not adjusted for the others."""
        return "unresolved" if self.opposed else decide([Evidence(self.others)], 1.0)[0].word

    @property
    def sentence(self) -> str:
        words = self.table["verdict"].str.removeprefix("suggestive: ")
        counts = ", ".join(f"{int((words == word).sum())} {word}" for word in WORDS if (words == word).any())
        over = int(self.table["family_size"].iloc[0])
        how = f"Holm over the {over} of all studies" if self.family == arms.PRIMARY else "Holm within each study"
        text = f"{self.name} ({self.family}) in {len(self.table)} studies: {counts} ({how})."
        if not math.isnan(self.others.p):
            low, high = self.others.interval()
            text += (
                f" Of such studies (random effects, τ = {self.tau:.2f}): {signed(self.others.mean)} δ, 95% CI "
                f"[{bound(low)}, {bound(high)}], {p_value(self.others.p)}, {self.word}; of a single one, 95% "
                f"prediction interval [{', '.join(bound(end) for end in self.single)}]."
            )
        if self.opposed:
            text += " It is better in some and worse in others, and which it is in a further one is not known."
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
    answers = [answer for task in fair_tasks(found) for answer in _answers(task)]
    made = []
    for family, arm, other in sorted(dict.fromkeys(answer.question for answer in answers), key=lambda key: key[0]):
        own = [answer for answer in answers if answer.question == (family, arm, other)]
        if len(own) < 2:
            continue
        strata = [Stratum([answer.differences], [1.0]) for answer in own if len(answer.differences)]
        others, tau = pooled.random_effects(strata)
        table = pd.DataFrame([_row(answer) for answer in own])
        made.append(Question(family, arm, other, table, others, tau, pooled.heterogeneity(strata)))
    return made


def _answers(task: Task) -> list[Answer]:
    """Of what is compared of it."""
    values = by_seed(task.final, task.metric.sign / task.delta)
    rows = {(row.group, row.baseline): row for row in task.comparisons.itertuples()}
    return [
        Answer(task, family, rows[arm, other], (values[arm] - values[other]).dropna().to_numpy())
        for family, arm, other in arms.pairs(task.groups)
        if (arm, other) in rows
    ]


def _row(answer: Answer) -> dict[str, Any]:
    task, row, unit = answer.task, answer.row, answer.task.metric.sign * answer.task.delta
    low, high = sorted((row.low / unit, row.high / unit)) if row.low == row.low else (math.nan, math.nan)
    return {
        "study": study_name(task),
        "task": task.name,
        "family": answer.family,
        "arm": row.group,
        "other": row.baseline,
        "n": row.n,
        "difference": row.difference / unit,
        "low": low,
        "high": high,
        "level": row.level,
        "p_holm": row.p_holm,
        "verdict": row.verdict,
        "decided_by": row.decided_by,
        "family_size": row.family,
        "own_difference": row.difference,
        "own_low": row.low,
        "own_high": row.high,
        "unit": task.metric.difference,
        "digits": task.metric.digits,
        "failed": row.failed,
        "other_failed": row.baseline_failed,
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
