"""How often the verdict is wrong, on simulated studies whose truth is known.

python benchmarks/calibration.py --studies 2000
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from tqdm import tqdm

from nested_lookahead.analysis import statistics

DELTA = 0.5


def study(values: np.ndarray[Any, Any], truths: list[float]) -> tuple[list[str], list[bool]]:
    """Verdicts of each method against the first, and whether each interval covers the truth.

    ``values``: (methods, seeds), in points.
    """
    results = [statistics.paired(other - values[0]) for other in values[1:]]
    adjusted = statistics.holm([result.p for result in results])
    words = [statistics.verdict(result, p, DELTA) for result, p in zip(results, adjusted, strict=True)]
    return words, [result.low <= truth <= result.high for result, truth in zip(results, truths, strict=True)]


def simulate(
    rng: np.random.Generator, studies: int, methods: int, seeds: int, difference: float, sd: float
) -> tuple[np.ndarray[Any, Any], float]:
    """Verdicts (studies, methods − 1), and the intervals' coverage; all methods but the last are equal.

    ``sd`` is of the paired differences; seeds have an effect that is common to all methods, and twice as large.
    """
    words, covered = [], []
    for _ in range(studies):
        values = rng.normal(0, 2 * sd, seeds) + rng.normal(0, sd / math.sqrt(2), (methods, seeds))
        values[-1] += difference
        said, inside = study(values, [*[0.0] * (methods - 2), difference])
        words.append(said)
        covered += inside
    return np.array(words), float(np.mean(covered))


def share(hits: np.ndarray[Any, Any]) -> str:
    """With its Clopper-Pearson interval."""
    low, high = statistics.clopper_pearson(int(hits.sum()), hits.size)
    return f"{100 * hits.mean():.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, rows = np.random.default_rng(arguments.seed), []
    with tqdm(total=6) as bar:
        for seeds in (5, 10):
            words, coverage = simulate(rng, arguments.studies, 4, seeds, 0.0, 1.0)
            false = np.asarray(np.isin(words, ["better", "worse"]).any(axis=1))
            rows.append((f"4 equal methods × {seeds} seeds: any false better or worse", share(false), "≤ 5%"))
            rows.append(
                (f"4 equal methods × {seeds} seeds: coverage of the 95% intervals", f"{100 * coverage:.1f}%", "93–97%")
            )
            bar.update()
        for seeds in (5, 10):
            words, coverage = simulate(rng, arguments.studies, 2, seeds, 1.0, 1.0)
            goal = "≈ 80%" if seeds == 10 else ""
            rows.append((f"a difference of d_z = 1, {seeds} seeds: found", share(np.asarray(words == "better")), goal))
            bar.update()
        for seeds in (5, 10):
            words, _ = simulate(rng, arguments.studies, 2, seeds, DELTA, 0.4)
            rows.append(
                (
                    f"a true difference of δ, {seeds} seeds: called equivalent",
                    share(np.asarray(words == "equivalent")),
                    "≤ 5%",
                )
            )
            bar.update()
    width = max(len(row[0]) for row in rows)
    print(f"{arguments.studies} studies each; share [95% Clopper-Pearson interval], goal")
    for what, seen, goal in rows:
        print(f"{what:<{width}}  {seen:<20}  {goal}")


if __name__ == "__main__":
    main()
