"""How long it takes to reach a target: ratios of times, some of which are infinite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import arms, statistics
from nested_lookahead.analysis.power import LEAST
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.statistics import NAN, Values
from nested_lookahead.analysis.task import Task
from nested_lookahead.runs.files import COMPLETED

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Ratio:
    """Of two methods' times, below 1 where the first is faster; NaN where too little is known.

    ``n``: pairs of which one at least reached the target. ``by``: ``t``, the geometric mean with Student's interval of
    the logarithms, where all did; else ``ranks``, the median with its interval by order statistics (95% takes six
    pairs) and the p of signed ranks, to which a miss is an infinite time. ``sign``: −1 where the test speaks for the
    first being faster, +1 for the second.
    """

    n: int
    ratio: float
    low: float
    high: float
    p: float
    by: str
    sign: int


NO_RATIO = Ratio(0, NAN, NAN, NAN, NAN, "", 0)


def time_ratio(ours: Values, theirs: Values) -> Ratio:
    """From times of pairs, infinite where the target was not reached; a pair in which neither did says nothing."""
    a, b = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    with np.errstate(invalid="ignore"):
        logs = np.log(a) - np.log(b)
    logs = logs[~np.isnan(logs)]
    if not len(logs):
        return NO_RATIO
    if np.isfinite(logs).all():
        found = statistics.paired(logs)
        low, high = found.interval()
        return Ratio(
            len(logs), math.exp(found.mean), math.exp(low), math.exp(high), found.p, "t", int(np.sign(found.mean))
        )
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = statistics.median_interval(logs)
        middle = float(np.exp(np.median(logs)))
    ranks = statistics.signed_rank(logs)
    return Ratio(len(logs), middle, math.exp(low), math.exp(high), ranks.p, "ranks", ranks.sign)


def performance_ratios(times: Array) -> Array:
    """Of each task (column), each method's time (row) over the best method's; infinite where it did not get there.

    The share of tasks with a ratio of x or less, against x, is a performance profile (Dolan & Moré 2002).
    """
    best = times.min(axis=0, keepdims=True)
    return np.where(np.isfinite(times), times / np.where(np.isfinite(best), best, 1.0), math.inf)


def above(values: Values, value: float) -> tuple[float, str]:
    """One-sided p that a method's results are above a value fixed beforehand, and by which test.

    ``t``: of the mean; where a run diverged (NaN) ``signs``: of the median, by the binomial test, as a diverged run is
    below any value. NaN for fewer than three.
    """
    from scipy.special import bdtr

    v = np.asarray(values, dtype=float)
    if len(v) < 3:
        return NAN, ""
    if np.isnan(v).any():
        hits, n = int((v > value).sum()), int((v != value).sum())
        return float(bdtr(n - hits, n, 0.5)), "signs"
    return statistics.paired(v - value).p_above(0.0), "t"


# --- of a task's runs -----------------------------------------------------------------------------------------------


def usual_target(task: Task) -> float:
    """The median of the settings' final means: known only after the runs."""
    return float(task.final.groupby("group")["value"].mean().median())


def target_of(task: Task, asked: float | None) -> tuple[float, str]:
    """The target that a reader asks for, else the usual one; and as it is written, with its unit."""
    target = usual_target(task) if asked is None else asked
    return target, (task.metric.number(target) if asked is None else f"{target:g}") + task.metric.unit


def times(task: Task, target: float, of: str = "accuracy") -> pd.DataFrame:
    """One row per run of ours: group, seed, and the steps and seconds at which its metric (or its ``loss``) was first
    ``target`` or better; infinite where it never was, or the run diverged. Resolution: the evaluations."""
    rows = _measured(task)
    sign, scale = (-1, 1.0) if of == "loss" else (task.metric.sign, task.metric.scale)
    hits = rows[sign * scale * rows[of] >= sign * target]
    first = hits.groupby("path", observed=True)[["step", "seconds"]].min()
    runs = task.runs[task.runs["source"] != REFERENCE]
    found = runs[["path", "group", "seed"]].merge(first, left_on="path", right_index=True, how="left")
    missed = (runs["status"] != COMPLETED).to_numpy() | found["step"].isna().to_numpy()
    for column in ("step", "seconds"):
        found[column] = found[column].astype(float).mask(missed, math.inf)
    return found[["group", "seed", "step", "seconds"]]


def _measured(task: Task) -> pd.DataFrame:
    """Rows of the weights and the split that are compared; of a run without such weights, of its fast ones."""
    rows = task.metrics[task.metrics["split"] == task.split]
    has = set(rows.loc[rows["weights"] == task.weights, "path"])
    return rows[(rows["weights"] == task.weights) | ((rows["weights"] == "fast") & ~rows["path"].isin(has))]


def catching_up(task: Task) -> pd.DataFrame:
    """How soon each arm of a fair study has the loss that the other one ends with: a row per pair that it has fixed.

    family, arm, other; ``target``: the median over seeds of the other's loss at the last step, a diverged run's being
    infinite; ``n`` pairs, of which ``reached`` and ``other_reached`` got there; the ratio of ``steps`` with its
    interval and ``p``, see `Ratio`, and Holm's within the family. Empty of other tasks.
    """
    rows = _measured(task)
    last = rows[rows["step"] == rows.groupby("path", observed=True)["step"].transform("max")]
    final = task.final.assign(loss=task.final["path"].map(last.set_index("path")["loss"].astype(float)))
    losses = final["loss"].mask(final["value"].isna(), math.inf)
    ends = losses.groupby(final["group"]).median()
    made: list[dict[str, Any]] = []
    for family, arm, other in arms.pairs(task.groups):
        found = times(task, float(ends[other]), "loss").pivot_table(index="seed", columns="group", values="step")
        both = found[[arm, other]].dropna()
        ratio = time_ratio(both[arm].to_numpy(), both[other].to_numpy())
        made.append(
            {"family": family, "arm": arm, "other": other, "target": float(ends[other]), "n": len(both)}
            | {"reached": int(np.isfinite(both[arm]).sum()), "other_reached": int(np.isfinite(both[other]).sum())}
            | {"steps": ratio.ratio, "steps_low": ratio.low, "steps_high": ratio.high, "p": ratio.p, "by": ratio.by}
        )
    table = pd.DataFrame(made)
    if len(table):
        table["p_holm"] = table.groupby("family")["p"].transform(lambda p: statistics.holm(p.to_numpy()))
    return table


def speeds(task: Task, target: float) -> pd.DataFrame:
    """A row per comparison of ours: how many of the ``n`` common seeds ``reached`` the target (of the baseline,
    ``baseline_reached``), the ratio of steps with its interval, p and Holm's p, and that of seconds, which is NaN where
    the two were not made on the same device. ``verdict``: faster, slower, or unresolved."""
    found = {
        str(group): {row[0]: row[1:] for row in part[["seed", "step", "seconds"]].itertuples(index=False, name=None)}
        for group, part in times(task, target).groupby("group")
    }
    devices = dict(task.runs.groupby("group")["device_name"].agg(lambda names: "; ".join(sorted(set(map(str, names))))))
    rows = []
    for row in task.comparisons.itertuples():
        if not row.paired:
            continue
        group, baseline = str(row.group), str(row.baseline)
        seeds = [seed for seed in found[group] if seed in found[baseline]]
        ours, theirs = (np.array([found[of][seed] for seed in seeds]).reshape(-1, 2).T for of in (group, baseline))
        steps = time_ratio(ours[0], theirs[0])
        alike = devices[group] == devices[baseline]
        seconds = time_ratio(ours[1], theirs[1]) if alike else NO_RATIO
        rows.append(
            {
                key: getattr(row, key)
                for key in ("group", "label", "shown", "baseline", "baseline_label", "baseline_shown")
            }
            | {"n": len(seeds), "reached": int(np.isfinite(ours[0]).sum())}
            | {"baseline_reached": int(np.isfinite(theirs[0]).sum())}
            | {
                "steps": steps.ratio,
                "steps_low": steps.low,
                "steps_high": steps.high,
                "p": steps.p,
                "by": steps.by,
                "sign": steps.sign,
            }
            | {"seconds": seconds.ratio, "seconds_low": seconds.low, "seconds_high": seconds.high}
        )
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = statistics.holm(table["p"].to_numpy())
        table["verdict"] = [_word(row) for _, row in table.iterrows()]
    return table


def _word(row: Any) -> str:
    if not row["p_holm"] < 0.05:
        return "unresolved"
    word = "faster" if row["sign"] < 0 else "slower"
    return word if row["n"] >= LEAST else f"suggestive: {word}"
