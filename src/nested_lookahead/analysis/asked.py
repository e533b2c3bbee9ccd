"""The study that a command line asks for, and what it asks of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nested_lookahead.analysis import archive, arms, matching, opponents
from nested_lookahead.analysis.collect import Study, collect, join
from nested_lookahead.analysis.plan import Plan, plan
from nested_lookahead.runs import fair


def asked(folders: list[Path], cache: Path, options: argparse.Namespace) -> tuple[Study, Plan]:
    """The runs below folders and in archives, filtered, beside an earlier study where one is asked for.

    Raises:
        UserError: there is no such folder, run, setting or value.
    """
    study = gathered(folders, cache, options.reference)
    if options.against is not None:
        earlier = gathered([options.against], cache.with_name(f"earlier-{cache.name}"))
        study = opponents.side_by_side(study, earlier, _names(folders[0], options.against))
    study = matching.filtered(study, options.filter)
    found = plan(study, delta=options.delta, target=options.target, baseline=options.baseline, compare=options.compare)
    if found.baseline is not None and "=" in found.baseline:
        matching.meant(study.runs, found.baseline, f"--baseline {found.baseline}")
    return replace(study, notes=[*study.notes, *found.changed]), found


def gathered(paths: Sequence[Path], cache: Path | None = None, references: Sequence[Path] = ()) -> Study:
    """As `collect`, of folders and archives, and of fair studies their arms; the runs of an archive have its name for a
    folder's."""
    with archive.opened(paths) as places:
        packed = any(place != path for place, path in places.items())
        studies = {place: fair.find_studies(place) for place in places}
        plain = [place for place, found in studies.items() if not found]
        found = [arms.gathered(folder) for each in studies.values() for folder in each]
        if plain or not found:
            found.append(collect(plain, None if packed else cache, references))  # which knows files by where they lie
        study = join(found)
    if not packed:
        return study

    def named(table: pd.DataFrame) -> pd.DataFrame:
        known = {path: archive.renamed(str(path), places) for path in table["path"].unique()}
        paths = table["path"].map(known)
        return table.assign(path=paths.astype("category") if table is study.metrics else paths)

    return replace(study, runs=named(study.runs), metrics=named(study.metrics), left_out=named(study.left_out))


def _names(later: Path, earlier: Path) -> tuple[str, str]:
    """By their last parts, where these differ."""
    return (later.name, earlier.name) if later.name != earlier.name else (str(later), str(earlier))
