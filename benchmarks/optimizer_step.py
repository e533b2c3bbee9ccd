"""Time whole optimizer steps over a network's parameters, in turn, as ratios to the bare inner optimizer's step.

    pip install pytorch-optimizer torch-optimizer timm     # optional: published implementations as further rows
    python benchmarks/optimizer_step.py --threads 2
    python benchmarks/optimizer_step.py --device cuda --model vit_l_16

Each round times, for every row, a window of 50 steps (two cycles of Nested Lookahead) of the bare inner optimizer and
right after it one of the row; the ratio is that of the two. On a GPU the time of its kernels is shown, too: with few
parameters a step ends before Python has launched the next one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler_util import DeviceType  # type: ignore[attr-defined]
from torch.optim import SGD, Adam, Optimizer
from torch.profiler import ProfilerActivity, profile
from torchvision.models import get_model
from tqdm import tqdm

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead

WINDOW = 50
Build = Callable[[list[Tensor]], Optimizer]

# Words of memory moved per parameter and step. SGD with momentum: read p, g, buffer, write p, buffer. A sync of one
# layer reads and writes both copies once: 4 per k = 5 steps. The outer layer adds a read and a write of its own copy,
# once in 25 steps. A layer with momentum reads and writes its buffer, too: 6.
WORDS = {"SGD": 5, "Adam": 7}
EXTRA = {"Lookahead": 4 / 5, "Nested": 4 / 5 + 2 / 25, "Nesterov layer": 6 / 5}


def inner_optimizers(device: torch.device) -> dict[str, Build]:
    return {
        "SGD, fused": lambda params: SGD(params, lr=1e-4, momentum=0.9, fused=True),
        "SGD, default": lambda params: SGD(params, lr=1e-4, momentum=0.9),
        "Adam, fused": lambda params: Adam(params, lr=1e-4, fused=True),
        "Adam, default": lambda params: Adam(params, lr=1e-4),
    }


def published() -> Iterator[tuple[str, Callable[[Optimizer], Any]]]:
    """Implementations from the package registry that are installed here."""
    with suppress(ImportError):
        from pytorch_optimizer import Lookahead as PytorchOptimizer  # type: ignore[import-not-found]

        yield "pytorch-optimizer", lambda inner: PytorchOptimizer(inner, k=5, alpha=0.5)
    with suppress(ImportError):
        from torch_optimizer import Lookahead as TorchOptimizer  # type: ignore[import-not-found]

        yield "torch-optimizer", lambda inner: TorchOptimizer(inner, k=5, alpha=0.5)
    with suppress(ImportError):
        from timm.optim.lookahead import Lookahead as Timm  # type: ignore[import-not-found]

        yield "timm", lambda inner: Timm(inner, k=5, alpha=0.5)


def rows(device: torch.device) -> Iterator[tuple[str, str, Build]]:
    """(inner optimizer, wrapper, how to build both)."""
    wrappers: list[tuple[str, Callable[[Optimizer], Any]]] = [
        ("bare", lambda inner: inner),
        ("Lookahead", lambda inner: Lookahead(inner, k=5, alpha=0.5)),
        ("Nested", lambda inner: NestedLookahead(inner, k=5, s=5, alpha=0.5, h=0.5)),
        ("Lookahead, compiled", lambda inner: compiled(Lookahead(inner, k=5, alpha=0.5))),
        ("Nested, compiled", lambda inner: compiled(NestedLookahead(inner, k=5, s=5, alpha=0.5, h=0.5))),
        ("Nesterov layer", lambda inner: Lookahead(inner, k=5, alpha=0.5, slow_momentum=0.5)),
        ("Nesterov layer, compiled", lambda inner: compiled(Lookahead(inner, k=5, alpha=0.5, slow_momentum=0.5))),
        *published(),
    ]
    for name, build in inner_optimizers(device).items():
        for wrapper, wrap in wrappers:
            yield name, wrapper, lambda params, build=build, wrap=wrap: wrap(build(params))  # type: ignore[misc]


def compiled(optimizer: MultilayerLookahead) -> MultilayerLookahead:
    optimizer.compile()
    return optimizer


def parameters(model: str, device: torch.device) -> list[Tensor]:
    with torch.device("meta"):
        shapes = [p.shape for p in get_model(model).parameters()]
    params = [torch.randn(shape, device=device).mul_(0.02).requires_grad_() for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p) * 1e-3
    return params


def window(step: Callable[[], Any], device: torch.device) -> float:
    """Seconds per step."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(WINDOW):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / WINDOW


def kernel_time(step: Callable[[], Any]) -> float:
    """Microseconds that a GPU computes, per step."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        window(step, torch.device("cuda"))
    events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    return sum(event.device_time for event in events) / WINDOW  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet18", help="of torchvision; default: %(default)s")
    parser.add_argument("--only", help="rows whose inner optimizer starts so, such as SGD")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    chosen = [row for row in rows(device) if row[0].startswith(arguments.only or "")]
    model = parameters(arguments.model, device)
    size = f"{sum(p.numel() for p in model) / 1e6:.1f} M parameters, {len(model)} tensors"
    del model
    steps = {(inner, wrapper): build(parameters(arguments.model, device)).step for inner, wrapper, build in chosen}
    for step in steps.values():
        window(step, device)  # buffers are made, caches warm
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    ratios: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for _ in tqdm(range(arguments.rounds), unit="round"):
        for (inner, wrapper), step in steps.items():
            bare = window(steps[inner, "bare"], device)
            seconds[inner, wrapper].append(window(step, device))
            ratios[inner, wrapper].append(seconds[inner, wrapper][-1] / bare)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{arguments.threads} CPU thread(s)"
    kernels = {key: kernel_time(step) for key, step in steps.items()} if device.type == "cuda" else {}
    print(f"{arguments.model} ({size}), {name}, torch {torch.__version__}, {arguments.rounds} rounds")
    heading = f"{'inner optimizer':15}  {'wrapper':24}  {'ms per step':>11}  {'ratio to bare':>22}  {'floor':>6}"
    print(heading + (f"  {'kernels, µs':>11}  {'ratio':>6}" if kernels else ""))
    for (inner, wrapper), values in seconds.items():
        quartiles = statistics.quantiles(ratios[inner, wrapper], n=4)
        spread = f"{statistics.median(ratios[inner, wrapper]):.3f} [{quartiles[0]:.3f}, {quartiles[2]:.3f}]"
        extra = EXTRA.get(wrapper.partition(",")[0])
        floor = "" if extra is None else f"{1 + extra / WORDS[inner.partition(',')[0]]:.3f}"
        line = f"{inner:15}  {wrapper:24}  {1000 * statistics.median(values):11.3f}  {spread:>22}  {floor:>6}"
        if kernels:
            own = kernels[inner, wrapper]
            line += f"  {own:11.1f}  {own / kernels[inner, 'bare']:6.3f}"
        print(line)


if __name__ == "__main__":
    main()
