"""Compare finished runs: ``python analyze.py --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nested_lookahead.errors import run_command

OUTPUTS = Path("outputs")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Gather finished runs, print and write a results table, and draw their learning curves.",
        epilog="example: python analyze.py outputs/digits outputs/another_study --weights slow",
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders of runs, at any depth (default: newest study)")
    parser.add_argument("--out", type=Path, help="where to write (default: analysis/ in the first folder)")
    parser.add_argument("--weights", choices=("fast", "slow"), default="fast", help="weights whose curves are drawn")
    parser.add_argument(
        "--split",
        choices=("test", "validation", "train"),
        default="test",
        help="split whose accuracy is shown (choose settings on validation, report on test; default: test)",
    )
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    from nested_lookahead.analysis import collect, report  # after the arguments: --help need not wait for pandas

    folders = options.folders or [collect.newest_study(OUTPUTS)]
    study = collect.collect(folders)
    print(report.write(study, options.out or folders[0] / "analysis", options.weights, options.split))


if __name__ == "__main__":
    sys.exit(run_command(main))
