"""What methods and settings are called, and in which order."""

from textwrap import indent

import pytest
from made_runs import make_run, unsigned

from nested_lookahead.analysis import collect, labels, tables


def results(root):
    study = collect.collect([root])
    return tables.results(study.runs, study.metrics)


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
    path = unsigned(make_run(tmp_path))
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("name: cosine", "name: constant"))
    assert tables.readable(results(tmp_path))["settings"].str.contains("scheduler=").all()


def test_a_new_setting_of_a_method_appears_by_itself(tmp_path):
    make_run(tmp_path, outer_momentum=0.3)
    make_run(tmp_path, "sgd", momentum=0.9)
    shown = dict(results(tmp_path)[["method", "settings"]].to_numpy().tolist())
    assert shown["Nested Lookahead (SGD)"] == "lr=0.1 k=5 α=0.5 s=5 h=0.5 outer_momentum=0.3 pullback=none"
    assert shown["SGD"] == "lr=0.1"


def test_plain_optimizers_come_first_and_unknown_ones_last_of_their_kind(tmp_path):
    for inner in ("tiger", "sgd", "lion"):
        make_run(tmp_path, "lookahead", inner=inner)
    make_run(tmp_path, "lion")
    make_run(tmp_path, "nested_lookahead", inner="sgd")
    make_run(tmp_path, "adamw")
    expected = ["AdamW", "lion", "Lookahead (SGD)", "Lookahead (lion)", "Lookahead (tiger)", "Nested Lookahead (SGD)"]
    assert results(tmp_path)["method"].tolist() == expected


@pytest.mark.parametrize(
    "other",
    [("grad_clip: null", "grad_clip: 1.0"), ("workers:\n  name: shared", "workers:\n  name: local\n  skew: 0.3")],
)
def test_a_setting_that_one_group_is_without_tells_them_apart(tmp_path, other):
    """Null, and no such key, are values like others: no two groups look alike."""
    for folder, lines in zip("ab", other, strict=True):
        config = unsigned(make_run(tmp_path / folder)) / "config.yaml"
        config.write_text(config.read_text().replace("  seed: 0\n", f"  seed: 0\n{indent(lines, '  ')}\n"))
    shown = results(tmp_path)["settings"].tolist()
    assert len(set(shown)) == len(shown) == 2
