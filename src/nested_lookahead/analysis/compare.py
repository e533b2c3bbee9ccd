"""Each group against its baseline, seed by seed, in numbers and in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import statistics
from nested_lookahead.analysis.run_rows import REFERENCE


def compare(groups: pd.DataFrame, final: pd.DataFrame, delta: float, against: dict[str, str]) -> pd.DataFrame:
    """A row for each group and its baseline.

    Paired by seed: the same seed gives every method the same initial weights, split and data order. Published runs
    have no seeds, and are compared by Welch's test. p values are Holm's over all rows. A pair with a diverged run has
    no difference, and counts as lost by the one that diverged.

    ``difference``, ``low``, ``high`` (95%), ``low90``, ``high90``, ``sd`` and ``detectable`` are in points; ``n`` is
    the number of pairs that the difference comes from.
    """
    values = {str(group): part.set_index("seed")["value"] for group, part in final.groupby("group")}
    results, rows = [], []
    for group, baseline in against.items():
        paired = bool(groups.loc[group, "source"] != REFERENCE)
        result, counts = (_paired if paired else _unpaired)(values[group], values[baseline])
        results.append(result)
        rows.append(_names(groups, group, baseline) | _numbers(result) | {"paired": paired} | counts)
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table["p_holm"] = statistics.holm(table["p"].to_numpy())
    table["verdict"] = [
        statistics.verdict(result, p, delta) for result, p in zip(results, table["p_holm"], strict=True)
    ]
    table["seeds_needed"] = [
        result.seeds_needed(delta, paired) if word == "unresolved" and result.sd > 0 else math.nan
        for result, paired, word in zip(results, table["paired"], table["verdict"], strict=True)
    ]
    table["sentence"] = [_sentence(row, delta) for _, row in table.iterrows()]
    return table


def _paired(ours: pd.Series[float], theirs: pd.Series[float]) -> tuple[statistics.Difference, dict[str, Any]]:
    seeds = sorted(set(ours.index) & set(theirs.index))
    a, b = ours[seeds], theirs[seeds]
    both = a.notna() & b.notna()
    filled_a, filled_b = a.fillna(-math.inf), b.fillna(-math.inf)
    wins = float((filled_a > filled_b).sum() + 0.5 * (filled_a == filled_b).sum())
    alone = ", ".join(map(str, sorted(set(ours.index) ^ set(theirs.index))))
    counts = _improvement(wins, len(seeds)) | {"left_out": alone, "diverged": int(a.isna().sum() + b.isna().sum())}
    return statistics.paired((a - b)[both].to_numpy()), counts


def _unpaired(a: pd.Series[float], b: pd.Series[float]) -> tuple[statistics.Difference, dict[str, Any]]:
    least = min(len(a), len(b))
    wins = float(np.mean([[(x > y) + 0.5 * (x == y) for y in b] for x in a])) * least
    counts = _improvement(wins, least) | {"left_out": "", "diverged": int(a.isna().sum() + b.isna().sum())}
    return statistics.welch(a.dropna().to_numpy(), b.dropna().to_numpy()), counts


def _improvement(wins: float, count: int) -> dict[str, float]:
    low, high = statistics.clopper_pearson(wins, count) if count else (math.nan, math.nan)
    share = wins / count if count else math.nan
    return {"improvement": share, "improvement_low": low, "improvement_high": high}


def _names(groups: pd.DataFrame, group: str, baseline: str) -> dict[str, Any]:
    return {
        "group": group,
        "baseline": baseline,
        "label": groups.loc[group, "label"],
        "shown": groups.loc[group, "shown"],
        "baseline_label": groups.loc[baseline, "label"],
        "baseline_shown": groups.loc[baseline, "shown"],
    }


def _numbers(result: statistics.Difference) -> dict[str, float]:
    return {
        "n": result.n,
        "difference": result.mean,
        "low": result.low,
        "high": result.high,
        "low90": result.low90,
        "high90": result.high90,
        "sd": result.sd,
        "dz": result.d,
        "g": result.g,
        "p": result.p,
        "detectable": result.detectable,
    }


def _sentence(row: Any, delta: float) -> str:
    """One comparison in plain words."""
    one = " ".join(filter(None, (row["label"], row["shown"] and f"[{row['shown']}]")))
    other = " ".join(filter(None, (row["baseline_label"], row["baseline_shown"] and f"[{row['baseline_shown']}]")))
    kind = "seeds" if row["paired"] else "unpaired runs each"
    if row["n"] == 0:
        return f"{one} against {other}: no {'seed in common' if row['paired'] else 'finished runs'}."
    if math.isnan(row["p"]):
        why = "all differences are equal" if row["sd"] == 0 else "too few for an interval"
        return f"{one} against {other}: {row['difference']:+.2f} points, n = {row['n']} {kind}; {why}."
    interval = f"{row['difference']:+.2f} points, 95% CI [{row['low']:+.2f}, {row['high']:+.2f}], n = {row['n']} {kind}"
    interval += f", p = {row['p_holm']:.3f} (Holm)"
    said = {
        "better": f"{one} is better than {other}: {interval}.",
        "worse": f"{one} is worse than {other}: {interval}.",
        "equivalent": f"{one} and {other} are equivalent to within {delta:g} points: {interval}.",
    }.get(row["verdict"], "")
    if not said and row["verdict"] != "unresolved":
        word = row["verdict"].removeprefix("suggestive: ")
        said = f"{one} against {other} suggests {word}, but n = {row['n']} is too few to say so: {interval}."
    if not said:
        said = (
            f"{one} against {other} is unresolved: {interval}; so few could have shown {row['detectable']:.2f} points"
        )
        said += (
            f", and {row['seeds_needed']:.0f} seeds would resolve {delta:g}." if row["seeds_needed"] > row["n"] else "."
        )
    if row["diverged"]:
        said += f" Of the pairs' runs, {row['diverged']} diverged and count as lost."
    return said
