"""One comparison in plain words, and numbers as people write them."""

from __future__ import annotations

import math
from typing import Any

from nested_lookahead.analysis.power import LEAST
from nested_lookahead.metric import ACCURACY, Metric

THOUSANDS = "thousands"
"""Of seeds: more than can be run."""


def signed(value: float, digits: int = 2) -> str:
    """``+0.31``, ``-0.05``; what rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def bound(value: float, digits: int = 2) -> str:
    """An end of an interval: with more digits where it would round to zero, which it lies on one side of."""
    while abs(value) > 1e-6 and float(f"{value:.{digits}f}") == 0:
        digits += 1
    return signed(value, digits)


def p_value(p: float) -> str:
    """``p = 0.012``, or ``p < 0.001``: no p is zero, and none near 0.05 looks as if it were on the other side."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.{4 if abs(p - 0.05) < 0.0005 else 3}f}"


def times(ratio: float, low: float, high: float) -> str:
    """``×0.75 [0.60, 0.94]``, a ratio of times with its interval; a dash where it is not known.

    0 and ∞ are of pairs in which one of the two never got there.
    """
    if math.isnan(ratio):
        return "–"
    shown = [multiple(value) for value in (ratio, low, high)]
    return f"×{shown[0]}" + ("" if math.isnan(low) else f" [{shown[1]}, {shown[2]}]")


def multiple(value: float) -> str:
    return "∞" if value == math.inf else "0" if value == 0 else f"{value:.2f}"


def interval_text(row: Any, digits: int = 2) -> str:
    """``95% CI [-0.20, +0.81]``, of the level that decided."""
    return f"{100 * row['level']:.4g}% CI [{bound(row['low'], digits)}, {bound(row['high'], digits)}]"


def sentence(row: Any, delta: float, metric: Metric = ACCURACY) -> str:
    """A row of `compare` in words."""
    one = " ".join(filter(None, (row["label"], row["shown"] and f"[{row['shown']}]")))
    other = " ".join(filter(None, (row["baseline_label"], row["baseline_shown"] and f"[{row['baseline_shown']}]")))
    if row["seeds"] == 0:
        return f"{one} against {other}: no {'seed in common' if row['paired'] else 'finished runs'}."
    said = _verdict(row, one, other, delta, metric)
    if row["diverged"]:
        said += f" {_failures(row)}"
    return said


def _verdict(row: Any, one: str, other: str, delta: float, metric: Metric) -> str:
    word = row["verdict"].removeprefix("suggestive: ")
    if word == "unresolved":
        return _unresolved(row, one, other, delta, metric)
    of = ", ranks of all seeds" if _known(row["p_ranks"]) else ""
    seen = f"{_pairs(row, metric)}, {p_value(row['p_holm'])} (Holm{of})"
    if word != row["verdict"]:
        return f"{one} against {other} suggests {word}, but n = {row['n']} is too few to say so: {seen}."
    if word == "equivalent":
        matter = "" if row["low"] <= 0 <= row["high"] else "; there is a difference, and it does not matter"
        return f"{one} and {other} are equivalent to within {delta:g} {metric.difference}: {seen}{matter}."
    decided = {
        "ranks": " The ranks of all seeds decided, diverged runs last.",
        "ranks and t": " The ranks of all seeds, diverged runs last, and the interval of the pairs agree.",
    }.get(row["decided_by"], "")
    return f"{one} is {word} than {other}: {seen}.{decided}"


def _unresolved(row: Any, one: str, other: str, delta: float, metric: Metric) -> str:
    start = f"{one} against {other}"
    if _known(row["p_ranks"]):
        contradicted = row["p_holm"] < 0.05
        why = "the pairs that finished say the opposite" if contradicted else "they decide"
        ranks = f"the ranks of all {row['seeds']} seeds have {p_value(row['p_holm'])} (Holm), and {why}"
        return f"{start} is unresolved: {_pairs(row, metric)}; as runs diverged, {ranks}."
    if row["n"] == 0:
        return f"{start}: in every pair both diverged, so there is nothing to compare."
    if not _known(row["p"]):
        why = "all differences are equal" if row["sd"] == 0 else "too few for an interval"
        return f"{start}: {_pairs(row, metric)}; {why}."
    p = p_value(row["p_holm"])
    return f"{start} is unresolved: {_pairs(row, metric)}, {p} (Holm); {_could_show(row, delta, metric)}."


def _known(value: float) -> bool:
    return not math.isnan(value)


def _pairs(row: Any, metric: Metric) -> str:
    """What the pairs say, with their interval where there is one."""
    kind = "seeds" if row["paired"] else "unpaired runs each"
    if row["n"] == 0:
        return "no pair finished"
    told = f"{interval_text(row, metric.digits)}, " if _known(row["low"]) else ""
    return f"{signed(row['difference'], metric.digits)} {metric.difference}, {told}n = {row['n']} {kind}"


def _could_show(row: Any, delta: float, metric: Metric) -> str:
    """What these runs could have shown, and how many would show ``delta``."""
    among = f", as one of {row['family']} comparisons" if row["family"] > 1 else ""
    if row["n"] < LEAST:
        first = f"fewer than {LEAST} show nothing for sure"
    else:
        first = f"so few could have shown {metric.number(row['detectable'])} {metric.difference}"
    needed, _, span = seeds_text(row["seeds_needed"], row["seeds_low"], row["seeds_high"]).partition(" (")
    of = " of" if needed == THOUSANDS else ""
    span = f" ({span.removesuffix(')')}, as the spread is known)" if span else ""
    return f"{first}, and {needed}{of} seeds{span} find {delta:g} with 80% power{among}"


def seeds_text(needed: float, low: float, high: float) -> str:
    """``34 (11 to 64)``: how many seeds, and the range of them that the spread's own interval leaves."""
    number, least, most = (f"{n:.0f}" if math.isfinite(n) else THOUSANDS for n in (needed, low, high))
    return number + (f" ({least} to {most})" if least != most else "")


def _failures(row: Any) -> str:
    """Diverged runs on both sides."""
    p = f" (McNemar's exact {p_value(row['p_failures'])})" if _known(row["p_failures"]) else ""
    return f"Diverged: {row['failed']} of {row['seeds']}, of the baseline's {row['baseline_failed']}{p}."
