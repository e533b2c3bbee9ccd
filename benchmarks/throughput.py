"""Images per second of the published way of training and of ours, in turn, with the same model, data and augmentation.

    python benchmarks/throughput.py --model resnet18 --threads 1
    python benchmarks/throughput.py --model resnet18 --device cuda --steps 200
    python benchmarks/throughput.py --model cnn1d --device cuda --steps 200

The published way is that of ``published_loop.py``. Data are random images of CIFAR's shape, for
``cnn1d`` signals of MNIST-1D's, ours alone. Each way has a process of
its own, as what is set for one (the allocator, say) would hold for the others; only one computes at a time.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import published_loop
import torch
from published_loop import BATCH
from torch import nn
from torch.autograd.profiler_util import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from nested_lookahead.runs.build import build_optimizer
from nested_lookahead.runs.schema import OptimizerChoice
from nested_lookahead.tasks import augment, models
from nested_lookahead.tasks.data import Dataset, TensorSamples
from nested_lookahead.training.batches import Batches
from nested_lookahead.training.fit import measure
from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.trainer import Recipe, Trainer

JITTER: Any = {"contrast": (0.7, 1.0), "saturation": (0.7, 1.0), "hue": (0.0, 0.1), "degrees": 45.0}
AUGMENTATION = functools.partial(augment.published, padding=4, **JITTER)
SGD = OptimizerChoice("sgd", "torch.optim.SGD", {"lr": published_loop.LR, "momentum": 0.9}, None)

WAYS = ("published", "ours, fp32", "ours, bf16", "ours, fp32, compiled", "ours, bf16, compiled")
BUILD: dict[str, Callable[..., nn.Module]] = {
    "resnet18": models.resnet18,
    "resnet18_cifar": models.resnet18_cifar,
    "cnn1d": functools.partial(models.cnn1d, width=25),
}


def our_trainer(build: Callable[..., nn.Module], data: TensorSamples, hardware: Hardware) -> Trainer:
    dataset = Dataset.from_splits(data, data.take(np.arange(0)), data, 10).to(hardware.device)
    images = len(data.shape) == 3
    layout = torch.channels_last if hardware.channels_last else torch.contiguous_format
    model = build(data.shape, 10).to(hardware.device, memory_format=layout)  # type: ignore[call-overload]
    batches = Batches(dataset.train, BATCH, torch.Generator().manual_seed(0))
    recipe = Recipe(epochs=10**6, augment=AUGMENTATION if images else augment.none)
    return Trainer(model, build_optimizer(SGD, model), dataset, batches, recipe, hardware)


def our_loop(trainer: Trainer) -> Iterator[None]:
    while True:
        trainer.model.train()
        for images, labels in trainer.batches:
            trainer.train_step(images, labels)
            trainer.step = (trainer.step + 1) % len(trainer.batches)
            yield


def shares(trainer: Trainer, steps: int) -> dict[str, float]:
    """Of a step's time on a CPU, what augmentation, forward, backward and optimizer take; the rest is bookkeeping."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - began

        return call

    trainer.model.forward = timed("forward", trainer.model.forward)
    trainer.optimizer.step = timed("optimizer", trainer.optimizer.step)  # type: ignore[method-assign]
    backward = torch.Tensor.backward
    trainer._augment = timed("data", trainer._augment)
    torch.Tensor.backward = timed("backward", backward)  # type: ignore[method-assign]
    loop = our_loop(trainer)
    began = time.perf_counter()
    try:
        for _ in range(steps):
            next(loop)
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
    total = time.perf_counter() - began
    return {name: seconds / total for name, seconds in spent.items()} | {"rest": 1 - sum(spent.values()) / total}


def busy(trainer: Trainer, steps: int) -> str:
    """What share of the time a GPU computes, and how many kernels a step launches."""
    loop = our_loop(trainer)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            next(loop)
        torch.cuda.synchronize()
        total = time.perf_counter() - began
    kernels = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    computing = sum(event.device_time for event in kernels) / 1e6  # microseconds; one stream, so they do not overlap
    return f"the GPU computes {100 * computing / total:.0f}% of the time, {len(kernels) / steps:.0f} kernels per step"


class Way:
    """One way of training, in its process."""

    here: Way

    def __init__(self, name: str, model: str, device: str, threads: int, images: int) -> None:
        torch.set_num_threads(threads)
        rng = np.random.default_rng(0)
        signals = model == "cnn1d"
        self.images = rng.integers(0, 256, (images, 40, 1) if signals else (images, 32, 32, 3), dtype=np.uint8)
        self.labels = rng.integers(0, 10, images)
        self.device = device
        self.trainer: Trainer | None = None
        if name == "published":
            self.model = torchvision_model(model).to(device)
            optimizer = torch.optim.SGD(self.model.parameters(), lr=published_loop.LR, momentum=0.9)
            self.loop = published_loop.training(self.model, optimizer, self.images, self.labels, device)
        else:
            pixels = torch.from_numpy(self.images).movedim(-1, 1).contiguous()
            precision, compile = name.removeprefix("ours, ").partition(", ")[::2]
            hardware = Hardware(torch.device(device), precision, channels_last=True, compile=bool(compile))
            data = TensorSamples(pixels, torch.from_numpy(self.labels))
            self.trainer = our_trainer(BUILD[model], data, hardware)
            hardware.keep_freed_memory()
            self.loop = our_loop(self.trainer)

    def window(self, steps: int) -> tuple[float, float]:
        """Images per second of training and of evaluation."""
        (self.trainer.model if self.trainer else self.model).train()
        self.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            next(self.loop)
        self.synchronize()
        middle = time.perf_counter()
        if self.trainer:
            measure(self.trainer, self.trainer.data.test, 500)
        else:
            published_loop.evaluation(self.model, self.images, self.labels, self.device)
        return steps * BATCH / (middle - began), len(self.images) / (time.perf_counter() - middle)

    def profile(self, steps: int) -> str:
        assert self.trainer
        if self.device == "cuda":
            return busy(self.trainer, steps)
        return ", ".join(f"{part} {100 * share:.0f}%" for part, share in shares(self.trainer, steps).items())

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def begin(*arguments: Any) -> None:
    Way.here = Way(*arguments)


def window(steps: int) -> tuple[float, float]:
    return Way.here.window(steps)


def look_into(steps: int) -> str:
    return Way.here.profile(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=BUILD, default="resnet18")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10, help="in a window")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS, help="these; of compiled ones only on a GPU")
    parser.add_argument("--images", type=int, default=2048)
    arguments = parser.parse_args()
    names = [name for name in arguments.only if name != "published" or arguments.model != "cnn1d"]
    if arguments.device == "cpu":
        names = [name for name in names if "compiled" not in name]
    given = (arguments.model, arguments.device, arguments.threads, arguments.images)
    context = multiprocessing.get_context("spawn")
    ways = {name: ProcessPoolExecutor(1, context, begin, (name, *given)) for name in names}
    training: dict[str, list[float]] = {name: [] for name in ways}
    evaluation: dict[str, list[float]] = {name: [] for name in ways}
    for number in tqdm(range(arguments.rounds + 1), unit="round"):
        for name, way in ways.items():
            trained, evaluated = way.submit(window, arguments.steps).result()
            if number:  # the first round warms up
                training[name].append(trained)
                evaluation[name].append(evaluated)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{arguments.threads} CPU thread(s)"
    print(f"{arguments.model}, batch {BATCH}, {where}, torch {torch.__version__}, n = {arguments.rounds}")
    print(f"{'':22}{'training images/s':>20}{'ratio':>22}{'evaluation images/s':>22}{'ratio':>22}")
    for name in ways:
        cells = []
        for rates in (training, evaluation):
            ratios = [mine / first for mine, first in zip(rates[name], rates[names[0]], strict=True)]
            cells.append(f"{statistics.median(rates[name]):20,.0f}")
            cells.append(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
        print(f"{name:22}{cells[0]}{cells[1]:>22}{cells[2]:>22}{cells[3]:>22}")
    for name in names:
        if name == "published":
            continue
        print(f"{name}: {ways[name].submit(look_into, arguments.steps).result()}")


def torchvision_model(name: str) -> nn.Module:
    """The network as torchvision's code computes it, with the published stem or CIFAR's."""
    model = BUILD[name]((3, 32, 32), 10)
    for module in model.modules():
        if isinstance(module, models.TrimmedConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return model


if __name__ == "__main__":
    main()
