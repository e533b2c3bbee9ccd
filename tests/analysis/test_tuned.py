"""Each method at its chosen setting, on seeds without a part in the choice."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_figures import make_task

from nested_lookahead.analysis import figures
from nested_lookahead.analysis.tuned import tuned

NESTED = [("nested_lookahead", "sgd", {"k": k, "alpha": 0.5, "s": 5, "h": 0.5, "pullback": "none"}) for k in (3, 5, 10)]
PLAIN = [("lookahead", "sgd", {"k": k, "alpha": 0.5, "pullback": "none"}) for k in (3, 5)]


def with_only(task, fresh, groups):
    """The task with the fresh seeds' runs of these groups alone."""
    kept = ~task.final["seed"].isin(fresh) | task.final["group"].isin(groups)
    final = task.final[kept]
    return replace(task, final=final, chosen_by=final)


def test_fresh_seeds_compare_what_others_chose():
    """k = 10 is best on seeds 0 to 2, where its results are luck: the fresh ones say so."""

    def final(i, seed):
        return 90 + 5 * (i == 2 and seed < 3) + (i == 3) + 0.1 * (seed % 3) * (i + 1)

    task = with_only(make_task([*NESTED, *PLAIN], seeds=9, final=final), range(3, 9), ["00000002", "00000003"])
    found = tuned(task)
    (row,) = found.comparisons.itertuples()
    assert (row.shown, row.baseline_shown, row.n) == ("k=10", "k=3", 6)
    assert row.difference == pytest.approx(-1 - 0.1)
    assert row.verdict == "worse"
    assert row.sentence.startswith(
        "Tuned against tuned, each method at the setting chosen on test over seeds 0 to 2, on fresh seeds: Nested"
    )
    assert "chosen on test over seeds 0 to 2" in figures.draw("tuned", task).caption


def test_tuning_seeds_can_be_given():
    task = make_task([*NESTED, *PLAIN], seeds=9, final=lambda i, seed: 90 + (i == 1) + 0.1 * seed * (i == 2))
    found = tuned(replace(task, tuning_seeds=(0, 1)))
    assert "over seeds 0, 1, on fresh seeds" in found.how
    assert found.comparisons["n"].tolist() == [7]


def test_without_fresh_seeds_one_half_chooses_and_the_other_is_compared():
    task = make_task([*NESTED, *PLAIN], seeds=8, final=lambda i, seed: 90 + 8 * (i == 2 and seed < 4) + 0.1 * seed * i)
    found = tuned(task)
    assert found.how == "each method at the setting chosen on test over seeds 0 to 3, on the other half"
    assert sorted(found.final["seed"].unique()) == [4, 5, 6, 7]
    (row,) = found.comparisons.itertuples()
    assert (row.shown, row.n) == ("k=10", 4)
    assert row.difference == pytest.approx(0.1 * 5.5 * -2)


def test_choosing_is_on_validation_and_diverged_settings_are_not_chosen():
    task = make_task([*NESTED, *PLAIN], seeds=6, final=lambda i, seed: 90 + i + 0.1 * seed * (1 + i % 2))
    validation = task.final.assign(value=[100 - v for v in task.final["value"]])
    validation.loc[(validation["group"] == "00000000") & (validation["seed"] < 2), "value"] = math.nan
    (row,) = tuned(replace(task, chosen_by=validation, tuning_seeds=(0, 1, 2))).comparisons.itertuples()
    assert row.shown == "k=5"  # k = 3 is best on validation, but for the seeds on which it diverged
    assert "chosen on validation" in row.sentence


def test_one_setting_each_is_nothing_to_tune():
    assert tuned(make_task([NESTED[0], PLAIN[0]])) is None
    assert tuned(make_task(NESTED, seeds=1)) is None
    assert isinstance(tuned(make_task([*NESTED, PLAIN[0]], seeds=3)).comparisons, pd.DataFrame)


@pytest.mark.slow
def test_equal_settings_do_not_win_by_being_many():
    """27 settings against one, all alike: of the seeds that chose, the chosen one's own are 1.2 points better."""
    rng, before, after = np.random.default_rng(0), [], []
    many = [("nested_lookahead", "sgd", {"k": k, "alpha": a, "s": s, "h": 0.5, "pullback": "none"})
            for k, a, s in itertools.product((3, 5, 10), (0.3, 0.5, 0.8), (3, 5, 10))]  # fmt: skip
    for _ in range(6):
        noise = rng.normal(0, 1, (28, 6))
        task = make_task([*many, PLAIN[0]], seeds=6, final=lambda i, seed, noise=noise: 90 + noise[i, seed])
        after += tuned(task).comparisons["difference"].tolist()
        before.append(noise[:27, :3].mean(axis=1).max())
    assert np.mean(before) > 0.9
    assert abs(np.mean(after)) < 1
