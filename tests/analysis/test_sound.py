"""Runs of somebody else's making that cannot have been measured: each is left out by name, and the rest stands."""

import json

import pytest
import yaml
from made_runs import make_run, rewrite_metrics, unsigned

from nested_lookahead.analysis import collect, report


def summary(**changes):
    def change(path):
        file = unsigned(path) / "summary.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def config(**changes):
    def change(path):
        file = unsigned(path) / "config.yaml"
        content = yaml.safe_load(file.read_text())
        content["config"] |= changes
        file.write_text(yaml.safe_dump(content))

    return change


def metrics(old, new):
    return lambda path: rewrite_metrics(path, lambda content: content.replace(old, new, 1))


def last_line(change):
    return lambda path: rewrite_metrics(path, lambda content: b"".join(change(content.splitlines(keepends=True))))


def renamed(path):
    """To another seed, with the signature as it was."""
    file = path / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 1"))


FOREIGN = {
    "accuracy 2.5": (last_line(lambda lines: [*lines[:-1], b"200,10,test,slow,0.1,2.5,0.1,1\n"]), "accuracy of 2.5"),
    "accuracy -1": (last_line(lambda lines: [*lines[:-1], b"200,10,test,slow,0.1,-1,0.1,1\n"]), "accuracy of -1"),
    "infinite": (last_line(lambda lines: [*lines[:-1], b"200,10,test,slow,0.1,inf,0.1,1\n"]), "accuracy of inf"),
    "twice": (last_line(lambda lines: [*lines, lines[-1]]), "two rows for one step, split and kind of weights"),
    "contradictory": (
        last_line(lambda lines: [*lines, b"200,10,test,slow,0.1,0.5,0.1,1\n"]),
        "two rows for one step, split and kind of weights",
    ),
    "back in time": (last_line(lambda lines: [lines[0], *lines[:0:-1]]), "goes back in time"),
    "too far": (last_line(lambda lines: [*lines, b"220,11,test,slow,0.1,0.5,0.1,1\n"]), "goes on to step 220 of 200"),
    "no rows": (last_line(lambda lines: lines[:1]), "no rows"),
    "Infinity": (summary(planned_steps=float("inf")), "unreadable"),
    "400 digits": (summary(seconds=int("9" * 400)), "unreadable"),
    "a surrogate": (summary(status="\ud800"), "unreadable"),
    "a date as a name": (config(dataset={"name": yaml.safe_load("2020-01-01")}), "unreadable"),
    "a script as a name": (config(model={"name": "x\n" * 5}), "called by what is no name"),
    "a long name": (config(model={"name": "x" * 5000}), "called by what is no name"),
    "seed -1": (config(seed=-1), "seed is no integer >= 0: -1"),
    "seed 1.5": (config(seed=1.5), "seed is no integer >= 0: 1.5"),
    "another run's summary": (renamed, "its configuration is not the one that it was recorded with"),
}


@pytest.mark.parametrize(("spoil", "reason"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_run_is_left_out_by_name(tmp_path, spoil, reason):
    good, bad = make_run(tmp_path / "good", "sgd"), make_run(tmp_path / "bad")
    spoil(bad)
    study = collect.collect([tmp_path])
    assert study.runs["path"].tolist() == [str(good)]
    (left_out,) = study.left_out.to_numpy().tolist()
    assert left_out[0] == str(bad)
    assert reason in left_out[1]
    assert len(left_out[1]) < 400
    left_out[1].encode()  # a lone surrogate could not be printed


@pytest.mark.parametrize("name", ["=1+1", "<script>alert(1)</script>", "a|b", "@SUM(A1)", "+1;cmd", "`x`"])
def test_what_is_written_is_text_in_spreadsheets_and_markdown(tmp_path, name):
    for seed in range(2):
        config(optimizer={"name": name, "lr": 0.1}, seed=seed)(make_run(tmp_path / "runs", "sgd", seed=seed))
    report.write(collect.collect([tmp_path / "runs"]), tmp_path / "out", report.Request(pictures=()))
    for file in (tmp_path / "out").glob("*.csv"):
        for cell in file.read_text().replace('"', "").replace("\n", ",").split(","):
            assert not cell.startswith(("=", "@")), (file, cell)
            assert not cell.startswith("+1"), (file, cell)
    written = (tmp_path / "out/results.md").read_text()
    assert "<script" not in written
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
