"""The primary comparison of several fair studies, in one table: what people read first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nested_lookahead.analysis.arms import PRIMARY
from nested_lookahead.analysis.cells import Question, fair_tasks, study_name
from nested_lookahead.analysis.sentences import bound, p_value, signed, times
from nested_lookahead.analysis.tails import tails
from nested_lookahead.analysis.targets import catching_up
from nested_lookahead.analysis.task import Task

FURTHER = "further such studies"


def primary(found: Sequence[Task], asked: Sequence[Question]) -> pd.DataFrame:
    """A row per study of each primary question, as people read it, and one for what to expect of further studies.

    study, comparison, n, difference with the interval that decided, p after Holm, verdict, failed seeds of either arm
    with McNemar's exact p where any differ, and the ratio of steps to the other arm's final loss with its interval.
    """
    known = {study_name(task): (tails(task), catching_up(task)) for task in fair_tasks(found)}
    rows: list[dict[str, Any]] = []
    for question in (one for one in asked if one.family == PRIMARY):
        rows += [_row(question, row, *known[str(row.study)]) for row in question.table.itertuples()]
        if not math.isnan(question.others.p):
            rows.append(_further(question))
    return pd.DataFrame(rows)


def _row(question: Question, row: Any, failed: pd.DataFrame, caught_up: pd.DataFrame) -> dict[str, Any]:
    def own(table: pd.DataFrame) -> Any:
        same = (table["family"] == PRIMARY) & (table["arm"] == question.arm) & (table["other"] == question.other)
        return next(table[same].itertuples())

    interval = ""
    if row.own_low == row.own_low:
        interval = f" [{bound(row.own_low, row.digits)}, {bound(row.own_high, row.digits)}]"
    tail, steps = own(failed), own(caught_up)
    return {
        "study": row.study,
        "comparison": question.name,
        "n": row.n,
        "difference": f"{signed(row.own_difference, row.digits)}{interval} {row.unit}",
        "p (Holm)": "–" if math.isnan(row.p_holm) else _bare(row.p_holm),
        "verdict": row.verdict,
        "failed": f"{tail.failed} : {tail.other_failed}" + ("" if math.isnan(tail.p) else f" ({p_value(tail.p)})"),
        "steps to the other's loss": times(steps.steps, steps.steps_low, steps.steps_high),
    }


def _further(question: Question) -> dict[str, Any]:
    low, high = question.others.interval()
    ends = ", ".join(bound(end) for end in question.single)
    return {
        "study": FURTHER,
        "comparison": question.name,
        "n": len(question.table),
        "difference": f"{signed(question.others.mean)} [{bound(low)}, {bound(high)}] δ; a single one [{ends}] δ",
        "p (Holm)": _bare(question.others.p),
        "verdict": question.word,
        "failed": "–",
        "steps to the other's loss": "–",
    }


def _bare(p: float) -> str:
    return p_value(p).removeprefix("p ").removeprefix("= ")
