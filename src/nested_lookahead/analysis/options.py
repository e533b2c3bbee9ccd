"""What ``analyze.py`` takes. Imports nothing that ``--help`` would have to wait for."""

from __future__ import annotations

import argparse
from pathlib import Path

from nested_lookahead.command import invocation
from nested_lookahead.errors import UserError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; ``place``: the folder that is written, in that of the runs.

    Raises:
        UserError: a number is out of its range.
    """
    this = invocation("analyze")
    parser = argparse.ArgumentParser(
        prog=this,
        description="Check, compare and draw finished runs: verdicts, tables, figures, and a report.html of them all.",
        epilog=f"examples: {this} outputs/digits --baseline sgd --delta 0.3;  "
        f"{this} outputs/grid --filter k=3,5 --baseline k=5,alpha=0.5;  "
        f"{this} outputs/after --against outputs/before;  "
        f"{this} outputs/grid --archive grid.tar.xz;  "
        f"{this} --reference published.csv",
    )
    _add_runs(parser)
    _add_comparison(parser)
    _add_figures(parser)
    options = parser.parse_args(arguments)
    if options.delta is not None and not options.delta > 0:
        raise UserError(f"--delta {options.delta:g}: must be > 0")
    if options.archive is not None and options.archive.suffixes[-2:] != [".tar", ".xz"]:
        raise UserError(f"--archive {options.archive}: must end with .tar.xz")
    if options.smooth is not None and options.smooth < 1:
        raise UserError(f"--smooth {options.smooth}: must be >= 1")
    options.place = "analysis" if options.against is None else f"analysis-against-{options.against.resolve().name}"
    return options


def _add_runs(parser: argparse.ArgumentParser) -> None:
    """Which runs, and where what is made of them belongs."""
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help="folders or archives (.tar.xz) of runs, at any depth (default: newest study)",
    )
    parser.add_argument("--out", type=Path, help="where to write (default: analysis/ in the first folder)")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this setting, as k=5, lr=0.1,0.3, optimizer=lookahead or dataset=digits; repeatable",
    )
    parser.add_argument(
        "--archive", type=Path, metavar="FILE.tar.xz", help="keep the runs here without their checkpoints, and stop"
    )
    parser.add_argument(
        "--docs", type=Path, metavar="FILE.md", help="renew this page's tables, between comments, and its figures, too"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.csv",
        help="published numbers to show beside the runs, or alone: study, method, tag, run, epoch, test_accuracy",
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    """What of them is compared, and with what."""
    parser.add_argument(
        "--weights", default="fast", help="weights that are compared: fast (default), slow, ema, ema0.99, tail, …"
    )
    parser.add_argument(
        "--split",
        choices=("test", "validation", "train"),
        default="test",
        help="split whose accuracy is compared (choose settings on validation, report on test; default: test)",
    )
    parser.add_argument(
        "--baseline",
        help="method (sgd, lookahead, lookahead_adam, …) that all others are compared with "
        "or settings, as k=5,alpha=0.5 (default: the study's, else Lookahead over the same inner optimizer; of "
        "Lookahead, that optimizer)",
    )
    parser.add_argument(
        "--compare",
        choices=("baseline", "all"),
        help="each method with its baseline, or all pairs, as one family (default: the study's, else baseline)",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="an earlier study, whose runs of the same configurations and seeds these are compared with",
    )
    parser.add_argument(
        "--delta",
        type=float,
        help="the difference that matters, in points (default: the study's, else 0.5)",
    )
    parser.add_argument(
        "--tuning-seeds",
        type=_seeds,
        metavar="0-4",
        help="seeds that settings are chosen on, such as 0-4 or 0,2,7 (default: those that all settings have)",
    )


def _add_figures(parser: argparse.ArgumentParser) -> None:
    """Which figures, and what their axes show."""
    parser.add_argument("--figures", help="which ones, with commas (default: all that apply); see docs/analysis.md")
    parser.add_argument(
        "--metric", choices=("accuracy", "error", "loss"), default="accuracy", help="of the learning curves"
    )
    parser.add_argument(
        "--x", choices=("epoch", "step", "seconds"), default="epoch", help="axis of the learning curves"
    )
    parser.add_argument(
        "--target",
        type=float,
        help="accuracy (%%) to look for the time of (default: the study's, else a median)",
    )
    parser.add_argument(
        "--smooth", type=int, metavar="N", help="draw trailing means over N evaluations (default: none)"
    )


def _seeds(text: str) -> tuple[int, ...]:
    """``0-2,7`` as (0, 1, 2, 7)."""
    ranges = (part.partition("-") for part in text.split(","))
    return tuple(seed for low, _, high in ranges for seed in range(int(low), int(high or low) + 1))
