"""What was tried of each method, and what choosing the best of it is worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import statistics
from nested_lookahead.analysis.arms import TRIED
from nested_lookahead.analysis.baselines import is_default
from nested_lookahead.analysis.labels import setting_keys
from nested_lookahead.analysis.task import Task


def budget(task: Task) -> pd.DataFrame:
    """Per method: settings tried, runs, epochs, hours, the default's and the best setting's mean, and what choosing
    the best is worth on seeds that had no part in the choice.

    The best setting is chosen by `Task.chosen_by`, the validation split where there is one. In all means a diverged
    run counts as the worst of its method's runs.
    """
    rows, sign = [], task.metric.sign
    for (label,), groups in task.groups.groupby(["label"], sort=False):
        runs = task.runs[task.runs["group"].isin(groups.index)]
        test, chosen_by = (counted_by_seed(values, groups.index, sign) for values in (task.final, task.chosen_by))
        best = best_setting(task.chosen_by, groups.index, sign)
        default = [str(group) for group, row in groups.iterrows() if is_default(row)]
        complete = len(groups) > 1 and test.shape[1] > 1 and len(runs) == test.size
        held_out = (
            sign * statistics.leave_one_seed_out(sign * test.to_numpy(), sign * chosen_by.to_numpy())
            if complete
            else np.array([])
        )
        rows.append(
            {
                "method": label,
                "settings tried": int(groups[TRIED].iloc[0]) if TRIED in groups else len(groups),
                "varied": ", ".join(_varied(groups)) or "–",
                "runs": len(runs),
                "diverged": int(groups["diverged"].sum()),
                "hours of training": runs["seconds"].sum(min_count=1) / 3600,
                "default": test.loc[default[0]].mean() if default else math.nan,
                "best": test.loc[best].mean() if best else math.nan,
                "best setting": groups["shown"].to_dict()[best] if best else "",
                "best, other seeds": float(np.mean(held_out)) if len(held_out) else math.nan,
            }
        )
    return pd.DataFrame(rows)


def best_setting(chosen_by: pd.DataFrame, groups: Any, sign: int = 1) -> str | None:
    """Of these groups of a table such as `Task.chosen_by`, among those with the smallest share of diverged runs the one
    with the best mean, the greatest times ``sign``; None where all diverged. A single survivor, however good, is no
    setting to choose."""
    own = chosen_by[chosen_by["group"].isin(groups)].groupby("group", sort=False)["value"]
    means, failed = own.mean(), own.agg(lambda values: values.isna().mean())
    least = means[failed == failed.min()].dropna()
    return str((sign * least).idxmax()) if len(least) else None


def counted_by_seed(final: pd.DataFrame, groups: Any, sign: int = 1) -> pd.DataFrame:
    """Groups × seeds of a table such as `Task.final`, a diverged run with the worst of all their values; NaN where a
    run is not there, or all diverged."""
    own = final[final["group"].isin(groups)]
    return own.assign(value=own["value"].fillna(sign * (sign * own["value"]).min())).pivot_table(
        index="group", columns="seed", values="value", dropna=False
    )


def _varied(groups: pd.DataFrame) -> list[str]:
    """The settings in which groups differ, with how many values each."""
    counts = {key: groups[f"config.{key}"].astype(str).nunique() for key in setting_keys(groups)}
    return [f"{key.removeprefix('optimizer.')} × {count}" for key, count in counts.items() if count > 1]
