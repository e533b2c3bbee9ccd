"""Compare finished runs; ``analyze.py`` of a checkout and ``nested-lookahead analyze`` run this."""

from __future__ import annotations

import gc
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from nested_lookahead.analysis.options import parse
from nested_lookahead.command import invocation, run_command

OUTPUTS = Path("outputs")
SHOWN = 10
"""Of other studies."""


def main() -> None:
    options = parse()
    gc.set_threshold(100_000)  # searching the many objects of figures in use for garbage takes a tenth of the time
    from nested_lookahead.analysis import archive, collect, figures, report  # --help need not wait for pandas
    from nested_lookahead.analysis.asked import asked

    folders = options.folders or ([] if options.reference else [_newest(collect.studies(OUTPUTS))])
    if options.archive is not None:
        print(archive.pack(folders, options.archive))
        return
    out = options.out or archive.beside(folders[0] if folders else OUTPUTS / "reference") / options.place
    study, plan = asked(folders, out / report.CACHE, options)
    request = report.Request(
        weights=options.weights,
        split=options.split,
        tuning_seeds=options.tuning_seeds,
        baseline=plan.baseline,
        family=plan.compare,
        delta=plan.delta,
        fixed=plan.fixed,
        pictures=options.figures.split(",") if options.figures else tuple(figures.FIGURES),
        drawing=figures.Options(options.metric, options.x, plan.target, options.smooth),
        docs=options.docs,
        command=f"{invocation('analyze')} {shlex.join(sys.argv[1:])}",
    )
    print(report.write(study, out, request))


def _newest(studies: Sequence[Path]) -> Path:
    """Say which one it is, where there are several, and how to choose."""
    newest, *others = studies
    if others:
        shown = ", ".join(map(str, others[:SHOWN])) + (" …" if len(others) > SHOWN else "")
        print(f"{newest}: the newest of {len(studies)} studies; for another, {invocation('analyze')} FOLDER: {shown}\n")
    return newest


def run() -> int:
    """Obey the command line; return the exit status."""
    return run_command(main)
