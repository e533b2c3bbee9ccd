"""Data sets small enough to live on the device, and minibatches cut there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """``images``: (n, channels, height, width), uint8. ``labels``: (n,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits. ``mean`` and ``std``, per channel of the training images, are in uint8 units."""

    train: Split
    validation: Split
    test: Split
    num_classes: int
    mean: Tensor
    std: Tensor

    @classmethod
    def from_splits(cls, train: Split, validation: Split, test: Split, num_classes: int) -> Dataset:
        pixels = train.images.double()
        mean, std = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))
        return cls(train, validation, test, num_classes, mean.float(), std.float())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device) -> Dataset:
        return Dataset(
            self.train.to(device),
            self.validation.to(device),
            self.test.to(device),
            self.num_classes,
            self.mean.to(device),
            self.std.to(device),
        )

    def normalize(self, images: Tensor, channels_last: bool = False) -> Tensor:
        """uint8 images to float32 of zero mean and unit variance over the training set, per channel."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        floats = images.to(torch.float32, memory_format=layout)
        return (floats - self.mean[:, None, None]) / self.std[:, None, None]


class Batches:
    """Minibatches of a split in a new random order each epoch, the last one possibly smaller.

    The order comes from ``generator`` alone, a CPU generator, and so is the same on every device. The position can
    be saved at any batch and loaded: iteration then goes on with the batch that would have come next.
    """

    def __init__(self, split: Split, batch_size: int, generator: torch.Generator) -> None:
        self.split, self.batch_size, self.generator = split, batch_size, generator
        self._epoch_start = generator.get_state()
        self._position = 0

    def __len__(self) -> int:
        full, rest = divmod(len(self.split), self.batch_size)
        # Batch norm cannot train on a single sample, so a last batch of one is left out.
        return full + (rest > 1 or (rest == 1 and full == 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rest of the present epoch; a new one if it has ended."""
        if self._position in (0, len(self)):
            self._epoch_start, self._position = self.generator.get_state(), 0
        else:
            self.generator.set_state(self._epoch_start)
        order = torch.randperm(len(self.split), generator=self.generator).to(self.split.labels.device)
        while self._position < len(self):
            chosen = order[self._position * self.batch_size : (self._position + 1) * self.batch_size]
            self._position += 1
            yield self.split.images[chosen], self.split.labels[chosen]

    def state_dict(self) -> dict[str, Any]:
        finished = self._position in (0, len(self))
        state = self.generator.get_state() if finished else self._epoch_start
        return {"generator": state, "position": 0 if finished else self._position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch_start, self._position = state_dict["generator"], state_dict["position"]
        self.generator.set_state(self._epoch_start)


def digits() -> Dataset:
    """1,797 scans of handwritten digits, 1 × 8 × 8, grey levels 0 to 16 (Alpaydin & Kaynak 1998), from scikit-learn.

    The split is stratified and always the same: 1,257 to train, 180 for validation, 360 to test.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    rest, test = train_test_split(range(len(labels)), test_size=360, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=180, stratify=labels[rest], random_state=0)
    images = torch.from_numpy(pixels).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    targets = torch.from_numpy(labels).long()

    def take(chosen: list[int]) -> Split:
        return Split(images[chosen], targets[chosen])

    return Dataset.from_splits(take(train), take(validation), take(test), num_classes=10)
