"""Time a study on the plain launcher, on joblib's, and as stacks, in turn, as whole processes; compare what comes out.

    python benchmarks/stacked.py --device cuda                                # experiment=grid: 243 runs
    python benchmarks/stacked.py --device cuda --study laptop                 # experiment=laptop: 140 runs
    python benchmarks/stacked.py --only plain stacked -- epochs=2 'optimizer.k=3,5' optimizer.s=3 optimizer.h=0.5

Settings after ``--`` are the sweep's: for a smaller one, say. "CPU" is the processor time of all processes; "in stacks"
the number of runs that were made so; "differ" the largest differences from the plain launcher's runs, in a final loss,
relative to it, and in a final accuracy.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nested_lookahead.runs import files

TRAIN = Path(__file__).parent.parent / "train.py"
LAUNCHERS = {
    "plain": [],
    "joblib 4": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"],
    "joblib 8": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=8"],
    "stacked": ["hydra/launcher=stacked"],
}

Summaries = dict[str, dict[str, Any]]
"""By the run's directory below the study's."""


def sweep(launcher: list[str], settings: list[str], output: Path) -> tuple[float, float, Summaries]:
    """Seconds of the whole process, those of the processors that it took, and what its runs came to."""
    began, before = time.perf_counter(), processor_seconds()
    command = [sys.executable, str(TRAIN), "-m", *settings, *launcher, f"output_dir={output}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    took, cpu = time.perf_counter() - began, processor_seconds() - before
    found = {str(run.relative_to(output)): files.read_summary(run) for run in files.find_runs(output)}
    return took, cpu, {name: summary for name, summary in found.items() if summary is not None}


def processor_seconds() -> float:
    """Of the processes that this one has waited for, and theirs."""
    times = os.times()
    return times.children_user + times.children_system


def differences(ours: Summaries, theirs: Summaries) -> tuple[float, float]:
    """The largest ones between runs that were completed: of a final loss, relative to it, and of a final accuracy.

    Raises:
        SystemExit: they are not the same runs, or did not end alike.
    """
    if {name: run["status"] for name, run in ours.items()} != {name: run["status"] for name, run in theirs.items()}:
        raise SystemExit("the runs are not the same, or did not end alike")
    loss, accuracy = [0.0], [0.0]
    for name, run in ours.items():
        if run["status"] == files.COMPLETED:
            for weights, splits in run["final"].items():
                for split, row in splits.items():
                    other = theirs[name]["final"][weights][split]
                    loss.append(abs(row["loss"] - other["loss"]) / abs(other["loss"]))
                    accuracy.append(abs(row["accuracy"] - other["accuracy"]))
    return max(loss), max(accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=("grid", "laptop"), default="grid")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS), help="these launchers")
    parser.add_argument("--max-size", type=int, nargs="+", default=[64], help="of a stack; several are tried in turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("settings", nargs="*", help="of the sweep")
    arguments = parser.parse_args()
    settings = [f"experiment={arguments.study}", f"device={arguments.device}", "progress=false", *arguments.settings]
    launchers = {name: LAUNCHERS[name] for name in arguments.only if name != "stacked"}
    if "stacked" in arguments.only:
        stacked = LAUNCHERS["stacked"]
        launchers |= {f"stacked {most}": [*stacked, f"hydra.launcher.max_size={most}"] for most in arguments.max_size}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in launchers}
    found: dict[str, Summaries] = {}
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=arguments.repeats * len(launchers)) as bar:
        fresh = (Path(temporary) / str(number) for number in itertools.count())
        for _ in range(arguments.repeats):
            for name, launcher in launchers.items():
                *seconds, found[name] = sweep(launcher, settings, next(fresh))
                took[name].append((seconds[0], seconds[1]))
                bar.update()
    for name, times in took.items():
        print(line(name, times, found))


def line(name: str, times: list[tuple[float, float]], found: dict[str, Summaries]) -> str:
    runs = found[name]
    rates, cpu = [60 * len(runs) / whole for whole, _ in times], [seconds / len(runs) for _, seconds in times]
    text = f"{name:12} {len(runs)} runs, {spread(rates, 1)} runs/min, CPU {spread(cpu, 2)} s per run, n = {len(times)}"
    if name.startswith("stacked"):
        text += f"; in stacks {sum('stacked' in run['hardware'] for run in runs.values())}"
    if name != "plain" and "plain" in found:
        text += "; differ {:.1e} in loss, {:.4f} in accuracy".format(*differences(runs, found["plain"]))
    return text


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
