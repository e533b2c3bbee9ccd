"""Images per second of a plain training loop and of ours, in turn, with the same model, data and augmentation.

    python benchmarks/throughput.py --model resnet18 --threads 1

The plain loop is that of the published script: a DataLoader without workers, PIL transforms image by image, and
``.item()`` and ``.cpu()`` at every step. Data are random images of CIFAR's shape.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms
from tqdm import tqdm

from nested_lookahead import augment, models
from nested_lookahead.data import Batches, Dataset, Split
from nested_lookahead.hardware import Hardware
from nested_lookahead.training import Recipe, Trainer, measure

BATCH = 64
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class PlainImages(TorchDataset[Any]):
    """As torchvision's CIFAR10: an array of images, each made a PIL image and transformed when it is asked for."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def plain_loop(model: nn.Module, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Iterator[None]:
    """One training step for each item taken."""
    to_input = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    random = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(contrast=(0.7, 1.0), saturation=(0.7, 1.0), hue=(0.0, 0.1)),
        transforms.RandomRotation(45),
    ]
    data = PlainImages(images, labels, transforms.Compose([*random, *to_input]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    criterion, total, correct = nn.CrossEntropyLoss(), 0.0, 0
    while True:
        for inputs, targets in DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            total += loss.item()
            correct += int((outputs.argmax(1).cpu() == targets.cpu()).sum().item())
            yield


def plain_evaluation(model: nn.Module, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    correct = 0
    with torch.no_grad():
        for inputs, targets in DataLoader(PlainImages(images, labels, transform), batch_size=BATCH):
            correct += int((model(inputs).argmax(1).cpu() == targets.cpu()).sum().item())


def our_trainer(model: nn.Module, data: Split, channels_last: bool, precision: str) -> Trainer:
    hardware = Hardware.choose("cpu", precision, channels_last, None)
    dataset = Dataset.from_splits(data, data.take(np.arange(0)), data, 10)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
    batches = Batches(data, BATCH, torch.Generator().manual_seed(0))
    recipe = Recipe(epochs=10**6, augment=our_augmentation)
    return Trainer(model, optimizer, dataset, batches, recipe, hardware)


def our_augmentation(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    jitter: Any = {"contrast": (0.7, 1.0), "saturation": (0.7, 1.0), "hue": (0.0, 0.1), "degrees": 45.0}
    return augment.published(images, generator, padding=4, **jitter)


def our_loop(trainer: Trainer) -> Iterator[None]:
    while True:
        for images, labels in trainer.batches:
            trainer.train_step(images, labels)
            trainer.step = (trainer.step + 1) % len(trainer.batches)
            yield


def shares(trainer: Trainer, steps: int) -> dict[str, float]:
    """Of the time of a step, what data, forward, backward and the optimizer take; the rest is bookkeeping."""
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
    trainer.recipe = Recipe(epochs=trainer.recipe.epochs, augment=timed("data", trainer.recipe.augment))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("resnet18", "resnet18_cifar"), default="resnet18")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10, help="in a window")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=2048)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.images, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, arguments.images)
    data = Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels))
    build = getattr(models, arguments.model)

    plain_model = build((3, 32, 32), 10)
    trainers = {
        "ours, fp32": our_trainer(build((3, 32, 32), 10), data, False, "fp32"),
        "ours, fp32, channels last": our_trainer(build((3, 32, 32), 10), data, True, "fp32"),
        "ours, bf16, channels last": our_trainer(build((3, 32, 32), 10), data, True, "bf16"),
    }
    loops = {"plain": plain_loop(plain_model, images, labels)}
    loops |= {name: our_loop(trainer) for name, trainer in trainers.items()}
    training: dict[str, list[float]] = {name: [] for name in loops}
    evaluation: dict[str, list[float]] = {name: [] for name in loops}
    for number in tqdm(range(arguments.rounds + 1), unit="round"):
        for name, loop in loops.items():
            (plain_model if name == "plain" else trainers[name].model).train()
            began = time.perf_counter()
            for _ in range(arguments.steps):
                next(loop)
            middle = time.perf_counter()
            if name == "plain":
                plain_model.eval()
                plain_evaluation(plain_model, images, labels)
            else:
                measure(trainers[name], data, 1000)
            if number:  # the first round warms up
                training[name].append(arguments.steps * BATCH / (middle - began))
                evaluation[name].append(len(images) / (time.perf_counter() - middle))
    what = f"{arguments.model}, batch {BATCH}, {arguments.threads} thread(s), torch {torch.__version__}"
    print(f"{what}, n = {arguments.rounds}")
    print(f"{'':27}{'training images/s':>20}{'ratio':>22}{'evaluation images/s':>22}{'ratio':>22}")
    for name in loops:
        cells = []
        for rates in (training, evaluation):
            ratios = [mine / plain for mine, plain in zip(rates[name], rates["plain"], strict=True)]
            cells.append(f"{statistics.median(rates[name]):20,.0f}")
            cells.append(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
        print(f"{name:27}{cells[0]}{cells[1]:>22}{cells[2]:>22}{cells[3]:>22}")
    for name, trainer in trainers.items():
        trainer.model.train()
        text = ", ".join(f"{part} {100 * share:.0f}%" for part, share in shares(trainer, arguments.steps).items())
        print(f"{name}: {text}")


if __name__ == "__main__":
    main()
