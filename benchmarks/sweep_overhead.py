"""What a run of a sweep costs beyond its training, and how many runs a minute the launchers make.

    python benchmarks/sweep_overhead.py --runs 100

Runs of one epoch on digits; "beyond training" is the process's time less the training steps' and less the interpreter's
and torch's start, which a sweep pays once (measured by a sweep of one run).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nested_lookahead import records

TRAIN = Path(__file__).parent.parent / "train.py"
LAUNCHERS = {"plain": [], "joblib, 2 workers": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]}


def sweep(launcher: str, runs: int, epochs: int, output: Path) -> tuple[float, float]:
    """Seconds of the process, and of the training steps of all its runs."""
    settings = ["-m", f"seed=range({runs})", f"epochs={epochs}", "device=cpu", "progress=false", f"output_dir={output}"]
    command = [sys.executable, str(TRAIN), *settings, "dataset=digits", "model=mlp", *LAUNCHERS[launcher]]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    took = time.perf_counter() - began
    summaries = map(records.read_summary, records.find_runs(output))
    return took, sum(summary["seconds"] for summary in summaries if summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for launcher in LAUNCHERS:
            single, _ = sweep(launcher, 1, arguments.epochs, Path(temporary) / f"{launcher} 1")
            took, trained = sweep(launcher, arguments.runs, arguments.epochs, Path(temporary) / launcher)
            rate = 60 * arguments.runs / took
            line = f"{launcher:18}  {took:6.1f} s, {rate:5.0f} runs/min; a sweep of one run takes {single:.1f} s"
            if launcher == "plain":
                beyond = (took - trained - single) / (arguments.runs - 1)
                line += f"; each further one {beyond:.3f} s beyond {trained / arguments.runs:.3f} s of training"
            print(line)


if __name__ == "__main__":
    main()
