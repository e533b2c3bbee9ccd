"""Fair sweeps: the points of a space, the choice, the stages, and what is written of them."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from made_runs import make_rows

from nested_lookahead.errors import UserError
from nested_lookahead.metric import ACCURACY, Metric
from nested_lookahead.runs import fair, job
from nested_lookahead.runs.fair import Arm, Chosen, Comparison, Options, Range, Trial
from nested_lookahead.runs.files import COLUMNS
from nested_lookahead.runs.scores import scores

SHARE = st.floats(0, 1, exclude_max=True)
LR = Range(0.01, 1.0, "log")
MOMENTUM = Range(0.5, 0.99, "log_complement")
K = Range(2, 50, "log", whole=True)

# --- a space --------------------------------------------------------------------------------------------------------


@given(SHARE, SHARE)
@pytest.mark.parametrize("part", [LR, MOMENTUM, K, Range(-1.0, 3.0), Range(1, 4, whole=True)])
def test_values_are_in_their_range_and_in_order(part, one, other):
    low, high = sorted((one, other))
    assert part.low <= float(part.at(low)) <= float(part.at(high)) <= part.high
    if part.whole:
        assert re.fullmatch(r"-?\d+", part.at(one))
    else:
        assert part.where(float(part.at(one))) == pytest.approx(one, abs=2e-3)  # four digits of a value


def test_scales_are_what_they_are_called():
    assert [LR.at(share) for share in (0, 0.5)] == ["0.01", "0.1"]
    assert Range(0.0, 0.99, "log_complement").at(0.5) == "0.9"  # 1 - x halfway between 1 and 0.01
    assert Range(0.0, 10.0).at(0.25) == "2.5"


def test_whole_numbers_have_their_share_of_the_scale():
    counts = Counter(Range(1, 4, whole=True).at((i + 0.5) / 1000) for i in range(1000))
    assert counts == {"1": 250, "2": 250, "3": 250, "4": 250}
    counts = Counter(int(K.at((i + 0.5) / 100_000)) for i in range(100_000))
    length = math.log(50.5 / 1.5)
    assert all(
        counts[k] / 100_000 == pytest.approx(math.log((k + 0.5) / (k - 0.5)) / length, abs=2e-5) for k in (2, 7, 50)
    )


def test_options_have_equal_shares():
    assert Counter(Options(("a", "b", "c")).at((i + 0.5) / 300) for i in range(300)) == {"a": 100, "b": 100, "c": 100}


def test_points_are_the_same_whoever_asks():
    """Those of other processes and later versions: else a study that goes on makes its runs anew."""
    arm = Arm("nested", {"optimizer": "nested_lookahead"}, {"lr": LR, "optimizer.k": K, "m": MOMENTUM})
    trials = arm.trials(24, 0)
    assert trials[:2] == [
        {"optimizer": "nested_lookahead", "lr": "0.06605", "m": "0.9885", "optimizer.k": "31"},
        {"optimizer": "nested_lookahead", "lr": "0.3687", "m": "0.747", "optimizer.k": "4"},
    ]
    turned = Arm("other", arm.fixed, dict(reversed(arm.space.items())))
    assert turned.trials(24, 0) == trials
    assert arm.trials(40, 0)[:24] == trials
    assert arm.trials(24, 1) != trials


def test_points_fill_the_space():
    arm = Arm("a", {}, {key: Range(0.0, 1.0) for key in "abcdef"})
    points = np.array([[float(value) for value in trial.values()] for trial in arm.trials(32, 0)])
    for column in points.T:  # each thirty-second of each range has one
        assert sorted((column * 32).astype(int)) == list(range(32))


def test_an_arm_without_a_space_has_one_trial():
    assert Arm("a", {"lr": "0.1"}).trials(24, 0) == [{"lr": "0.1"}]


# --- a choice -------------------------------------------------------------------------------------------------------


def trial(number, *values, weights="slow"):
    return Trial(number, {}, {weights: dict(enumerate(values))})


def test_the_best_mean_is_first_and_of_equals_the_first():
    trials = [trial(0, 0.9, 0.9), trial(1, 0.8, 1.0), trial(2, 0.95, 0.9), trial(3, 0.1, 0.1)]
    assert [one.number for one, _ in fair.ranked(Arm("a"), trials, 1)] == [2, 0, 1, 3]
    assert [one.number for one, _ in fair.ranked(Arm("a"), trials, -1)] == [3, 0, 1, 2]
    assert [one.number for one in fair.finalists(Arm("a"), trials, 1, 2)] == [2, 0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_diverged_run_counts_as_the_worst(sign):
    trials = [trial(0, math.nan, 0.99 if sign > 0 else 0.01), trial(1, 0.5, 0.5), trial(2, math.nan, math.nan)]
    assert [one.number for one, _ in fair.ranked(Arm("a"), trials, sign)] == [1, 0, 2]


def test_a_failed_seed_counts_in_full():
    trials = [trial(0, 0.95, 0.95, 0.95, 0.1), trial(1, 0.8, 0.8, 0.8, 0.8)]
    assert fair.ranked(Arm("a"), trials, 1)[0][0].number == 1


def test_weights_are_chosen_with_the_settings():
    arm = Arm("averaged", weights=("ema", "tail"), runs_of="base")
    one = Trial(0, {}, {"ema": {0: 0.9}, "tail": {0: 0.7}})
    other = Trial(1, {}, {"ema": {0: 0.8}, "tail": {0: 0.95}})
    assert [(found.number, kind) for found, kind in fair.ranked(arm, [one, other], 1)] == [
        (1, "tail"), (0, "ema"), (1, "ema"), (0, "tail"),
    ]  # fmt: skip
    assert [found.number for found in fair.finalists(arm, [one, other], 1, 2)] == [1, 0]


def test_an_arm_follows_another():
    arm = Arm("m", {"optimizer": "lookahead", "k": "product(k, s)"}, follows="nested", without=("s",))
    chosen = {"optimizer": "nested_lookahead", "lr": "0.1", "k": "5", "s": "3"}
    assert arm.following(chosen) == {"optimizer": "lookahead", "lr": "0.1", "k": "15"}
    with pytest.raises(UserError, match=r"arms\.m\.k=product\(k, s\): the arm that it follows has no s"):
        arm.following({"k": "5"})


def test_the_edges_of_ranges_are_named():
    arm = Arm("a", {}, {"lr": LR, "m": MOMENTUM, "pullback": Options(("none", "reset"))})
    assert list(fair.at_the_edge(arm, {"lr": "0.98", "m": "0.9", "pullback": "none"})) == [
        "lr=0.98 is at the upper edge of its range"
    ]
    assert arm.edges({"lr": "0.1", "m": "0.5", "pullback": "none"}) == {"lr": 0.5, "m": 0.0}


BASE, NESTED = Arm("base"), Arm("nested", {}, {"lr": LR})


@pytest.mark.parametrize(
    ("arms", "contrasts", "said"),
    [
        ([], [], "names no arm"),
        ([BASE, Arm("a", runs_of="bose")], [], r"arms\.a\.runs_of=bose: no such arm; base, a"),
        ([BASE, Arm("a", runs_of="base"), Arm("b", follows="a")], [], r"b\.follows=a: has no trials of its own"),
        ([NESTED, Arm("b", {}, {"lr": LR}, follows="nested")], [], r"b\.lr: it follows nested, untuned"),
        ([BASE, Arm("a", {"lr": "1"}, runs_of="base")], [], r"a: has the runs of base, and no settings of its own"),
        ([BASE, NESTED], [("nested", "lookahead")], r"contrast nested - lookahead: no arm 'lookahead'; base, nested"),
    ],
)
def test_arms_that_make_no_comparison_are_refused(arms, contrasts, said):
    with pytest.raises(UserError, match=said):
        fair.check_arms({arm.name: arm for arm in arms}, contrasts)


def test_what_was_chosen_is_read_as_it_was_written(tmp_path):
    arms = {"nested": fair.described(NESTED, [trial(0, 0.9, math.nan)], 1)}
    chosen = {"nested": Chosen(0, {"lr": "0.1"}, "slow", "final/nested-1", "1")}
    found = Comparison(ACCURACY, {"tuning": [1, 2]}, {"primary": [("nested", "base")]}, arms, chosen)
    assert fair.read(tmp_path) is None
    (tmp_path / fair.FILE).write_text(json.dumps(found.plain()))
    assert fair.read(tmp_path) == found


# --- the stages -----------------------------------------------------------------------------------------------------

SWEEPER = {
    "params": {"lr": "tag(log, interval(0.01, 1))"},
    "arms": {
        "sgd": {"optimizer": "sgd", "ema": 0.9},
        "averaged": {"runs_of": "sgd", "weights": ["ema"]},
        "nested": {"optimizer": "nested_lookahead", "optimizer.k": "int(interval(2, 9))"},
        "matched": {
            "follows": "nested",
            "optimizer": "lookahead",
            "without": ["optimizer.s", "optimizer.h"],
            "optimizer.k": "product(optimizer.k, optimizer.k)",
        },
    },
    "trials": 3,
    "tuning_seeds": "10,11",
    "finalists": 1,
    "finalist_seeds": "12",
    "final_seeds": "range(2)",
    "primary": ["nested - sgd"],
}


@pytest.fixture
def fair_sweep(command, tmp_path):
    """Type a preset with such a sweeper, but for the keys that are given, and other settings behind it."""

    def run(*typed, **other):
        preset = tmp_path / "conf/experiment/mine.yaml"
        preset.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "defaults": [{"override /hydra/sweeper": "fair"}, "_self_"],
            "dataset": {"split": {"val_fraction": 0.2}},
            "progress": False,
            "hydra": {"mode": "MULTIRUN", "sweeper": SWEEPER | other},
        }
        preset.write_text("# @package _global_\n" + yaml.safe_dump(content))
        return command("train.py", "--config-dir", "conf", "experiment=mine", *typed)

    return run


@pytest.fixture
def made(monkeypatch):
    """Runs whose results are a function of their configuration, `made.result`, in place of training; their names."""

    class Made(list):
        broken = None

        @staticmethod
        def result(config):
            return 0.9 - abs(math.log10(config.optimizer.settings.get("lr", 0.1)) + 1) / 10

    made = Made()

    def train(self):
        value = made.result(self.config)
        self.directory.start(self.plain, self.choices, COLUMNS)
        made.append((self.config.study, self.config.optimizer.name, self.config.seed))
        if made.broken and made.broken(self.config):
            raise RuntimeError("broken")
        kinds = ["fast"] + ["slow"] * (self.config.optimizer.inner is not None) + ["ema"] * bool(self.config.ema)
        rows = make_rows(kinds, final=0.1, validation=value, epochs=1)  # whoever looked at the test split would err
        self.directory.append(rows)
        status = "completed" if math.isfinite(value) else "diverged"
        self.directory.finish({"status": status, "planned_steps": 20, "seconds": 1.0, **scores(rows, ACCURACY)})
        return value

    monkeypatch.setattr(job.Job, "_train", train)
    monkeypatch.setattr(job, "import_what_trains", lambda: None)
    return made


def stored():
    return json.loads(Path("outputs/digits/comparison.json").read_text())


@pytest.mark.slow
def test_three_stages_and_a_choice(made, fair_sweep):
    status, out, err = fair_sweep()
    assert (status, err) == (0, "")
    stages = Counter((study, method, seed) for study, method, seed in made)
    tuned = {(method, seed): n for (study, method, seed), n in stages.items() if study == "digits/tuning"}
    assert tuned == {(m, s): 3 if s < 12 else 1 for m in ("sgd", "nested_lookahead") for s in (10, 11, 12)}
    final = {(method, seed) for study, method, seed in stages if study == "digits/final"}
    assert final == {(m, s) for m in ("sgd", "nested_lookahead", "lookahead") for s in (0, 1)}
    found = stored()
    for name in ("sgd", "nested"):
        trials = found["arms"][name]["trials"]
        best = min(trials, key=lambda one: abs(math.log10(float(one["settings"]["lr"])) + 1))
        assert found["chosen"][name]["trial"] == best["trial"]
        assert [len(one["values"]["slow"]) for one in trials] == [3 if one is best else 2 for one in trials]
        assert f"chosen         {name}: trial {best['trial']}: " in out
    assert found["chosen"]["averaged"]["weights"] == "ema"
    assert found["chosen"]["averaged"]["group"] == found["chosen"]["sgd"]["group"]
    k = int(found["chosen"]["nested"]["settings"]["optimizer.k"])
    assert found["chosen"]["matched"]["settings"]["optimizer.k"] == str(k * k)
    assert all(Path("outputs/digits", one["directory"], "seed=0").is_dir() for one in found["chosen"].values())
    assert found["contrasts"] == {"primary": [["nested", "sgd"]], "secondary": []}

    before = list(made)
    assert fair_sweep()[0] == 0
    assert made == before, "what is finished was made again"
    assert stored() == found


@pytest.mark.slow
def test_a_stage_is_not_left_before_it_is_whole(made, fair_sweep):
    made.broken = lambda config: config.seed == 11 and config.optimizer.name == "sgd"
    status, out, _ = fair_sweep()
    assert status == 1
    assert "failed: RuntimeError: broken" in out
    assert {study for study, *_ in made} == {"digits/tuning"}
    assert not Path("outputs/digits/comparison.json").exists()
    made.broken = None
    assert fair_sweep()[0] == 0
    assert sum(seed == 11 and method == "sgd" for _, method, seed in made) == 6, "the failed ones anew, no other"


@pytest.mark.slow
def test_diverged_runs_are_chosen_last(made, fair_sweep):
    usual = made.result
    best = []

    def result(config):
        value = usual(config)
        if config.seed == 11 and value > 0.85:
            best.append(config.optimizer.settings.get("lr"))
            return math.nan
        return value

    made.result = result
    assert fair_sweep()[0] == 0
    chosen = stored()["chosen"]["sgd"]["settings"]["lr"]
    assert best
    assert float(chosen) not in best


@pytest.mark.slow
def test_dry_run_says_what_each_stage_will_be(made, fair_sweep):
    status, out, _ = fair_sweep("hydra/launcher=list")
    assert status == 0
    assert "12 runs, 12 directories; nothing was trained" in out
    assert re.search(r"finalists +the best 1 trials of each arm, on 1 seeds: known when", out)
    assert made == []
    assert not Path("outputs/digits/comparison.json").exists()
    assert fair_sweep("hydra.sweeper.until=finalists")[0] == 0
    assert {study for study, *_ in made} == {"digits/tuning"}
    status, out, _ = fair_sweep("hydra/launcher=list")
    assert "6 runs, 6 directories" in out, "the finals, now that they are known"


@pytest.mark.slow
def test_final_runs_may_have_settings_of_their_own(made, fair_sweep):
    made.result = lambda config: 0.5 + config.evaluation.every / 100
    assert fair_sweep(final_params={"evaluation.every": 7})[0] == 0
    summaries = {
        path.parent.parent.parent.name: json.loads(path.read_text()) for path in Path("outputs").rglob("summary.json")
    }
    values = {name: one["final"]["fast"]["validation"]["accuracy"] for name, one in summaries.items()}
    assert values == {"tuning": pytest.approx(0.51), "final": pytest.approx(0.57)}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("dataset.split.val_fraction=0", "nothing is held out; set dataset.split.val_fraction"),
        ("seed=3", "seed: hydra/sweeper=fair has hydra.sweeper.tuning_seeds"),
        ("lr=0.1,0.2", "lr=0.1,0.2: hydra/sweeper=fair makes the sweep"),
        ({"final_seeds": "10,12"}, "seed 10 is among those of tuning and of final"),
        ({"final_seeds": "0,0"}, "final_seeds=0,0: must be different integers"),
        ({"final_seeds": "a,b"}, "final_seeds=a,b: must be different integers"),
        ({"tuning_seeds": "range(0)"}, "sweeps over nothing"),
        ({"trials": 0}, "hydra.sweeper.trials=0: must be an integer >= 1"),
        ({"until": "end"}, "hydra.sweeper.until=end: must be one of tuning, finalists, final"),
        ({"params": {"lr": "tag(log, interval(0, 1))"}}, "must be interval(low, high) with low < high"),
        ({"params": {"lr": "tag(leg, interval(0.1, 1))"}}, "must be interval(low, high) with low < high"),
        ({"primary": ["nested-sgd"]}, "contrast nested-sgd: must be two arms, as nested - lookahead"),
        ({"primary": ["nested - sdg"]}, "no arm 'sdg'"),
        ({"arms": {}}, "names no arm"),
        ({"arms": {"a": {"optimizer": "sgd", "optimizer.momemtum": 0.5}}, "primary": []}, "did you mean 'momentum'?"),
        ({"arms": {"a": "sgd"}}, "hydra.sweeper.arms.a"),
        ({"trails": 3}, "trails"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line_before_the_first_run(typed, said, made, fair_sweep):
    status, _, err = fair_sweep(typed) if isinstance(typed, str) else fair_sweep(**typed)
    assert status == 1
    assert said in err
    assert len(err.splitlines()) == 1
    assert made == []


@pytest.mark.slow
def test_a_value_on_the_command_line_is_the_same_for_all_arms(made, fair_sweep):
    assert fair_sweep("lr=0.3", "study=mine", trials=1, tuning_seeds="10", final_seeds="0")[0] == 0
    found = json.loads(Path("outputs/mine/comparison.json").read_text())
    assert found["arms"]["sgd"]["space"] == {}
    assert Counter(study for study, *_ in made) == {"mine/final": 3}, "of one trial there is nothing to choose"


FIXED = {
    "params": {"lr": 0.1},
    "arms": {
        "sgd": {"optimizer": "sgd", "ema": 0.9},
        "averaged": {"runs_of": "sgd", "weights": ["ema"]},
        "nested": {"optimizer": "nested_lookahead"},
    },
}


@pytest.mark.slow
def test_where_there_is_nothing_to_choose_there_are_final_runs_alone(made, fair_sweep):
    status, out, err = fair_sweep(**FIXED)
    assert (status, err) == (0, "")
    assert sorted(made) == [("digits/final", method, seed) for method in ("nested_lookahead", "sgd") for seed in (0, 1)]
    assert re.search(r"final +4 runs: 3 arms on 2 seeds", out)
    assert "chosen" not in out
    found = stored()
    assert {name: (one["trial"], one["weights"]) for name, one in found["chosen"].items()} == {
        "sgd": (None, "slow"), "averaged": (None, "ema"), "nested": (None, "slow"),
    }  # fmt: skip
    assert found["arms"]["nested"]["trials"] == []
    assert Metric.read(found["metric"]) == ACCURACY
    assert fair.read(Path("outputs/digits")).plain() == found


@pytest.mark.parametrize("until", ["tuning", "finalists"])
def test_where_there_is_nothing_to_choose_nothing_is_made_before_the_end(until, made, fair_sweep):
    assert fair_sweep(**FIXED, until=until)[0] == 0
    assert made == []


@pytest.mark.slow
def test_an_arm_with_nothing_to_choose_is_not_tuned(made, fair_sweep):
    arms = {**FIXED["arms"], "nested": {"optimizer": "nested_lookahead", "optimizer.k": "int(interval(2, 9))"}}
    status, out, _ = fair_sweep(**FIXED | {"arms": arms})
    assert status == 0
    tuned = {method for study, method, _ in made if study == "digits/tuning"}
    final = {method for study, method, _ in made if study == "digits/final"}
    assert (tuned, final) == ({"nested_lookahead"}, {"sgd", "nested_lookahead"})
    assert "chosen         nested: trial " in out
    assert "chosen         sgd" not in out


@pytest.mark.slow
def test_one_setting_is_tried_where_weights_are_chosen_among(made, fair_sweep):
    arms = {**FIXED["arms"], "averaged": {"runs_of": "sgd", "weights": ["ema", "fast"]}}
    assert fair_sweep(**FIXED | {"arms": arms})[0] == 0
    assert {method for study, method, _ in made if study == "digits/tuning"} == {"sgd"}
    assert len(stored()["arms"]["averaged"]["trials"][0]["values"]["ema"]) == 3


@pytest.mark.slow
def test_a_dry_run_lists_the_final_runs_where_there_are_no_others(made, fair_sweep):
    status, out, _ = fair_sweep("hydra/launcher=list", **FIXED)
    assert status == 0
    assert "4 runs, 4 directories; nothing was trained" in out
    assert made == []
    assert not Path("outputs").exists()


def test_less_is_better_of_such_a_metric():
    bits = Metric("bits", better="down")
    assert fair.ranked(Arm("a"), [trial(0, 2.0), trial(1, 1.5)], bits.sign)[0][0].number == 1
