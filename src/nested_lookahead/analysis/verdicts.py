"""From the evidence of a family of comparisons to one word each, at the level that decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nested_lookahead.analysis.power import LEAST
from nested_lookahead.analysis.statistics import NAN, Difference, Ranks, holm, holm_levels

ALPHA = 0.05


@dataclass(frozen=True)
class Evidence:
    """What is known of one comparison.

    ``difference``: over the pairs that finished. ``ranks``: over all seeds, diverged runs last; None where no run
    diverged, or in each pair both did, so that the pairs are all there is.
    """

    difference: Difference
    ranks: Ranks | None = None

    def times(self, factor: float) -> Evidence:
        """In another unit, for a factor above 0."""
        return replace(self, difference=self.difference.times(factor))


@dataclass(frozen=True)
class Decision:
    """A word, and the interval that it was decided by.

    ``word``: better, worse, equivalent or unresolved, perhaps with "suggestive: " before it. ``by``: what decided:
    ``t`` (the interval of the pairs), ``ranks`` (of all seeds), ``ranks and t``, or ``""``. ``p``: adjusted by Holm.
    ``low``, ``high``: of ``level``, such as 0.95 for a family of one. The interval of any word but *equivalent*
    excludes 0 exactly where Holm's p of the t test is below 0.05, and that of *equivalent* lies inside ±delta.
    """

    word: str
    by: str
    p: float
    low: float
    high: float
    level: float

    def times(self, sign: int) -> Decision:
        """The same, of differences of the other sign: the word stays, and the interval turns."""
        return self if sign > 0 else replace(self, low=-self.high, high=-self.low)


def decide(family: Sequence[Evidence], delta: float) -> list[Decision]:
    """Each comparison's verdict, adjusted for the family by Holm's procedure; a difference above 0 is to the good.

    equivalent: two one-sided tests reject, at the family's level, that the true difference is ±``delta`` or more: it
    does not matter, whether or not it is 0. Never where a run diverged without its partner.
    better, worse: the two-sided test rejects that there is none: the t test where the pairs are all there is, else the
    ranks of all seeds with diverged runs last, which an interval of the pairs that points the other way vetoes.
    Fewer than five pairs are at most suggestive, unless ranks decided, whose test cannot with fewer than six.

    At most one of the two hypotheses of a comparison is true, so each kind of error is Holm's to control, at 5%.
    """
    tests = [evidence.ranks.p if evidence.ranks else evidence.difference.p for evidence in family]
    within = [NAN if evidence.ranks else evidence.difference.p_within(delta) for evidence in family]
    adjusted, adjusted_within = holm(tests), holm(within)
    levels, levels_within = holm_levels(tests, ALPHA), holm_levels(within, ALPHA)
    decisions = []
    for i, evidence in enumerate(family):
        if adjusted_within[i] < ALPHA:
            level = 1 - 2 * float(levels_within[i])
            word = _capped("equivalent", evidence.difference.n)
            decisions.append(Decision(word, "t", float(adjusted[i]), *evidence.difference.interval(level), level))
        else:
            decisions.append(_different(evidence, float(adjusted[i]), 1 - float(levels[i])))
    return decisions


def _different(evidence: Evidence, p: float, level: float) -> Decision:
    """Better, worse or unresolved."""
    difference, ranks = evidence.difference, evidence.ranks
    level = 0.95 if math.isnan(level) else level
    low, high = difference.interval(level)
    sign = int(low > 0) - int(high < 0)  # of the interval; 0 where it has 0, or there is none
    word, by = "unresolved", ""
    if ranks and p < ALPHA and sign != -ranks.sign:
        word, by = _word(ranks.sign), "ranks and t" if sign else "ranks"
    elif ranks is None and p < ALPHA and sign:
        word, by = _capped(_word(sign), difference.n), "t"
    return Decision(word, by, p, low, high, level)


def _word(sign: int) -> str:
    return "better" if sign > 0 else "worse"


def _capped(word: str, n: int) -> str:
    return word if n >= LEAST else f"suggestive: {word}"
