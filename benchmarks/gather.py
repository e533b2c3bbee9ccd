"""Time gathering many runs, cold and with the cache, in CPU seconds of this process.

python benchmarks/gather.py --runs 1000 --rows 2000
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
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


def make(root: Path, runs: int, rows: int) -> None:
    """Run directories as train.py writes them, five seeds each; numbers are random, files are real."""
    rng = np.random.default_rng(0)
    kinds = [(split, weights) for weights in ("fast", "slow") for split in ("train", "validation", "test")]
    for number in tqdm(range(runs), desc="making runs"):
        group, seed = divmod(number, 5)
        config = {
            "optimizer": OPTIMIZER | {"k": group},
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2000, help="of each run's metrics")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
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
