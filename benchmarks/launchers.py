"""Time a sweep of 20 short runs on the plain launcher and on joblib's with two workers, in turn, as whole processes.

python benchmarks/launchers.py --repeats 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from nested_lookahead import records

TRAIN = Path(__file__).parent.parent / "train.py"
LAUNCHERS = {"plain": [], "joblib, 2 workers": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]}


def sweep(launcher: str, runs: int, epochs: int, output: Path) -> float:
    """Seconds of the whole process."""
    settings = ["-m", f"seed=range({runs})", f"epochs={epochs}", "device=cpu", "progress=false", f"output_dir={output}"]
    began = time.perf_counter()
    command = [sys.executable, str(TRAIN), *settings, *LAUNCHERS[launcher]]
    # One thread per run: as fast as two on so small a network, and the same work for both launchers.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=arguments.repeats * len(LAUNCHERS)) as bar:
        for repeat in range(arguments.repeats):
            for name in LAUNCHERS:
                output = Path(temporary) / f"{name}{repeat}"
                seconds[name].append(sweep(name, arguments.runs, arguments.epochs, output))
                bar.update()
        summaries = map(records.read_summary, records.find_runs(Path(temporary) / "plain0"))
        trained = [summary["seconds"] for summary in summaries if summary]
    ratios = [plain / other for plain, other in zip(*seconds.values(), strict=True)]
    print(f"{arguments.runs} runs of {statistics.median(trained):.1f} s of training steps each (median)")
    for name, values in seconds.items():
        print(f"{name:20}  {statistics.median(values):6.1f} s  ({min(values):.1f} to {max(values):.1f})")
    print(f"plain / joblib        {statistics.median(ratios):6.2f}    ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
