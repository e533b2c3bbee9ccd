"""analyze.py and what is below it, on run directories made here."""

import hashlib
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from nested_lookahead.analysis import checks, collect, compare, labels, report, tables
from nested_lookahead.analysis.figures import FIGURES
from nested_lookahead.errors import UserError
from nested_lookahead.records import Run, scores


def make_run(root, optimizer="nested_lookahead", seed=0, final=0.9, status="completed", epochs=10, **settings):
    """A run directory with a curve that ends at ``final``; slow weights one point higher where there are some."""
    inner, validation = settings.pop("inner", "sgd"), settings.pop("validation", None)
    config = {
        "optimizer": {"name": optimizer, "lr": 0.1} | settings,
        "dataset": {"name": "digits"},
        "model": {"name": settings.pop("model", "cnn")},
        "scheduler": {"name": "cosine"},
        "evaluation": {"every": 1},
        "epochs": epochs,
        "batch_size": 64,
        "seed": seed,
        "study": "made",
    }
    if "lookahead" in optimizer:
        wrapper = {"name": optimizer, "k": 5, "alpha": 0.5, "pullback": "none", "inner": {"name": inner, "lr": 0.1}}
        config["optimizer"] = wrapper | ({"s": 5, "h": 0.5} if optimizer.startswith("nested") else {}) | settings
    kinds = ("fast", "slow") if "lookahead" in optimizer else ("fast",)
    group = hashlib.sha256(repr({k: v for k, v in config.items() if k != "seed"}).encode()).hexdigest()[:8]
    rows = [
        {
            "step": 20 * epoch,
            "epoch": epoch,
            "split": split,
            "weights": weights,
            "loss": 1 / epoch,
            "accuracy": (validation if split == "validation" and validation else final)
            * ((1 - 0.5**epoch) / (1 - 0.5**epochs))
            + (0.01 if weights == "slow" else 0),
            "lr": 0.1,
            "seconds": float(epoch),
        }
        for epoch in range(1, epochs + 1)
        for weights in kinds
        for split in ("train", "validation", "test")
    ]
    path = Path(root) / f"{optimizer}-{group}" / f"seed={seed}"
    with Run(path) as run:
        run.start(config, {})
        run.append(rows)
        identity = {"label": optimizer, "id": group, "seed": seed}
        run.finish({"status": status, "run": identity, "planned_steps": 20 * epochs, **scores(rows)})
    return path


def results(root):
    study = collect.collect([Path(root)])
    return tables.results(study.runs, study.metrics)


def test_the_table_has_mean_and_interval_for_each_kind_of_weights(tmp_path):
    for seed, final in enumerate((0.90, 0.92, 0.94)):
        make_run(tmp_path, seed=seed, final=final)
    make_run(tmp_path, "sgd", final=0.8)
    for seed, final in enumerate((0.7, 0.8)):
        make_run(tmp_path, "adam", seed=seed, final=final)
    table = results(tmp_path)
    assert table["method"].tolist() == ["SGD", "Adam", "Nested Lookahead (SGD)"]
    assert table["n"].tolist() == [1, 2, 3]
    nested = table.iloc[2]
    assert nested["fast_mean"] == pytest.approx(92)
    assert nested["slow_mean"] == pytest.approx(93)
    assert nested["fast_half_width"] == pytest.approx(4.302653 * 2 / np.sqrt(3), rel=1e-6)
    shown = tables.readable(table)
    fast = shown["test accuracy %, fast weights"].tolist()
    assert fast == ["80.00", "70.00, 80.00", "92.00 ± 4.97"]
    assert shown["test accuracy %, slow weights"].tolist() == ["–", "–", "93.00 ± 4.97"]
    assert shown["settings"][2] == "lr=0.1 k=5 α=0.5 s=5 h=0.5 pullback=none"


def test_equal_values_are_said_to_be_equal(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=355 / 360)  # a value whose computed deviation is not exactly 0
    assert tables.readable(results(tmp_path))["test accuracy %, fast weights"][0] == "98.61 (all equal)"


def test_diverged_runs_stay_in_n_and_out_of_the_mean(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=0.8 + seed / 100)
    make_run(tmp_path, "sgd", seed=3, final=0.1, status="diverged")
    table = results(tmp_path)
    assert (table["n"][0], table["diverged"][0]) == (4, 1)
    assert table["fast_mean"][0] == pytest.approx(81)
    assert tables.readable(table)["n"][0] == "4 (1 diverged)"


def test_nothing_to_read_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        collect.collect([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no finished run here"):
        collect.collect([tmp_path])
    with pytest.raises(UserError, match="make one with: python train"):
        collect.newest_study(tmp_path)


def test_the_newest_study_is_that_of_the_last_finished_run(tmp_path):
    for study, time in (("a", 100), ("b", 300), ("c", 200)):
        path = make_run(tmp_path / study, "sgd")
        os.utime(path / "summary.json", (time, time))
    assert collect.newest_study(tmp_path) == tmp_path / "b"


def test_settings_that_differ_are_shown_and_groups_come_in_their_order(tmp_path):
    for k in (10, 3, 5):
        make_run(tmp_path, "lookahead", k=k)
    make_run(tmp_path, "lookahead", k=5, pullback="reset")
    runs = collect.collect([tmp_path]).runs.set_index("group")
    groups = labels.in_order(runs)
    assert labels.settings(groups, always=False).tolist() == [
        "k=3 pullback=none",
        "k=5 pullback=none",
        "k=10 pullback=none",
        "k=5 pullback=reset",
    ]


def test_settings_outside_the_optimizer_are_shown_where_methods_differ_in_them(tmp_path):
    make_run(tmp_path, "sgd")
    path = make_run(tmp_path)
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("name: cosine", "name: constant"))
    assert tables.readable(results(tmp_path))["settings"].str.contains("scheduler=").all()


def test_tasks_with_the_same_name_are_told_apart(command):
    for width in (8, 16):
        path = make_run("outputs/made", "sgd", seed=width)
        text = (path / "config.yaml").read_text()
        (path / "config.yaml").write_text(text.replace("    name: cnn", f"    name: cnn\n    width: {width}"))
    out = command("analyze.py")[1]
    assert "digits, cnn, 10 epochs, batch 64, model.width=8: 1 run(s)" in out
    assert "digits, cnn, 10 epochs, batch 64, model.width=16: 1 run(s)" in out


def test_a_wrong_folder_is_one_line(command):
    status, out, err = command("analyze.py", "nowhere")
    assert (status, out, err) == (1, "", "error: nowhere: no such folder\n")


def test_the_analysis_never_imports_torch():
    script = "import nested_lookahead.analysis.report, sys; assert 'torch' not in sys.modules; import analyze"
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)


# --- gathering ------------------------------------------------------------------------------------------------------


def damaged(root, name, **files):
    """A run with some of its files replaced: by text, or by what a function makes of their bytes."""
    path = make_run(root / name, "adam")
    for file, content in files.items():
        target = path / file.replace("_", ".")
        target.write_bytes(content(target.read_bytes()) if callable(content) else content.encode())
    return path


def unsigned(path):
    """Without the checksum, as another program may write it."""
    summary = path / "summary.json"
    summary.write_text(re.sub(r',\s*"sha256": "\w+"', "", summary.read_text()))
    return path


def test_what_cannot_be_used_is_listed_and_left_out(tmp_path):
    good = make_run(tmp_path / "good", "sgd")
    unfinished = make_run(tmp_path / "unfinished", "adam")
    (unfinished / "summary.json").unlink()
    lines = (good / "metrics.csv").read_bytes().splitlines(keepends=True)
    reasons = {
        unfinished: "not finished (status completed)",
        damaged(tmp_path, "torn", metrics_csv=lambda b: b[:-3]): "torn in its last line",
        damaged(tmp_path, "changed", metrics_csv=lambda b: b.replace(b"0.1", b"0.2", 1)): "not as they were written",
        damaged(tmp_path, "half", summary_json='{"status": "comp'): "unreadable: JSONDecodeError",
        damaged(tmp_path, "list", config_yaml="- just\n- a list\n"): "unreadable: TypeError",
        damaged(tmp_path, "bomb", config_yaml="config: " + "[" * 5000): "unreadable: ",
        damaged(
            tmp_path, "evil", config_yaml="config: !!python/object/apply:os.system ['touch hacked']\n"
        ): "unreadable: ",
    }
    for name, content in {
        "too few": [*lines[:-1], b"200,10,test,fast,0.1,0.9,0.1\n"],
        "too many": [*lines[:-1], b"200,10,test,fast,0.1,0.9,0.1,1,1\n"],
        "no number": [*lines[:-1], b"200,10,test,fast,0.1,high,0.1,1\n"],
        "other split": [*lines[:-1], b"200,10,exam,fast,0.1,0.9,0.1,1\n"],
        "other header": [b"a,b\n", *lines[1:]],
        "empty": [b"\n"],
    }.items():
        path = unsigned(damaged(tmp_path, name, metrics_csv=lambda _, content=content: b"".join(content)))
        reasons[path] = "metrics.csv has a line that is not one of ours"
    short = unsigned(damaged(tmp_path, "short", metrics_csv=lambda b: b"".join(b.splitlines(keepends=True)[:10])))
    reasons[short] = "completed, but its metrics end at step 60 of 200"
    study = collect.collect([tmp_path])
    assert study.runs["path"].tolist() == [str(good)]
    assert len(study.metrics) == len(lines) - 1
    left_out = dict(study.left_out.to_numpy())
    assert set(left_out) == set(map(str, reasons))
    for path, reason in reasons.items():
        assert reason in left_out[str(path)], path
    assert not Path("hacked").exists()


def test_all_files_at_once_are_as_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    for seed in range(5):
        make_run(tmp_path, "lookahead", seed=seed, final=rng.random(), epochs=3 + seed)
    study = collect.collect([tmp_path])
    for path, rows in study.metrics.groupby("path", observed=True):
        alone = pd.read_csv(Path(path) / "metrics.csv")
        for column in alone:
            assert rows[column].tolist() == alone[column].tolist()


def test_the_same_run_twice(tmp_path):
    """A copy is left out; another result of the same configuration and seed is an error."""
    run = make_run(tmp_path / "a", "sgd")
    shutil.copytree(run, tmp_path / "copy")
    study = collect.collect([tmp_path])
    assert study.left_out.to_numpy().tolist() == [[str(tmp_path / "copy"), f"a copy of {run}"]]
    make_run(tmp_path / "b", "sgd", final=0.8)
    with pytest.raises(UserError, match="the same configuration and seed twice"):
        collect.collect([tmp_path])


def test_the_cache_gives_the_same_and_notices_changes(tmp_path, monkeypatch):
    root, cache = tmp_path / "runs", tmp_path / "analysis" / "cache.npz"
    for seed in range(3):
        make_run(root, seed=seed, final=0.9 + seed / 100)
    first = collect.collect([root], cache)
    assert cache.exists()
    with monkeypatch.context() as patch:
        patch.setattr(collect, "_read", None)  # nothing is read again
        second = collect.collect([root], cache)
    pd.testing.assert_frame_equal(second.runs, first.runs)
    pd.testing.assert_frame_equal(second.metrics, first.metrics)
    changed, gone = (Path(path) for path in first.runs["path"][:2])
    shutil.rmtree(gone)
    make_run(root, seed=int(changed.name.removeprefix("seed=")), final=0.5)
    third = collect.collect([root], cache)
    pd.testing.assert_frame_equal(third.metrics, collect.collect([root]).metrics)
    assert len(third.runs) == 2
    for damage in (b"", b"PK nonsense", cache.read_bytes()[:500]):
        cache.write_bytes(damage)
        pd.testing.assert_frame_equal(collect.collect([root], cache).metrics, third.metrics)
    np.savez(cache, index=np.array([tmp_path], dtype=object))  # a pickle could run code: it is not even loaded
    pd.testing.assert_frame_equal(collect.collect([root], cache).runs, third.runs)


# --- comparing ------------------------------------------------------------------------------------------------------


def task(root, **options):
    chosen = {"weights": "fast", "split": "test", "delta": 0.5} | options
    (found,) = compare.tasks(collect.collect([Path(root)]), **chosen)
    return found


def pairs(found):
    """label [shown] → the baseline's."""
    rows = found.comparisons
    return {f"{r.label} {r.shown}".strip(): f"{r.baseline_label} {r.baseline_shown}".strip() for r in rows.itertuples()}


def test_every_method_against_its_own_baseline(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed)
        make_run(tmp_path, "adam", seed=seed)
        for inner, pullback in itertools.product(("sgd", "adam"), ("none", "reset")):
            make_run(tmp_path, "lookahead", seed=seed, inner=inner, pullback=pullback)
            make_run(tmp_path, seed=seed, inner=inner, pullback=pullback)
    expected = {}
    for inner in ("SGD", "Adam"):
        for pullback in ("pullback=none", "pullback=reset"):
            expected[f"Lookahead ({inner}) {pullback}"] = inner
            expected[f"Nested Lookahead ({inner}) {pullback}"] = f"Lookahead ({inner}) {pullback}"
    assert pairs(task(tmp_path)) == expected
    against_sgd = pairs(task(tmp_path, baseline="sgd"))
    assert set(against_sgd.values()) == {"SGD"}
    assert len(against_sgd) == 9
    against_adams = pairs(task(tmp_path, baseline="lookahead-adam"))
    assert against_adams["SGD"] == "Lookahead (Adam) pullback=none"
    assert against_adams["Nested Lookahead (SGD) pullback=reset"] == "Lookahead (Adam) pullback=reset"
    assert "Lookahead (Adam) pullback=reset" not in against_adams
    with pytest.raises(UserError, match="--baseline lion: no such method or group among these runs"):
        task(tmp_path, baseline="lion")


def test_variants_are_compared_with_the_default_where_there_is_nothing_else(tmp_path):
    for seed, k in itertools.product(range(3), (3, 5, 10)):
        make_run(tmp_path, seed=seed, k=k)
    assert pairs(task(tmp_path)) == {f"Nested Lookahead (SGD) k={k}": "Nested Lookahead (SGD) k=5" for k in (3, 10)}


def test_differences_are_paired_by_seed(tmp_path):
    """Seeds differ by far more than methods do."""
    gains = [0.011, 0.009, 0.012, 0.008, 0.010]
    for seed, gain in enumerate(gains):
        make_run(tmp_path, "lookahead", seed=seed, final=0.5 + seed / 20)
        make_run(tmp_path, seed=seed, final=0.5 + seed / 20 + gain)
    make_run(tmp_path, seed=7, final=0.1)  # without a partner
    (row,) = task(tmp_path).comparisons.itertuples()
    assert (row.n, row.left_out, row.verdict, row.paired) == (5, "7", "better", True)
    assert row.difference == pytest.approx(1.0)
    half = 2.776445 * np.std([100 * gain for gain in gains], ddof=1) / math.sqrt(5)
    assert (row.low, row.high) == (pytest.approx(1 - half), pytest.approx(1 + half))
    assert (row.improvement, row.improvement_high) == (1, 1)
    assert row.sentence.startswith(
        "Nested Lookahead (SGD) is better than Lookahead (SGD): +1.00 points, 95% CI [+0.80, "
    )


def test_a_diverged_run_has_no_difference_and_is_lost(tmp_path):
    for seed in range(6):
        make_run(tmp_path, "lookahead", seed=seed, final=0.5 + seed / 100)
        make_run(tmp_path, seed=seed, final=0.6 + seed / 90, status="diverged" if seed == 2 else "completed")
    (row,) = task(tmp_path).comparisons.itertuples()
    assert (row.n, row.diverged) == (5, 1)
    assert row.improvement == pytest.approx(5 / 6)
    assert "1 diverged and count as lost" in row.sentence


@pytest.mark.parametrize(
    ("seeds", "word"),
    [(1, "too few for an interval"), (2, "too few for an interval"), (4, "suggests better"), (5, "is better than")],
)
def test_how_much_is_said_of_how_many_seeds(tmp_path, seeds, word):
    for seed in range(seeds):
        make_run(tmp_path, "lookahead", seed=seed, final=0.5)
        make_run(tmp_path, seed=seed, final=0.6 + seed / 1000)
    assert word in task(tmp_path).comparisons["sentence"][0]


def test_no_seed_in_common(tmp_path):
    make_run(tmp_path, "lookahead", seed=0)
    make_run(tmp_path, seed=1)
    assert task(tmp_path).comparisons["sentence"][0].endswith("no seed in common.")


def test_slow_weights_are_compared_with_the_only_ones_that_sgd_has(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=0.8)
        make_run(tmp_path, "lookahead", seed=seed, final=0.8 + seed / 100)
    (row,) = task(tmp_path, weights="slow").comparisons.itertuples()
    assert row.difference == pytest.approx(2)


def test_the_published_numbers_alone():
    """Computed by hand from the file: Welch, as repeats without seeds are no pairs."""
    study = collect.collect([], references=[ROOT / "docs/published_epoch_accuracy.csv"])
    assert len(study.runs) == 90
    assert len(study.metrics) == 1800
    first = next(compare.tasks(study, "fast", "test", 0.5))
    rows = first.comparisons.set_index(["label", "shown"])
    row = rows.loc[("published Nested Lookahead (SGD)", "pullback=none")]
    assert (row["baseline_label"], row["baseline_shown"]) == ("published Lookahead (SGD)", "pullback=none")
    seen = [round(row[key], 2) for key in ("difference", "low", "high", "detectable")]
    assert seen == [-0.85, -2.40, 0.70, 1.96]
    assert (row["verdict"], row["n"], row["paired"]) == ("unresolved", 3, False)


def test_published_numbers_beside_ours(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=0.8 + seed / 100)
    (found,) = compare.tasks(
        collect.collect([tmp_path], references=[ROOT / "docs/published_epoch_accuracy.csv"]), "fast", "test", 0.5
    )
    assert (found.runs["source"] == "published").sum() == 90
    assert found.groups["label"].iloc[:2].tolist() == ["SGD", "published SGD"]
    assert not any(row.label.startswith("published") != row.baseline_label.startswith("published")
                   for row in found.comparisons.itertuples())  # fmt: skip


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "study,method,tag,run,epoch,test_accuracy\nx,y,z,one,1,0.5\n", None]
)
def test_a_reference_that_is_none(tmp_path, content):
    path = tmp_path / "reference.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="--reference"):
        collect.collect([], references=[path])


def test_the_budget_scores_the_choice_on_other_seeds(tmp_path):
    """k = 3 is best on validation, and its luck on the test split is that of one seed."""
    for seed, k in itertools.product(range(3), (3, 5)):
        lucky = 0.99 if (k, seed) == (3, 0) else 0.8 if k == 3 else 0.81
        make_run(tmp_path, seed=seed, k=k, final=lucky, validation=0.9 if k == 3 else 0.7)
    found = task(tmp_path)
    (row,) = compare.budget(found, compare.final_values(found.runs, found.metrics, "fast", "validation")).itertuples(
        index=False
    )
    named = row._asdict()
    assert (named["method"], named["runs"]) == ("Nested Lookahead (SGD)", 6)
    assert list(named.values())[1:3] == [2, "k × 2"]
    assert named["default"] == pytest.approx(81)
    assert named["best"] == pytest.approx((99 + 80 + 80) / 3)


# --- checks ---------------------------------------------------------------------------------------------------------


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


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_everything(command):
    for seed in range(3):
        make_run("outputs/made", seed=seed, final=0.9 + seed / 100)
        make_run("outputs/made", "sgd", seed=seed, final=0.9)
    status, out, err = command("analyze.py")
    assert (status, err) == (0, "")
    folder = Path("outputs/made/analysis")
    written = {path.name for path in folder.iterdir()}
    assert {
        "report.html",
        "runs.csv",
        "results.md",
        "results.tex",
        "comparisons.csv",
        "budget.md",
        "cache.npz",
    } <= written
    assert {"metrics.csv", "metrics.parquet"} & written
    assert {f"learning_curves.{kind}" for kind in ("png", "svg", "pdf")} <= written
    assert "forest.png" in written
    listed = set(re.findall(r"^  outputs/made/analysis/(\S+)$", out, re.MULTILINE))
    assert listed == written - {"cache.npz"}
    assert "91.00 ± 2.48" in out
    assert "Nested Lookahead (SGD) against SGD is unresolved: +1.00 points, 95% CI [-1.48, +3.48], n = 3 seeds" in out
    assert "| SGD | lr=0.1 | 3 | 90.00 (all equal) | – |" in (folder / "results.md").read_text()
    assert "$\\pm$" in (folder / "results.tex").read_text()
    assert pd.read_csv(folder / "comparisons.csv")["difference"].tolist() == [pytest.approx(1)]
    page = (folder / "report.html").read_text()
    assert "is unresolved: +1.00 points" in page
    again = command("analyze.py")
    assert again == (0, out, "")


def test_runs_on_different_tasks_are_never_put_side_by_side(command):
    make_run("outputs/made", "sgd")
    make_run("outputs/made", "sgd", seed=1, model="mlp")
    status, out, _ = command("analyze.py", "outputs/made", "--out", "there", "--figures", "learning_curves")
    assert status == 0
    assert "error: 2 tasks, never compared with each other" in out
    assert "digits, cnn, 10 epochs, batch 64: 1 run(s)" in out
    assert "digits, mlp, 10 epochs, batch 64: 1 run(s)" in out
    assert {p.name for p in Path("there").glob("*.png")} == {"learning_curves-1.png", "learning_curves-2.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figures", "pie"], "--figures pie: must be among " + ", ".join(FIGURES)),
        (["--delta", "0"], "--delta 0: must be > 0"),
        (["--smooth", "0"], "--smooth 0: must be >= 1"),
        (["--baseline", "lion"], "--baseline lion: no such method or group among these runs"),
        (["--reference", "nowhere.csv"], "--reference nowhere.csv: no such file"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    make_run("outputs/made", "sgd")
    assert command("analyze.py", "outputs/made", *arguments) == (1, "", f"error: {message}\n")


def test_the_other_splits_and_weights(command):
    make_run("outputs/made", final=0.9, validation=0.7)
    out = command("analyze.py", "--split", "validation", "--weights", "slow", "--figures", "learning_curves")[1]
    assert "validation accuracy %, slow weights" in out
    assert "71.00" in out


def test_latex_has_no_sign_that_latex_does_not_know():
    table = pd.DataFrame({"settings": ["α=0.5 k=5_%&"], "value": ["90.0 ± 1.0"], "n": ["–"]})
    assert tables.to_latex(table).isascii()


def test_options_have_the_figures_that_there_are():
    assert report.Options().pictures == tuple(FIGURES)
