"""Failed seeds: how often a method ends far behind, which its mean does not tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import arms
from nested_lookahead.analysis.sentences import bound, signed
from nested_lookahead.analysis.statistics import holm, mcnemar, quantile, t_half_width
from nested_lookahead.analysis.task import Task

FAR = 4
"""Times δ: a fair study's run that ends further behind the best arm's median has failed, as one that diverged has."""


def limit(task: Task) -> float:
    """The value that a run fails beyond: the best median over groups, diverged runs being the worst, less FAR × δ."""
    sign = task.metric.sign
    values = (sign * task.final["value"]).fillna(-math.inf)
    with np.errstate(invalid="ignore"):
        best = values.groupby(task.final["group"]).median().max()
    return sign * (float(best) - FAR * task.delta)


def failed(task: Task) -> pd.Series[bool]:
    """Of each row of ``task.final``."""
    sign = task.metric.sign
    return ~(sign * task.final["value"] >= sign * limit(task))


def by_arm(task: Task) -> pd.DataFrame:
    """A row per arm of a fair study, as people read it: arm, n, mean with its 95% t interval, median, lowest decile (of
    a loss, highest), failed seeds, and its difference from each arm that it is compared with, with the interval that
    decided and the verdict; empty of other tasks."""
    if not (asked := list(arms.pairs(task.groups))):
        return pd.DataFrame()
    metric, sign, gone = task.metric, task.metric.sign, failed(task)
    said = {(row.group, row.baseline): _told(row, metric.digits) for row in task.comparisons.itertuples()}
    others = pd.Series([other for _, _, other in asked]).value_counts(sort=True).index
    rows = []
    for arm in task.groups.index:
        own = task.final["group"] == arm
        values = sign * task.final.loc[own, "value"].to_numpy(dtype=float)
        half = t_half_width(values[~np.isnan(values)])
        mean = sign * float(np.nanmean(values)) if (~np.isnan(values)).any() else math.nan
        places = [sign * quantile(values, q) for q in (0.5, 0.1)]
        shown = [metric.number(place) if np.isfinite(place) else "diverged" for place in places]
        rows.append(
            {
                "arm": arm,
                "n": len(values),
                metric.axis: metric.number(mean) + (f" ± {metric.number(half)}" if half is not None else ""),
                "median": shown[0],
                "lowest decile" if sign > 0 else "highest decile": shown[1],
                "failed": f"{int(gone[own].sum())}",
            }
            | {f"− {other}": said.get((arm, other), "–") for other in others}
        )
    return pd.DataFrame(rows)


def _told(row: Any, digits: int) -> str:
    interval = f" [{bound(row.low, digits)}, {bound(row.high, digits)}]" if row.low == row.low else ""
    return f"{signed(row.difference, digits)}{interval} {row.verdict}"


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
