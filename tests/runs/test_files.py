"""Run directories that were recorded once, by this version and by earlier ones: read, analysed, gone on from."""

import json
import shutil

import pytest
import yaml
from conftest import ROOT, metrics_less_seconds, runs_below

from nested_lookahead.runs import files
from nested_lookahead.runs.identity import computed, identity, label
from nested_lookahead.training.fit import COLUMNS

STORED = ROOT / "tests/stored_runs"


def by_label(version):
    return {run.parent.name.rpartition("-")[0] + run.name: run for run in runs_below(STORED / version)}


def test_what_an_earlier_version_recorded_is_the_same_run():
    old, new = by_label("version1"), by_label("version2")
    assert old.keys() == new.keys()
    assert len(old) == 6
    for name, run in old.items():
        config, today = files.read_config(run), files.read_config(new[name])
        assert computed(config) == computed(today)
        assert f"{label(config)}-{identity(config)}" == new[name].parent.name
        summary = files.read_summary(run)
        assert files.is_intact(run, summary)
        assert summary["status"] == files.COMPLETED
        assert metrics_less_seconds(run) == metrics_less_seconds(new[name])


def test_names_of_version_1_become_todays(tmp_path):
    inner = {"name": "custom", "_target_": "torch.optim.Adamax", "lr": 0.1, "kwargs": {"eps": 1e-7}}
    optimizer = {"name": "published_nested_lookahead", "_target_": "nested_lookahead.published.X", "inner": inner}
    dataset = {"name": "digits", "val_fraction": 0.1, "train_size": 50, "split_seed": 3}
    content = {"config": {"optimizer": optimizer, "dataset": dataset}, "choices": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    config = files.read_config(tmp_path)
    assert config["optimizer"]["name"] == "nested_lookahead_replica"
    assert config["optimizer"]["inner"] == {"name": "adamax", "_target_": "torch.optim.Adamax", "lr": 0.1, "eps": 1e-7}
    assert config["dataset"] == {"name": "digits", "split": {"val_fraction": 0.1, "train_size": 50, "seed": 3}}
    plain = {"name": "custom", "_target_": "torch.optim.Rprop", "kwargs": None}
    bare = {"optimizer": plain, "dataset": {"name": "digits"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"config": bare}))
    config = files.read_config(tmp_path)
    assert config["optimizer"] == {"name": "rprop", "_target_": "torch.optim.Rprop"}
    assert config["dataset"]["split"] == {"val_fraction": None, "train_size": None, "seed": None}


@pytest.mark.slow
@pytest.mark.parametrize("versions", [("version1",), ("version2",), ("version1", "version2")])
def test_all_versions_are_analysed_together(command, versions):
    folders = [str(STORED / version) for version in versions]
    status, out, err = command("analyze.py", *folders, "--out", "analysis")
    assert (status, err) == (0, "")
    assert "6 run(s)" in out
    assert out.count(": a copy of ") == 6 * (len(versions) - 1)
    assert "Lookahead (SGD)" in out


@pytest.mark.slow
def test_a_half_done_run_of_this_version_goes_on(command, tmp_path):
    (stored,) = runs_below(STORED / "half_done")
    run = tmp_path / "outputs" / "half" / stored.relative_to(STORED / "half_done")
    shutil.copytree(stored, run)
    settings = ["optimizer.k=2", "optimizer.s=2", "model=cnn", "model.width=2", "epochs=4", "evaluation.every=2"]
    settings += ["method=nested_sgd", "pullback=pullback", "dataset.split.train_size=100", "threads=1", "study=half"]
    status, out, err = command("train.py", *settings)
    assert (status, err) == (0, "")
    assert f"{run.relative_to(tmp_path)}: resumed after step 4" in out
    assert runs_below("outputs") == [run.relative_to(tmp_path)]
    before, after = metrics_less_seconds(stored), metrics_less_seconds(run)
    recorded = [{column: row[column] for column in before[0]} for row in after]  # there may be more columns by now
    assert recorded[: len(before)] == before
    assert len(after) == 2 * len(before)
    assert files.read_status(run)["resumed"]


def test_what_is_written_has_the_columns_that_readers_know():
    assert set(files.COLUMNS) <= set(COLUMNS)


def changed(run, **content):
    config = yaml.safe_load((run / "config.yaml").read_text()) | content
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.slow
def test_a_newer_version_is_read_as_far_as_it_is_understood(command, tmp_path):
    shutil.copytree(STORED / "version2", tmp_path / "newer")
    for run in runs_below(tmp_path / "newer"):
        changed(run, version=99, novelty={"a": 1})
        lines = (run / "metrics.csv").read_text().splitlines()
        heads = [line.split(",") for line in lines]
        wider = [["flavour", *reversed(cells)] for cells in heads[:1]] + [["0.5", *reversed(c)] for c in heads[1:]]
        (run / "metrics.csv").write_text("".join(",".join(cells) + "\n" for cells in wider))
        summary = json.loads((run / "summary.json").read_text()) | {"version": 99, "novelty": [1]}
        summary["sha256"] = files.checksum(run, summary)
        (run / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "plain").mkdir()
    status, out, err = command("analyze.py", str(STORED / "version2"), "--out", "plain")
    assert (status, err) == (0, "")
    status, newer, err = command("analyze.py", "newer", "--out", "wider")
    assert (status, err) == (0, "")
    table = [line for line in out.splitlines() if "Lookahead (SGD)" in line]
    assert table
    assert all(line in newer for line in table)
    assert "6 run(s)" in newer
