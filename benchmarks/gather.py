"""Time gathering many runs, cold and with the cache, in CPU seconds of this process; or the whole analysis.

python benchmarks/gather.py --runs 1000 --rows 2000
python benchmarks/gather.py --drawn --runs 2000 --rows 120 --repeats 3
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nested_lookahead.analysis.collect import collect
from nested_lookahead.runs.directory import Run
from nested_lookahead.runs.files import COLUMNS
from nested_lookahead.runs.scores import scores

OPTIMIZER: dict[str, Any] = {
    "name": "nested_lookahead",
    "_target_": "nested_lookahead.optim.NestedLookahead",
    "inner": {"name": "sgd", "_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0},
    "pullback": "none",
    "k": 5,
    "alpha": 0.5,
    "s": 5,
    "h": 0.5,
}


GRID = [
    {"pullback": pullback, "inner": OPTIMIZER["inner"] | {"name": inner}, "k": k, "alpha": alpha, "s": s, "h": h}
    for inner, pullback in (("sgd", "none"), ("adam", "none"), ("sgd", "reset"), ("adam", "reset"))
    for k, alpha, s, h in itertools.product((3, 5, 10, 20), (0.3, 0.5, 0.8), (3, 5, 10), (0.3, 0.5, 0.8))
]
"""Settings with which all figures but the learning rates' have something to show: 432."""


def make(root: Path, runs: int, rows: int, grid: Sequence[dict[str, Any]] = ()) -> None:
    """Run directories as train.py writes them, five seeds each; numbers are random, files are real."""
    rng = np.random.default_rng(0)
    kinds = [(split, weights) for weights in ("fast", "slow") for split in ("train", "validation", "test")]
    for number in tqdm(range(runs), desc="making runs"):
        group, seed = divmod(number, 5)
        config = {
            "optimizer": OPTIMIZER | (grid[group] if grid else {"k": group}),
            "dataset": {"name": "digits", "val_fraction": 0.1, "train_size": None, "split_seed": None},
            "model": {"name": "cnn", "width": 16},
            "scheduler": {"name": "cosine", "warmup": 0.0, "final": 0.0},
            "augment": {"name": "none"},
            "evaluation": {"every": 1, "batch_size": 1000, "train_samples": 10000, "bn_batches": 20, "weights": "fast"},
            "epochs": rows // 6,
            "batch_size": 64,
            "seed": seed,
        }
        values = rng.random((rows, 3))
        metrics = [
            dict(
                zip(
                    ("step", "epoch", "split", "weights", "loss", "accuracy", "lr", "seconds"),
                    (20 * (i // 6 + 1), i // 6 + 1, *kinds[i % 6], *values[i].tolist(), i / 7),
                    strict=True,
                )
            )
            for i in range(rows)
        ]
        with Run(root / f"group{group}" / f"seed={seed}") as run:
            run.start(config, {}, COLUMNS)
            run.append(metrics)
            identity = {"label": "made", "id": f"{group:08x}", "seed": seed}
            steps = {"planned_steps": metrics[-1]["step"], "steps": metrics[-1]["step"], "seconds": 1.0}
            run.finish({"status": "completed", "run": identity, **steps, **scores(metrics)})


def drawn(arguments: argparse.Namespace) -> None:
    """Each time in a process of its own, imports and all."""
    seconds = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "runs"
        make(root, arguments.runs, arguments.rows, GRID)
        for number in range(arguments.repeats):
            began = os.times()
            command = [sys.executable, "analyze.py", str(root), "--out", f"{temporary}/out{number}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            ended = os.times()
            spent = ended.children_user + ended.children_system - began.children_user - began.children_system
            seconds.append(spent)
        pictures = len(list(Path(temporary).glob("out0/*.png")))
    what = f"{arguments.runs} runs in {arguments.runs // 5} groups, {pictures} figures"
    spread = f"({min(seconds):.1f} to {max(seconds):.1f}, n = {len(seconds)})"
    print(f"{what}: {statistics.median(seconds):.1f} CPU s  {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2000, help="of each run's metrics")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--drawn", action="store_true", help="time analyze.py, cold, with all figures")
    arguments = parser.parse_args()
    (drawn if arguments.drawn else gathered)(arguments)


def gathered(arguments: argparse.Namespace) -> None:
    seconds: dict[str, list[float]] = {"cold": [], "cached": []}
    with tempfile.TemporaryDirectory() as temporary:
        root, cache = Path(temporary) / "runs", Path(temporary) / "cache.npz"
        make(root, arguments.runs, arguments.rows)
        for _ in range(arguments.repeats):
            cache.unlink(missing_ok=True)
            for name in seconds:
                began = time.process_time()
                study = collect([root], cache)
                seconds[name].append(time.process_time() - began)
                assert len(study.metrics) == arguments.runs * arguments.rows
        size = cache.stat().st_size / 2**20
        shutil.rmtree(root)
    print(f"{arguments.runs} runs of {arguments.rows} rows; the cache has {size:.0f} MiB")
    for name, values in seconds.items():
        spread = f"({min(values):.2f} to {max(values):.2f}, n = {len(values)})"
        print(f"{name:6}  {statistics.median(values):.2f} CPU s  {spread}")


if __name__ == "__main__":
    main()
