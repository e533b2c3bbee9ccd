"""Compare finished runs: ``python analyze.py --help``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from nested_lookahead.errors import UserError, run_command

OUTPUTS = Path("outputs")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Check, compare and draw finished runs: verdicts, tables, figures, and a report.html of them all.",
        epilog="examples: python analyze.py outputs/digits --baseline sgd --delta 0.3;  "
        "python analyze.py --reference published.csv",
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders of runs, at any depth (default: newest study)")
    parser.add_argument("--out", type=Path, help="where to write (default: analysis/ in the first folder)")
    parser.add_argument("--weights", choices=("fast", "slow"), default="fast", help="weights that are compared")
    parser.add_argument(
        "--split",
        choices=("test", "validation", "train"),
        default="test",
        help="split whose accuracy is compared (choose settings on validation, report on test; default: test)",
    )
    parser.add_argument(
        "--baseline",
        help="method (sgd, lookahead, lookahead_adam, …) that all others are compared with "
        "(default: Lookahead over the same inner optimizer; of Lookahead, that optimizer)",
    )
    parser.add_argument(
        "--delta", type=float, default=0.5, help="the difference that matters, in points of accuracy (default: 0.5)"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.csv",
        help="published numbers to show beside the runs, or alone: study, method, tag, run, epoch, test_accuracy",
    )
    parser.add_argument("--figures", help="which ones, with commas (default: all that apply); see docs/analysis.md")
    parser.add_argument(
        "--metric", choices=("accuracy", "error", "loss"), default="accuracy", help="of the learning curves"
    )
    parser.add_argument(
        "--x", choices=("epoch", "step", "seconds"), default="epoch", help="axis of the learning curves"
    )
    parser.add_argument(
        "--target", type=float, help="accuracy (%%) whose time is looked for (default: a median result)"
    )
    parser.add_argument(
        "--smooth", type=int, metavar="N", help="draw trailing means over N evaluations (default: none)"
    )
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    if not options.delta > 0:
        raise UserError(f"--delta {options.delta:g}: must be > 0")
    if options.smooth is not None and options.smooth < 1:
        raise UserError(f"--smooth {options.smooth}: must be >= 1")
    from nested_lookahead.analysis import collect, figures, report  # --help need not wait for pandas

    folders = options.folders or ([] if options.reference else [collect.newest_study(OUTPUTS)])
    out = options.out or (folders[0] if folders else OUTPUTS / "reference") / "analysis"
    study = collect.collect(folders, out / report.CACHE, options.reference)
    chosen = report.Options(
        weights=options.weights,
        split=options.split,
        baseline=options.baseline,
        delta=options.delta,
        pictures=options.figures.split(",") if options.figures else tuple(figures.FIGURES),
        drawing=figures.Options(options.metric, options.x, options.target, options.smooth),
        command=f"python {shlex.join(sys.argv)}",
    )
    print(report.write(study, out, chosen))


if __name__ == "__main__":
    sys.exit(run_command(main))
