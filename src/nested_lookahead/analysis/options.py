"""What ``python analyze.py`` takes. Imports nothing that ``--help`` would have to wait for."""

from __future__ import annotations

import argparse
from pathlib import Path

from nested_lookahead.errors import UserError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Raises:
    UserError: a number is out of its range.
    """
    parser = argparse.ArgumentParser(
        description="Check, compare and draw finished runs: verdicts, tables, figures, and a report.html of them all.",
        epilog="examples: python analyze.py outputs/digits --baseline sgd --delta 0.3;  "
        "python analyze.py --reference published.csv",
    )
    _add_what(parser)
    _add_figures(parser)
    options = parser.parse_args(arguments)
    if not options.delta > 0:
        raise UserError(f"--delta {options.delta:g}: must be > 0")
    if options.smooth is not None and options.smooth < 1:
        raise UserError(f"--smooth {options.smooth}: must be >= 1")
    return options


def _add_what(parser: argparse.ArgumentParser) -> None:
    """What is compared, and with what."""
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
        "--tuning-seeds",
        type=_seeds,
        metavar="0-4",
        help="seeds that settings are chosen on, such as 0-4 or 0,2,7 (default: those that all settings have)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.csv",
        help="published numbers to show beside the runs, or alone: study, method, tag, run, epoch, test_accuracy",
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
        "--target", type=float, help="accuracy (%%) whose time is looked for (default: a median result)"
    )
    parser.add_argument(
        "--smooth", type=int, metavar="N", help="draw trailing means over N evaluations (default: none)"
    )


def _seeds(text: str) -> tuple[int, ...]:
    """``0-2,7`` as (0, 1, 2, 7)."""
    ranges = (part.partition("-") for part in text.split(","))
    return tuple(seed for low, _, high in ranges for seed in range(int(low), int(high or low) + 1))
