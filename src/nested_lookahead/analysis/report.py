"""Put a study's checks, comparisons, tables, figures and page into a folder, and say what was found."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from nested_lookahead import __version__
from nested_lookahead.analysis import arms, cells, checks, figures, opening, page, tables
from nested_lookahead.analysis.budget import budget
from nested_lookahead.analysis.choices import chosen
from nested_lookahead.analysis.collect import Study
from nested_lookahead.analysis.contrasts import contrasts
from nested_lookahead.analysis.labels import setting_keys
from nested_lookahead.analysis.primary import primary
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.tails import by_arm, tails
from nested_lookahead.analysis.targets import catching_up
from nested_lookahead.analysis.task import Task, tasks
from nested_lookahead.analysis.tuned import tuned
from nested_lookahead.document import renew
from nested_lookahead.errors import UserError

CACHE = "cache.npz"
MOST_SENTENCES = 20
"""In the terminal."""
TOGETHER = "all tasks together"


@dataclass(frozen=True)
class Request:
    """What a reader can choose; see ``python analyze.py --help``."""

    weights: str = "fast"
    split: str = "test"
    baseline: str | None = None
    family: str = "baseline"
    delta: float | None = None
    tuning_seeds: tuple[int, ...] | None = None
    fixed: str = ""
    """What the study had fixed before its runs, in words."""
    pictures: Sequence[str] = tuple(figures.FIGURES)
    drawing: figures.Options = field(default_factory=figures.Options)
    command: str = ""
    docs: Path | None = None
    """A page whose tables and figures are renewed, too."""


def write(study: Study, out: Path, request: Request) -> str:
    """Write everything into ``out``, one set of files per task (tasks are never compared); return what to print.

    Raises:
        UserError: an unknown figure or baseline, or nothing was measured for the choice of weights and split.
    """
    if unknown := sorted(set(request.pictures) - set(figures.FIGURES)):
        raise UserError(f"--figures {','.join(unknown)}: must be among {', '.join(figures.FIGURES)}")
    chosen = (request.weights, request.split, request.delta, request.baseline, request.tuning_seeds, request.family)
    found = list(tasks(study, *chosen))
    out = folder(out, request)
    out.mkdir(parents=True, exist_ok=True)
    overall = checks.check_study(found) + [checks.Finding("warning", note) for note in study.notes]
    text = [_finding(finding) for finding in overall] + [request.fixed] * bool(request.fixed)
    written, sections = _write_data(study, out), []
    for number, task in enumerate(found, start=1):
        suffix = _suffix(task, number, found)
        section, paths, said = _write_task(study, task, out, suffix, request)
        sections.append(section)
        written += paths
        text += ["", *said]
    if (together := _write_together(found, out, request)) is not None:
        # What was asked of all studies first comes first; what tasks happen to have in common comes last.
        sections.insert(0 if together[0].first else len(sections), together[0])
        written += together[1]
        text += ["", f"{TOGETHER}:", *(f"  {verdict.sentence}" for verdict in together[0].verdicts)]
    if len(study.left_out):
        text += ["", f"left out: {len(study.left_out)}"]
        text += [f"  {row.path}: {row.reason}" for row in study.left_out.itertuples()]
    report = out / "report.html"
    report.write_text(_page(study, sections, overall, request), encoding="utf-8")
    renewed = [] if request.docs is None else _renew(request.docs, written)
    text += ["", "written:", *(f"  {os.path.relpath(path)}" for path in [report, *written, *renewed])]
    return "\n".join(text).lstrip("\n")


def _suffix(task: Task, number: int, found: Sequence[Task]) -> str:
    """What a task's files end with: of several, a fair study's name, else the number."""
    if len(found) == 1:
        return ""
    names = [cells.study_name(one) for one in cells.fair_tasks(found)]
    own = cells.study_name(task)
    return f"-{own}" if names.count(own) == 1 and task in cells.fair_tasks([task]) else f"-{number}"


def _renew(docs: Path, written: Sequence[Path]) -> list[Path]:
    """Put the tables into the page, by the names of their files, and the figures that it shows beside it."""
    renew(docs, {path.stem: path.read_text(encoding="utf-8").rstrip("\n") for path in written if path.suffix == ".md"})
    shown, changed = docs.read_text(encoding="utf-8"), [docs]
    for path in written:
        copy = docs.parent / "figures" / f"{docs.stem}_{path.name}"
        if path.suffix == ".png" and f"figures/{copy.name}" in shown:
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
            changed.append(copy)
    return changed


def folder(out: Path, request: Request) -> Path:
    """Where to write: of another split or other weights than usual a folder of their own, so that looking at one of
    them leaves the report on the test split alone."""
    other = [request.split] * (request.split != "test") + [request.weights] * (request.weights != "fast")
    return out / "-".join(other) if other else out


def _write_data(study: Study, out: Path) -> list[Path]:
    """All runs, and all metrics."""
    runs, metrics = out / "runs.csv", out / "metrics.csv"
    tables.to_csv(study.runs.drop(columns="task_key"), runs)
    if find_spec("pyarrow"):
        metrics = metrics.with_suffix(".parquet")
        study.metrics.to_parquet(metrics, index=False)
    else:
        tables.to_csv(study.metrics, metrics)
    return [runs, metrics]


def _write_task(
    study: Study, task: Task, out: Path, suffix: str, request: Request
) -> tuple[page.Section, list[Path], list[str]]:
    """Its section of the page, the files written, and the lines to print."""
    found = checks.check(task)
    raw = tables.results(task.runs, task.metrics, task.split)
    results = tables.readable(raw, task.split, task.metric)
    comparisons = tables.readable_comparisons(task.comparisons, task.metric)
    spent = tables.readable_budget(budget(task), task.metric)
    written = []
    readable = {"results": results, "comparisons": comparisons, "budget": spent}
    caught_up = catching_up(task)
    of_arms = {"arms": by_arm(task), "choices": chosen(task), "caught_up": tables.readable_catching_up(caught_up)}
    readable |= of_arms  # of fair studies
    for name, table in readable.items():
        if len(table):
            written += _write_table(table, out / f"{name}{suffix}")
    exact = {"comparisons": task.comparisons, "tails": tails(task), "catching_up": caught_up}
    for name, table in exact.items():
        if len(table):
            written.append(out / f"{name}{suffix}.csv")
            tables.to_csv(table, written[-1])
    drawn = ((name, figures.draw(name, task, request.drawing)) for name in request.pictures)
    pictures, paths = _save(drawn, out, suffix)
    verdicts = _verdicts(task)
    said = [f"{task.name}: {_count(task)}", *(_finding(finding) for finding in found), "", tables.to_text(results), ""]
    section = page.Section(
        name=task.name,
        verdicts=verdicts,
        checks=found,
        comparisons=_with_groups(comparisons, task.comparisons),
        results=_with_groups(results, raw),
        budget=spent,
        settings=_settings(task),
        figures=pictures,
        groups=_groups(task, results, raw),
        digits=task.metric.digits,
        first=_first(task),
    )
    return section, written + paths, said + _said(task, verdicts)


def _write_together(found: Sequence[Task], out: Path, request: Request) -> tuple[page.Section, list[Path]] | None:
    """What several tasks say together: the same contrast, and who is how much faster; None of one task."""
    if len(found) < 2:
        return None
    asked = cells.questions(found)
    every = [contrast for contrast in contrasts(found) if len(contrast.tasks) > 1]
    drawn = ((name, figures.draw_together(name, found, request.drawing)) for name in request.pictures)
    pictures, paths = _save(drawn, out, "-together")
    if not every and not asked and not pictures:
        return None
    if asked:
        paths += _write_table(cells.readable(asked), out / "cells")
        if len(first := primary(found, asked)):
            paths += _write_table(first, out / "primary")
        tables.to_csv(pd.concat([question.table for question in asked], ignore_index=True), out / "cells.csv")
        paths.append(out / "cells.csv")
    nothing = pd.DataFrame()
    section = page.Section(
        name=TOGETHER,
        verdicts=[
            *(page.Verdict(one.word, one.sentence) for one in asked),
            *(page.Verdict(one.word, one.sentence) for one in every),
        ],
        checks=[],
        comparisons=nothing,
        results=nothing,
        budget=nothing,
        settings=nothing,
        figures=pictures,
        groups=[],
        first=next((page.Verdict(one.word, one.sentence) for one in asked if one.family == arms.PRIMARY), None),
        together=True,
    )
    return section, paths


def _save(
    drawn: Iterable[tuple[str, figures.Drawn | None]], out: Path, suffix: str
) -> tuple[list[page.Picture], list[Path]]:
    """The figures that apply, and their files."""
    pictures, written = [], []
    for name, figure in drawn:
        if figure is None:
            continue
        paths = figures.save(figure.figure, out / f"{name}{suffix}")
        written += paths
        svg = next(path for path in paths if path.suffix == ".svg").read_text(encoding="utf-8")
        pictures.append(page.Picture(f"{name}{suffix}", figure.title, figure.caption, figure.alt, figure.table, svg))
    return pictures, written


def _verdicts(task: Task) -> list[page.Verdict]:
    """What the task's contrasts come to over all strata, each comparison, and the tuned methods'."""
    pooled = [page.Verdict(contrast.word, contrast.sentence) for contrast in contrasts([task])]
    single = [
        page.Verdict(str(row.verdict), str(row.sentence), str(row.group)) for row in task.comparisons.itertuples()
    ]
    found = tuned(task)
    chosen = (
        [page.Verdict(str(row.verdict), str(row.sentence)) for row in found.comparisons.itertuples()] if found else []
    )
    return [*pooled, *single, *chosen]


def _first(task: Task) -> page.Verdict | None:
    """What a fair study has asked first."""
    asked = {(arm, other) for family, arm, other in arms.pairs(task.groups) if family == arms.PRIMARY}
    rows = (row for row in task.comparisons.itertuples() if (row.group, row.baseline) in asked)
    return next((page.Verdict(str(row.verdict), str(row.sentence), str(row.group)) for row in rows), None)


def _said(task: Task, verdicts: list[page.Verdict]) -> list[str]:
    """What the results are, and the verdicts as sentences."""
    said = ["mean ± half-width of the 95% t interval over seeds, at the last epoch"]
    if len(task.comparisons):
        counts = dict.fromkeys(task.comparisons.groupby("family").groups)
        family = " and ".join(f"{count:.0f}" for count in counts)
        what = f"{task.split} {task.metric.name} of the {task.weights} weights at the last epoch"
        said += ["", f"{what}, each method against its baseline; Holm over {family} comparisons:"]
        said += [f"  {verdict.sentence}" for verdict in verdicts[:MOST_SENTENCES]]
        if len(verdicts) > MOST_SENTENCES:
            said.append(f"  and {len(verdicts) - MOST_SENTENCES} more, in the report")
    return said


def _count(task: Task) -> str:
    runs = arms.made(task.runs)
    published = int((runs["source"] == REFERENCE).sum())
    return f"{len(runs) - published} run(s)" + (f" and {published} published ones" if published else "")


def _finding(finding: checks.Finding) -> str:
    return f"{finding.level}: {finding.text}"


def _write_table(shown: pd.DataFrame, path: Path) -> list[Path]:
    paths = [path.with_name(f"{path.name}.md"), path.with_name(f"{path.name}.tex")]
    paths[0].write_text(tables.to_markdown(shown) + "\n", encoding="utf-8")
    paths[1].write_text(tables.to_latex(shown), encoding="utf-8")
    return paths


def _with_groups(shown: pd.DataFrame, raw: pd.DataFrame) -> pd.DataFrame:
    """A readable table, with the ids of its rows' groups for the page to colour them by."""
    return shown.assign(group=raw["group"].to_numpy()) if len(shown) else shown


def _groups(task: Task, results: pd.DataFrame, raw: pd.DataFrame) -> list[page.Group]:
    """With what the table of results says of each."""
    looks = figures.looks(task)
    measured = [str(column) for column in results if str(column).endswith(" weights")]
    told = {
        str(group): "; ".join(f"{column} {row[column]}" for column in measured if row[column] != "–")
        + f"; n = {row['n']}"
        for group, row in zip(raw["group"], results.to_dict("records"), strict=True)
    }
    return [
        page.Group(
            str(group), f"{row['label']} {row['shown']}".strip(), looks[str(group)].hex, told.get(str(group), "")
        )
        for group, row in task.groups.iterrows()
    ]


def _settings(task: Task) -> pd.DataFrame:
    """Settings that all groups share."""
    own = task.groups[task.groups["source"] != REFERENCE]
    rows = []
    for key in setting_keys(own):
        values = list(dict.fromkeys(map(_plain, own[f"config.{key}"].dropna())))
        if len(values) == 1:
            rows.append({"setting": key, "value": values[0]})
    return pd.DataFrame(rows, columns=["setting", "value"])


def _plain(value: Any) -> str:
    """A whole number that a column with gaps has made a float is whole again."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _page(study: Study, sections: list[page.Section], overall: list[checks.Finding], request: Request) -> str:
    versions = {"python": platform.python_version(), "nested-lookahead": __version__}
    for package in ("numpy", "pandas", "scipy", "matplotlib"):
        versions[package] = metadata.version(package)
    if "commit" in study.runs:
        versions["runs made by code"] = ", ".join(sorted(set(study.runs["commit"].dropna()) - {""})) or "unknown"
    if overall:
        sections = [replace(sections[0], checks=[*overall, *sections[0].checks]), *sections[1:]]
    return page.page(
        page.Content(
            title=opening.title(study, sections),
            opening=opening.opening(sections, request.fixed),
            command=request.command,
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            versions=versions,
            sections=sections,
            left_out=study.left_out,
        )
    )
