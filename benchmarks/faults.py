"""Faults by the hundred: what becomes of a sweep that is killed, whose files fail, or that is given nonsense.

    python benchmarks/faults.py --kills 100          # SIGKILL at random moments, to the whole process group
    python benchmarks/faults.py --kills 20 --fair    # of a fair sweep: the choice, too, must be the same
    python benchmarks/faults.py --points 1           # each file operation of a sweep fails once, in seven ways
    python benchmarks/faults.py --fuzz 1000          # malformed command lines, files and run directories

A kill comes at a moment drawn uniformly from the process's life until then: while it starts, trains, evaluates, or
writes; the sweep is typed again each time and compared with an undisturbed one. When it is done before all kills are,
another one with other seeds begins. ``--points 10`` takes every tenth operation.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nested_lookahead.runs import fair, files

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # what fails and how is shared with the tests

import faulty  # noqa: E402
import malformed  # noqa: E402

BAD = ("traceback", "silent", "hang", "memory", "lost")

TRAIN = Path(__file__).parent.parent / "train.py"
SETTINGS = ["-m", "optimizer=sgd,nested_lookahead", "model.width=4", "epochs=150", "threads=1", "device=cpu"]
# One checkpoint every 0.3 s besides those at evaluations, so that kills hit writes and resumes start within epochs.
SETTINGS += ["checkpoint_minutes=0.005", "progress=false"]


FAIR = ["experiment=fair", "hydra.sweeper.trials=4", "hydra.sweeper.final_seeds='range(3)'", "device=cpu"]
FAIR += ["checkpoint_minutes=0.005", "progress=false"]


def command(folder: Path, number: int, is_fair: bool) -> list[str]:
    """Of the so many-th sweep."""
    own = (
        [*FAIR, f"hydra.sweeper.sobol_seed={number}"] if is_fair else [*SETTINGS, f"seed={2 * number},{2 * number + 1}"]
    )
    return [sys.executable, str(TRAIN), *own, f"output_dir={folder}"]


def choices(folder: Path) -> list[str]:
    """What fair sweeps below the folder have written of their choices."""
    return [path.read_text() for path in sorted(folder.rglob(fair.FILE))]


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


def kill_until_done(
    typed: list[str], folder: Path, kills: int, rng: random.Random, bar: Any
) -> tuple[int, Counter[str]]:
    """Kill and retype one sweep until it is done or has been killed so often."""
    moments: Counter[str] = Counter()
    longest, count = 8.0, 0
    while True:
        began = time.time()
        with open(os.devnull, "w") as null:
            process = subprocess.Popen(typed, stdout=null, stderr=null, start_new_session=True)
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


def kill(kills: int, seed: int, is_fair: bool) -> None:
    rng = random.Random(seed)
    total, moments, resumed, runs, rows, wrong = 0, Counter[str](), 0, 0, 0, []
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=kills, unit="kill") as bar:
        sweep = 0
        while total < kills:
            disturbed, undisturbed = Path(temporary) / f"{sweep}", Path(temporary) / f"{sweep}-undisturbed"
            count, at = kill_until_done(command(disturbed, sweep, is_fair), disturbed, kills - total, rng, bar)
            subprocess.run(command(undisturbed, sweep, is_fair), check=True, stdout=subprocess.DEVNULL)
            ours, theirs = metrics(disturbed), metrics(undisturbed)
            wrong += [path for path in theirs if ours.get(path) != theirs[path]]
            if choices(disturbed) != choices(undisturbed) or is_fair != bool(choices(disturbed)):
                wrong.append(disturbed / fair.FILE)
            logs = [(disturbed / path / files.LOG).read_text() for path in theirs]
            resumed += sum(log.count("resumed after step") for log in logs)
            runs, rows, sweep = runs + len(theirs), rows + sum(map(len, theirs.values())), sweep + 1
            total, moments = total + count, moments + at
    print(f"{total} kills over {sweep} sweeps; {resumed} resumes from a checkpoint")
    for name, count in moments.most_common():
        print(f"  {count:4d}  {name}")
    print(f"{runs} runs, {rows} rows: {len(wrong)} runs differ from the undisturbed ones")
    if wrong:
        raise SystemExit("\n".join(map(str, wrong)))


def fail_at_points(every: int) -> None:
    """Prints a table of kinds of faults by what became of the sweep."""
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folders = (made(Path(temporary) / f"{number}") for number in itertools.count())
        operations, expected = faulty.undisturbed(next(folders), faulty.jobs_alone)
        points = [(kind, at) for kind in faulty.KINDS for at in range(1, operations + 1, every)]
        for kind, at in tqdm(points, unit="point"):
            folder = next(folders)
            outcome, why = faulty.faults_of(folder, faulty.jobs_alone, at, kind, expected)
            counts[kind, outcome] += 1
            if outcome != "clear":
                tqdm.write(f"{kind} at {at}: {outcome}\n{why}")
            shutil.rmtree(folder)
    print(f"{operations} file operations of 2 runs of {faulty.STEPS // 2} steps; one in {every}")
    print_table(counts, faulty.KINDS, ("clear", *BAD))


def fuzz(cases: int, seed: int) -> None:
    """Prints a table of kinds of nonsense by what became of the command."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=cases, unit="case") as bar:
        template = malformed.templates(made(Path(temporary) / "template"))
        folders = (Path(temporary) / f"{number}" for number in itertools.count())

        @seeded(seed)
        @settings(max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(malformed.CASES)
        def tried(case: malformed.Case) -> None:
            folder = next(folders)
            outcome, why = malformed.run(case, template, folder)
            counts[case.family, outcome] += 1
            if outcome not in ("success", "clear"):
                tqdm.write(f"{outcome}: {case}\n{why}")
            shutil.rmtree(folder, ignore_errors=True)
            bar.update()

        tried()
    print_table(counts, sorted({family for family, _ in counts}), ("success", "clear", *BAD))


def print_table(counts: Counter[tuple[str, str]], kinds: Sequence[str], outcomes: Sequence[str]) -> None:
    print(f"{'':20}{'tried':>10}" + "".join(f"{outcome:>10}" for outcome in outcomes))
    for kind in kinds:
        row = [counts[kind, outcome] for outcome in outcomes]
        print(f"{kind:20}{sum(row):>10}" + "".join(f"{count:>10}" for count in row))
    if any(outcome in BAD for _, outcome in counts):
        raise SystemExit(1)


def made(path: Path) -> Path:
    path.mkdir()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, metavar="N")
    parser.add_argument("--fair", action="store_true", help="of a fair sweep")
    parser.add_argument("--points", type=int, default=0, metavar="EVERY")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills, and of the nonsense")
    arguments = parser.parse_args()
    if arguments.kills:
        kill(arguments.kills, arguments.seed, arguments.fair)
    if arguments.points:
        fail_at_points(arguments.points)
    if arguments.fuzz:
        fuzz(arguments.fuzz, arguments.seed)


if __name__ == "__main__":
    main()
