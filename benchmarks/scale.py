"""How time and memory grow: a step with the number of parameters, the analysis with the number of runs.

python benchmarks/scale.py --largest 3e8
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead
from nested_lookahead.analysis.collect import collect
from nested_lookahead.optim import SlowMomentum

MATRIX = 2**20  # parameters in one tensor


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope


def parameters(count: int) -> list[Tensor]:
    params = [torch.zeros(MATRIX, requires_grad=True) for _ in range(max(1, count // MATRIX))]
    for p in params:
        p.grad = torch.full_like(p, 1e-3)
    return params


def time_steps(largest: float, rounds: int) -> None:
    wrappers: dict[str, Callable[[Optimizer], Any]] = {
        "SGD": lambda inner: inner,
        "Lookahead": lambda inner: Lookahead(inner, k=5, alpha=0.5),
        "Nested": lambda inner: NestedLookahead(inner, k=5, s=5, alpha=0.5, h=0.5),
    }
    sizes = [size for size in (2**20, 2**22, 2**24, 2**26, 2**28, 2**30) if size <= largest]
    print(f"{'parameters':>14}" + "".join(f"{name + ' ms/step':>20}" for name in wrappers))
    taken: dict[str, list[float]] = {name: [] for name in wrappers}
    for size in sizes:
        times: dict[str, list[float]] = {name: [] for name in wrappers}
        for _ in range(rounds):
            for name, wrap in wrappers.items():
                optimizer = wrap(SGD(parameters(size), lr=1e-4, momentum=0.9, fused=True))
                for _ in range(25):  # a whole cycle, which also makes the momentum
                    optimizer.step()
                began = time.perf_counter()
                for _ in range(25):
                    optimizer.step()
                times[name].append((time.perf_counter() - began) / 25)
                del optimizer
                gc.collect()  # the next one may need the memory
        for name in wrappers:
            taken[name].append(statistics.median(times[name]))
        print(f"{size:14,}" + "".join(f"{1000 * values[-1]:20.2f}" for values in taken.values()))
    print("      exponent" + "".join(f"{exponent(list(map(float, sizes)), values):20.3f}" for values in taken.values()))


def state_bytes(optimizer: Optimizer) -> int:
    """Of all tensors as large as parameters that the optimizer keeps."""
    tensors = {
        value.data_ptr(): value.numel() * value.element_size()
        for state in optimizer.state_dict()["state"].values()
        for value in state.values()
        if isinstance(value, Tensor) and value.numel() > 1
    }
    return sum(tensors.values())


def memory() -> None:
    print(f"\n{'bytes per float32 parameter':42}{'measured':>10}{'formula':>10}")
    count = 4 * MATRIX
    rows: list[tuple[str, Callable[[], Optimizer], int]] = []
    inners: list[tuple[str, Callable[[], Optimizer], int]] = [
        ("SGD", lambda: SGD(parameters(count), lr=1e-4, momentum=0.9), 4),
        ("Adam", lambda: Adam(parameters(count), lr=1e-4), 8),
    ]
    for name, build, words in inners:
        rows.append((name, build, words))
        for depth in (1, 2, 3):
            for mode, extra in (("none", 0), ("pullback", 4)):  # of each layer the slow weights, and their momentum

                def wrapped(build: Any = build, depth: int = depth, mode: str = mode) -> Optimizer:
                    return MultilayerLookahead(build(), [(5, 0.5)] * depth, pullback=mode)

                rows.append((f"{depth} layer(s) over {name}, pullback={mode}", wrapped, words + depth * (4 + extra)))
        for mode, extra in (("none", 16), ("pullback", 28)):  # pulled back: the momentum by both, and a buffer by one

            def nesterov(build: Any = build, mode: str = mode) -> Optimizer:
                return MultilayerLookahead(build(), [SlowMomentum(5, 0.5, mode, momentum=0.5)] * 2)

            rows.append((f"2 Nesterov layers over {name}, pullback={mode}", nesterov, words + extra))
    for name, make, formula in rows:
        optimizer = make()
        for _ in range(5):
            optimizer.step()
        print(f"{name:42}{state_bytes(optimizer) / count:10.2f}{formula:10}")


def time_analysis(largest: int) -> None:
    from gather import make

    print(f"\n{'runs of 60 rows':>16}{'cold CPU s':>12}{'cached CPU s':>14}")
    sizes = [size for size in (10, 100, 1000, 10000) if size <= largest]
    taken: dict[str, list[float]] = {"cold": [], "cached": []}
    for size in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            make(Path(temporary) / "runs", size, 60)
            for name in taken:
                began = time.process_time()
                collect([Path(temporary) / "runs"], Path(temporary) / "cache.npz")
                taken[name].append(time.process_time() - began)
        print(f"{size:16,}{taken['cold'][-1]:12.3f}{taken['cached'][-1]:14.3f}")
    slopes = [exponent(list(map(float, sizes)), values) for values in taken.values()]
    print("        exponent" + f"{slopes[0]:12.3f}{slopes[1]:14.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=2**28, help="number of parameters; 20 bytes each are needed")
    parser.add_argument("--runs", type=int, default=1000, help="the largest number of runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    time_steps(arguments.largest, arguments.rounds)
    memory()
    time_analysis(arguments.runs)


if __name__ == "__main__":
    main()
