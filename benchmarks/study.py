"""The published CIFAR-10 study from end to end: their shell loop, one process after another, against one sweep.

    python benchmarks/study.py                                               # a small one, on the CPU
    python benchmarks/study.py --device cuda --images 50000 --test-images 10000 --epochs 20 --seeds 3 --no-loop

Six methods on ResNet-18 with the published augmentation, on made images in CIFAR's files. The loop runs each process on
all cores, as PyTorch does; the sweep runs `--jobs` at once, each on its share.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nested_lookahead.runs import files

HERE = Path(__file__).parent
METHODS = ("sgd", "adam", "lookahead_sgd", "lookahead_adam", "nested_sgd", "nested_adam")


def make_cifar(root: Path, images: int, test_images: int) -> None:
    """Random images of ten classes, each class with a tint of its own so that there is something to learn."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    tints = rng.uniform(-60, 60, (10, 3, 1, 1))

    def write(name: str, count: int) -> None:
        labels = rng.permutation(np.arange(count) % 10)
        pixels = rng.integers(60, 196, (count, 3, 32, 32)) + tints[labels]
        batch = {"data": pixels.astype(np.uint8).reshape(count, -1), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))

    for number in range(1, 6):
        write(f"data_batch_{number}", images // 5)
    write("test_batch", test_images)


def shell_loop(root: Path, arguments: argparse.Namespace) -> float:
    began = time.perf_counter()
    for _ in range(arguments.seeds):
        for method in METHODS:
            settings = ["--method", method, "--epochs", str(arguments.epochs), "--device", arguments.device]
            command = [sys.executable, str(HERE / "published_loop.py"), "--data", str(root), *settings]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def sweep(root: Path, output: Path, arguments: argparse.Namespace) -> tuple[float, list[dict[str, Any]]]:
    settings = [
        "experiment=cifar10",
        f"seed=range({arguments.seeds})",
        f"epochs={arguments.epochs}",
        "dataset.download=false",
        f"dataset.data_dir={root}",
        f"output_dir={output}",
        "evaluation.train_samples=1",  # the published loop evaluates on the test images alone
        f"evaluation.batch_size={2500 if arguments.device == 'cuda' else 500}",
        "progress=false",
        f"device={arguments.device}",
        *arguments.settings,
    ]
    if arguments.jobs > 1:
        settings += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={arguments.jobs}"]
    began = time.perf_counter()
    subprocess.run([sys.executable, str(HERE.parent / "train.py"), *settings], check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - began
    summaries = [files.read_summary(run) or {} for run in files.find_runs(output)]
    if len(summaries) != arguments.seeds * len(METHODS):
        raise SystemExit(f"{len(summaries)} runs were made instead of {arguments.seeds * len(METHODS)}")
    return took, summaries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--test-images", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, help="runs at once; default: as many as cores, on a GPU one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-loop", action="store_true", help="time the sweep alone")
    parser.add_argument("settings", nargs="*", help="of the sweep; default: precision=bf16, on a GPU compile=true")
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    arguments.settings = arguments.settings or ["compile=true" if on_gpu else "precision=bf16"]
    arguments.jobs = arguments.jobs or (1 if on_gpu else os.cpu_count() or 1)
    loops, sweeps = [], []
    summaries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "data"
        make_cifar(root, arguments.images, arguments.test_images)
        for number in tqdm(range(arguments.repeats), unit="pair"):
            if not arguments.no_loop:
                loops.append(shell_loop(root, arguments))
            took, summaries = sweep(root, Path(temporary) / f"runs{number}", arguments)
            sweeps.append(took)
    training = sum(summary["seconds"] for summary in summaries)
    compiling = sum(summary["compile_seconds"] for summary in summaries)
    print(f"{len(summaries)} runs of {arguments.epochs} epochs over {arguments.images} images, {arguments.device}")
    print(f"sweep, {arguments.jobs} at once, {' '.join(arguments.settings)}: {spread(sweeps)} s", end="")
    print(f"; of the last, {training:.1f} s of training steps and {compiling:.1f} s of compiling, summed over runs")
    if loops:
        print(f"published loop: {spread(loops)} s")
        print(f"loop / sweep: {spread([a / b for a, b in zip(loops, sweeps, strict=True)], 2)}")


def spread(values: list[float], digits: int = 1) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f}, n = {len(values)})"


if __name__ == "__main__":
    main()
