"""What a directory held before a run began anew in it: out of the way, until the new run has something to show.

Files are moved, never deleted, before they are replaced: a run that begins anew and comes to nothing (its process is
killed, the disk fails) leaves the directory as it was.
"""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path

from nested_lookahead.runs.files import CHECKPOINT, CONFIG, METRICS, PREVIOUS_CHECKPOINT, SUMMARY

KEPT = ".earlier"
"""Folder in a run's directory with the files of the run before; there while the new one has none of `RESULTS`."""
MOVING = ".earlier.moving"
"""Folder that is being filled or emptied: what is in it belongs a level up."""

RESULTS = (SUMMARY, CHECKPOINT, PREVIOUS_CHECKPOINT)


def move_away(path: Path) -> None:
    """Move a run's files out of the way, all or, at the next `bring_back`, none."""
    if not any((path / name).exists() for name in (*RESULTS, METRICS)):
        return
    (path / MOVING).mkdir()
    for name in (*RESULTS, METRICS, CONFIG):
        if (path / name).exists():
            os.replace(path / name, path / MOVING / name)
    os.rename(path / MOVING, path / KEPT)


def bring_back(path: Path) -> None:
    """Make good for a beginning that came to nothing."""
    for name in (KEPT, MOVING):
        if os.path.lexists(path / name) and ((path / name).is_symlink() or not (path / name).is_dir()):
            put_aside(path / name)  # none of ours
    if (path / KEPT).exists():
        if any((path / name).exists() for name in RESULTS):
            let_go(path)
            return
        os.rename(path / KEPT, path / MOVING)
    if (path / MOVING).exists():
        for file in sorted((path / MOVING).iterdir()):
            os.replace(file, path / file.name)
        (path / MOVING).rmdir()


def let_go(path: Path) -> None:
    """The new run has a checkpoint, or is over."""
    if (path / KEPT).exists():
        shutil.rmtree(path / KEPT)


def put_aside(file: Path) -> Path:
    """Rename a damaged file, so that it is neither read again nor written over; its new path."""
    aside = next(p for n in count(1) if not os.path.lexists(p := file.with_name(f"{file.name}.damaged-{n}")))
    os.rename(file, aside)
    return aside
