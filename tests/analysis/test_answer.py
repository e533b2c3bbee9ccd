"""docs/answer.md, workers.md and published_rule.md say what their archives hold."""

import re

import pytest
from conftest import ROOT
from scipy.stats import ttest_ind

from nested_lookahead.analysis import tables, tails
from nested_lookahead.analysis.asked import gathered
from nested_lookahead.analysis.cells import questions, study_name
from nested_lookahead.analysis.differences import by_seed
from nested_lookahead.analysis.primary import primary
from nested_lookahead.analysis.report import Request, write
from nested_lookahead.analysis.task import tasks

INTERVAL = r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]"
PAGE = (ROOT / "docs/answer.md").read_text()
ARCHIVES = sorted((ROOT / "docs/answer").glob("*.tar.xz"))
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))


def one_task(path):
    (task,) = tasks(gathered([path]), "fast", "test")
    return task


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
@pytest.mark.parametrize(("page", "folder"), [("workers", "workers"), ("published_rule", "published")])
def test_a_page_is_what_its_archives_make_of_it(tmp_path, page, folder):
    text = (ROOT / f"docs/{page}.md").read_text()
    emptied = re.sub(r"(<!-- table: \S+ -->\n).*?(<!-- end -->)", r"\1\2", text, flags=re.DOTALL)
    (tmp_path / "page.md").write_text(emptied)
    archives = sorted((ROOT / "docs/answer" / folder).glob("*.tar.xz"))
    write(gathered(archives), tmp_path / "out", Request(pictures=(), docs=tmp_path / "page.md"))
    assert (tmp_path / "page.md").read_text() == text != emptied


@pytest.mark.slow
def test_numbers_in_the_text_of_the_published_rule_are_those_of_its_tables():
    """Each interval that is said stands in a table, with the same difference before it if it has one."""
    text = (ROOT / "docs/published_rule.md").read_text().replace("−", "-")
    tables = "\n".join(re.findall(r"<!-- table: comparisons\S+ -->\n(.*?)<!-- end -->", text, flags=re.DOTALL))
    said = re.findall(INTERVAL, text.partition("<!-- table")[0])
    strangers = {"-1.81 [-2.56, -1.05]"}  # of the published runs themselves: test_the_published_effect
    assert len(said) > 25
    assert set(said) - strangers <= set(re.findall(INTERVAL, tables))


AGAIN = sorted((ROOT / "docs/answer/again").glob("*.tar.xz"))
QUESTIONS = (
    ("nested", "lookahead"), ("nested", "base"), ("lookahead", "base"), ("snoo", "base"), ("three_layers", "base"),
    ("schedule_free", "base"), ("averaged", "base"), ("snoo", "lookahead"), ("nested", "matched"),
)  # fmt: skip


def repeated(path):
    """Rows of what came of a cell, of the cell again, and the difference of both, by Welch's t over their seeds."""
    first, again = (one_task(folder / path.name) for folder in (ROOT / "docs/answer", path.parent))
    cells = re.search(rf"<!-- table: arms-{study_name(first)} -->\n(.*?)<!-- end -->", PAGE, flags=re.DOTALL)[1]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in cells.splitlines())
    before = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    now = tails.by_arm(again).set_index("arm")
    values = by_seed(first.final), by_seed(again.final)
    for arm, other in QUESTIONS:
        earlier, later = ((one[arm] - one[other]).dropna() for one in values)
        low, high = ttest_ind(later, earlier, equal_var=False).confidence_interval()
        apart = f"{later.mean() - earlier.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
        yield f"| {arm} − {other} | {before[arm][f'− {other}']} | {now.loc[arm, f'− {other}']} | {apart} |"


@pytest.mark.slow
@pytest.mark.parametrize("path", AGAIN, ids=lambda path: path.name)
def test_a_repeated_cell_is_said_as_both_archives_have_it(path):
    section = re.search(r"^## Two cells again.*?(?=^## )", PAGE, flags=re.DOTALL | re.MULTILINE)[0]
    assert "\n".join(repeated(path)) in section


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_cell_tuned_again_and_again_is_said_as_its_archives_have_it(schedule):
    archives = sorted((ROOT / "docs/answer/tunings").glob(f"{schedule}_*.tar.xz"))
    found = [*tasks(gathered(archives), "fast", "test")]
    section = re.search(r"^## What of a cell is tuning.*?(?=^## )", PAGE, flags=re.DOTALL | re.MULTILINE)[0]
    assert len(found) == 6
    assert tables.to_markdown(primary(found, questions(found))).strip() in section
