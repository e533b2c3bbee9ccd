"""Every command and example of the README, and of the pages on running and extending, works as printed, in a copy of
the project."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from nested_lookahead.analysis.figures import FIGURES
from nested_lookahead.analysis.options import parse

PAGES = ("README.md", "docs/running.md", "docs/optimizers.md", "docs/extending.md")
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}


def blocks(language, page=None):
    text = "\n".join(TEXTS.values()) if page is None else TEXTS[page]
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


BLOCKS = [block.splitlines() for block in dict.fromkeys(blocks("bash"))]
COMMANDS = [line for block in blocks("bash", "README.md") for line in block.splitlines()]
INSTALLS = [line for line in COMMANDS if "pip install" in line]


@pytest.fixture
def project(tmp_path):
    """The files a user has, with the pages' YAML examples written where they say; runs are shorter by default."""
    path = tmp_path / "project"
    path.mkdir()
    shutil.copytree(ROOT / "conf", path / "conf")
    defaults = path / "conf/config.yaml"
    defaults.write_text(re.sub(r"^epochs: \d+", "epochs: 4", defaults.read_text(), flags=re.MULTILINE))
    shutil.copytree(ROOT / "src", path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for script in ("train.py", "analyze.py"):
        shutil.copy(ROOT / script, path)
    for block in blocks("yaml"):
        name = re.match(r"# (conf/\S+\.yaml)\n", block)[1]
        (path / name).write_text(block)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[-1])
def test_commands(project, block):
    """Those of one block after the other; each block in a copy of its own."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(project / "src")
    for command in block:
        if "pip install" in command or command.startswith("pytest"):
            continue
        done = subprocess.run(command, shell=True, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert any(project.glob("outputs/*/analysis")) == any("python analyze.py" in line for line in block)


def test_ci_installs_and_tests_as_the_readme_says():
    ci = (ROOT / ".ci/run").read_text()
    assert len(INSTALLS) == 2
    test_install = INSTALLS[1].rpartition("pip install ")[2]
    assert f"pip install --quiet {test_install}\n" in ci
    (test_command,) = [line for line in COMMANDS if line.startswith("pytest")]
    assert f"\n{test_command}\n" in ci


def typed_in(page):
    """Each ``train.py`` and ``analyze.py`` command of a page, with its arguments: of its blocks and within its text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    within = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in (*"".join(fenced).splitlines(), *(part.replace("\n", " ") for part in within)):
        if not re.search(r"\b(python3?|torchrun) [^|]*\b(train|analyze)\.py ", line):
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        for start, script in enumerate(words):
            if script in ("train.py", "analyze.py"):
                rest = words[start + 1 :]
                end = next((i for i, word in enumerate(rest) if word in ("&&", "|", "…")), len(rest))
                yield script, *rest[:end]


MARKDOWN = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
EVERYWHERE = {command: page.name for page in MARKDOWN for command in typed_in(page)}
WRONG = ("train.py", "optimizer.kk=3")
"""Shown with its error; see `test_the_error_that_is_shown`."""
TYPED = {WRONG, *(tuple(shlex.split(line)[1:]) for block in BLOCKS for line in block)}


def to_list(command_line):
    """What lists a command's runs; None where there is nothing that another test has not listed or typed."""
    script, *arguments = command_line
    if script != "train.py" or command_line in TYPED or {"--help", "--cfg", "--config-dir", "-sc"} & {*arguments}:
        return None
    if any("sweeper=optuna" in word for word in arguments):  # an extra of its own
        return None
    kept = [word.replace("range(100)", "range(2)") for word in arguments if "launcher" not in word]
    kept = [word for word in kept if word not in ("-m", "--dry-run")]
    return None if all(word.startswith("experiment=") for word in kept) else [*kept, "hydra/launcher=list", "-m"]


def test_commands_are_found_on_every_page():
    assert len(EVERYWHERE) > 60
    assert {"analysis.md", "sweeps.md", "fair.md", "studies.md", "workers.md", "answer.md"} <= {*EVERYWHERE.values()}
    assert WRONG in EVERYWHERE
    presets = {word.partition("=")[2] for one in EVERYWHERE for word in one if word.startswith("experiment=")}
    assert {name for name in presets if not (ROOT / f"conf/experiment/{name}.yaml").exists()} == set()


@pytest.mark.parametrize("command_line", [one for one in EVERYWHERE if one[0] == "analyze.py"], ids=" ".join)
def test_every_analysis_that_a_page_names_is_understood(command_line):
    options = parse([*command_line[1:]]) if "--help" not in command_line else None
    if options is not None and options.figures:
        assert set(options.figures.split(",")) <= set(FIGURES)


@pytest.mark.slow
@pytest.mark.parametrize("command_line", list(filter(to_list, EVERYWHERE)), ids=" ".join)
def test_every_run_that_a_page_names_can_be_listed(command_line, command):
    """Its settings are composed and resolved, and nothing is trained: some of these studies take hours."""
    status, out, err = command("train.py", *to_list(command_line))
    assert (status, err) == (0, "")
    assert re.search(r"^outputs/", out, flags=re.MULTILINE)
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_the_python_example(project):
    (example,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", example], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value = float(re.search(r"tensor\(\[\[(\S+?)\]\]", done.stdout)[1])
    assert abs(value - 10) < 1  # it has learned the sum of ten ones


def test_the_error_that_is_shown(command):
    (typed, shown) = re.search(r"\$ python train.py (\S+)\n(error: .*)\n", TEXTS["docs/running.md"]).groups()
    assert command("train.py", typed) == (1, "", f"{shown}\n")


def test_the_groups_and_choices_that_are_named():
    """All that are named exist, and each group has a row; it need not name all of its choices."""
    rows = dict(re.findall(r"^\| `([a-z/]+)` \| (.*) \|$", TEXTS["docs/running.md"], flags=re.MULTILINE))
    for group, cell in rows.items():
        missing = set(re.findall(r"`(\w+)`", cell)) - {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert not missing, f"{group} has no {', '.join(sorted(missing))}"
    groups = {path.parent.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").glob("*/**/*.yaml")}
    assert {group for group in groups if group.partition("/")[0] != "hydra"} == set(rows)


def test_linked_files_exist():
    """In all pages, and each page is linked from the README."""
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)h#][^)#]*)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    linked = re.findall(r"\]\((docs/[^)]*\.md)\)", TEXTS["README.md"])
    assert {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")} == {*linked}


def test_the_figure_is_of_the_default_length():
    import yaml

    epochs = yaml.safe_load((ROOT / "conf/config.yaml").read_text())["epochs"]
    assert f"on digits over {epochs} epochs" in TEXTS["docs/running.md"]
