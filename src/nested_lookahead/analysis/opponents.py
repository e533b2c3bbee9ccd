"""Which groups are compared: each with its baseline, all with all, or a study with an earlier one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from nested_lookahead.analysis import arms
from nested_lookahead.analysis.baselines import baselines
from nested_lookahead.analysis.collect import Study, join
from nested_lookahead.errors import UserError

COMPARE = ("baseline", "all")
MOST_PAIRS = 1000
SIDE = "config.from"
"""Column of the name of each run's study, where two are compared."""
EARLIER = "@earlier"
"""Behind the ids of the groups of the earlier study."""


def pairs(groups: pd.DataFrame, baseline: str | None, compare: str) -> list[tuple[str, str]]:
    """Each group and what it is compared with; published groups have their usual baselines.

    A fair study's arms have the pairs that it fixed. Where groups are of two studies, it is the same configuration in
    the earlier one. With ``all`` it is each group before it, in display order.

    Raises:
        UserError: more than a thousand pairs.
    """
    ids = list(map(str, groups.index))
    if any(group.endswith(EARLIER) for group in ids):
        return [(group, group + EARLIER) for group in ids if group + EARLIER in groups.index]
    if compare == "baseline" and baseline is None and (own_pairs := list(arms.pairs(groups))):
        return [(arm, other) for _, arm, other in own_pairs]
    if compare == "baseline":
        return list(baselines(groups, baseline).items())
    own = [str(group) for group in groups.index[groups["source"] != "reference"]]
    if (count := len(own) * (len(own) - 1) // 2) > MOST_PAIRS:
        raise UserError(
            f"--compare all: {len(own)} settings make {count:,} pairs, more than {MOST_PAIRS:,} in one family; choose "
            "some of them with --filter"
        )
    return [(one, other) for other, one in itertools.combinations(own, 2)]


def families(groups: pd.DataFrame, chosen: Sequence[tuple[str, str]]) -> list[str]:
    """Which family of Holm's each pair belongs to: by what a fair study has fixed, else by where its runs are from."""
    fixed = {(arm, other): family for family, arm, other in arms.pairs(groups)}
    return [fixed.get(pair, str(groups.loc[pair[0], "source"])) for pair in chosen]


def side_by_side(later: Study, earlier: Study, names: tuple[str, str]) -> Study:
    """Two studies as one, in which a configuration of both is two groups.

    Raises:
        UserError: they have no configuration in common.
    """
    if not set(later.runs["group"]) & set(earlier.runs["group"]):
        raise UserError(f"--against {names[1]}: has no configuration in common with {names[0]}")
    ours, theirs = later.runs.copy(), earlier.runs.copy()
    ours[SIDE], theirs[SIDE] = names
    theirs["group"] += EARLIER
    return join([replace(later, runs=ours), replace(earlier, runs=theirs)])
