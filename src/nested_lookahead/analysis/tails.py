"""Failed seeds: how often a method ends far behind, which its mean does not tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import arms
from nested_lookahead.analysis.statistics import holm, mcnemar
from nested_lookahead.analysis.task import Task

FAR = 4
"""Times δ: a fair study's run that ends further behind the best arm's median has failed, as one that diverged has."""


def bound(task: Task) -> float:
    """The value that a run fails beyond: the best median over groups, diverged runs being the worst, less FAR × δ."""
    sign = task.metric.sign
    values = (sign * task.final["value"]).fillna(-math.inf)
    with np.errstate(invalid="ignore"):
        best = values.groupby(task.final["group"]).median().max()
    return sign * (float(best) - FAR * task.delta)


def failed(task: Task) -> pd.Series[bool]:
    """Of each row of ``task.final``."""
    sign = task.metric.sign
    return ~(sign * task.final["value"] >= sign * bound(task))


def tails(task: Task) -> pd.DataFrame:
    """A row per pair of arms that a fair study has fixed: family, arm, other, the common ``seeds``, how many of each
    ``failed`` and ``other_failed``, how many alone (``only``, ``other_only``), and McNemar's exact ``p``, with Holm's
    within the family; empty of other tasks."""
    table = task.final.assign(failed=failed(task)).pivot_table(index="seed", columns="group", values="failed")
    rows: list[dict[str, Any]] = []
    for family, arm, other in arms.pairs(task.groups):
        both = table[[arm, other]].dropna().astype(bool)
        a, b = both[arm], both[other]
        only, other_only = int((a & ~b).sum()), int((b & ~a).sum())
        rows.append(
            {"family": family, "arm": arm, "other": other, "seeds": len(both)}
            | {"failed": int(a.sum()), "other_failed": int(b.sum()), "only": only, "other_only": other_only}
            | {"p": mcnemar(only, other_only)}
        )
    found = pd.DataFrame(rows)
    if len(found):
        found["p_holm"] = found.groupby("family")["p"].transform(lambda p: holm(p.to_numpy()))
    return found
