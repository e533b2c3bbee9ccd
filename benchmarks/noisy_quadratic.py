"""Train on the noisy quadratic model with many seeds, and hold the measured risk against the exact one.

    python benchmarks/noisy_quadratic.py --seeds 200
    python benchmarks/noisy_quadratic.py --seeds 200 --out outputs     # keeps the runs, and takes those that are there

Runs ``train.py -m experiment=noisy_quadratic``: real data loading, training loop, optimizers and evaluation.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nested_lookahead import theory
from nested_lookahead.runs import files

TRAIN = Path(__file__).parent.parent / "train.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--out", type=Path, help="a folder to keep the runs in (default: none is kept)")
    arguments = parser.parse_args()
    losses: dict[tuple[str, str], list[float]] = {}
    settings = {}
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        command = ["experiment=noisy_quadratic", f"seed=range({arguments.seeds})", f"output_dir={out}"]
        command += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={arguments.jobs}"]
        subprocess.run([sys.executable, str(TRAIN), *command], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for run in files.find_runs(out / "noisy_quadratic"):
            summary = files.read_summary(run)
            assert summary is not None
            config = files.read_config(run)
            name = config["optimizer"]["name"]
            settings[name] = config
            for weights, splits in summary["final"].items():
                losses.setdefault((name, weights), []).append(splits["test"]["loss"])
    print(f"{'optimizer':18}{'weights':>8}{'n':>5}{'measured risk':>22}{'exact':>12}{'z':>7}")
    for (name, weights), values in losses.items():
        config = settings[name]
        exact = exact_risk(config, weights)
        if exact is None:
            continue
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        z = (np.mean(values) - exact) / error
        measured = f"{np.mean(values):.5f} ± {error:.5f}"
        print(f"{name:18}{weights:>8}{len(values):>5}{measured:>22}{exact:>12.5f}{z:>7.2f}")


def exact_risk(config: dict[str, Any], weights: str) -> float | None:
    """Of one kind of weights at the end; None of an average of what is no plain SGD, which has no moments here."""
    data, optimizer, lr = config["dataset"], config["optimizer"], config["lr"]
    curvature, noise = theory.power_law(data["coordinates"], data["power"], data["noise_power"])
    steps, given = config["epochs"] * data["samples"], (1.0, curvature, noise)
    if weights in ("ema", "tail"):
        if optimizer["name"] != "sgd":
            return None
        first = int(config["tail"] * steps)
        average = (theory.ema_moments, config["ema"]) if weights == "ema" else (theory.tail_moments, first)
        moments = average[0](lr, average[1], steps, *given)
    elif optimizer["name"] == "schedule_free":
        moments = theory.schedule_free_moments(lr, optimizer["momentum"], steps, *given)
    else:
        pairs = [("k", "alpha", "slow_momentum"), ("s", "h", "outer_momentum")]
        layers = [
            theory.SlowLayer(optimizer[k], optimizer[alpha], optimizer.get(momentum, 0.0))
            for k, alpha, momentum in pairs
            if k in optimizer
        ]
        which = len(layers) if weights == "slow" else 0
        moments = theory.slow_moments(lr, layers, steps, *given, weights=which)
    return float(theory.excess_risk(moments, curvature))


if __name__ == "__main__":
    main()
