"""docs/answer.md and docs/workers.md say what their archives hold."""

import re

import pytest
from conftest import ROOT

from nested_lookahead.analysis import tables, tails
from nested_lookahead.analysis.asked import gathered
from nested_lookahead.analysis.cells import study_name
from nested_lookahead.analysis.choices import chosen
from nested_lookahead.analysis.task import tasks

PAGE = (ROOT / "docs/answer.md").read_text()
ARCHIVES = sorted((ROOT / "docs/answer").glob("*.tar.xz"))
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))


def test_each_archive_has_its_section():
    assert [path.name.removesuffix(".tar.xz") for path in ARCHIVES] == sorted(SECTIONS)
    assert sum(path.stat().st_size for path in (ROOT / "docs/answer").rglob("*")) < 30e6


@pytest.mark.slow
def test_all_numbers_are_made_from_the_archives():
    for task in tasks(gathered(ARCHIVES), "fast", "test"):
        name = study_name(task)
        made = "\n".join(tables.to_markdown(tails.by_arm(task)).splitlines())
        assert f"<!-- table: arms-{name} -->\n{made}\n<!-- end -->" in SECTIONS[name]


@pytest.mark.slow
def test_the_workers_numbers_are_made_from_their_archive():
    (task,) = tasks(gathered([ROOT / "docs/answer/workers/mnist1d_sgd.tar.xz"]), "fast", "test")
    page = (ROOT / "docs/workers.md").read_text()
    for name, table in (("arms", tails.by_arm(task)), ("choices", chosen(task))):
        made = "\n".join(tables.to_markdown(table).splitlines())
        assert f"<!-- table: {name} -->\n{made}\n<!-- end -->" in page
