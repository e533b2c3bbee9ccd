"""Gather run directories into two tidy tables: one row per run, and the metrics of all runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nested_lookahead.analysis import cache as cached
from nested_lookahead.analysis import metrics
from nested_lookahead.analysis.cache import Found
from nested_lookahead.analysis.reference import read_reference
from nested_lookahead.analysis.run_rows import RUN_COLUMNS, LeftOut, read, tell_tasks_apart
from nested_lookahead.analysis.sound import fault_of
from nested_lookahead.command import invocation
from nested_lookahead.errors import UserError
from nested_lookahead.runs import files


@dataclass(frozen=True)
class Study:
    """What was found below some folders.

    ``runs``: one row per finished run: path, source (`run_rows.OWN` or `run_rows.REFERENCE`), task, group
    (configuration less seed), method, inner, pullback, seed, status, seconds, where and with what it was made, and one
    column per setting of the flattened configuration, under ``config.<key>``.
    ``metrics``: the rows of each run's metrics.csv, with its path; every column that any of them has.
    ``left_out``: path and reason.
    ``notes``: what of the runs could not be used.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    left_out: pd.DataFrame
    notes: Sequence[str] = ()


def newest_study(output_dir: Path) -> Path:
    """The folder of ``output_dir`` with the latest finished run.

    Raises:
        UserError: there is none.
    """
    summaries = list(output_dir.glob(f"*/**/{files.SUMMARY}"))
    if not summaries:
        raise UserError(f"{output_dir}: no finished run here; make one with: {invocation('train')}")
    latest = max(summaries, key=lambda path: path.stat().st_mtime)
    return output_dir / latest.relative_to(output_dir).parts[0]


def collect(folders: Iterable[Path], cache: Path | None = None, references: Sequence[Path] = ()) -> Study:
    """Read every run at or below the folders; a run that cannot be used is listed, with the reason.

    Args:
        cache: a file that keeps what was read, by path, size and time of each run's files; made anew where it is none.
        references: CSV files of published runs, see `read_reference`.

    Raises:
        UserError: a folder does not exist, not one finished run is found, or one is found twice with other results.
    """
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    left_out: dict[str, str] = {}
    found, kinds = _find(folders, cache, left_out)
    _leave_out_copies(found, left_out)
    published = [read_reference(path) for path in references]
    if not found and not published:
        where = ", ".join(str(folder) for folder in folders)
        first = next(iter(left_out.values()), "")
        unfinished = f" ({len(left_out)} left out: {first})" if left_out else ""
        raise UserError(f"{where}: no finished run here{unfinished}")
    rows = [run.row.copy() for run in found.values()]
    tell_tasks_apart(rows)
    runs = [pd.DataFrame(rows), *(runs for runs, _ in published)]
    curves = metrics.table({name: run.curve for name, run in found.items()}, kinds)
    gathered = pd.concat([table for table in runs if len(table)], ignore_index=True)
    return Study(
        gathered.reindex(columns=list(dict.fromkeys([*RUN_COLUMNS, *gathered.columns]))),
        concat([table for table in (curves, *(curves for _, curves in published)) if len(table)]),
        pd.DataFrame(left_out.items(), columns=["path", "reason"]),
        _notes(found),
    )


def _find(folders: list[Path], cache: Path | None, left_out: dict[str, str]) -> tuple[dict[str, Found], metrics.Kinds]:
    """All runs that can be used, from the cache where they are as they were."""
    known, kinds = cached.read(cache)
    found: dict[str, Found] = {}
    fresh: dict[str, bytes] = {}
    for path in dict.fromkeys(path for folder in folders for path in files.find_runs(folder)):
        name = str(path)
        try:
            stamp = _stamp(path)
            if name in known and known[name].stamp == stamp:
                found[name] = known[name]
            else:
                row, fresh[name], notes = read(path)
                found[name] = Found(stamp, row, notes=notes)
        except LeftOut as reason:
            left_out[name] = str(reason)
    parsed = metrics.parse(fresh, kinds)
    for name, curve in parsed.curves.items():
        found[name].curve = curve
        found[name].notes += parsed.notes.get(name, [])
        if fault := fault_of(curve, found[name].row):
            parsed.refused[name] = fault
    for name in parsed.refused:
        del found[name]
    left_out |= parsed.refused
    if cache is not None and (fresh or len(found) < len(known)):
        with suppress(OSError):  # a folder that cannot be written, or a full disk: then without
            cached.write(cache, found, kinds)
    return found, kinds


def _stamp(path: Path) -> list[list[int]]:
    """Size and time of the files that a row is made of."""
    try:
        stats = [os.stat(path / name) for name in (files.CONFIG, files.METRICS, files.SUMMARY)]
    except OSError:
        status = files.read_status(path)["status"]
        raise LeftOut(f"not finished (status {status})") from None
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def _leave_out_copies(found: dict[str, Found], left_out: dict[str, str]) -> None:
    """Raises:
    UserError: a configuration and seed occur twice, with different results.
    """
    seen: dict[tuple[str, int], str] = {}
    for name, run in list(found.items()):
        first = seen.setdefault((run.row["group"], run.row["seed"]), name)
        if first == name:
            continue
        if not all(np.array_equal(run.curve[c], found[first].curve[c], equal_nan=True) for c in ("loss", "accuracy")):
            raise UserError(f"the same configuration and seed twice: {first} and {name}; which one is meant?")
        del found[name]
        left_out[name] = f"a copy of {first}"


def join(studies: Sequence[Study]) -> Study:
    """Several as one, one after another."""
    if len(studies) == 1:
        return studies[0]
    return Study(
        pd.concat([study.runs for study in studies], ignore_index=True),
        concat([study.metrics for study in studies]),
        pd.concat([study.left_out for study in studies], ignore_index=True),
        [note for study in studies for note in study.notes],
    )


def concat(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The metrics of several studies as one table."""
    if len(tables) == 1:
        return tables[0]
    texts = ["path", *metrics.NAMES]
    joined = pd.concat([table.astype(dict.fromkeys(texts, object)) for table in tables], ignore_index=True)
    return joined.astype(dict.fromkeys(texts, "category"))


def _notes(found: dict[str, Found]) -> list[str]:
    """Each one once, with the number of runs it is about."""
    counts = Counter(note for run in found.values() for note in run.notes)
    return [f"{note} ({count} run{'s' if count > 1 else ''})" for note, count in counts.items()]
