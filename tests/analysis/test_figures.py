"""The figures: what is drawn, and that all of it can be read, with few methods or many, one seed or thirty."""

import itertools
import json
import math
import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from nested_lookahead.analysis import collect, figures
from nested_lookahead.analysis.differences import compare
from nested_lookahead.analysis.figures import curves, families, learning, rates
from nested_lookahead.analysis.figures.looks import LINE_STYLES
from nested_lookahead.analysis.task import tasks
from nested_lookahead.metric import ACCURACY

pytestmark = pytest.mark.xdist_group("figures")

PLAIN = [(name, "", {}) for name in ("sgd", "nesterov", "adam", "adamw", "rmsprop")]
WRAPPED = [
    (method, inner, settings)
    for inner in ("sgd", "adam", "adamw")
    for method, settings in (
        ("lookahead", {"k": 5, "alpha": 0.5, "pullback": "none"}),
        ("nested_lookahead", {"k": 5, "alpha": 0.5, "s": 5, "h": 0.5, "pullback": "none"}),
        ("nested_lookahead", {"k": 5, "alpha": 0.5, "s": 5, "h": 0.5, "pullback": "reset"}),
    )
]
FOURTEEN = PLAIN + WRAPPED
GRID = [
    ("nested_lookahead", "sgd", {"k": k, "alpha": alpha, "s": 5, "h": 0.5, "pullback": "none"})
    for k in (3, 5, 10)
    for alpha in (0.3, 0.5, 0.8)
]
CUBE = [
    ("nested_lookahead", "adam", {"k": k, "alpha": alpha, "s": s, "h": 0.5, "pullback": pullback})
    for k in (3, 5, 10)
    for alpha in (0.3, 0.5, 0.8)
    for s in (3, 5)
    for pullback in ("none", "reset")
]
TUNING = [("sgd", "", {"lr": lr}) for lr in (0.1, 0.01, 1.0)] + [
    ("adam", "", {"lr": lr}) for lr in (0.001, 0.003, 0.01)
]
LONG = [
    (
        "nested_lookahead",
        "sgd",
        {"k": k, "pullback": "reset_inner+pullback_outer", "schedule_of_step_sizes": "warmup_then_cosine_decay"[:n]},
    )
    for k, n in ((5, 24), (10, 6), (20, 3))
]


def make_task(
    methods, seeds=5, epochs=20, diverged=(), final=None, noise=0.3, split="test", weights="fast", published=None,
    metric=ACCURACY, delta=None,
):  # fmt: skip
    """A task of made runs; ``methods``: (name, inner, settings). ``diverged``: (method's number, seed), which have half
    of the epochs. ``final``: (number, seed) → accuracy in %; another metric has the same values recorded."""
    rng = np.random.default_rng(0)
    runs, metrics = [], []
    for i, (name, inner, settings) in enumerate(methods):
        config = {"optimizer.name": name, "optimizer.inner.name" if inner else "optimizer.lr": inner or 0.1}
        config |= {f"optimizer.{key}": value for key, value in settings.items()} | {"scheduler.name": "cosine"}
        effect = 0.1 * settings.get("k", 0) - 2 * settings.get("alpha", 0) ** 2 + (settings.get("pullback") == "reset")
        for seed in range(seeds):
            broken = (i, seed) in diverged
            path = f"{name}-{i}/seed={seed}"
            end = final(i, seed) if final else 90 + 0.4 * (i % 7) + effect + noise * rng.standard_normal()
            epoch = np.arange(1, (epochs // 2 if broken else epochs) + 1)
            curve = end - (end - 10) * (np.exp(-epoch / 3) - np.exp(-epochs / 3))
            runs.append(
                {
                    "path": path, "source": "run", "task": "digits, cnn, 20 epochs, batch 64", "task_key": "1",
                    "group": f"{i:08x}", "method": name, "inner": inner, "pullback": settings.get("pullback", "none"),
                    "seed": seed, "status": "diverged" if broken else "completed", "seconds": 10.0,
                    "device_name": "cpu", "commit": "0123456789", "diverged_step": 200 if broken else math.nan,
                    "metric": json.dumps(metric.plain()),
                }
                | {f"config.{key}": value for key, value in config.items()}
            )  # fmt: skip
            metrics.append(
                pd.DataFrame(
                    {
                        "path": path, "step": 20 * epoch, "epoch": epoch, "split": split, "weights": "fast",
                        "loss": (100 - curve) / 25, "accuracy": curve / 100, "lr": 0.1, "seconds": 0.5 * epoch + seed,
                    }
                )
            )  # fmt: skip
    study = collect.Study(pd.DataFrame(runs), pd.concat(metrics, ignore_index=True), pd.DataFrame())
    if published:
        study = collect.Study(
            pd.concat([study.runs, published.runs]), pd.concat([study.metrics, published.metrics]), pd.DataFrame()
        )
    (made,) = tasks(study, weights, split, delta)
    return made


def published():
    """As `collect.read_reference` makes it, of a method with a loss for no epoch."""
    runs, metrics = [], []
    for seed in (1, 2, 3):
        path = f"there.csv#cifar/Lookahead_SGD/none/{seed}"
        runs.append({"path": path, "source": "reference", "task": "published: cifar", "task_key": "published: cifar",
                     "group": "published/cifar/Lookahead_SGD/none", "method": "lookahead", "inner": "sgd",
                     "pullback": "none", "seed": seed, "status": "completed"})  # fmt: skip
        epoch = np.arange(1, 21)
        metrics.append(
            pd.DataFrame(
                {"path": path, "step": epoch, "epoch": epoch, "split": "test", "weights": "fast", "loss": math.nan,
                 "accuracy": (88 + seed / 5 - 60 * np.exp(-epoch / 4)) / 100, "lr": math.nan, "seconds": math.nan}
            )
        )  # fmt: skip
    return collect.Study(pd.DataFrame(runs), pd.concat(metrics), pd.DataFrame())


VARIANTS = {
    "one_group": lambda: make_task(FOURTEEN[:1]),
    "one_run": lambda: make_task(FOURTEEN[:1], seeds=1),
    "two": lambda: make_task([FOURTEEN[0], FOURTEEN[5]]),
    "seven": lambda: make_task(FOURTEEN[:7], seeds=2),
    "fourteen": lambda: make_task(FOURTEEN, diverged={(3, 1), (9, 0), (9, 2)}),
    "fourteen_one_seed": lambda: make_task(FOURTEEN, seeds=1),
    "thirty_seeds": lambda: make_task([*WRAPPED[:3], ("sgd", "", {})], seeds=30),
    "long_labels": lambda: make_task([*PLAIN[:2], *LONG]),
    "published": lambda: make_task([PLAIN[0], WRAPPED[0]], published=published()),
    "grid": lambda: make_task(GRID, diverged={(8, 0), (8, 1), (8, 2), (8, 3), (8, 4), (2, 1)}),
    "grid_one_seed": lambda: make_task(GRID, seeds=1),
    "cube": lambda: make_task([*CUBE, *GRID[:7], ("lookahead", "adam", {"k": 5, "alpha": 0.5, "pullback": "none"})]),
    "tuning": lambda: make_task(TUNING),
    "all_diverged": lambda: make_task(FOURTEEN[:2], diverged=set(itertools.product(range(2), range(5)))),
}


@pytest.fixture(scope="module")
def drawn():
    """Every figure of every variant, drawn once: a minute, so that what needs it is slow."""
    return {
        (variant, name): figure
        for variant, make in VARIANTS.items()
        for task in [make()]
        for name in figures.FIGURES
        if (figure := figures.draw(name, task)) is not None
    }


def texts_of(figure):
    """All that is written: (text, box)."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for text in figure.findobj(mpl.text.Text):
        if text.get_text().strip() and text.get_visible():
            yield text, mpl.text.Text.get_window_extent(text, renderer)


def hidden_ticks(figure):
    return {
        id(label)
        for ax in figure.axes
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim()))
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not (label.get_visible() and min(limits) <= tick.get_loc() <= max(limits))
    }


@pytest.mark.slow
def test_texts_neither_overlap_nor_leave_the_figure(drawn):
    for key, made in drawn.items():
        figure = made.figure
        texts = list(texts_of(figure))
        hidden = hidden_ticks(figure)
        boxes = []
        for text, box in texts:
            if id(text) in hidden:
                continue
            assert box.x0 >= -1, (key, text)
            assert box.y0 >= -1, (key, text)
            assert box.x1 <= figure.bbox.x1 + 1, (key, text)
            assert box.y1 <= figure.bbox.y1 + 1, (key, text)
            if text.get_rotation() % 90 == 0:  # a slanted text's box is larger than the text
                boxes.append((text.get_text(), box.padded(-1)))
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            assert not a.overlaps(b), (key, one, other)


@pytest.mark.slow
def test_which_figures_there_are(drawn):
    """Of those named here: a further figure has tests of its own."""
    of_grids = {"hyperparameters", "heatmaps", "marginals", "interactions", "anova", "expected_best", "sensitivity"}
    named = of_grids | {"learning_curves", "forest", "time_to_target", "divergences", "seeds", "speed"}
    assert named <= set(figures.FIGURES)
    of = {variant: {name for name in named if (variant, name) in drawn} for variant in VARIANTS}
    assert of["one_run"] == {"learning_curves", "time_to_target"}
    assert of["one_group"] == {"learning_curves", "time_to_target", "seeds"}
    assert of["two"] == {"learning_curves", "forest", "time_to_target", "seeds", "speed"}
    assert of["all_diverged"] == {"learning_curves", "forest", "divergences"}
    assert of["grid_one_seed"] == named - {"divergences", "seeds"}
    assert of["grid"] == named - {"anova"}  # a grid with divergences is refused
    assert {"learning_curves", "learning_rates"} <= {name for name in figures.FIGURES if ("tuning", name) in drawn}


@pytest.mark.slow
def test_what_is_said_of_each_figure(drawn):
    for key, made in drawn.items():
        assert 1 <= len(made.alt.split()) <= 60, key
        assert "$" not in made.caption
        assert re.search(r"\d+ runs?, \d+ diverged, code 01234567\.$", made.caption), key
        assert len(made.table), key
        assert made.figure.get_figwidth() == 7
        assert made.figure.get_suptitle().replace("\n", " ") == f"digits, cnn, 20 epochs, batch 64: {made.title}"


@pytest.mark.slow
def test_ids_tell_groups_apart_and_are_unique(drawn):
    ids = [
        str(artist.get_gid()) for artist in drawn["fourteen", "learning_curves"].figure.findobj() if artist.get_gid()
    ]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"g-0000000[0-9a-d]-\d+", gid) for gid in ids)
    for group in range(14):  # a mean, its band, and single runs
        own = sum(gid.startswith(f"g-{group:08x}-") for gid in ids)
        assert own == 3 + (group in (3, 9))  # the diverged ones, up to where they end


def faint(ax):
    return [runs for runs in ax.collections if isinstance(runs, LineCollection)]


@pytest.mark.slow
def test_learning_curves_show_every_run_and_each_groups_mean():
    task = make_task([PLAIN[0], WRAPPED[1]], seeds=2, final=lambda i, seed: 80 + 10 * i + seed)
    whole, tail = figures.draw("learning_curves", task).figure.axes
    assert [len(runs.get_segments()) for runs in faint(whole)] == [2, 2]
    assert [line.get_label() for line in whole.get_lines()] == ["SGD\n(n=2)", "Nested Lookahead (SGD)\n(n=2)"]
    np.testing.assert_allclose([line.get_ydata()[-1] for line in whole.get_lines()], [80.5, 90.5])
    assert tail.get_lines()[0].get_xdata()[0] == 17
    assert (whole.get_xlabel(), whole.get_ylabel()) == ("epoch", "test accuracy (%)")
    one = figures.draw("learning_curves", make_task(PLAIN[:1], seeds=1)).figure.axes[0]
    assert faint(one) == []  # the run is its own mean


@pytest.mark.parametrize(
    ("metric", "x", "end", "label"),
    [("error", "step", (400, 10), "test error (%)"), ("loss", "seconds", (10.5, 0.4), "test loss (nats)")],
)
def test_other_axes_of_learning_curves(metric, x, end, label):
    task = make_task(PLAIN[:1], seeds=2, final=lambda i, seed: 90)
    whole, _ = figures.draw("learning_curves", task, figures.Options(metric, x)).figure.axes
    (line,) = whole.get_lines()
    assert (line.get_xdata()[-1], line.get_ydata()[-1]) == pytest.approx(end)
    assert (whole.get_yscale(), whole.get_ylabel()) == ("log", label)


def test_an_error_of_zero_stays_on_a_log_axis():
    task = make_task(PLAIN[:1], seeds=1, final=lambda i, seed: 100)
    y = curves.curve_table(task, "error", "epoch")["y"]
    assert y.iloc[-1] == pytest.approx(y.iloc[-2] / 2)


def test_smoothing_is_a_running_mean_of_each_run_and_said():
    task = make_task(PLAIN[:1], seeds=1)
    plain = curves.curve_table(task, "accuracy", "epoch")["y"].to_numpy()
    smooth = curves.curve_table(task, "accuracy", "epoch", 4)["y"].to_numpy()
    np.testing.assert_allclose(smooth[3:], np.convolve(plain, np.full(4, 0.25), "valid"))
    assert (
        "a running mean over 4 evaluations" in figures.draw("learning_curves", task, figures.Options(smooth=4)).caption
    )
    assert "running mean" not in figures.draw("learning_curves", task).caption


def test_a_diverged_run_does_not_bend_the_mean():
    task = make_task(PLAIN[:1], seeds=4, diverged={(0, 3)})
    whole, _ = figures.draw("learning_curves", task).figure.axes
    (line,) = whole.get_lines()
    assert line.get_label() == "SGD\n(n=3 of 4)"
    assert len(line.get_xdata()) == 20
    assert (np.diff(line.get_ydata(), 2) <= 0).all()  # rises ever more slowly: no jump
    assert sorted(len(run) for runs in faint(whole) for run in runs.get_segments()) == [10, 20, 20, 20]


def test_methods_without_slow_weights_are_shown_by_their_only_ones():
    task = replace(make_task(PLAIN[:1]), weights="slow")
    made = figures.draw("learning_curves", task)
    assert len(made.figure.axes[0].get_lines()[0].get_xdata()) == 20
    assert "without slow weights are shown by their fast ones" in made.caption


def test_thinning_keeps_every_peak():
    points = np.column_stack([np.arange(5000.0), np.zeros(5000)])
    points[[7, 1234, 4998], 1] = 9, -5, 3
    thinned = curves.thin(points)
    assert len(thinned) <= curves.MAX_POINTS
    assert set(thinned[:, 1]) == {0, 9, -5, 3}
    assert (thinned[[0, -1], 0] == [0, 4999]).all()


def test_published_runs_are_thinner_greyer_and_named_so():
    task = VARIANTS["published"]()
    looks = figures.looks(task)
    theirs, ours = looks["published/cifar/Lookahead_SGD/none"], looks["00000001"]
    assert theirs.width < ours.width
    assert np.ptp(theirs.color) < np.ptp(ours.color)
    lines = figures.draw("learning_curves", task).figure.axes[0].get_lines()
    assert sum("published" in line.get_label() for line in lines) == 1
    for options in (figures.Options(x="step"), figures.Options(metric="loss")):  # it has neither steps nor losses
        assert len(figures.draw("learning_curves", task, options).figure.axes[0].get_lines()) == 2


def test_from_seven_methods_on_each_has_a_panel():
    made = figures.draw("learning_curves", make_task(FOURTEEN[:7], seeds=3, epochs=5))
    assert [ax.get_title(loc="left").split("\n")[0] for ax in made.figure.axes] == [
        "SGD", "Adam", "Nesterov", "AdamW", "RMSprop", "Lookahead (SGD)", "Nested Lookahead (SGD)"
    ]  # fmt: skip
    assert [len(faint(ax)) for ax in made.figure.axes] == [2] * 7  # its runs, and the other panels' means
    assert len({ax.get_ylim() for ax in made.figure.axes}) == 1


def test_a_method_with_many_settings_has_one_panel_and_its_best_in_bold():
    task = make_task(GRID, seeds=3, final=lambda i, seed: 80 + i + seed / 10, diverged={(8, 0)})
    made = figures.draw("learning_curves", task)
    (ax,) = made.figure.axes
    assert ax.get_title(loc="left") == "Nested Lookahead (SGD)\nbest of 9: k=10 α=0.5 (n=3)"  # the diverged one is last
    assert sorted(line.get_linewidth() for line in ax.get_lines()) == [0.5] * 8 + [1.6]
    assert "chosen by test accuracy, on the runs that are shown" in made.caption


def test_the_best_setting_is_chosen_on_validation_where_there_is_one():
    task = make_task(GRID[:3], seeds=3, final=lambda i, seed: 80 + i)
    other = task.metrics.assign(split="validation", accuracy=1.6 - task.metrics["accuracy"])
    both = replace(
        task,
        metrics=pd.concat([task.metrics, other], ignore_index=True),
        chosen_by=task.final.assign(value=160 - task.final["value"]),
    )
    (method,), said = learning.methods(both, list(task.groups.index))
    assert (method.best, said) == ("00000000", "chosen by validation accuracy")
    (method,), _ = learning.methods(task, list(task.groups.index))
    assert method.best == "00000002"


def test_bands_are_t_intervals_over_completed_runs():
    task = make_task(PLAIN[:1], seeds=4, epochs=3, final=lambda i, seed: 80 + seed, diverged={(0, 3)})
    mean = curves.means(curves.curve_table(task, "accuracy", "epoch"))
    assert mean["y"].iloc[-1] == pytest.approx(81)
    assert mean["half"].iloc[-1] == pytest.approx(4.302653 / math.sqrt(3))
    few = make_task(PLAIN[:1], seeds=2, epochs=3)
    assert curves.means(curves.curve_table(few, "accuracy", "epoch"))["half"].isna().all()


def test_results_against_the_learning_rate():
    task = make_task(TUNING, seeds=3, final=lambda i, seed: 80 + i + seed, diverged={(2, 0), (5, 0), (5, 1), (5, 2)})
    made = figures.draw("learning_rates", task)
    (ax,) = made.figure.axes
    assert ax.get_xscale() == "log"
    lines = {line.get_label().split("\n")[0]: line for line in ax.get_lines() if "\n" in str(line.get_label())}
    assert list(lines) == ["SGD", "Adam"]  # in order of the rates, whatever that of the runs
    assert [line.get_xdata().tolist() for line in lines.values()] == [[0.01, 0.1, 1], [0.001, 0.003]]
    np.testing.assert_allclose(lines["SGD"].get_ydata(), [82, 81, 83.5])
    assert [text.get_text() for text in ax.texts if text.get_text().startswith("×")] == ["×1", "×3"]
    assert "SGD: 1, 83.50. Adam: 0.003, 85.00." in made.alt
    assert made.table["n"].tolist() == [3, 3, 2, 3, 3, 0]


def test_learning_rates_are_compared_with_all_else_equal():
    wrapped = [{"inner.lr": lr, "k": k, "alpha": 0.5, "pullback": "none"} for lr, k in ((0.1, 5), (1.0, 5), (0.1, 10))]
    (one,) = rates.tuned(make_task([("lookahead", "sgd", settings) for settings in wrapped], seeds=1))
    assert one.cells["group"].tolist() == ["00000000", "00000001"]
    assert one.fixed == "k=5 "
    assert rates.tuned(make_task(GRID, seeds=1)) == []


def test_each_value_of_a_setting_over_training():
    task = make_task(GRID, seeds=3, final=lambda i, seed: 80 + i + seed)
    made = figures.draw("settings_over_training", task)
    assert made.table["value"].tolist() == ["k=3", "k=5", "k=10", "α=0.3", "α=0.5", "α=0.8"]
    np.testing.assert_allclose(made.table["end"], [82, 85, 88, 84, 85, 86])  # over seeds and the other setting
    assert set(made.table["settings"]) == {3}
    assert made.table["half_width"].iloc[0] == pytest.approx(4.302653 / math.sqrt(3))  # over seeds alone
    gaps = figures.draw("settings_over_training", make_task([*GRID[:2], GRID[3]], seeds=1))
    assert gaps.table["settings"].tolist() == [1, 1, 1, 1]
    assert "α=0.3" in gaps.figure.axes[0].get_title(loc="left") + gaps.figure.axes[1].get_title(loc="left")


def test_the_forest_has_each_pair_interval_and_verdict():
    task = make_task(
        [PLAIN[0], WRAPPED[0]], seeds=5, final=lambda i, seed: 80 + i * (1 + 0.1 * seed), diverged={(1, 4)}
    )
    (ax,) = figures.draw("forest", task).figure.axes
    single = [dots.get_offsets()[:, 0] for dots in ax.collections if len(dots.get_offsets()) > 1]
    np.testing.assert_allclose(single, [[1, 1.1, 1.2, 1.3]])
    row = task.comparisons.iloc[0]
    interval = [line.get_xdata() for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_gid()]
    np.testing.assert_allclose(interval, [[row["low"], row["high"]]])
    assert ax.get_yticklabels()[0].get_text() == "Lookahead (SGD)\n− SGD (n=4)"
    assert [text.get_text() for text in ax.texts] == ["×1 of 5", f"+1.15 [+0.94, +1.36] {row['verdict']}"]


def test_each_row_of_the_forest_has_its_own_pairs_alone():
    """A method may be compared with several others."""
    task = make_task([PLAIN[0], PLAIN[1], PLAIN[2]], seeds=3, final=lambda i, seed: 80 + (0, 1, 3)[i] + 0.1 * i * seed)
    pairs = [(one, other) for other, one in itertools.combinations(task.groups.index, 2)]
    task = replace(task, comparisons=compare(task.groups, task.final, task.delta, pairs, task.metric))
    (ax,) = figures.draw("forest", task).figure.axes
    single = [dots.get_offsets()[:, 0] for dots in ax.collections if len(dots.get_offsets()) > 1]
    values = task.final.pivot_table(index="seed", columns="group", values="value")
    np.testing.assert_allclose(single, [values[one] - values[other] for one, other in pairs])


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_have_no_interval(seeds):
    task = make_task([PLAIN[0], *GRID], seeds=seeds)
    (ax,) = figures.draw("forest", task).figure.axes
    assert not [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_gid()]
    for name in ("hyperparameters", "marginals", "interactions"):
        for ax in figures.draw(name, task).figure.axes:
            assert not [c for c in ax.containers if c.has_yerr]
    assert "±" not in "".join(text.get_text() for text in figures.draw("heatmaps", task).figure.axes[0].texts)


def test_the_default_is_the_papers_or_has_the_most_variants():
    (family,) = families.families(make_task(GRID, seeds=1))
    assert families.default(family) == "00000004"  # k=5 α=0.5
    lrs = [("sgd", "", {"momentum": m}) for m in (0.0, 0.5, 0.9, 0.99, 0.999)]
    (family,) = families.families(make_task(lrs, seeds=1))
    assert families.default(family) == "00000002"
    table = figures.draw("hyperparameters", make_task(GRID)).table
    several = [f"k={k} α={alpha}" for k in (3, 10) for alpha in (0.3, 0.8)]
    assert table["tick"].tolist() == ["default", "k=3", "k=10", "α=0.3", "α=0.8", *several]


@pytest.mark.slow
def test_heat_maps_show_raw_cells_and_mark_what_is_missing(drawn):
    made = drawn["grid", "heatmaps"]
    (ax,) = made.figure.axes
    cells = {tuple(text.get_position()): text.get_text() for text in ax.texts}
    assert cells[2, 2] == "×5"  # k=10 α=0.8: nothing but divergences
    assert cells[0, 2].endswith("n=4 ×1")
    values = make_task(GRID).final.groupby("group")["value"].mean()
    assert cells[1, 1].startswith(f"{values['00000004']:.2f}\n±")
    assert ax.get_title(loc="left") == "Nested Lookahead (SGD)\nk and α; fixed: s=5 h=0.5"
    gap = drawn["cube", "heatmaps"].figure.axes[0]
    assert [text.get_text() for text in gap.texts].count("") == 2
    assert [box.get_hatch() for box in gap.patches].count("////") == 2
    assert "averaged over s" in drawn["cube", "heatmaps"].figure.axes[1].get_title(loc="left")


@pytest.mark.slow
def test_planes_of_an_incomplete_grid_are_shown_with_the_rest_fixed():
    """Two planes through the default, as the presets make them, and a pullback with settings of its own."""
    nested = [{"k": k, "alpha": alpha, "s": 5, "h": 0.5} for k in (3, 5, 10) for alpha in (0.3, 0.5, 0.8)]
    nested += [
        {"k": 5, "alpha": 0.5, "s": s, "h": h} for s in (3, 5, 10) for h in (0.3, 0.5, 0.8) if (s, h) != (5, 0.5)
    ]
    task = make_task([("nested_lookahead", "sgd", settings | {"pullback": "none"}) for settings in nested], seeds=3)
    titles = [ax.get_title(loc="left").split("\n")[1] for ax in figures.draw("heatmaps", task).figure.axes]
    assert titles == ["k and α; fixed: s=5 h=0.5", "s and h; fixed: k=5 α=0.5"]
    titles = [ax.get_title(loc="left").split("\n")[1] for ax in figures.draw("anova", task).figure.axes]
    assert titles == ["3 k × 3 α; fixed: s=5 h=0.5, n=3", "3 s × 3 h; fixed: k=5 α=0.5, n=3"]
    assert len(figures.draw("marginals", task).table) == 12
    table = figures.draw("heatmaps", task).table
    assert (table["runs"] == 3).all()
    tied = [PLAIN[0], *(("lookahead", "sgd", {"k": k, "pullback": p}) for k, p in ((5, "none"), (10, "reset")))]
    assert figures.draw("marginals", make_task(tied)) is None  # k cannot be told from the pullback


def test_marginals_average_each_seed_over_the_other_settings():
    task = make_task(GRID, seeds=3)
    table = figures.draw("marginals", task).table.set_index("tick")
    members = [f"{i:08x}" for i in range(3)]  # k=3
    by_seed = task.final[task.final["group"].isin(members)].groupby("seed")["value"].mean()
    assert table.loc["k=3", "value"] == pytest.approx(by_seed.mean())
    beyond = by_seed - task.final.groupby("seed")["value"].mean()  # less what the seed has in common
    assert table.loc["k=3", "half_width"] == pytest.approx(4.302653 * beyond.std() / math.sqrt(3))


def test_what_seeds_have_in_common_widens_no_interval():
    """Seeds differ by three points, settings by a tenth of one: the interval is that of the pairs."""
    noise = np.random.default_rng(0).normal(0, 0.1, (9, 6))
    task = make_task(GRID, seeds=6, final=lambda i, seed: 80 + 3 * seed + 0.2 * i + noise[i, seed])
    for name in ("hyperparameters", "marginals", "heatmaps", "interactions"):
        table = figures.draw(name, task).table
        assert table["half_width"].max() < 0.3, name
    table = figures.draw("hyperparameters", task).table.set_index("tick")
    final = task.final.pivot_table(index="group", columns="seed", values="value")
    d = final.loc["00000001"] - final.loc["00000004"]
    assert table.loc["k=3", "half_width"] == pytest.approx(2.570582 * d.std() / math.sqrt(6))
    assert table.loc["k=3", "value"] == pytest.approx(final.loc["00000001"].mean())
    assert np.isnan(table.loc["default", "half_width"])


def test_where_every_setting_lost_a_run_the_means_are_of_those_that_finished():
    task = make_task(GRID, seeds=3, diverged={(i, i % 3) for i in range(9)})
    table = figures.draw("marginals", task).table.set_index("tick")
    final = task.final[task.final["group"].isin([f"{i:08x}" for i in range(3)])]  # k=3
    assert table.loc["k=3", "value"] == pytest.approx(final.groupby("seed")["value"].mean().mean())
    assert table.loc["k=3", "diverged"] == 3
    assert table["half_width"].isna().all()  # nothing whole to pair with


def test_anova_shares_of_a_planted_grid():
    task = make_task(GRID, seeds=2, final=lambda i, seed: 80 + i // 3)  # k alone matters
    table = figures.draw("anova", task).table
    assert table[["effect", "share"]].to_numpy().tolist() == [
        ["k", 1],
        ["α", 0],
        ["k × α", 0],
        ["seeds", 0],
        ["noise", 0],
    ]
    assert figures.draw("anova", make_task(GRID[:8])) is None


def test_shares_are_of_the_seeds_that_all_cells_finished_and_say_so():
    whole, broken = make_task(GRID, seeds=4), make_task(GRID, seeds=5, diverged={(3, 4), (5, 4)})
    kept = broken.final["seed"] < 4
    broken.final.loc[kept, "value"] = whole.final["value"].to_numpy()  # each draws its noise anew
    one, other = (figures.draw("anova", task) for task in (whole, broken))
    pd.testing.assert_frame_equal(one.table, other.table)
    said = "Left out of Nested Lookahead (SGD): 1 seed(s) on which a cell diverged or was not run."
    assert (said in one.caption, said in other.caption) == (False, True)


def test_a_diverged_run_counts_as_the_worst_where_settings_are_chosen():
    final = {0: 90, 1: 92, 2: 94}
    task = make_task(GRID[:3], seeds=2, final=lambda i, seed: final[i], diverged={(2, 0)})
    made = figures.draw("expected_best", task)
    assert made.table["expected best (%)"].tolist() == pytest.approx([274 / 3, 92, 92])  # 90, 92 and (94 + 90) / 2
    assert "counts as the worst run of its method" in made.caption
    (line,) = figures.draw("sensitivity", task).figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_xdata()[:3], [0, 0, 2])
    np.testing.assert_allclose(line.get_ydata()[:3], [1 / 3, 2 / 3, 1])
    assert "worst −2.00,\n1 with diverged runs)" in line.get_label()


def test_time_to_target_keeps_misses_in_the_denominator():
    task = make_task(PLAIN[:1], seeds=5, final=lambda i, seed: 80 + 5 * seed, diverged={(0, 4)})
    made = figures.draw("time_to_target", task, figures.Options(target=84.0))
    (line,) = made.figure.axes[0].get_lines()
    assert line.get_label() == "SGD\n(reached 3/5, median 13)"
    assert line.get_ydata().tolist() == [0, 0.2, 0.4, 0.6, 0.6]
    assert np.isinf(made.table["epoch"]).sum() == 2
    assert "Target: fixed by the reader" in made.caption
    assert "median of the settings' final means" in figures.draw("time_to_target", task).caption
    never = figures.draw("time_to_target", task, figures.Options(target=99.0)).figure.axes[0].get_lines()[0]
    assert never.get_label() == "SGD\n(reached 0/5, median ∞)"


@pytest.mark.slow
def test_divergences_are_counted_over_all_runs(drawn):
    made = drawn["fourteen", "divergences"]
    table = made.table.set_index("group")
    assert table.loc["00000009", ["diverged", "runs", "first step"]].tolist() == [2, 5, 200]
    assert table["diverged"].sum() == 3
    assert " 2/5, from step 200" in [text.get_text() for text in made.figure.axes[0].texts]


def test_line_styles_belong_to_pullbacks_and_markers_to_inner_optimizers():
    assert LINE_STYLES == {"none": "-", "pullback": "--", "reset": ":"}
    wrapped = [
        (name, inner, {"pullback": "reset_inner"}) for name in ("lookahead", "lion") for inner in ("bear", "tiger")
    ]
    found = figures.looks(make_task([("sophia", "", {}), ("lion", "", {}), *wrapped], seeds=1))
    assert [found[f"{i:08x}"].linestyle for i in range(6)] == ["-", "-", "-.", "-.", "-.", "-."]
    assert [found[f"{i:08x}"].marker for i in range(6)] == ["o", "o", "D", "*", "D", "*"]
    assert len({(look.hex, look.marker) for look in found.values()}) == 6


@pytest.mark.parametrize("name", ["forest", "seeds"])
def test_of_more_rows_than_a_page_holds_the_best_and_the_worst_are_drawn(name):
    worst, best = 3, 77
    methods = [("nested_lookahead", "sgd", {"k": k}) for k in range(1, 91)]
    task = make_task(methods, seeds=3, final=lambda i, seed: {worst: 50, best: 95}.get(i, 80 + 0.01 * i) + 0.1 * seed)
    drawn = figures.draw(name, task)
    rows = [text.get_text() for text in drawn.figure.axes[0].get_yticklabels()]
    assert len(rows) == 40
    ks = [int(re.search(r"k=(\d+)", row)[1]) for row in rows]
    assert {worst + 1, best + 1} <= set(ks)
    assert ks == sorted(ks)
    assert len(drawn.table) >= 89
    assert "the 20 best and the 20 worst" in drawn.caption


def test_what_several_figures_ask_is_found_once_for_each_task():
    one, other = make_task(GRID, seeds=2), make_task(GRID[:4], seeds=2)
    assert families.results(one) is families.results(one)
    assert families.results(other).final.shape == (4, 2)
    assert families.results(one).final.shape == (9, 2)
    assert families.results(replace(one, final=other.final)).final.shape == (4, 2)  # a changed task is another


def test_any_number_of_unknown_methods_is_drawn():
    def all_looks(count):
        task = make_task([(f"new{i:02}", f"inner{i}" if i % 2 else "", {}) for i in range(count)], seeds=1)
        assert figures.draw("learning_curves", task) is not None
        return {(look.color, look.marker) for look in figures.looks(task).values()}

    assert len(all_looks(8)) == 8
    all_looks(20)  # some look the same; none is refused


@pytest.mark.slow
def test_saved_files_are_the_same_each_time_and_safe(tmp_path):
    hostile = "<script>$x^$&_"
    for name in ("one", "two"):
        task = make_task([(hostile, "", {}), WRAPPED[0]], seeds=2)
        paths = figures.save(figures.draw("learning_curves", task).figure, tmp_path / name / "learning_curves")
        assert [path.name for path in paths] == [f"learning_curves.{kind}" for kind in ("png", "svg", "pdf")]
    for kind in ("png", "svg", "pdf"):
        one, two = ((tmp_path / name / f"learning_curves.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two, kind
    svg = (tmp_path / "one" / "learning_curves.svg").read_text()
    assert "<script" not in svg
    assert "&lt;script&gt;$x^$&amp;_" in svg  # as text, not as outlines or mathematics
    assert svg.count('id="g-00000001-') == 5  # two means, the runs behind them, and the name
    assert b"/Type /Font" in (tmp_path / "one" / "learning_curves.pdf").read_bytes()
