"""Train on the noisy quadratic model with many seeds, and hold the measured risk against the exact one.

    python benchmarks/noisy_quadratic.py --seeds 200

Runs ``train.py -m experiment=noisy_quadratic``: real data loading, training loop, optimizers and evaluation.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nested_lookahead import theory
from nested_lookahead.runs import files

TRAIN = Path(__file__).parent.parent / "train.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    arguments = parser.parse_args()
    losses: dict[tuple[str, str], list[float]] = {}
    settings = {}
    with tempfile.TemporaryDirectory() as temporary:
        command = ["experiment=noisy_quadratic", f"seed=range({arguments.seeds})", f"output_dir={temporary}/runs"]
        command += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={arguments.jobs}"]
        subprocess.run([sys.executable, str(TRAIN), *command], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for run in files.find_runs(Path(temporary)):
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
        data, optimizer = config["dataset"], config["optimizer"]
        curvature, noise = theory.power_law(data["coordinates"], data["power"], data["noise_power"])
        layers = [(optimizer[k], optimizer[alpha]) for k, alpha in (("k", "alpha"), ("s", "h")) if k in optimizer]
        which = -1 if weights == "slow" else 0
        steps = config["epochs"] * data["samples"]
        moments = theory.moments(config["lr"], layers, steps, 1.0, 0.0, curvature, noise, which)
        exact = float(theory.excess_risk(moments, curvature))
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        z = (np.mean(values) - exact) / error
        measured = f"{np.mean(values):.5f} ± {error:.5f}"
        print(f"{name:18}{weights:>8}{len(values):>5}{measured:>22}{exact:>12.5f}{z:>7.2f}")


if __name__ == "__main__":
    main()
