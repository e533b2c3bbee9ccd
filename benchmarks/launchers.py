"""Time a sweep on the plain launcher and on joblib's with two workers, in turn, as whole processes.

    python benchmarks/launchers.py                                            # 20 runs of a few seconds
    python benchmarks/launchers.py --runs 100 --epochs 1 --model mlp          # 100 runs of a fraction of a second

"Beyond training" is what each further run of the plain sweep costs besides its training steps: the process's time, less
that of a sweep of one run, which pays for the interpreter's and torch's start.
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

from tqdm import tqdm

from nested_lookahead.runs import files

TRAIN = Path(__file__).parent.parent / "train.py"
LAUNCHERS = {"plain": [], "joblib, 2 workers": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]}


def sweep(launcher: str, runs: int, settings: list[str], output: Path) -> tuple[float, float]:
    """Seconds of the whole process, and of the training steps of all its runs."""
    command = [sys.executable, str(TRAIN), "-m", f"seed=range({runs})", *settings, f"output_dir={output}"]
    began = time.perf_counter()
    # One thread per run: as fast as two on so small a network, and the same work for both launchers.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *LAUNCHERS[launcher]], check=True, stdout=subprocess.DEVNULL, env=environment)
    took = time.perf_counter() - began
    summaries = [files.read_summary(run) for run in files.find_runs(output)]
    if len(summaries) != runs:
        raise SystemExit(f"{launcher}: {len(summaries)} runs were made instead of {runs}")
    return took, sum(summary["seconds"] for summary in summaries if summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    settings = [f"epochs={arguments.epochs}", f"model={arguments.model}", "device=cpu", "progress=false"]
    single: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
    whole: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
    beyond, trained = [], 0.0
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=arguments.repeats * len(LAUNCHERS)) as bar:
        fresh = (Path(temporary) / str(number) for number in itertools.count())
        for _ in range(arguments.repeats):
            for name in LAUNCHERS:
                single[name].append(sweep(name, 1, settings, next(fresh))[0])
                took, trained = sweep(name, arguments.runs, settings, next(fresh))
                whole[name].append(took)
                if name == "plain":
                    beyond.append((took - single[name][-1] - trained) / (arguments.runs - 1))
                bar.update()
    print(f"{arguments.runs} runs of {trained / arguments.runs:.3f} s of training steps each, n = {arguments.repeats}")
    for name, seconds in whole.items():
        rate = 60 * arguments.runs / statistics.median(seconds)
        print(f"{name:18} {spread(seconds, 1)} s, {rate:.0f} runs/min; a sweep of one run {spread(single[name], 1)} s")
    print(f"plain, beyond training: {spread(beyond, 3)} s per run")
    print(f"plain / joblib: {spread([a / b for a, b in zip(*whole.values(), strict=True)], 2)}")


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
