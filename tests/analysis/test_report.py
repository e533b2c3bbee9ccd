"""analyze.py, from its arguments to its files."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from made_runs import make_run, rewrite_metrics, unsigned

from nested_lookahead.analysis import report
from nested_lookahead.analysis.figures import FIGURES
from nested_lookahead.analysis.options import parse


@pytest.mark.slow
def test_tasks_with_the_same_name_are_told_apart(command):
    for width in (8, 16):
        path = unsigned(make_run("outputs/made", "sgd", seed=width))
        text = (path / "config.yaml").read_text()
        (path / "config.yaml").write_text(text.replace("    name: cnn", f"    name: cnn\n    width: {width}"))
    out = command("analyze.py")[1]
    assert "digits, cnn, 10 epochs, batch 64, model.width=8: 1 run(s)" in out
    assert "digits, cnn, 10 epochs, batch 64, model.width=16: 1 run(s)" in out


def test_without_a_folder_it_says_which_study_it_took(command):
    for study, time in (("wine", 300), ("digits", 200), ("concrete", 100)):
        os.utime(unsigned(make_run(f"outputs/{study}", "sgd")) / "summary.json", (time, time))
    said = (
        "outputs/wine: the newest of 3 studies; for another, python analyze.py FOLDER: outputs/digits, outputs/concrete"
    )
    out = command("analyze.py", "--figures=forest")[1]
    assert out.startswith(f"{said}\n")
    assert "outputs/wine/analysis/report.html" in out
    assert "the newest of" not in command("analyze.py", "outputs/digits", "--figures=forest")[1]


def test_a_wrong_folder_is_one_line(command):
    status, out, err = command("analyze.py", "nowhere")
    assert (status, out, err) == (1, "", "error: nowhere: no such folder\n")


@pytest.mark.slow
def test_the_analysis_never_imports_torch():
    script = "import nested_lookahead.analysis.report, sys; assert 'torch' not in sys.modules; import analyze"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.mark.slow
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


@pytest.mark.slow
def test_runs_on_different_tasks_are_never_put_side_by_side(command):
    make_run("outputs/made", "sgd")
    make_run("outputs/made", "sgd", seed=1, model="mlp")
    status, out, _ = command("analyze.py", "outputs/made", "--out", "there", "--figures", "learning_curves")
    assert status == 0
    assert "note: 2 tasks, never compared with each other" in out
    assert "digits, cnn, 10 epochs, batch 64: 1 run(s)" in out
    assert "digits, mlp, 10 epochs, batch 64: 1 run(s)" in out
    assert {p.name for p in Path("there").glob("*.png")} == {"learning_curves-1.png", "learning_curves-2.png"}


def test_what_could_not_be_used_is_said(command):
    path = make_run("outputs/made", "sgd")
    rewrite_metrics(path, lambda content: content.replace(b"seconds", b"minutes"))
    out = command("analyze.py", "--figures", "learning_curves")[1]
    assert out.startswith("warning: metrics.csv has no column seconds (1 run)\n")
    assert "metrics.csv has no column seconds (1 run)" in Path("outputs/made/analysis/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figures", "pie"], "--figures pie: must be among " + ", ".join(FIGURES)),
        (["--delta", "0"], "--delta 0: must be > 0"),
        (["--smooth", "0"], "--smooth 0: must be >= 1"),
        (["--baseline", "lion"], "--baseline lion: no such method or group among these runs"),
        (["--weights", "ema"], "--weights ema: no run was measured with such; there are fast"),
        (["--reference", "nowhere.csv"], "--reference nowhere.csv: No such file or directory"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    make_run("outputs/made", "sgd")
    assert command("analyze.py", "outputs/made", *arguments) == (1, "", f"error: {message}\n")


@pytest.mark.slow
def test_the_other_splits_and_weights(command):
    make_run("outputs/made", final=0.9, validation=0.7)
    out = command("analyze.py", "--split", "validation", "--weights", "slow", "--figures", "learning_curves")[1]
    assert "validation accuracy %, slow weights" in out
    assert "71.00" in out


@pytest.mark.slow
def test_a_report_of_an_average(command):
    """SGD's tail is five points above its fast weights, and begins in the middle of training, as its curve does."""
    for seed in range(3):
        make_run("outputs/made", "sgd", seed=seed, final=0.8 + seed / 100, averages=("ema0.9", "tail"))
        make_run("outputs/made", "lookahead", seed=seed, final=0.8 + seed / 100 + (seed == 1) / 500)
    out = command("analyze.py", "--weights", "tail")[1]
    assert "no tail weights, so that the fast ones stand for them: Lookahead (SGD)" in out
    assert "test accuracy %, ema0.9 weights" in out
    assert "-4.93 points" in out
    assert "test accuracy of the tail weights at the last epoch" in out
    assert "outputs/made/analysis/tail/report.html" in out
    page = Path("outputs/made/analysis/tail/report.html").read_text()
    assert "test accuracy over training, tail weights" in page


def test_tuning_seeds_are_read():
    assert parse(["--tuning-seeds", "0-2,7"]).tuning_seeds == (0, 1, 2, 7)
    assert parse([]).tuning_seeds is None


@pytest.mark.slow
def test_another_split_has_a_folder_of_its_own(command):
    for seed in range(3):
        make_run("outputs/made", "sgd", seed=seed, final=0.9 + seed / 100)
    command("analyze.py", "--figures", "learning_curves")
    before = Path("outputs/made/analysis/report.html").read_text()
    out = command("analyze.py", "--figures", "learning_curves", "--split", "train")[1]
    assert "outputs/made/analysis/train/report.html" in out
    assert Path("outputs/made/analysis/report.html").read_text() == before
    folders = [report.folder(Path("a"), report.Request(split=s, weights=w)) for s, w in
               (("test", "fast"), ("test", "slow"), ("validation", "slow"))]  # fmt: skip
    assert folders == [Path("a"), Path("a/slow"), Path("a/validation-slow")]


@pytest.mark.slow
def test_all_tasks_together_have_a_section(command):
    for model, seed, method in itertools.product(("cnn", "mlp"), range(5), ("lookahead", "nested_lookahead")):
        make_run(
            "outputs/made", method, seed=seed, model=model, final=0.8 + seed / 100 + (method[0] == "n") * seed / 200
        )
    out = command("analyze.py", "--figures", "pooled,speed")[1]
    assert "all tasks together:\n  Nested Lookahead − Lookahead, pooled over 2 strata: +1.00 points" in out
    page = Path("outputs/made/analysis/report.html").read_text()
    assert "all tasks together" in page
    assert {"pooled-together.png", "speed-together.png"} <= {p.name for p in Path("outputs/made/analysis").iterdir()}


def test_a_request_has_the_figures_that_there_are():
    assert report.Request().pictures == tuple(FIGURES)
