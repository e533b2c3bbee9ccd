"""What was tried of each method, and what choosing the best of it is worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import statistics
from nested_lookahead.analysis.baselines import is_default
from nested_lookahead.analysis.labels import setting_keys
from nested_lookahead.analysis.task import Task


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
        default = [str(group) for group, row in groups.iterrows() if is_default(row)]
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
