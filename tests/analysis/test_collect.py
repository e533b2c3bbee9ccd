"""Gathering runs: old ones, newer ones, damaged ones, and all of them fast."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import resolved
from made_runs import make_run, rewrite_metrics, unsigned

from nested_lookahead.analysis import cache as cache_of_runs
from nested_lookahead.analysis import collect, labels, run_rows
from nested_lookahead.errors import UserError
from nested_lookahead.runs.files import COLUMNS, VERSION, read_config
from nested_lookahead.runs.identity import ADDED, identity


def test_nothing_to_read_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        collect.collect([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no finished run here"):
        collect.collect([tmp_path])
    with pytest.raises(UserError, match="make one with: python train"):
        collect.studies(tmp_path)


def test_the_newest_study_is_that_of_the_last_finished_run(tmp_path):
    for study, time in (("a", 100), ("b", 300), ("c", 200)):
        path = make_run(tmp_path / study, "sgd")
        os.utime(path / "summary.json", (time, time))
    assert collect.studies(tmp_path) == [tmp_path / name for name in "bca"]


def damaged(root, name, **files):
    """A run with some of its files replaced: by text, or by what a function makes of their bytes."""
    path = make_run(root / name, "adam")
    for file, content in files.items():
        target = path / file.replace("_", ".")
        target.write_bytes(content(target.read_bytes()) if callable(content) else content.encode())
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
        "no split": [*lines[:-1], b"200,10,,fast,0.1,0.9,0.1,1\n"],
        "half a step": [*lines[:-1], b"199.5,10,test,fast,0.1,0.9,0.1,1\n"],
        "same name twice": [b"step,epoch,split,weights,lr,lr,lr,lr\n", *lines[1:]],
    }.items():
        path = unsigned(damaged(tmp_path, name, metrics_csv=lambda _, content=content: b"".join(content)))
        reasons[path] = "metrics.csv has a line that is not one of ours"
    for name, content in {"other header": [b"epoch,split\n", *lines[1:]], "empty": [b"\n"]}.items():
        path = unsigned(damaged(tmp_path, name, metrics_csv=lambda _, content=content: b"".join(content)))
        reasons[path] = "metrics.csv has no column step, "
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


def with_keys(path, keys):
    """The run, whose configuration has these keys, too."""
    content = yaml.safe_load((path / "config.yaml").read_text())
    content["config"] |= keys
    (path / "config.yaml").write_text(yaml.safe_dump(content))
    return unsigned(path)


NOW = {"decay": "all", "ema": None, "tail": None, "param_groups": None, "compile": False}


def test_runs_older_than_a_key_have_what_stands_for_it(tmp_path):
    """Beside a newer run of another method the difference in settings is shown; in the cache, too."""
    old = make_run(tmp_path, "sgd")
    assert not NOW.keys() & read_config(old).keys()
    with_keys(make_run(tmp_path, "adam"), NOW | {"decay": "matrices", "ema": 0.99, "param_groups": [{"match": "a.*"}]})
    for _ in range(2):
        runs = collect.collect([tmp_path], tmp_path / "cache.npz").runs
        groups = labels.in_order(runs.set_index("group"))
        assert groups["config.compile"].tolist() == [False, False]
        shown = dict(zip(groups["method"], labels.settings(groups, always=False), strict=True))
        assert shown == {"sgd": "decay=all", "adam": "decay=matrices ema=0.99 param_groups=[{'match': 'a.*'}]"}


def test_an_older_run_and_a_newer_one_of_the_same_settings_differ_in_none(tmp_path):
    old, new = make_run(tmp_path, "sgd"), with_keys(make_run(tmp_path, "sgd", seed=1), NOW)
    assert identity(read_config(old)) == identity(read_config(new))
    runs = collect.collect([tmp_path]).runs
    differ = [c for c in runs if str(c).startswith("config.") and len(set(runs[c].astype(str))) > 1]
    assert differ == ["config.seed"]


def test_a_data_sets_new_keys_are_those_of_its_function():
    of = {"name": "mnist1d", "_target_": "nested_lookahead.datasets.mnist1d"}  # where it lay
    assert run_rows.added({"dataset": of})["dataset.train_samples"] == 4000
    for other in ({"name": "digits", "_target_": "nested_lookahead.tasks.datasets.digits"}, {"name": "mnist1d"}):
        assert set(run_rows.added({"dataset": other})) == {"compile", "ema", "tail", "decay", "param_groups"}


@pytest.mark.parametrize("overrides", [[], ["dataset=mnist1d", "model=cnn1d"], ["optimizer=nested_lookahead_replica"]])
def test_an_older_run_has_each_key_that_a_run_of_today_has(overrides):
    today = resolved(*overrides).plain()

    def without(node, prefix=""):
        return {
            key: without(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in node.items()
            if prefix + key not in ADDED
        }

    has = {key for key in run_rows.flatten(today) if key in ADDED}
    assert set(run_rows.added(without(today))) == has
    assert {key: run_rows.flatten(today)[key] for key in has} == run_rows.added(today)


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


def edited(path, **columns):
    """A run whose metrics have other columns: a function from the table to the new column, or None to drop it."""
    table = pd.read_csv(path / "metrics.csv")
    for name, make in columns.items():
        table = table.drop(columns=name) if make is None else table.assign(**{name: make(table)})
    table.to_csv(path / "metrics.csv", index=False)
    return unsigned(path)


@pytest.fixture
def mixed(tmp_path):
    """Runs of other times: older by two columns, newer by some, in another order, with weights nobody knows."""
    root = tmp_path / "runs"
    plain = make_run(root, "sgd")
    older = edited(make_run(root, "sgd", seed=1), lr=None, seconds=None)
    newer = edited(make_run(root, "sgd", seed=2), perplexity=lambda t: 2.0 * t["loss"], bits=lambda t: t["step"])
    texts = edited(make_run(root, "sgd", seed=3), host=lambda t: "node7", bits=lambda t: -t["step"])
    other = edited(make_run(root, seed=4), weights=lambda t: t["weights"].replace("slow", "ema"))
    turned = make_run(root, "sgd", seed=5)
    table = pd.read_csv(turned / "metrics.csv")
    table[table.columns[::-1]].to_csv(turned / "metrics.csv", index=False)
    return root, plain, older, newer, texts, other, unsigned(turned)


def test_columns_are_read_by_name_and_nothing_is_left_out_for_them(mixed):
    root = mixed[0]
    study = collect.collect([root])
    assert study.left_out.empty
    assert set(study.runs["path"]) == set(map(str, mixed[1:]))
    of = {path: rows.drop(columns="path") for path, rows in study.metrics.astype({"path": str}).groupby("path")}
    assert list(study.metrics)[:9] == ["path", *COLUMNS]
    assert set(study.metrics) - {"path", *COLUMNS} == {"bits", "perplexity"}
    for path in mixed[1:]:
        written, rows = pd.read_csv(path / "metrics.csv"), of[str(path)]
        for column in rows:
            if column in written:
                assert rows[column].tolist() == written[column].tolist(), (path, column)
            else:
                assert rows[column].isna().all(), (path, column)
    assert "host" not in study.metrics
    assert sorted(study.notes) == [
        "metrics.csv has columns that are not numbers, and were not read: host (1 run)",
        "metrics.csv has no column lr, seconds (1 run)",
    ]
    assert study.metrics["weights"].cat.categories.tolist() == ["fast", "slow", "ema"]
    assert study.metrics["split"].cat.categories.tolist() == ["train", "validation", "test"]


def test_the_cache_keeps_other_columns_and_kinds(mixed, monkeypatch):
    root, *_, other, _ = mixed
    cache = root.parent / "cache.npz"
    first = collect.collect([root], cache)
    with monkeypatch.context() as patch:
        patch.setattr(collect, "read", None)
        again = collect.collect([root], cache)
    pd.testing.assert_frame_equal(again.metrics, first.metrics)
    assert again.notes == first.notes
    shutil.rmtree(other)
    pd.testing.assert_frame_equal(collect.collect([root], cache).metrics, collect.collect([root]).metrics)
    monkeypatch.setattr(cache_of_runs, "VERSION", [*cache_of_runs.VERSION, "another"])
    assert cache_of_runs.read(cache) == ({}, {"split": ["train", "validation", "test"], "weights": ["fast", "slow"]})


def test_a_damaged_file_does_not_spoil_those_with_its_header(tmp_path):
    paths = [edited(make_run(tmp_path, "sgd", seed=seed), bits=lambda t: t["step"]) for seed in range(3)]
    rewrite_metrics(paths[1], lambda content: content.replace(b",20\n", b",20,20\n", 1))
    study = collect.collect([tmp_path])
    assert study.left_out["path"].tolist() == [str(paths[1])]
    assert study.metrics["bits"].tolist() == study.metrics["step"].tolist()


def rewritten(path, change, file="config.yaml"):
    """The run with one of its files changed by a function of what it holds."""
    load, dump = (json.loads, json.dumps) if file.endswith("json") else (yaml.safe_load, yaml.safe_dump)
    content = load((path / file).read_text())
    change(content)
    (path / file).write_text(dump(content))
    return unsigned(path)


def test_a_newer_format_is_said_and_read(tmp_path):
    path = make_run(tmp_path, "sgd")
    rewritten(path, lambda summary: summary.update(version=99, novelty={"a": [1]}), "summary.json")
    study = collect.collect([tmp_path])
    assert len(study.runs) == 1
    said = f"format 99 of the run directory is newer than {VERSION}, and is read as far as it is known (1 run)"
    assert study.notes == [said]


def test_what_a_summary_lacks_is_unknown(tmp_path):
    path = make_run(tmp_path, "sgd", seed=3)

    def bare(summary):
        for key in set(summary) - {"status"}:
            del summary[key]

    rewritten(path, bare, "summary.json")
    (run,) = collect.collect([tmp_path]).runs.itertuples()
    assert (run.seed, run.method, run.status, run.device_name) == (3, "sgd", "completed", "")
    assert math.isnan(run.planned_steps)


def test_a_run_is_the_same_wherever_our_code_and_the_data_lay(tmp_path):
    """Of a run recorded when modules had other places, and the samples' settings were flat."""
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)

    def long_ago(content):
        del content["version"]
        flat = {
            "val_fraction": 0.1,
            "train_size": None,
            "split_seed": None,
            "data_dir": "/old",
            "_target_": "nested_lookahead.data.digits",
        }
        content["config"]["dataset"] |= flat
        content["config"]["optimizer"]["_target_"] = "nested_lookahead.old.NestedLookahead"

    rewritten(first, long_ago)
    today = read_config(first)
    today["dataset"] |= {"data_dir": "/new", "_target_": "nested_lookahead.tasks.data.digits"}
    rewritten(second, lambda content: content.update(config=today | {"seed": 1}))
    runs = collect.collect([tmp_path]).runs
    assert len(set(runs["group"])) == 1
    assert len(set(runs["task_key"])) == 1
    assert len(set(runs["task"])) == 1


def test_the_cache_gives_the_same_and_notices_changes(tmp_path, monkeypatch):
    root, cache = tmp_path / "runs", tmp_path / "analysis" / "cache.npz"
    for seed in range(3):
        make_run(root, seed=seed, final=0.9 + seed / 100)
    first = collect.collect([root], cache)
    assert cache.exists()
    with monkeypatch.context() as patch:
        patch.setattr(collect, "read", None)  # nothing is read again
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
