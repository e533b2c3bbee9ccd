"""What exact theory says about Lookahead at any depth, in the noisy quadratic model: tables and figures.

python -m nested_lookahead.theory
python -m nested_lookahead.theory --coordinates 100 --start-power 1 --horizons 100 1000
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nested_lookahead.command import invocation, run_command
from nested_lookahead.document import renew
from nested_lookahead.errors import UserError


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=invocation("theory"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--coordinates", type=int, default=1000, metavar="N", help="of the spectrum (default: 1000)")
    parser.add_argument("--power", type=float, default=1.0, metavar="P", help="curvatures i^-P (default: 1)")
    parser.add_argument(
        "--noise-power", type=float, default=1.0, metavar="P", help="noise variances curvature^-P (default: 1)"
    )
    parser.add_argument(
        "--start-power", type=float, default=0.0, metavar="P", help="squared starts curvature^-P (default: 0, all 1)"
    )
    parser.add_argument("--horizons", type=int, nargs="+", default=[10, 100, 1000, 10000], metavar="T", help="in steps")
    parser.add_argument("--momentum", action="store_true", help="tune with momentum in SGD, too (long)")
    parser.add_argument("--workers", action="store_true", help="workers that train apart: what layers over groups gain")
    parser.add_argument("--rivals", action="store_true", help="tune slow momentum and averages, too (long)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/theory"), help="where to write (default: outputs/theory)"
    )
    parser.add_argument("--no-figures", action="store_true", help="tables alone")
    parser.add_argument(
        "--docs", type=Path, metavar="FILE.md", help="renew this page's tables, between comments, and its figures"
    )
    return parser.parse_args()


def main() -> None:
    options = parse()
    for steps in options.horizons:
        if steps < 2:
            raise UserError(f"--horizons {steps}: must be >= 2")
    if options.coordinates < 1:
        raise UserError(f"--coordinates {options.coordinates}: must be >= 1")
    began = time.perf_counter()
    tables, figures = find(options)
    options.out.mkdir(parents=True, exist_ok=True)
    for table in tables.values():
        print(f"\n{table.text()}")
    text = "\n\n".join(f"## {table.title}\n\n{table.markdown()}" for table in tables.values())
    (options.out / "tables.md").write_text(f"{text}\n")
    for name, figure in figures.items():
        figure.savefig(options.out / f"{name}.png", dpi=200)
        if options.docs:
            (options.docs.parent / "figures").mkdir(exist_ok=True)
            figure.savefig(options.docs.parent / "figures" / f"theory_{name}.png", dpi=120)
    if options.docs:
        renew(options.docs, {name: table.markdown() for name, table in tables.items()})
    print(f"\ntables and figures in {options.out}, {time.perf_counter() - began:.0f} s")


def find(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables and figures that were asked for, by name."""
    from nested_lookahead.theory import findings  # --help need not wait for scipy
    from nested_lookahead.theory.tuning import Problem, periods_of

    problem = Problem.power_law(options.coordinates, options.power, options.noise_power, options.start_power)
    horizons = sorted(set(options.horizons))
    risks, chosen = findings.horizon_table(problem, horizons, watch)
    middle = 1000 if 1000 in horizons else horizons[-1]
    tables = {
        "risk": risks,
        "scales": findings.two_time_scales(),
        "evaluated": findings.evaluated(),
        "replica": findings.replica_table(),
    }
    rivals: dict[tuple[str, int], float] = {}
    divisible = [steps for steps in horizons if periods_of(steps, 2)]
    if options.momentum:
        shorter = [steps for steps in divisible if 100 <= steps <= 1000]
        tables["momentum"] = findings.momentum_table(problem, shorter, watch)
    if options.rivals:
        tables["rivals"], rivals = findings.rivals_table(problem, divisible, watch)
    apart = findings.workers_risks(problem, middle, watch) if options.workers else {}
    if apart:
        tables["workers"] = findings.workers_table(apart, middle)
    return tables, {} if options.no_figures else draw(problem, chosen, rivals, middle, apart)


def draw(
    problem: Any, chosen: dict[Any, Any], rivals: dict[tuple[str, int], float], middle: int, apart: dict[Any, Any]
) -> dict[str, Any]:
    from nested_lookahead.theory import figures

    return ({"workers": figures.risk_against_communication(apart, middle)} if apart else {}) | {
        "risk": figures.risk_against_horizon(chosen, rivals),
        "frontier": figures.frontier(),
        "scales": figures.two_scales_bound(),
        "cycle": figures.along_the_cycle(),
        "read_out": figures.read_out(),
        "map": figures.nested_over_lookahead(problem, middle, chosen["best Lookahead", middle], watch),
    }


def watch(items: Sequence[Any], what: str) -> Iterable[Any]:
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(items, desc=what, leave=False, disable=None)
    return bar


def run() -> int:
    """Obey the command line; return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(run())
