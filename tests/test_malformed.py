"""Nonsense of every kind ends in a success or in one line, in seconds, and harms nothing."""

import shutil

import malformed
import pytest
from hypothesis import HealthCheck, given, settings

FAMILIES = {
    "typed": (malformed.typed(), 20),
    "analysed": (malformed.analysed(), 12),
    "recorded": (malformed.recorded(), 27),
    "stored": (malformed.stored(), 10),
    "configured": (malformed.configured(), 10),
}
"""Cases of each kind in this suite; ``benchmarks/faults.py --fuzz`` makes as many as wanted."""


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return malformed.templates(tmp_path_factory.mktemp("template"))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_nonsense_ends_in_one_line(tmp_path, template, family):
    cases, count = FAMILIES[family]
    seen = []

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(cases)
    def tried(case):
        folder = tmp_path / f"{len(seen)}"
        outcome, text = malformed.run(case, template, folder)
        seen.append(outcome)
        shutil.rmtree(folder, ignore_errors=True)
        assert outcome in ("success", "clear"), f"{outcome}: {case}\n{text}"

    tried()
    assert len(seen) >= count
    assert set(seen) == {"success", "clear"} or family in ("configured", "typed")


@pytest.mark.slow
def test_a_case_that_should_fail_does(tmp_path, template, monkeypatch):
    """A test of the test: a traceback, a hang and a loss are noticed."""
    case = malformed.Case("run directory", ("again", "finished"))

    def crash():
        raise RuntimeError("unexpected")

    def loop():
        while True:
            pass

    def lose():
        for file in malformed.Path("outputs").rglob("summary.json"):
            file.unlink()

    monkeypatch.setattr(malformed, "SECONDS", 0)
    for number, (act, outcome) in enumerate([(crash, "traceback"), (lose, "lost"), (loop, "hang")]):
        monkeypatch.setattr(malformed.faulty, "jobs_alone", act)
        if act is not loop:
            monkeypatch.setattr(malformed, "SECONDS", 10)
        else:
            monkeypatch.setattr(malformed, "SECONDS", 0)
        assert malformed.run(case, template, tmp_path / str(number))[0] == outcome
