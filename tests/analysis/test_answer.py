"""docs/answer.md says what its archives hold."""

import re

import pytest
from conftest import ROOT

from nested_lookahead.analysis import tables, tails
from nested_lookahead.analysis.asked import gathered
from nested_lookahead.analysis.task import tasks

PAGE = (ROOT / "docs/answer.md").read_text()
ARCHIVES = sorted((ROOT / "docs/answer").glob("*.tar.xz"))
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))


def test_each_archive_has_its_section():
    assert [path.name.removesuffix(".tar.xz") for path in ARCHIVES] == sorted(SECTIONS)
    assert sum(path.stat().st_size for path in (ROOT / "docs/answer").rglob("*")) < 30e6


@pytest.mark.slow
def test_a_cell_s_numbers_are_made_from_its_archive():
    (task,) = tasks(gathered([ARCHIVES[0]]), "fast", "test")
    made = tables.to_markdown(tails.by_arm(task)).splitlines()
    name = ARCHIVES[0].name.removesuffix(".tar.xz")
    assert f"<!-- table: arms-{name} -->\n" + "\n".join(made) + "\n<!-- end -->" in SECTIONS[name]
