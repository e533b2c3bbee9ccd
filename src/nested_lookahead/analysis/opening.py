"""How a report opens: the study's name, and what came out."""

from __future__ import annotations

from collections.abc import Sequence

from nested_lookahead.analysis.collect import Study
from nested_lookahead.analysis.page import Section, Verdict
from nested_lookahead.runs.fair import FINAL

MOST = 3
"""Tasks that the opening speaks of."""
DECIDED = ("better", "worse", "equivalent")


def title(study: Study, sections: Sequence[Section]) -> str:
    """The names of the studies that the runs were made for; of published runs, those of their tasks."""
    names = list(study.runs["config.study"].dropna()) if "config.study" in study.runs else []
    names = [str(name).removesuffix(f"/{FINAL}") for name in names]  # the part of a fair study that is reported
    found = list(dict.fromkeys(names)) or [section.name for section in sections]
    return ", ".join(found[:MOST]) + (f" and {len(found) - MOST} more" if len(found) > MOST else "")


def opening(sections: Sequence[Section], fixed: str = "") -> list[Verdict]:
    """What several studies have asked first, together; then a verdict per task, the one that it has fixed as its first
    or else the first that is decided, after how many are. What was fixed beforehand ends the first."""
    tasks = [section for section in sections if not section.together]
    found = [section.first for section in sections if section.together and section.first is not None]
    found += [_of(section) for section in tasks[:MOST]]
    if more := len(tasks[MOST:]):
        found.append(Verdict("", "1 more task is below." if more == 1 else f"{more} more tasks are below."))
    if found and fixed:
        found[0] = Verdict(found[0].word, f"{found[0].sentence} {fixed[0].upper()}{fixed[1:]}.")
    return found


def _of(section: Section) -> Verdict:
    if not section.verdicts:
        return Verdict("", f"{section.name}: these runs allow no comparison.")
    counts = {word: sum(one.word == word for one in section.verdicts) for word in DECIDED}
    decided, count = sum(counts.values()), len(section.verdicts)
    hints = sum(one.word.startswith("suggestive") for one in section.verdicts)
    first = min(section.verdicts, key=lambda one: (one.word not in DECIDED, not one.word.startswith("suggestive")))
    first = section.first or first
    if count == 1:
        return Verdict(first.word, f"{section.name}: {first.sentence}")
    said = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
    said = f"{decided} of {count} comparisons are decided{f' ({said})' if said else ''}"
    said += f", {hints} more {'are' if hints > 1 else 'is'} suggestive" if hints else ""
    return Verdict(first.word, f"{section.name}: {said}. {first.sentence}")
