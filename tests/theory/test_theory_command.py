"""``python -m nested_lookahead.theory``."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_command_writes_tables_and_figures_and_renews_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: risk -->\nold\n<!-- end -->\nbetween\n<!-- table: scales -->\n<!-- end -->\n")
    command = [sys.executable, "-m", "nested_lookahead.theory", "--coordinates", "20", "--horizons", "8", "20"]
    done = subprocess.run(
        [*command, "--out", "out", "--docs", "page.md", "--workers"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "best nested" in done.stdout
    made = {
        "tables.md",
        "risk.png",
        "frontier.png",
        "scales.png",
        "cycle.png",
        "map.png",
        "read_out.png",
        "workers.png",
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == made
    assert len(list((tmp_path / "figures").iterdir())) == 7
    assert "16 workers in 4 groups after 20 steps" in done.stdout
    text = page.read_text()
    assert text.startswith("before\n<!-- table: risk -->\n| excess risk | T = 8 | T = 20 |")
    assert "old" not in text
    assert "between" in text
    assert text.endswith("|\n<!-- end -->\n")
    again = subprocess.run([*command, "--coordinates", "0"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (1, "error: --coordinates 0: must be >= 1\n")


def test_theory_needs_no_torch():
    code = "import sys, nested_lookahead.theory; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
