"""What is said before any comparison."""

import itertools

import pytest
from conftest import ROOT
from made_runs import make_run

from nested_lookahead.analysis import checks, collect, leads
from nested_lookahead.analysis.task import tasks


def task(root, weights="fast"):
    """The only one."""
    (found,) = tasks(collect.collect([root]), weights, "test", 0.5)
    return found


def findings(found):
    return "\n".join(f"{finding.level}: {finding.text}" for finding in checks.check(found))


def test_nothing_is_said_of_runs_that_are_alike(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed)
        make_run(tmp_path, seed=seed)
    assert findings(task(tmp_path)) == ""


def test_what_differs_is_said(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed)
        make_run(tmp_path, seed=seed + 1, status="diverged" if seed == 2 else "completed")
    for k, alpha in ((3, 0.3), (3, 0.8), (10, 0.3)):
        make_run(tmp_path, seed=0, k=k, alpha=alpha)
    found = task(tmp_path)
    found.runs.loc[found.runs.index[0], ["commit", "device_name", "dirty"]] = ["abc", "TPU", True]
    text = findings(found)
    assert "warning: 2 code versions: " in text
    assert "warning: 2 devices: " in text
    assert "warning: seed sets differ: 0 seed(s) are common to all 5 groups" in text
    assert "warning: 1 of 9 runs diverged" in text
    assert "warning: incomplete grid" in text
    assert "Nested Lookahead (SGD): 4 of 9 cells of its grid over k × alpha" in text
    assert "warning: 4 settings of a method were tried on the seeds that are reported" in text


def test_fast_weights_that_stand_for_an_average_are_said(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, averages=("tail",))
        make_run(tmp_path, seed=seed)
    assert findings(task(tmp_path)) == findings(task(tmp_path, "slow")) == ""
    text = "warning: no tail weights, so that the fast ones stand for them: Nested Lookahead (SGD)"
    assert findings(task(tmp_path, "tail")) == text


def test_comparisons_that_are_missing_are_said(tmp_path):
    for seed, method in itertools.product(range(3), ("sgd", "adam", "lion", "lookahead", "nested_lookahead")):
        make_run(tmp_path, method, seed=seed)
    text = findings(task(tmp_path))
    assert "note: not compared with each other: SGD, Adam, lion; --baseline with one of them does" in text
    assert "note: compared with nothing: Adam, lion; --baseline names what with" in text


def test_a_lead_over_an_untuned_baseline_is_said(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "adam", seed=seed, final=0.65, weight_decay=0.0)
        make_run(tmp_path, "adam", seed=seed, final=0.70, weight_decay=0.1)
        make_run(tmp_path, "lookahead", inner="adam", seed=seed, final=0.69)
    (said,) = leads.stronger_baselines(list(tasks(collect.collect([tmp_path]), "fast", "test", 0.5)))
    assert said == (
        "the lead of Lookahead (Adam), 69.00, is over Adam, 65.00, and not over Adam [weight_decay=0.1], 70.00 (n = 3)"
    )


@pytest.mark.slow
def test_a_lead_over_many_untuned_settings_is_said_once(tmp_path):
    """24 settings of each method, each compared with its like: one sentence for all of them."""
    for seed, k in itertools.product(range(2), range(1, 25)):
        plain = 0.59 + 0.01 * k
        make_run(tmp_path, "lookahead", seed=seed, final=plain, k=k)
        make_run(tmp_path, seed=seed, final=plain + 0.02, k=k)  # the last three are above all of Lookahead's
    found = list(tasks(collect.collect([tmp_path]), "fast", "test", 0.5))
    assert len(found[0].comparisons) > 24
    (said,) = leads.stronger_baselines(found)
    assert said == (
        "the lead of Nested Lookahead (SGD), 62.00 to 82.00, is over 21 settings of Lookahead (SGD), 60.00 to 80.00, "
        "and not over Lookahead (SGD) [k=24], 83.00 (n = 2)"
    )


def test_what_the_published_lead_is():
    study = collect.collect([], references=[ROOT / "docs/published_epoch_accuracy.csv"])
    (said,) = leads.stronger_baselines(list(tasks(study, "fast", "test", 0.5)))
    assert said == (
        "the lead of published Lookahead (Adam), 69.00 to 69.80, is over published Adam with weight decay, 64.89, and "
        "not over published Adam without weight decay, 70.12 (published: cifar_variation, mom0_wd0 and wd0, n = 4)"
    )
