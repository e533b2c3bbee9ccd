"""analyze.py and what is below it, on run directories made here."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nested_lookahead.analysis import collect, figures, labels, statistics, tables
from nested_lookahead.errors import UserError
from nested_lookahead.records import Run, scores


def make_run(root, optimizer="nested_lookahead", seed=0, final=0.9, status="completed", epochs=10, **settings):
    """A run directory with a curve that ends at ``final``; slow weights one point higher where there are some."""
    inner = settings.pop("inner", "sgd")
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
    group = str(abs(hash(repr({k: v for k, v in config.items() if k != "seed"}))))[:8]
    rows = [
        {
            "step": 20 * epoch,
            "epoch": epoch,
            "split": split,
            "weights": weights,
            "loss": 1 / epoch,
            "accuracy": final * (1 - 0.5**epoch) / (1 - 0.5**epochs) + (0.01 if weights == "slow" else 0),
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


def test_t_interval_against_published_quantiles():
    # t(.975) is 4.3027 for 2 degrees of freedom and 2.2622 for 9 (any table)
    assert statistics.t_half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 * 1 / np.sqrt(3), rel=1e-6)
    ten = list(range(10))
    assert statistics.t_half_width(ten) == pytest.approx(2.262157 * np.std(ten, ddof=1) / np.sqrt(10), rel=1e-6)
    assert statistics.t_half_width([1.0, 2.0]) is None
    assert statistics.t_half_width([5.0, 5.0, 5.0]) == 0


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


def test_what_cannot_be_used_is_listed_and_left_out(tmp_path):
    good = make_run(tmp_path, "sgd")
    unfinished = make_run(tmp_path, "adam")
    (unfinished / "summary.json").unlink()
    torn = make_run(tmp_path, "adam", seed=1)
    (torn / "summary.json").write_text('{"status": "comp')
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("- just\n- a list\n")
    (foreign / "summary.json").write_text("{}")
    malicious = make_run(tmp_path, "adam", seed=2)
    (malicious / "config.yaml").write_text("config: !!python/object/apply:os.system ['touch hacked']\n")
    torn_metrics = make_run(tmp_path, "adam", seed=3)
    content = (torn_metrics / "metrics.csv").read_bytes()
    (torn_metrics / "metrics.csv").write_bytes(content[:-3])
    truncated = make_run(tmp_path, "adam", seed=4)
    (truncated / "metrics.csv").write_bytes(b"\n".join(content.splitlines()[:10]) + b"\n")
    study = collect.collect([tmp_path])
    assert study.runs["path"].tolist() == [str(good)]
    reasons = dict(study.left_out.to_numpy())
    assert "not finished" in reasons.pop(str(unfinished))
    assert "torn in its last line" in reasons.pop(str(torn_metrics))
    assert "metrics end at step 60 of 200" in reasons.pop(str(truncated))
    assert set(reasons) == {str(torn), str(foreign), str(malicious)}
    assert all(reason.startswith("unreadable: ") for reason in reasons.values())
    assert not (tmp_path / "hacked").exists()
    assert not Path("hacked").exists()


def test_the_same_run_twice_is_an_error(tmp_path):
    run = make_run(tmp_path, "sgd")
    shutil.copytree(run, tmp_path / "copy")
    with pytest.raises(UserError, match="the same configuration and seed twice"):
        collect.collect([tmp_path])


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


def drawn(figure):
    figure.canvas.draw()
    return figure.axes


def test_learning_curves_show_every_run_and_each_groups_mean(tmp_path):
    for seed, final in enumerate((0.8, 0.9)):
        make_run(tmp_path, seed=seed, final=final)
    make_run(tmp_path, "sgd", final=0.7)
    study = collect.collect([tmp_path])
    whole, tail = drawn(figures.learning_curves(study.runs, study.metrics))
    bold = [line for line in whole.get_lines() if not line.get_label().startswith("_")]
    faint = [line for line in whole.get_lines() if line.get_label().startswith("_")]
    assert len(faint) == 2
    assert [line.get_label() for line in bold] == ["SGD\n(n=1)", "Nested Lookahead (SGD)\n(n=2)"]
    np.testing.assert_allclose([line.get_ydata()[-1] for line in bold], [70, 85])
    assert all(line.get_alpha() == 0.25 for line in faint)
    assert tail.get_lines()[0].get_xdata()[0] == 9
    assert whole.get_ylabel() == "test accuracy (%)"
    assert whole.get_xlabel() == "epoch"


def test_a_diverged_run_does_not_bend_the_mean(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "sgd", seed=seed, final=0.9)
    diverged = make_run(tmp_path, "sgd", seed=3, final=0.2, status="diverged")
    lines = (diverged / "metrics.csv").read_bytes().splitlines(keepends=True)
    (diverged / "metrics.csv").write_bytes(b"".join(lines[:13]))  # four of ten epochs
    study = collect.collect([tmp_path])
    whole, _ = drawn(figures.learning_curves(study.runs, study.metrics))
    bold = [line for line in whole.get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in bold] == ["SGD\n(n=3 of 4)"]
    np.testing.assert_allclose(np.diff(bold[0].get_ydata(), 2) <= 0, True)  # rises ever more slowly: no jump
    assert sorted(len(line.get_xdata()) for line in whole.get_lines()) == [4, 10, 10, 10, 10]


def test_slow_curves_are_slow_and_what_has_none_is_named(command):
    make_run("outputs/made", "sgd")
    make_run("outputs/made", final=0.8)
    status, out, _ = command("analyze.py", "--weights", "slow")
    assert status == 0
    assert "without slow weights, and so not in the figure: SGD" in out
    study = collect.collect([Path("outputs/made")])
    whole, _ = drawn(figures.learning_curves(study.runs, study.metrics, "slow"))
    assert [line.get_ydata()[-1] for line in whole.get_lines()] == [pytest.approx(81)]
    shutil.rmtree("outputs")
    make_run("outputs/made", "sgd")
    assert command("analyze.py", "--weights", "slow")[2] == (
        "error: no slow weights were measured in these runs; take another choice of --weights\n"
    )


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


def test_colours_and_line_styles_belong_to_methods():
    assert figures.METHOD_COLORS["sgd"] == "#000000"
    assert figures.METHOD_COLORS["nested_lookahead"] == "#D55E00"
    assert len(set(figures.METHOD_COLORS.values()) | {figures.OTHER_COLOR}) == len(figures.METHOD_COLORS) + 1
    assert figures.LINE_STYLES == {"none": "-", "pullback": "--", "reset": ":"}
    for color in (*figures.METHOD_COLORS.values(), figures.OTHER_COLOR):
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 3, color  # contrast on white (WCAG 2)
    assert figures.method_color("lion", ["sgd", "lion"]) == figures.OTHER_COLOR
    with pytest.raises(UserError, match="lion, sophia"):
        figures.method_color("lion", ["lion", "sophia"])


def test_more_groups_than_a_legend_can_hold_are_left_to_the_table(tmp_path):
    for k in range(1, 22):
        make_run(tmp_path, "lookahead", k=k)
    study = collect.collect([tmp_path])
    figure = figures.learning_curves(study.runs, study.metrics)
    assert not figure.legends
    assert "21 settings, named in the results table" in figure.get_suptitle()


@pytest.mark.parametrize("count", [1, 2, 6, 7, 14])
def test_labels_neither_overlap_nor_leave_the_figure(tmp_path, count):
    methods = [("sgd", {}), ("adam", {}), ("lookahead", {}), ("lookahead", {"inner": "adam"})]
    methods += [("nested_lookahead", {"k": k, "pullback": "pullback"}) for k in range(1, 11)]
    for method, settings in methods[:count]:
        for seed in range(2):
            make_run(tmp_path, method, seed=seed, final=0.9 + seed / 1000, **settings)
    study = collect.collect([tmp_path])
    figure = figures.learning_curves(study.runs, study.metrics)
    drawn(figure)
    renderer = figure.canvas.get_renderer()
    texts = [text for ax in figure.axes for text in ax.texts]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    assert len(texts) == count
    boxes = [text.get_tightbbox(renderer) if text.get_text() else None for text in texts]
    extents = [text.get_window_extent(renderer) for text in texts] if count > 6 else boxes
    for i, box in enumerate(extents):
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y0 >= -1
        assert box.y1 <= figure.bbox.y1 + 1
        for other in extents[:i]:
            if count > 6:
                assert not box.overlaps(other)
    if count <= 6:
        heights = sorted(text.get_position()[1] for text in texts)
        low, high = figure.axes[1].get_ylim()
        assert all(b - a > 0.11 * (high - low) for a, b in itertools.pairwise(heights))


def test_the_command_writes_tables_and_figures(command, tmp_path):
    for seed in range(3):
        make_run("outputs/made", seed=seed, final=0.9 + seed / 100)
        make_run("outputs/made", "sgd", seed=seed, final=0.9)
    status, out, err = command("analyze.py")
    assert (status, err) == (0, "")
    folder = Path("outputs/made/analysis")
    names = {"results.csv", "results.md", "learning_curves.png", "learning_curves.pdf"}
    assert {path.name for path in folder.iterdir()} == names
    assert "91.00 ± 2.48" in out
    assert "outputs/made/analysis/learning_curves.png" in out
    assert (folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "learning_curves.pdf").read_bytes().startswith(b"%PDF")
    written = pd.read_csv(folder / "results.csv")
    assert written["fast_mean"].tolist() == pytest.approx([90, 91])
    assert "| SGD | lr=0.1 | 3 | 90.00 (all equal) | – |" in (folder / "results.md").read_text()


def test_runs_on_different_tasks_are_never_put_side_by_side(command, tmp_path):
    make_run("outputs/made", "sgd")
    make_run("outputs/made", "sgd", seed=1, model="mlp")
    status, out, _ = command("analyze.py", "outputs/made", "--out", "there")
    assert status == 0
    assert "digits, cnn, 10 epochs, batch 64: 1 run(s)" in out
    assert "digits, mlp, 10 epochs, batch 64: 1 run(s)" in out
    assert {p.name for p in Path("there").glob("*.png")} == {"learning_curves-1.png", "learning_curves-2.png"}


def test_settings_are_chosen_on_the_validation_split(command):
    path = make_run("outputs/made", "sgd", final=0.9)
    lines = (path / "metrics.csv").read_text().replace(",validation,fast,", ",validation,fast,0").splitlines()
    (path / "metrics.csv").write_text("\n".join(lines) + "\n")
    status, out, _ = command("analyze.py", "--split", "validation")
    assert status == 0
    assert "validation accuracy %, fast weights" in out


def test_a_wrong_folder_is_one_line(command):
    status, out, err = command("analyze.py", "nowhere")
    assert (status, out, err) == (1, "", "error: nowhere: no such folder\n")


def test_the_analysis_never_imports_torch():
    script = "import nested_lookahead.analysis.report, sys; assert 'torch' not in sys.modules; import analyze"
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
