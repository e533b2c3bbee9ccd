"""A figure from its first panel to its last word: what a reader may choose, and what is said about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nested_lookahead.analysis import arms
from nested_lookahead.analysis.figures.names import wrap
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.drawing import new_figure
from nested_lookahead.runs.files import COMPLETED

if TYPE_CHECKING:
    from nested_lookahead.analysis.task import Task


@dataclass(frozen=True)
class Options:
    """What a reader may choose about the figures.

    ``metric``: accuracy, error (100 − accuracy) or loss; ``x``: epoch, step or seconds, of learning curves.
    ``target``: accuracy in % for the time to target (default: the median of the groups' final means).
    ``smooth``: evaluations in a running mean of the learning curves.
    """

    metric: str = "accuracy"
    x: str = "epoch"
    target: float | None = None
    smooth: int | None = None


@dataclass(frozen=True)
class Drawn:
    """A figure, and what is said about it.

    ``caption``: what is averaged or fixed, and the intervals; ``alt``: the numbers in words, at most sixty; ``table``:
    the numbers drawn.
    """

    figure: Figure
    title: str
    caption: str
    alt: str
    table: pd.DataFrame


def panels(count: int, height: float, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """So many panels of equal size, two beside each other; one alone has the whole width."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, rows * height + 0.4)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def runs_said(task: Task) -> str:
    """How many runs, and of which code."""
    runs = arms.made(task.runs)
    ours = runs[runs["source"] != REFERENCE]
    diverged = int((runs["status"] != COMPLETED).sum())
    commits = sorted({str(commit)[:8] for commit in ours.get("commit", pd.Series(dtype=str)).dropna() if commit})
    code = f", code {', '.join(commits[:3])}{' and others' if len(commits) > 3 else ''}" if commits else ""
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {diverged} diverged{code}."


def in_words(parts: Iterable[str], limit: int = 60) -> str:
    """The parts as one text that ends after so many words, at the end of a part."""
    said: list[str] = []
    left = 0
    for part in parts:
        if left or len(" ".join([*said, part]).split()) > limit - 6:
            left += 1
        else:
            said.append(part)
    return " ".join(said) + (f" {left} more in the table." if left else "")


def finish(figure: Figure, task: Task, title: str, caption: str, alt: Iterable[str], table: pd.DataFrame) -> Drawn:
    """Title the figure, and make the ids of what belongs to a group unique: ``g-<group>-<running number>``."""
    figure.suptitle(wrap(f"{task.name}: {title}", 6.6 if figure.get_figwidth() > 4 else 3.2), x=0.01, ha="left")
    tagged = figure.findobj(lambda artist: str(artist.get_gid() or "").startswith("g-"))
    for number, artist in enumerate(tagged):
        artist.set_gid(f"{artist.get_gid()}-{number}")
    text = re.sub(r"\s+", " ", f"{caption} {runs_said(task)}").strip()
    return Drawn(figure, title, text, in_words(alt), table.reset_index(drop=True))
