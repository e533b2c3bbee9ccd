"""Published numbers, alone and beside our own."""

import pytest
from conftest import ROOT
from made_runs import make_run, unsigned

from nested_lookahead.analysis import collect
from nested_lookahead.analysis.task import tasks
from nested_lookahead.errors import UserError


def test_the_published_numbers_alone():
    """Computed by hand from the file: Welch, as repeats without seeds are no pairs."""
    study = collect.collect([], references=[ROOT / "docs/published_epoch_accuracy.csv"])
    assert len(study.runs) == 90
    assert len(study.metrics) == 1800
    first = next(tasks(study, "fast", "test", 0.5))
    rows = first.comparisons.set_index(["label", "shown"])
    row = rows.loc[("published Nested Lookahead (SGD)", "pullback=none")]
    assert (row["baseline_label"], row["baseline_shown"]) == ("published Lookahead (SGD)", "pullback=none")
    seen = [round(row[key], 2) for key in ("difference", "low95", "high95")]
    assert seen == [-0.85, -2.40, 0.70]
    assert row["detectable"] != row["detectable"]  # three show nothing
    assert (row["verdict"], row["n"], row["paired"]) == ("unresolved", 3, False)


def found(tmp_path, data):
    for seed in range(3):
        for method in ("sgd", "lookahead"):
            path = unsigned(make_run(tmp_path, method, seed=seed, final=0.8 + seed * len(method) / 1000))
            text = (path / "config.yaml").read_text()
            (path / "config.yaml").write_text(text.replace("name: digits", f"name: {data}"))
    return list(
        tasks(collect.collect([tmp_path], references=[ROOT / "docs/published_epoch_accuracy.csv"]), "fast", "test", 0.5)
    )


def test_published_numbers_beside_ours_change_no_verdict(tmp_path):
    (task,) = found(tmp_path, "cifar10")
    assert (task.runs["source"] == "reference").sum() == 90
    assert task.groups["label"].iloc[:2].tolist() == ["SGD", "published SGD"]
    rows = task.comparisons
    own = rows[~rows["label"].str.startswith("published")]
    assert not own["baseline_label"].str.startswith("published").any()
    assert own["family"].tolist() == [1]
    assert set(rows["family"]) > {1}


def test_published_numbers_of_another_data_set_stand_apart(tmp_path):
    names = [(task.name, set(task.runs["source"])) for task in found(tmp_path, "digits")]
    assert [name for name, _ in names[1:]] == ["published: cifar", "published: cifar_variation"]
    assert [sources for _, sources in names] == [{"run"}, {"reference"}, {"reference"}]


HEADER = "study,method,tag,run,epoch,test_accuracy\n"
NO_REFERENCES = ["", "a,b\n1,2\n", HEADER, f"{HEADER}x,y,z,one,1,0.5\n", f"{HEADER}x,y,z,1,1,high\n", None]
NO_REFERENCES += [f"{HEADER}x,y,z,1,1,50\n", f"{HEADER}x,y,z,1,1,nan\n", f"{HEADER}x,,z,1,1,0.5\n"]
NO_REFERENCES += [f"{HEADER}x,y,z,-1,1,0.5\n", f"{HEADER}x,y,z,1,1e30,0.5\n", f"{HEADER}x,y,z,{'9' * 400},1,0.5\n"]


@pytest.mark.parametrize("content", NO_REFERENCES)
def test_a_reference_that_is_none(tmp_path, content):
    path = tmp_path / "reference.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"--reference .*reference\.csv: ") as caught:
        collect.collect([], references=[path])
    assert len(str(caught.value).replace(f"{path}", "").splitlines()) == 1
