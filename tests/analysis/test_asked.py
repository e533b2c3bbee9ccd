"""What a command line asks for: filters, baselines by settings, families, earlier studies, and plans."""

import pytest
import yaml
from made_runs import make_run

from nested_lookahead.analysis import matching, opponents
from nested_lookahead.analysis.asked import asked
from nested_lookahead.analysis.options import parse
from nested_lookahead.analysis.task import tasks
from nested_lookahead.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    for seed in range(3):
        make_run(root / "now", "sgd", seed=seed, final=0.9)
        for k in (3, 5):
            for alpha in (0.3, 0.5):
                make_run(root / "now", "lookahead", seed=seed, final=0.9 + seed / 100, k=k, alpha=alpha)
    for seed in (1, 2, 3):
        make_run(root / "before", "sgd", seed=seed, final=0.8 + seed / 100)
    make_run(root / "elsewhere", "adam")
    return root


def ask(root, *arguments, folder="now"):
    options = parse([str(root / folder), *arguments])
    return asked(options.folders, root / "cache.npz", options)


def task_of(root, *arguments, folder="now"):
    study, plan = ask(root, *arguments, folder=folder)
    (task,) = tasks(study, "fast", "test", plan.delta, plan.baseline, family=plan.compare)
    return task


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["k=5"], 6),
        (["k=5.0"], 6),
        (["k=3,5"], 12),
        (["optimizer.k=3", "alpha=0.5"], 3),
        (["α=0.5"], 6),
        (["optimizer=sgd"], 3),
        (["optimizer=sgd", "seed=0,2"], 2),
        (["inner=sgd"], 12),
        (["lr=0.1"], 15),
        (["dataset=digits"], 15),
        (["dataset.name=digits"], 15),
        (["k=null"], 3),
    ],
)
def test_filters(made, filters, count):
    study, _ = ask(made, *(f"--filter={text}" for text in filters))
    assert len(study.runs) == count
    assert set(study.metrics["path"]) == set(study.runs["path"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--filter=k", "--filter k: must be key=value, such as k=5 or optimizer=lookahead"),
        ("--filter==5", "--filter =5: must be key=value"),
        ("--filter=alhpa=1", "--filter alhpa=1: no run has a setting 'alhpa'; did you mean 'alpha'? there are alpha, "),
        ("--filter=k=7", "--filter k=7: no run has k=7; there are 3, 5"),
        ("--filter=k=3,7", "--filter k=3,7: no run has k=7; there are 3, 5"),
        ("--baseline=k=5,alpha", "--baseline k=5,alpha: 'alpha' must be key=value"),
        ("--baseline=k=7", "--baseline k=7: no run has k=7; there are 3, 5"),
        ("--delta=-1", "--delta -1: must be > 0"),
        ("--archive=x.zip", "--archive x.zip: must end with .tar.xz"),
    ],
)
def test_mistakes(made, argument, message):
    with pytest.raises(UserError) as error:
        ask(made, argument)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_baseline_by_settings(made):
    task = task_of(made, "--baseline=k=5,alpha=0.5")
    shown = task.groups["shown"]
    assert {shown[baseline] for baseline in task.comparisons["baseline"]} == {"k=5 α=0.5"}
    assert len(task.comparisons) == 4


def test_all_pairs_are_one_family(made):
    task = task_of(made, "--compare=all")
    assert len(task.comparisons) == 10
    assert len({frozenset(pair) for pair in task.comparisons[["group", "baseline"]].to_numpy().tolist()}) == 10


def test_too_many_pairs_are_refused(made, monkeypatch):
    monkeypatch.setattr(opponents, "MOST_PAIRS", 9)
    with pytest.raises(UserError, match="--compare all: 5 settings make 10 pairs, more than 9 in one family"):
        task_of(made, "--compare=all")


def test_a_study_against_an_earlier_one(made):
    task = task_of(made, f"--against={made / 'before'}")
    (row,) = task.comparisons.to_dict("records")
    assert (row["label"], row["shown"], row["baseline_shown"]) == ("SGD", "from=now", "from=before")
    assert (row["n"], row["left_out"]) == (2, "0, 3")
    assert row["difference"] == pytest.approx(90 - 81.5)
    with pytest.raises(UserError, match="has no configuration in common with"):
        ask(made, f"--against={made / 'elsewhere'}")


def plan_of(path, **plan):
    config = path / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["config"]["analysis"] = {"delta": None, "target": None, "baseline": None, "compare": None} | plan
    config.write_text(yaml.safe_dump(content))


def test_what_a_study_fixed_beforehand_is_asked_and_said(tmp_path):
    for seed in range(2):
        plan_of(make_run(tmp_path / "now", "sgd", seed=seed), delta=0.3, compare="all")
    _, plan = ask(tmp_path)
    assert (plan.delta, plan.target, plan.compare) == (0.3, None, "all")
    assert plan.fixed == "fixed beforehand: δ = 0.3, family = all"
    study, plan = ask(tmp_path, "--delta=0.5", "--target=90")
    assert (plan.delta, plan.target) == (0.5, 90)
    assert study.notes == ["δ = 0.5 is not what the study fixed beforehand, 0.3"]
    plan_of(make_run(tmp_path / "now", "sgd", seed=2), delta=0.4)
    study, plan = ask(tmp_path)
    assert plan.delta is None  # the metric's own
    assert "the runs were made for different values of δ: 0.3, 0.4" in study.notes
    assert len(set(study.runs["group"])) == 1  # it is no part of what a run computes


def test_a_filter_that_shrinks_what_was_fixed_beforehand_says_so(tmp_path, made):
    for seed in range(2):
        for k in (3, 5):
            plan_of(make_run(tmp_path / "now", "lookahead", seed=seed, k=k), delta=0.3)
    assert ask(tmp_path)[0].notes == ask(tmp_path, "--filter=k=3,5")[0].notes == []  # nothing is left out
    (note,) = ask(tmp_path, "--filter=k=3")[0].notes
    assert note.startswith("a filter leaves 2 of 4 runs of a study that fixed beforehand what it compares")
    assert ask(made, "--filter=k=3")[0].notes == []  # nothing was fixed


def test_nothing_fixed_is_the_usual(made):
    _, plan = ask(made)
    assert (plan.delta, plan.target, plan.baseline, plan.compare, plan.fixed) == (None, None, None, "baseline", "")


def test_values_are_compared_as_what_they_are():
    assert matching._is(True, "true")
    assert not matching._is(True, "1")
    assert matching._is(0.1, "1e-1")
    assert not matching._is("5x", "5")
    assert matching._is(float("nan"), "null")
