"""Fair studies in the analysis: arms by the weights they ship, on fresh seeds, in the families that were fixed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from made_runs import make_run

from nested_lookahead.analysis import archive, opponents
from nested_lookahead.analysis.asked import gathered
from nested_lookahead.analysis.budget import budget
from nested_lookahead.analysis.checks import check
from nested_lookahead.analysis.contrasts import contrasts
from nested_lookahead.analysis.differences import compare
from nested_lookahead.analysis.figures.drawn import runs_said
from nested_lookahead.analysis.matching import filtered
from nested_lookahead.analysis.report import Request, write
from nested_lookahead.analysis.task import tasks
from nested_lookahead.errors import UserError
from nested_lookahead.metric import ACCURACY
from nested_lookahead.runs import fair
from nested_lookahead.runs.fair import Arm, Chosen, Comparison, Trial

SEEDS = range(6)
CONTRASTS = {"primary": [("nested", "lookahead")], "secondary": [("lookahead", "base"), ("averaged", "base")]}


def noise(seed, of):
    return float(np.random.default_rng([seed, of]).normal(0, 0.002))


def make_study(folder, gain=0.01, seeds=SEEDS):
    """SGD, its average, Lookahead, and Nested Lookahead, with tuning runs that would say something else."""
    methods = {"base": ("sgd", 0.90), "lookahead": ("lookahead", 0.92), "nested": ("nested_lookahead", 0.92 + gain)}
    groups = {}
    for number, (name, (method, value)) in enumerate(methods.items()):
        for seed in (100, 101):
            make_run(folder / "tuning", method, seed=seed, final=0.99 - value / 2)
        for seed in seeds:
            path = make_run(folder / "final", method, seed=seed, final=value + noise(seed, number), status="completed")
        groups[name] = path.parent.name
    trials = [
        Trial(0, {"lr": "0.1"}, {"slow": {100: 0.5, 101: math.nan}}),
        Trial(1, {"lr": "0.2"}, {"slow": {100: 0.4}}),
    ]
    arms = {name: fair.described(Arm(name), trials, 1) for name in methods}
    arms["averaged"] = fair.described(Arm("averaged", runs_of="base", weights=("slow",)), trials, 1)
    groups["averaged"] = groups["base"]
    return write_choice(folder, groups, Chosen(0, {"lr": "0.1"}, "slow", "", ""), arms, CONTRASTS, seeds)


def write_choice(folder, groups, alike, arms, contrasts, seeds):
    """What each arm chose: alike but for its group of runs."""
    chosen = {
        name: replace(alike, directory=f"final/{place}", group=place.rpartition("-")[2])
        for name, place in groups.items()
    }
    content = Comparison(ACCURACY, {"tuning": [100, 101], "final": list(seeds)}, contrasts, arms, chosen).plain()
    (folder / fair.FILE).write_text(json.dumps(content))
    return folder


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "cell")


def one_task(*folders):
    (task,) = tasks(gathered(folders), "fast", "test")
    return task


def test_arms_are_compared_by_what_they_ship_on_fresh_seeds_alone(study):
    task = one_task(study)
    assert task.weights == "shipped"
    assert list(task.groups.index) == ["base", "lookahead", "nested", "averaged"]
    assert list(task.groups["label"]) == list(task.groups.index), "the names that the study gave them"
    assert set(task.groups["shown"]) == {""}
    assert set(task.final["seed"]) == set(SEEDS)
    values = task.final.set_index(["group", "seed"])["value"]
    for seed in SEEDS:
        assert values["base", seed] == pytest.approx(90 + 100 * noise(seed, 0)), "the fast weights: it has no other"
        assert values["nested", seed] == pytest.approx(93 + 100 * noise(seed, 2) + 1), "the slow ones, a point above"
    assert list(budget(task)["settings tried"]) == [2, 2, 2, 2]


def test_arms_that_a_filter_takes_away_are_not_asked_of(study):
    whole = gathered([study])
    (task,) = tasks(replace(whole, runs=whole.runs[whole.runs["group"] != "nested"]), "fast", "test")
    left = [pair for family in CONTRASTS.values() for pair in family if "nested" not in pair]
    assert list(zip(task.comparisons["group"], task.comparisons["baseline"], strict=True)) == left
    (note,) = filtered(whole, ["seed=" + str(SEEDS[0])]).notes
    assert note.startswith("a filter leaves")


def test_each_family_is_adjusted_for_itself(study):
    task = one_task(study)
    rows = task.comparisons.set_index(["group", "baseline"])
    assert list(rows.index) == [pair for family in CONTRASTS.values() for pair in family]
    assert list(rows["family"]) == [1, 1, 1]  # averaged − base has no spread, and so no test
    alone = compare(task.groups, task.final, task.delta, [("nested", "lookahead")], task.metric)
    assert rows.loc[("nested", "lookahead"), "p_holm"] == alone["p_holm"].iloc[0]
    assert rows.loc[("nested", "lookahead"), "difference"] == pytest.approx(
        100 * np.mean([0.01 + noise(seed, 2) - noise(seed, 1) for seed in SEEDS])
    )


def with_two_bases(folder, arms):
    """Lookahead over SGD and over Adam, by k: a study in which each arm has been asked against its base."""
    groups = {}
    for number, (name, (method, settings)) in enumerate(arms.items()):
        for seed in SEEDS:
            value = 0.9 + noise(seed, number)
            groups[name] = make_run(folder / "final", method, seed=seed, final=value, **settings).parent.name
    asked = {"secondary": [(name, name.split("_")[0]) for name in arms if "_" in name]}
    told = {name: fair.described(Arm(name), [], 1) for name in arms}
    return one_task(write_choice(folder, groups, Chosen(0, {}, "fast", "", ""), told, asked, SEEDS))


def test_arms_that_differ_are_no_settings_of_one_contrast(tmp_path):
    arms = {
        "sgd": ("sgd", {}),
        "adam": ("adam", {}),
        "sgd_k5": ("lookahead", {"inner": "sgd", "k": 5}),
        "adam_k5": ("lookahead", {"inner": "adam", "k": 5}),
    }
    (contrast,) = contrasts([with_two_bases(tmp_path / "one", arms)])
    assert [one.runs for one in contrast.strata] == [len(SEEDS)] * 2
    several = arms | {"sgd_k9": ("lookahead", {"inner": "sgd", "k": 9})}
    assert contrasts([with_two_bases(tmp_path / "two", several)]) == []


def test_a_run_that_two_arms_read_is_counted_once_and_nothing_else_is_recommended(study):
    task = one_task(study)
    assert runs_said(task).startswith(f"{3 * len(SEEDS)} runs, 0 diverged"), "the average reads those of the base"
    lost = replace(task, runs=task.runs.assign(status="diverged"))
    assert f"{3 * len(SEEDS)} runs, {3 * len(SEEDS)} diverged" in runs_said(lost)
    assert f"{3 * len(SEEDS)} of {3 * len(SEEDS)} runs diverged" in check(lost)[0].text
    found = gathered([study])
    report = write(found, study / "out", Request(pictures=()))
    assert f": {3 * len(SEEDS)} run(s)" in report
    assert "--baseline" not in report
    assert "one choice out of 2 trials: what luck in choosing adds is in no interval" in report


def test_what_a_reader_asks_for_wins(study):
    groups = one_task(study).groups
    assert ("nested", "base") in opponents.pairs(groups, None, "all")
    assert opponents.pairs(groups, "sgd", "baseline") == [
        ("lookahead", "base"), ("nested", "base"), ("averaged", "base"),
    ]  # fmt: skip


def test_cells_stay_apart_even_where_they_have_runs_in_common(tmp_path):
    for name, gain in (("one", 0.01), ("two", -0.01)):
        make_study(tmp_path / name, gain)
    found = list(tasks(gathered([tmp_path]), "fast", "test"))
    assert [task.name.partition(":")[0] for task in found] == ["one", "two"]
    assert [task.comparisons["difference"].iloc[0] > 0 for task in found] == [True, False]
    assert [len(task.final) for task in found] == [24, 24]


@pytest.mark.slow
def test_an_archive_has_the_choice_and_reads_the_same(study, tmp_path):
    before = one_task(study)
    archive.pack([study], tmp_path / "cell.tar.xz")
    after = one_task(tmp_path / "cell.tar.xz")
    assert after.name == before.name
    assert after.comparisons.equals(before.comparisons)
    write(gathered([tmp_path / "cell.tar.xz"]), tmp_path / "out", Request(pictures=("forest", "seeds")))
    assert "| averaged |" in (tmp_path / "out/results.md").read_text()


def test_an_arm_without_runs_yet_is_said(study):
    import shutil

    shutil.rmtree(next((study / "final").glob("nested*")))
    found = gathered([study])
    assert found.notes == ["cell: no final run yet of nested"]
    assert [*one_task(study).comparisons["group"]] == ["lookahead", "averaged"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"metric": {"name": 1}, "seeds": []}', '{"version": 1'])
def test_a_damaged_choice_is_one_line(study, content):
    (study / fair.FILE).write_text(content)
    with pytest.raises(UserError, match=r"comparison\.json: cannot be read \("):
        gathered([study])


def test_tuning_runs_are_read_where_they_are_asked_for(study):
    task = one_task(study / "tuning")
    assert task.weights == "fast"
    assert set(task.final["seed"]) == {100, 101}
