"""The published scripts' way of training, to be compared with: one process per run, a plain loop.

    python benchmarks/published_loop.py --data DIR --method sgd --epochs 2      # DIR holds cifar-10-batches-py

A DataLoader without workers, PIL transforms image by image, torch's default optimizers and float32, and ``.item()`` and
``.cpu()`` at every step. The optimizers are ours: their cost is another table.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import models, transforms

from nested_lookahead import Lookahead, NestedLookahead

BATCH = 64
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LR, WEIGHT_DECAY = 0.001, 0.001

Array = np.ndarray[Any, Any]
INNER: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda params: SGD(params, lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY),
    "adam": lambda params: Adam(params, lr=LR, weight_decay=WEIGHT_DECAY),
}
METHODS: dict[str, Callable[[Any], Optimizer]] = {
    **INNER,
    **{f"lookahead_{name}": lambda params, build=build: Lookahead(build(params)) for name, build in INNER.items()},  # type: ignore[misc]
    **{f"nested_{name}": lambda params, build=build: NestedLookahead(build(params)) for name, build in INNER.items()},  # type: ignore[misc]
}


class Images(TorchDataset[Any]):
    """As torchvision's CIFAR10: an array of images, each made a PIL image and transformed when it is asked for."""

    def __init__(self, images: Array, labels: Array, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def read(files: list[Path]) -> tuple[Array, Array]:
    """Images (n, 32, 32, 3) and labels of CIFAR-10 batch files."""
    batches = [pickle.loads(path.read_bytes(), encoding="latin1") for path in files]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.concatenate([batch["labels"] for batch in batches])


def training(model: nn.Module, optimizer: Optimizer, images: Array, labels: Array, device: str) -> Iterator[None]:
    """One training step for each item taken."""
    random = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(contrast=(0.7, 1.0), saturation=(0.7, 1.0), hue=(0.0, 0.1)),
        transforms.RandomRotation(45),
    ]
    to_input = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    data = Images(images, labels, transforms.Compose([*random, *to_input]))
    criterion, total, correct = nn.CrossEntropyLoss(), 0.0, 0
    while True:
        model.train()
        for inputs, targets in DataLoader(data, batch_size=BATCH, shuffle=True):
            inputs, targets = inputs.to(device), targets.to(device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            total += loss.item()
            correct += int((outputs.argmax(1).cpu() == targets.cpu()).sum().item())
            yield


def evaluation(model: nn.Module, images: Array, labels: Array, device: str) -> float:
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    model.eval()
    correct = 0
    with torch.no_grad():
        for inputs, targets in DataLoader(Images(images, labels, transform), batch_size=BATCH):
            correct += int((model(inputs.to(device)).argmax(1).cpu() == targets).sum().item())
    return correct / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    folder = arguments.data / "cifar-10-batches-py"
    train = read(sorted(folder.glob("data_batch_*")))
    test = read([folder / "test_batch"])
    model = models.resnet18(num_classes=10).to(arguments.device)
    steps = training(model, METHODS[arguments.method](model.parameters()), *train, arguments.device)
    for epoch in range(arguments.epochs):
        for _ in range(-(-len(train[0]) // BATCH)):
            next(steps)
        accuracy = evaluation(model, *test, arguments.device)
        print(f"{arguments.method}, epoch {epoch + 1}: {100 * accuracy:.2f}%", flush=True)


if __name__ == "__main__":
    main()
