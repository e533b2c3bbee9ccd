"""Every command and example of the README, and of the pages on running and extending, works as printed, in a copy of
the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

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
