"""One word for each comparison of a family, and the interval that it was decided by."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nested_lookahead.analysis.statistics import Ranks, holm, paired, signed_rank
from nested_lookahead.analysis.verdicts import Evidence, decide

RNG = np.random.default_rng(0)


def difference(n, mean, sd):
    """Of n pairs with exactly this mean and standard deviation."""
    x = RNG.normal(size=n)
    return paired(mean + sd * (x - x.mean()) / x.std(ddof=1))


def word(*family, delta=0.5):
    """The verdict of the first of a family."""
    return decide([one if isinstance(one, Evidence) else Evidence(one) for one in family], delta)[0].word


def test_verdicts():
    assert word(difference(10, 1.0, 0.5)) == "better"
    assert word(difference(10, -1.0, 0.5)) == "worse"
    assert word(difference(10, 0.0, 0.5)) == "equivalent"
    assert word(difference(10, 0.0, 5.0)) == "unresolved"
    assert word(difference(10, 1.0, 1.2)) == "better"
    assert word(difference(10, 1.0, 1.2), *[difference(10, 0.0, 1.2)] * 5) == "unresolved"  # not after Holm
    assert word(difference(4, 1.0, 0.1)) == "suggestive: better"
    assert word(difference(4, 0.0, 0.1)) == "suggestive: equivalent"
    for few in (paired([]), paired([1.0]), paired([1.0, 2.0]), paired([0.3, 0.3, 0.3])):
        assert word(few) == "unresolved"


def test_a_difference_inside_delta_does_not_matter_whatever_its_p():
    small = difference(10, -0.06, 0.02)
    assert small.p < 1e-4
    assert word(small) == "equivalent"
    assert word(small, delta=0.05) == "worse"


def test_equivalence_is_decided_at_the_familys_level():
    near = difference(10, 0.2, 0.45)
    assert near.p_within(0.5) == pytest.approx(0.032, abs=0.002)
    assert word(near) == "equivalent"
    assert word(near, *[difference(10, 0.4, 0.5)] * 5) == "unresolved"


families = st.lists(st.tuples(st.integers(3, 12), st.floats(-2, 2), st.floats(0.05, 2)), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(families, st.floats(0.1, 1))
def test_the_interval_that_is_shown_is_the_one_that_decides(family, delta):
    results = [difference(*one) for one in family]
    decisions = decide([Evidence(result) for result in results], delta)
    adjusted = holm([result.p for result in results])
    for result, decision, p in zip(results, decisions, adjusted, strict=True):
        assert decision.p == p
        assert decision.level >= 0.9 - 1e-12
        assert (decision.low, decision.high) == result.interval(decision.level)
        if decision.word.endswith("equivalent"):
            assert -delta < decision.low
            assert decision.high < delta
        else:
            assert (decision.low > 0 or decision.high < 0) == (p < 0.05) == (decision.word != "unresolved")


@settings(max_examples=60, deadline=None)
@given(families, st.floats(0.1, 1))
def test_who_is_compared_with_whom_does_not_matter(family, delta):
    """The mirror image of every difference has the mirror image of its verdict."""
    results = [difference(*one) for one in family]
    mirrored = [replace(result, mean=-result.mean, d=-result.d, g=-result.g) for result in results]
    mirror = {"better": "worse", "worse": "better"}
    for one, other in zip(*(decide([Evidence(r) for r in side], delta) for side in (results, mirrored)), strict=True):
        start, _, end = one.word.rpartition(" ")
        assert other.word == " ".join(filter(None, [start, mirror.get(end, end)]))


def test_ranks_of_all_seeds_decide_where_runs_diverged():
    positive = difference(10, 1.0, 0.5)
    assert word(Evidence(positive, Ranks(14, 0.01, 1))) == "better"
    assert word(Evidence(positive, Ranks(14, 0.2, 1))) == "unresolved"
    assert word(Evidence(positive, Ranks(14, 0.01, -1))) == "unresolved"  # they contradict each other
    assert word(Evidence(difference(10, 0.0, 0.5), Ranks(14, 0.2, -1))) == "unresolved"  # and not equivalent
    assert word(Evidence(difference(10, 0.0, 5.0), Ranks(14, 0.01, -1))) == "worse"
    (decision,) = decide([Evidence(paired([]), Ranks(8, 0.008, -1))], 0.5)
    assert (decision.word, decision.by) == ("worse", "ranks")


# --- on studies whose truth is known; more of them in benchmarks/calibration.py --------------------------------------


def simulated(studies, methods, seeds, effect=0.0, delta=0.5, sd=1.0):
    """Verdicts (studies × methods − 1) of each method against the first, all but for an effect on the last alike."""
    values = RNG.normal(0, sd / math.sqrt(2), (studies, methods, seeds))
    values[:, -1] += effect
    words, covered = [], []
    for study in values:
        results = [paired(other - study[0]) for other in study[1:]]
        words.append([decision.word for decision in decide([Evidence(result) for result in results], delta)])
        covered += [
            result.low <= (effect if i == methods - 2 else 0) <= result.high for i, result in enumerate(results)
        ]
    return np.array(words), np.mean(covered)


@pytest.mark.parametrize("seeds", [5, 10])
def test_few_false_verdicts_where_nothing_differs(seeds):
    words, covered = simulated(500, 4, seeds)
    false = np.isin(words, ["better", "worse"]).any(axis=1).mean()
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)
    assert 0.93 <= covered <= 0.97


def test_power_at_an_effect_of_one_standard_deviation():
    words, _ = simulated(1000, 2, 10, effect=1.0)
    assert np.mean(words == "better") == pytest.approx(0.80, abs=4 * math.sqrt(0.16 / 1000))


def test_equivalent_is_seldom_wrong():
    """At true differences of exactly delta, six of them."""
    values = RNG.normal(0.5, 0.4, (300, 6, 10))
    words = [[d.word for d in decide([Evidence(paired(one)) for one in study], 0.5)] for study in values]
    assert np.mean([any(w == "equivalent" for w in study) for study in words]) <= 0.05 + 3 * math.sqrt(0.0475 / 300)


def test_survivors_seldom_call_a_method_better():
    """One standard deviation better where it finishes, and 40% of it diverges."""
    words = []
    for d in RNG.normal(1, 1, (300, 14)):
        lost = RNG.random(14) < 0.4
        ranks = signed_rank(np.where(lost, -np.inf, d)) if lost.any() else None
        words.append(word(Evidence(paired(d[~lost]), ranks)))
    assert np.mean(np.array(words) == "better") <= 0.02
