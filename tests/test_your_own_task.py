"""docs/your_own_task.md: its three examples, from an empty folder, as they are printed."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, runs_below

PAGE = (ROOT / "docs/your_own_task.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, flags=re.S))
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S) for line in block.splitlines()]


@pytest.fixture
def page(command, monkeypatch):
    """Write the page's files into the present folder; run a command of the page that has a word in it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, content in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)

    def run(word, *more):
        printed = ""
        for line in (line for line in COMMANDS if word in line):
            if "train.py" not in line and "analyze.py" not in line:
                subprocess.run(line, shell=True, check=True)
                continue
            _, script, *arguments = shlex.split(line)
            status, out, err = command(script, *arguments, *more)
            printed += out + err
            if status:
                return printed
        return printed

    return run


def final():
    run = next(path for path in runs_below("outputs") if path.name.startswith("seed="))
    summary = json.loads((run / "summary.json").read_text())
    return summary["final"]["fast"]


def test_no_example_is_long():
    assert len(FILES) == 6
    examples = [(f"mine/{name}.py", f"mine/conf/{group}/{name}.yaml")
                for group, name in (("dataset", "wine"), ("dataset", "diabetes"), ("model", "recurrent"))]  # fmt: skip
    assert sorted(file for files in examples for file in files) == sorted(FILES)
    for files in examples:
        assert sum(len(FILES[file].splitlines()) + 1 for file in files) <= 40, files


@pytest.mark.slow
def test_a_table_with_classes(page):
    assert "test accuracy  " in page("wine")
    assert final()["test"]["accuracy"] > 0.9
    config = (runs_below("outputs")[0] / "config.yaml").read_text()
    assert "test_every: 4" in config


@pytest.mark.slow
def test_mistakes_in_settings_of_ones_own_end_in_one_line(page):
    assert page("wine", "dataset.test_evry=5").startswith("error: dataset.test_evry: no such key; did you mean")
    assert page("wine", "dataset.test_every=1") == "error: dataset.test_every=1: must be an integer >= 2\n"
    assert "could not be converted to Integer" in page("wine", "dataset.test_every=often")
    assert "is code outside of nested_lookahead" in page("wine", "trust=[]")
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_a_number_to_predict_and_its_report(page):
    said = page("diabetes")
    assert re.search(r"\ntest mean absolute error  \d\d\.\d \(fast weights\)", said)
    assert "samples/s" in said
    assert 30 < final()["test"]["accuracy"] < 60
    html = Path("outputs/diabetes/analysis/report.html").read_text()
    tables = "".join(path.read_text() for path in Path("outputs/diabetes/analysis").glob("*.md"))
    prose = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.S)
    for text in (said, tables, prose):
        assert not re.findall(r"accurac\w+|%.{0,30}mean absolute|images", text)
    assert "test mean absolute error, fast weights" in tables


@pytest.mark.slow
def test_a_model_of_characters(page):
    page("zen.txt")
    bits = final()["test"]["accuracy"]
    assert bits == pytest.approx(final()["test"]["loss"] / 0.6931472, rel=1e-5)
    assert bits < 5  # 34 different characters at even odds: 5.1
