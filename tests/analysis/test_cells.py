"""Several fair studies together: one family of primary comparisons, effects in units of δ, tails, what was chosen."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run
from scipy import stats
from test_arms import make_study

from nested_lookahead.analysis import cells, pooled, tails, targets
from nested_lookahead.analysis.arms import choices
from nested_lookahead.analysis.asked import gathered
from nested_lookahead.analysis.choices import bought, chosen
from nested_lookahead.analysis.figures import cells as figure_of_cells
from nested_lookahead.analysis.figures import draw_together
from nested_lookahead.analysis.labels import settings
from nested_lookahead.analysis.pooled import Stratum
from nested_lookahead.analysis.primary import primary
from nested_lookahead.analysis.report import Request, write
from nested_lookahead.analysis.sentences import times
from nested_lookahead.analysis.statistics import holm, paired
from nested_lookahead.analysis.task import tasks
from nested_lookahead.errors import UserError
from nested_lookahead.runs import fair

GAINS = {"one": 0.01, "two": -0.01, "three": 0.0005, "four": 0.02}


def found(root, **options):
    return list(tasks(gathered([root]), "fast", "test", **options))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    root = tmp_path_factory.mktemp("answer")
    for name, gain in GAINS.items():
        make_study(root / name, gain, range(12))
    return root


def by_hand(task, arm, other):
    values = task.final.pivot_table(index="seed", columns="group", values="value")
    return (values[arm] - values[other]).to_numpy() / task.delta


@pytest.mark.slow
def test_primary_comparisons_of_all_studies_are_one_family(several):
    every = found(several)
    first, *others = cells.questions(every)
    assert (first.arm, first.other, first.family) == ("nested", "lookahead", "primary")
    assert [question.family for question in others] == ["secondary", "secondary"]
    each = [by_hand(task, "nested", "lookahead") for task in every]
    table = first.table.set_index("study").loc[[cells.study_name(task) for task in every]]
    assert table["difference"].to_numpy() == pytest.approx([d.mean() for d in each])
    assert table["p_holm"].to_numpy() == pytest.approx(holm([stats.ttest_1samp(d, 0).pvalue for d in each]))
    assert set(table["family_size"]) == {4}
    assert table["verdict"].to_dict() == {"one": "better", "two": "worse", "three": "equivalent", "four": "better"}
    assert set(others[0].table["family_size"]) == {1}, "secondary ones are a family in each study"


@pytest.mark.slow
def test_questions_that_find_no_room_are_in_a_figure_of_their_own(several, monkeypatch):
    monkeypatch.setattr(figure_of_cells, "COLUMNS", 2)
    first, more = (draw_together(name, found(several)) for name in ("cells", "cells_more"))
    shown = [[ax.get_title(loc="left").replace("\n", " ") for ax in made.figure.axes] for made in (first, more)]
    assert shown[0] + shown[1] == [question.name for question in cells.questions(found(several))]
    assert [len(names) for names in shown] == [2, 1]
    assert "2 of 3 questions" in first.caption
    monkeypatch.undo()
    assert "of 3 questions" not in draw_together("cells", found(several)).caption
    assert draw_together("cells_more", found(several)) is None


def test_each_study_counts_in_units_of_its_own_delta(several):
    one, other = (cells.questions(found(several, delta=delta))[0] for delta in (0.5, 0.25))
    assert other.table["difference"].to_numpy() == pytest.approx(2 * one.table["difference"].to_numpy())
    assert other.table["own_difference"].to_numpy() == pytest.approx(one.table["own_difference"].to_numpy())
    assert other.others.mean == pytest.approx(2 * one.others.mean)
    assert set(one.table["unit"]) == {"points"}


def test_what_to_expect_of_further_studies_is_the_random_effects_mean(several):
    every = found(several)
    question = cells.questions(every)[0]
    strata = [Stratum([by_hand(task, "nested", "lookahead")], [1.0]) for task in every]
    mean, tau = pooled.random_effects(strata)
    assert (question.others.mean, question.tau) == (pytest.approx(mean.mean), pytest.approx(tau))
    assert question.spread.p == pytest.approx(
        stats.f_oneway(*[stratum.samples[0] for stratum in strata], equal_var=False).pvalue
    )
    assert "2 better, 1 worse, 1 equivalent" in question.sentence
    assert question.opposed
    assert question.word == "unresolved", "the studies point both ways"
    half = stats.t.ppf(0.975, len(strata) - 2) * math.sqrt(tau**2 + mean.error**2)
    assert question.single == pytest.approx((mean.mean - half, mean.mean + half))
    (row,) = primary(every, [question])[lambda table: table["study"] == "further such studies"].itertuples()
    assert f"a single one [{question.single[0]:+.2f}, {question.single[1]:+.2f}] δ" in row.difference


def test_a_study_s_primary_verdict_is_the_same_alone_in_the_report_as_in_the_table_of_all(several):
    every = found(several, delta=0.3)
    table = cells.questions(every)[0].table.set_index("study")
    for task in every:
        (row,) = task.comparisons.query("group == 'nested' and baseline == 'lookahead'").itertuples()
        assert (row.verdict, row.family) == (table.loc[cells.study_name(task), "verdict"], 4)
        assert row.p_holm == table.loc[cells.study_name(task), "p_holm"]
    (alone,) = found(several / "one", delta=0.3)
    (row,) = alone.comparisons.query("group == 'nested' and baseline == 'lookahead'").itertuples()
    assert (row.family, row.p_holm) == (1, row.p)


def test_another_unit_changes_what_has_a_unit_and_nothing_else():
    one = paired([1.0, 2.5, 2.0, -0.5])
    assert one.times(3.0).interval() == pytest.approx([3 * end for end in one.interval()])
    assert one.times(-1).interval() == pytest.approx([-one.high, -one.low])
    assert one.times(3.0).p_within(6.0) == pytest.approx(one.p_within(2.0))
    assert (one.times(3.0).p, one.times(3.0).d, one.times(-3.0).g) == (one.p, one.d, -one.g)


def test_strata_of_ten_pairs_have_spreads_of_their_own():
    rng = np.random.default_rng(0)
    each = [rng.normal(0.2, sd, n) for sd, n in ((0.2, 10), (3.0, 40), (1.0, 20))]
    strata = [Stratum([d], [1.0]) for d in each]
    assert pooled.heterogeneity(strata).p == pytest.approx(stats.f_oneway(*each, equal_var=False).pvalue)
    v = np.array([d.var(ddof=1) / len(d) for d in each])
    tau2 = pooled.reml([d.mean() for d in each], v)
    w = 1 / (v + tau2)
    assert pooled.random_effects(strata)[0].mean == pytest.approx(np.average([d.mean() for d in each], weights=w))
    few = [Stratum([d[:9]], [1.0]) for d in each]  # here one spread is better known than each one's own
    assert pooled.heterogeneity(few).p == pytest.approx(stats.f_oneway(*[d[:9] for d in each]).pvalue)


def test_a_single_study_has_no_question_in_common(several):
    assert cells.questions(found(several / "one")) == []


@pytest.mark.slow
def test_the_report_of_several_studies(several, tmp_path):
    said = write(gathered([several]), tmp_path, Request(pictures=("cells", "cells_more", "tuning", "pooled")))
    assert "the lead of" not in said, "their baselines are tuned"
    assert "nested − lookahead (primary) in 4 studies" in said
    assert "pooled over" not in said.partition("all tasks together")[2], "arms have questions of their own"
    table = pd.read_csv(tmp_path / "cells.csv")
    assert len(table) == 12
    assert len(pd.read_csv(tmp_path / "tails-one.csv")) == 3
    assert (tmp_path / "caught_up-one.md").read_text().startswith("| arm | other |")
    assert (tmp_path / "cells-together.svg").exists()
    assert (tmp_path / "tuning-together.svg").exists()
    assert not (tmp_path / "cells_more-together.svg").exists()  # there are no more than four questions
    lines = (tmp_path / "cells.md").read_text().splitlines()
    assert lines[0].startswith("| study | nested − lookahead |")
    assert len(lines) == 6


@pytest.mark.slow
def test_a_page_s_tables_and_figures_are_renewed(several, tmp_path):
    page = tmp_path / "page.md"
    text = "Before.\n<!-- table: {} -->\nold\n<!-- end -->\nAfter.\n"
    figure = "![](figures/page_cells-together.png)\n"
    page.write_text(text.format("primary") + text.format("arms-two") + text.format("nothing") + figure)
    said = write(gathered([several]), tmp_path / "out", Request(pictures=("cells",), docs=page))
    assert "page_cells-together.png" in said
    assert (tmp_path / "figures/page_cells-together.png").exists()
    first, arms, other = page.read_text().split("After.\n")[:3]
    table = (tmp_path / "out/primary.md").read_text()
    assert first == f"Before.\n<!-- table: primary -->\n{table}<!-- end -->\n"
    assert (tmp_path / "out/arms-two.md").read_text() in arms
    assert other == text.format("nothing").removesuffix("After.\n")
    page.write_text("<!-- table: primary -->\n")
    with pytest.raises(UserError, match="the table primary has no <!-- end -->"):
        write(gathered([several]), tmp_path / "out", Request(pictures=(), docs=page))
    with pytest.raises(UserError, match="no such file"):
        write(gathered([several]), tmp_path / "out", Request(pictures=(), docs=tmp_path / "none.md"))


def test_the_primary_comparison_of_all_studies_in_one_table(several):
    every = found(several)
    asked = cells.questions(every)
    table = primary(every, asked).set_index("study")
    assert [*table.index] == [*(cells.study_name(task) for task in every), "further such studies"]
    for row in asked[0].table.itertuples():
        assert table.loc[row.study, "difference"].startswith(f"{row.own_difference:+.2f} [{row.own_low:+.2f}, ")
        assert table.loc[row.study, "verdict"] == row.verdict
    for task in every:
        tail = tails.tails(task).set_index("family").loc["primary"]
        p = "" if math.isnan(tail["p"]) else f" (p = {tail['p']:.3f})"
        assert table.loc[cells.study_name(task), "failed"] == f"{tail['failed']} : {tail['other_failed']}{p}"
    assert table.loc["one", "steps to the other's loss"] == "×1.00"
    assert table.loc["further such studies", "n"] == len(GAINS)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        ((0.75, 0.5, 1), "×0.75 [0.50, 1.00]"),
        ((1, 0, math.inf), "×1.00 [0, ∞]"),
        ((math.inf, math.nan, math.nan), "×∞"),
        ((math.nan,) * 3, "–"),
    ],
)
def test_ratios_of_times_as_people_read_them(ratio, text):
    assert times(*ratio) == text


def fail(root, seeds):
    """Lookahead's runs of these seeds end ten points behind."""
    for seed in seeds:
        (path,) = root.glob(f"final/lookahead-*/seed={seed}")
        shutil.rmtree(path)
        make_run(root / "final", "lookahead", seed=seed, final=0.82)


def test_failed_seeds_are_those_far_behind_the_best_median(tmp_path):
    root = make_study(tmp_path / "cell", 0.01, range(12))
    fail(root, (0, 1, 2, 3, 4, 5, 6))
    (task,) = found(root)
    best = task.final[task.final["group"] == "nested"]["value"].median()
    assert tails.limit(task) == pytest.approx(best - 2)
    failed = tails.failed(task).groupby(task.final["group"]).sum()
    assert failed.to_dict() == {"base": 12, "averaged": 12, "lookahead": 7, "nested": 0}
    row = tails.tails(task).set_index("arm").loc["nested"]
    assert (row["failed"], row["other_failed"], row["only"], row["other_only"]) == (0, 7, 0, 7)
    assert row["p"] == pytest.approx(stats.binomtest(0, 7).pvalue)


def test_each_arm_in_a_row(several):
    task = found(several)[0]
    table = tails.by_arm(task).set_index("arm")
    values = task.final[task.final["group"] == "nested"]["value"]
    half = stats.t.ppf(0.975, 11) * values.std() / math.sqrt(12)
    assert table.loc["nested", "accuracy (%)"] == f"{values.mean():.2f} ± {half:.2f}"
    assert table.loc["nested", "lowest decile"] == f"{np.quantile(values, 0.1):.2f}"
    row = task.comparisons.set_index(["group", "baseline"]).loc[("nested", "lookahead")]
    assert (
        table.loc["nested", "− lookahead"] == f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] better"
    )
    assert table.loc["nested", "− base"] == "–"


def test_an_arm_catches_up_with_the_loss_that_the_other_ends_with(several):
    task = found(several)[0]
    table = targets.catching_up(task).set_index("arm")
    # All made curves have the loss 1/epoch, and so end with 1/10 after 200 steps.
    assert table.loc["nested", "target"] == pytest.approx(0.1)
    assert (table.loc["nested", "steps"], table.loc["nested", "reached"]) == (1.0, 12)


def test_what_was_chosen_and_what_trials_buy(tmp_path):
    root = make_study(tmp_path / "cell")
    content = json.loads((root / fair.FILE).read_text())
    for name, arm in content["arms"].items():
        arm["space"] = {"lr": "0.01 to 1, log", "optimizer.k": "2 to 20 whole, log"}
        arm["trials"] = [
            {"trial": i, "settings": {}, "values": {"slow": {"100": value, "101": value}}}
            for i, value in enumerate([0.5, 0.8, 0.7])
        ]
        content["chosen"][name] |= {"trial": 1, "settings": {"lr": "0.97", "optimizer.k": "6"}, "weights": "slow"}
    content["arms"]["nested"]["trials"][0]["values"]["slow"]["101"] = None
    (root / fair.FILE).write_text(json.dumps(content))
    (task,) = found(root)
    (shown,) = settings(task.groups.loc[["base"]], always=True)
    assert shown == "lr=0.97 k=6", "what was chosen of its space, and nothing else"
    table = chosen(task).set_index("arm")
    assert table.loc["base", "chosen"].startswith("lr=0.97 (99%), k=6 (")
    assert (table.loc["base", "at the edge"], table.loc["base", "validation"]) == ("lr", "80.00%")
    assert table["diverged"].to_dict() == {"base": 0, "lookahead": 0, "nested": 1, "averaged": 0}
    assert choices(task.groups)["base"]["places"]["optimizer.k"] == pytest.approx(
        math.log(6 / 1.5) / math.log(20.5 / 1.5), abs=1e-3
    )
    curve = bought(task)
    # The best of two of {50, 70, 80}: 80 in two of three draws, else 70; the diverged trial is as bad as the worst.
    assert curve[curve["arm"] == "base"]["value"].to_numpy() == pytest.approx([200 / 3, 230 / 3, 80])
    assert curve[curve["arm"] == "nested"]["value"].to_numpy() == pytest.approx([220 / 3, 230 / 3, 80])


def test_what_trials_buy_in_several_studies_has_a_panel_each(several):
    every = found(several)
    made = draw_together("tuning", every)
    assert [ax.get_title(loc="left") for ax in made.figure.axes] == [cells.study_name(task) for task in every]
    for task, ax in zip(every, made.figure.axes, strict=True):
        own = bought(task)
        for line, (_, rows) in zip(ax.get_lines(), own.groupby("arm", sort=False), strict=True):
            assert line.get_ydata() == pytest.approx(rows["value"].to_numpy())
    colors = [[line.get_color() for line in ax.get_lines()] for ax in made.figure.axes]
    assert all(own == colors[0] for own in colors)
    assert draw_together("tuning", every[:1]) is None
