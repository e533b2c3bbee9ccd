"""Kill a sweep at random moments, type it again each time, and compare what comes out with an undisturbed sweep.

    python benchmarks/faults.py --kills 100

Each kill is a SIGKILL to the whole process group, at a moment drawn uniformly from the process's life until then: while
it starts, trains, evaluates, or writes. When a sweep is done before all kills are, another one with other seeds begins.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nested_lookahead.runs import files

TRAIN = Path(__file__).parent.parent / "train.py"
SETTINGS = ["-m", "optimizer=sgd,nested_lookahead", "model.width=4", "epochs=150", "threads=1", "device=cpu"]
# One checkpoint every 0.3 s besides those at evaluations, so that kills hit writes and resumes start within epochs.
SETTINGS += ["checkpoint_minutes=0.005", "progress=false"]


def command(folder: Path, seeds: str) -> list[str]:
    return [sys.executable, str(TRAIN), *SETTINGS, f"seed={seeds}", f"output_dir={folder}"]


def metrics(folder: Path) -> dict[Path, list[dict[str, str]]]:
    """Of each run below the folder, its rows less the seconds."""
    result = {}
    for run in files.find_runs(folder):
        with open(run / files.METRICS, newline="") as file:
            result[run.relative_to(folder)] = [
                {key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)
            ]
    return result


def moment(folder: Path, began: float) -> str:
    """What a process that was killed just now had been doing, as the files it left tell."""
    if any(path.suffix in (".tmp", ".new") for path in folder.rglob("*")):
        return "writing a file"
    locks = [path for path in folder.rglob(files.LOCK) if path.stat().st_mtime >= began]
    if not locks:
        return "starting, or between runs"
    run = max(locks, key=lambda path: path.stat().st_mtime).parent
    status = run / files.STATUS
    if not status.exists() or status.stat().st_mtime < began:
        return "preparing a run"
    return "training or evaluating"


def kill_until_done(folder: Path, seeds: str, kills: int, rng: random.Random, bar: Any) -> tuple[int, Counter[str]]:
    """Kill and retype one sweep until it is done or has been killed so often."""
    moments: Counter[str] = Counter()
    longest, count = 8.0, 0
    while True:
        began = time.time()
        with open(os.devnull, "w") as null:
            process = subprocess.Popen(command(folder, seeds), stdout=null, stderr=null, start_new_session=True)
        try:
            status = process.wait(rng.uniform(0, longest) if count < kills else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moments[moment(folder, began)] += 1
            count += 1
            bar.update()
            continue
        if status != 0:
            raise SystemExit(f"the sweep failed with exit status {status}")
        return count, moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    total, moments, resumed, runs, rows, wrong = 0, Counter[str](), 0, 0, 0, []
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=arguments.kills, unit="kill") as bar:
        sweep = 0
        while total < arguments.kills:
            seeds = f"{2 * sweep},{2 * sweep + 1}"
            disturbed, undisturbed = Path(temporary) / f"{sweep}", Path(temporary) / f"{sweep}-undisturbed"
            count, at = kill_until_done(disturbed, seeds, arguments.kills - total, rng, bar)
            subprocess.run(command(undisturbed, seeds), check=True, stdout=subprocess.DEVNULL)
            ours, theirs = metrics(disturbed), metrics(undisturbed)
            wrong += [path for path in theirs if ours.get(path) != theirs[path]]
            logs = [(disturbed / path / files.LOG).read_text() for path in theirs]
            resumed += sum(log.count("resumed after step") for log in logs)
            runs, rows, sweep = runs + len(theirs), rows + sum(map(len, theirs.values())), sweep + 1
            total, moments = total + count, moments + at
    print(f"{total} kills over {sweep} sweeps of 4 runs; {resumed} resumes from a checkpoint")
    for name, count in moments.most_common():
        print(f"  {count:4d}  {name}")
    print(f"{runs} runs, {rows} rows: {len(wrong)} runs differ from the undisturbed ones")
    if wrong:
        raise SystemExit("\n".join(map(str, wrong)))


if __name__ == "__main__":
    main()
