"""Compare finished runs: ``python analyze.py --help``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from nested_lookahead.analysis.options import parse
from nested_lookahead.command import run_command

OUTPUTS = Path("outputs")


def main() -> None:
    options = parse()
    from nested_lookahead.analysis import collect, figures, report  # --help need not wait for pandas

    folders = options.folders or ([] if options.reference else [collect.newest_study(OUTPUTS)])
    out = options.out or (folders[0] if folders else OUTPUTS / "reference") / "analysis"
    study = collect.collect(folders, out / report.CACHE, options.reference)
    request = report.Request(
        weights=options.weights,
        split=options.split,
        baseline=options.baseline,
        delta=options.delta,
        tuning_seeds=options.tuning_seeds,
        pictures=options.figures.split(",") if options.figures else tuple(figures.FIGURES),
        drawing=figures.Options(options.metric, options.x, options.target, options.smooth),
        command=f"python {shlex.join(sys.argv)}",
    )
    print(report.write(study, out, request))


if __name__ == "__main__":
    sys.exit(run_command(main))
