"""What is said before any comparison."""

from made_runs import make_run

from nested_lookahead.analysis import checks, collect
from nested_lookahead.analysis.task import tasks


def task(root):
    (found,) = tasks(collect.collect([root]), "fast", "test", 0.5)
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
