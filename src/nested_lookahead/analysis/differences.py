"""Each group against its baseline, seed by seed, in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead.analysis import arms, power, statistics
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.sentences import sentence
from nested_lookahead.analysis.verdicts import ALPHA, Decision, Evidence, decide
from nested_lookahead.metric import ACCURACY, Metric

Against = Mapping[str, str] | Iterable[tuple[str, str]]
"""Groups, and the baseline of each; as pairs, a group may have several."""


def compare(
    groups: pd.DataFrame,
    final: pd.DataFrame,
    delta: float,
    against: Against,
    metric: Metric = ACCURACY,
    families: Sequence[str] | None = None,
    beside: Sequence[Evidence] = (),
) -> pd.DataFrame:
    """A row for each group and its baseline.

    Paired by seed: the same seed gives every method the same initial weights, split and data order. Published runs
    have no seeds, and are compared by Welch's test. Holm's family are all rows of our own runs; published ones beside
    them are a family of their own, so that showing a reference changes no verdict. ``families`` says otherwise, by
    pair; to the family "primary" belongs what is known ``beside``, of other studies, in units of this one's ``delta``.

    ``difference``, ``low`` and ``high`` (of ``level``, the interval that decided), ``low95`` and ``high95``, ``sd`` and
    ``detectable`` are in points, or in the metric itself and of its sign: of bits, below 0 is to the good. ``n``: pairs
    that the difference comes from; ``seeds``: those that both have, of which ``failed`` and ``baseline_failed``
    diverged; ``p_failures``: McNemar's. ``p_holm`` and ``verdict``: see `decide`. ``detectable`` is at the family's
    first level, alpha/``family``, and NaN below five pairs, which show nothing; ``seeds_needed``, with its range
    ``seeds_low`` to ``seeds_high``, is for a difference of ``delta`` at that level.
    """
    values = by_seed(final, metric.sign)
    pairs = list(against.items() if isinstance(against, Mapping) else against)
    rows, evidence = [], []
    for group, baseline in pairs:
        paired = bool(groups.loc[group, "source"] != REFERENCE and groups.loc[baseline, "source"] != REFERENCE)
        found, counts = (seed_by_seed if paired else _unpaired)(values[group], values[baseline])
        evidence.append(found)
        rows.append(_names(groups, group, baseline) | _numbers(found, metric.sign) | {"paired": paired} | counts)
    if not rows:
        return pd.DataFrame()
    sources = families or [str(groups.loc[group, "source"]) for group, _ in pairs]
    decisions, sizes = _by_family(sources, evidence, delta, [each.times(delta) for each in beside])
    table = pd.DataFrame(
        [
            row | _decided(decision.times(metric.sign)) | {"family": size} | _could_show(found, size, delta)
            for row, found, decision, size in zip(rows, evidence, decisions, sizes, strict=True)
        ]
    )
    table["sentence"] = [sentence(row, delta, metric) for _, row in table.iterrows()]
    return table


def _by_family(
    families: Sequence[str], evidence: list[Evidence], delta: float, beside: list[Evidence]
) -> tuple[list[Decision], list[int]]:
    """Decisions, and the number of tests in each one's family."""
    decisions: dict[int, Decision] = {}
    sizes: dict[int, int] = {}
    for family in dict.fromkeys(families):
        members = [i for i, other in enumerate(families) if other == family]
        others = beside if family == arms.PRIMARY else []
        made = decide([*(evidence[i] for i in members), *others], delta)
        decisions |= zip(members, made[: len(members)], strict=True)
        sizes |= dict.fromkeys(members, sum(not math.isnan(one.p) for one in made))
    return [decisions[i] for i in range(len(families))], [sizes[i] for i in range(len(families))]


def asked_first(groups: pd.DataFrame, final: pd.DataFrame, delta: float, metric: Metric) -> list[Evidence]:
    """What a fair study's runs say of its primary comparisons, in units of ``delta``."""
    chosen = [(arm, other) for family, arm, other in arms.pairs(groups) if family == arms.PRIMARY]
    values = by_seed(final, metric.sign)
    return [seed_by_seed(values[arm], values[other])[0].times(1 / delta) for arm, other in chosen]


def by_seed(final: pd.DataFrame, factor: float = 1.0) -> dict[str, pd.Series[float]]:
    """Each group's results by seed, times ``factor``."""
    return {str(group): factor * part.set_index("seed")["value"] for group, part in final.groupby("group")}


def seed_by_seed(ours: pd.Series[float], theirs: pd.Series[float]) -> tuple[Evidence, dict[str, Any]]:
    """Results by seed, more being better, as pairs: their evidence, and the counts of a row of `compare`."""
    seeds = sorted(set(ours.index) & set(theirs.index))
    a, b = ours[seeds].to_numpy(), theirs[seeds].to_numpy()
    alone, finished = np.isnan(a) != np.isnan(b), ~np.isnan(a) & ~np.isnan(b)
    everything = np.where(alone, np.where(np.isnan(a), -np.inf, np.inf), a - b)
    wins = float((everything > 0).sum() + 0.5 * (~alone & ~(everything > 0) & ~(everything < 0)).sum())
    ranks = statistics.signed_rank(everything) if alone.any() else None
    only = int((alone & np.isnan(a)).sum()), int((alone & np.isnan(b)).sum())
    left_out = ", ".join(map(str, sorted(set(ours.index) ^ set(theirs.index))))
    counts: dict[str, Any] = _counts(a, b, len(seeds)) | _improvement(wins, len(seeds))
    counts |= {"p_failures": statistics.mcnemar(*only), "left_out": left_out}
    return Evidence(statistics.paired((a - b)[finished]), ranks), counts


def _unpaired(ours: pd.Series[float], theirs: pd.Series[float]) -> tuple[Evidence, dict[str, Any]]:
    a, b = ours.to_numpy(), theirs.to_numpy()
    least, broken = min(len(a), len(b)), bool(np.isnan(a).any() or np.isnan(b).any())
    one, other = np.nan_to_num(a, nan=-np.inf)[:, None], np.nan_to_num(b, nan=-np.inf)[None, :]
    wins = float(np.mean((one > other) + 0.5 * (one == other))) * least if least else 0.0
    counts: dict[str, Any] = _counts(a, b, least) | _improvement(wins, least)
    counts |= {"p_failures": math.nan, "left_out": ""}
    ranks = statistics.rank_sum(a, b) if broken else None
    return Evidence(statistics.welch(a[~np.isnan(a)], b[~np.isnan(b)]), ranks), counts


def _counts(a: Any, b: Any, seeds: int) -> dict[str, float]:
    failed, theirs = int(np.isnan(a).sum()), int(np.isnan(b).sum())
    return {"seeds": seeds, "failed": failed, "baseline_failed": theirs, "diverged": failed + theirs}


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


def _numbers(evidence: Evidence, sign: int) -> dict[str, float]:
    """In the metric's own direction: of bits, less is better, and a difference below 0 is to the good."""
    result = evidence.difference.times(sign)
    return {
        "n": result.n,
        "difference": result.mean,
        "low95": result.low,
        "high95": result.high,
        "sd": result.sd,
        "dz": result.d,
        "g": result.g,
        "p": result.p,
        "p_ranks": evidence.ranks.p if evidence.ranks else math.nan,
    }


def _decided(decision: Decision) -> dict[str, Any]:
    return {
        "p_holm": decision.p,
        "verdict": decision.word,
        "decided_by": decision.by,
        "low": decision.low,
        "high": decision.high,
        "level": decision.level,
    }


def _could_show(evidence: Evidence, size: int, delta: float) -> dict[str, float]:
    """What so many pairs with such a spread detect, and how many a difference of ``delta`` takes."""
    result = evidence.difference
    if math.isnan(result.p):
        return dict.fromkeys(("detectable", "seeds_needed", "seeds_low", "seeds_high"), math.nan)
    alpha = ALPHA / max(1, size)
    effect = power.stated_effect(result.n, result.other, alpha) if result.n >= power.LEAST else math.nan
    needed, low, high = power.seeds_range(delta, result.sd, result.n, result.other is None, alpha)
    return {"detectable": result.sd * effect, "seeds_needed": needed, "seeds_low": low, "seeds_high": high}
