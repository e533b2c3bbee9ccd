"""Samples, their splits, and minibatches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nested_lookahead.errors import UserError


class Samples(Protocol):
    """Labelled samples, whether they lie on the device or come from files."""

    @property
    def labels(self) -> Tensor:
        """(n,), int64."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of an image, (channels, length) of a signal."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Samples:
        """The same samples, delivered on another device."""

    def take(self, indices: np.ndarray[Any, Any]) -> Samples:
        """A part of the samples, in this order."""

    def fetch(self, chunks: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch (samples, labels) for each tensor of indices; with a seed, as they are shown in training."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, in the samples' units."""


def in_order(samples: Samples, size: int, every: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of ``size``, the last one possibly smaller; of these, the ones that ``every`` takes."""
    return samples.fetch(torch.split(torch.arange(len(samples)), size)[every]) if len(samples) else iter(())


@dataclass(frozen=True)
class Split:
    """Samples that fit in the device's memory.

    ``images``: (n, channels, height, width), uint8, or signals (n, channels, length). ``labels``: (n,), int64.
    """

    images: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        return Split(self.images.to(device), self.labels.to(device))

    def take(self, indices: np.ndarray[Any, Any]) -> Split:
        chosen = torch.from_numpy(indices).to(self.labels.device)
        return Split(self.images[chosen], self.labels[chosen])

    def fetch(self, chunks: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        if not len(chunks):
            return
        # One transfer for all chunks: copying each would wait for the device.
        indices = torch.cat(list(chunks)).to(self.labels.device)
        for chunk in torch.split(indices, [len(chunk) for chunk in chunks]):
            yield self.images[chunk], self.labels[chunk]

    def moments(self) -> tuple[Tensor, Tensor]:
        channels = [channel.double() for channel in self.images.transpose(0, 1)]
        mean, std = [channel.mean() for channel in channels], [channel.std() for channel in channels]
        return torch.stack(mean).float(), torch.stack(std).float()


class Objective(Protocol):
    """What a model's outputs are worth."""

    def to(self, device: torch.device) -> Objective: ...

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        """Mean or sum over a batch."""

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Summed over a batch: 1 for each sample that is answered perfectly. The metrics call its mean accuracy."""


class Classification:
    """Cross-entropy in nats, and the number of correct answers."""

    def to(self, device: torch.device) -> Classification:
        return self

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        return cross_entropy(outputs, labels, label_smoothing=label_smoothing, reduction=reduction)

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs.argmax(1) == labels).sum()


CLASSIFICATION = Classification()


@dataclass(frozen=True)
class Source:
    """A data set as published: training and test samples."""

    train: Samples
    test: Samples
    num_classes: int
    objective: Objective = CLASSIFICATION


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits. ``mean`` and ``std``, per channel of the training samples, are in the samples' units."""

    train: Samples
    validation: Samples
    test: Samples
    num_classes: int
    mean: Tensor
    std: Tensor
    objective: Objective = CLASSIFICATION

    @classmethod
    def from_splits(
        cls,
        train: Samples,
        validation: Samples,
        test: Samples,
        num_classes: int,
        objective: Objective = CLASSIFICATION,
    ) -> Dataset:
        return cls(train, validation, test, num_classes, *train.moments(), objective)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.train.shape

    def to(self, device: torch.device) -> Dataset:
        return Dataset(
            self.train.to(device),
            self.validation.to(device),
            self.test.to(device),
            self.num_classes,
            self.mean.to(device),
            self.std.to(device),
            self.objective.to(device),
        )

    def normalize(self, images: Tensor, channels_last: bool = False) -> Tensor:
        """Samples as float32 of zero mean and unit variance over the training set, per channel."""
        layout = torch.channels_last if channels_last and images.dim() == 4 else torch.contiguous_format
        floats = images.to(torch.float32, memory_format=layout)
        per_channel = (-1, *(1 for _ in images.shape[2:]))
        return (floats - self.mean.view(per_channel)) / self.std.view(per_channel)


def split_source(source: Source, val_fraction: float, train_size: int | None, seed: int) -> Dataset:
    """Hold out a stratified validation split, and keep a stratified subset of the rest to train on.

    Args:
        val_fraction: share of the published training samples, in [0, 1); 0 holds out nothing.
        train_size: number of samples to train on; None keeps all.
        seed: of the choice, 0 to 2³² − 1.

    Raises:
        UserError: a size that the data set does not have.
    """
    labels = source.train.labels.numpy()
    if not 0 <= val_fraction < 1:
        raise UserError(f"dataset.val_fraction={val_fraction}: must be in [0, 1)")
    kept, validation = _stratified(np.arange(len(labels)), labels, round(val_fraction * len(labels)), seed)
    if train_size is not None:
        if not source.num_classes <= train_size <= len(kept):
            raise UserError(f"dataset.train_size={train_size}: must be in [{source.num_classes}, {len(kept)}] here")
        _, kept = _stratified(kept, labels, train_size, seed)

    def take(chosen: np.ndarray[Any, Any]) -> Samples:
        return source.train if len(chosen) == len(labels) else source.train.take(chosen)

    return Dataset.from_splits(take(kept), take(validation), source.test, source.num_classes, source.objective)


def _stratified(
    indices: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], size: int, seed: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(the others, ``size`` of the indices), in equal shares of the classes."""
    if size in (0, len(indices)):
        return (indices, indices[:0]) if size == 0 else (indices[:0], indices)
    from sklearn.model_selection import train_test_split

    try:
        others, chosen = train_test_split(indices, test_size=size, stratify=labels[indices], random_state=seed)
    except ValueError as error:
        raise UserError(f"dataset: no stratified split of {size} out of {len(indices)} samples: {error}") from None
    return others, chosen


class Batches:
    """Minibatches of a split in a new random order each epoch, the last one possibly smaller.

    The order comes from ``generator`` alone, a CPU generator, and so is the same on every device. The position can
    be saved at any batch and loaded: iteration then goes on with the batch that would have come next. Only ``part``
    of each batch's samples is fetched: where several processes train together, each fetches its own.
    """

    def __init__(
        self,
        split: Samples,
        batch_size: int,
        generator: torch.Generator,
        part: Callable[[Tensor], Tensor] = lambda indices: indices,
    ) -> None:
        self.split, self.batch_size, self.generator, self.part = split, batch_size, generator, part
        self._epoch_start = generator.get_state()
        self._position = 0

    def __len__(self) -> int:
        full, rest = divmod(len(self.split), self.batch_size)
        # Batch norm cannot train on a single sample, so a last batch of one is left out.
        return full + (rest > 1 or (rest == 1 and full == 0))

    def size(self, index: int) -> int:
        """Samples in the batch of this number."""
        return min(self.batch_size, len(self.split) - index * self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rest of the present epoch; a new one if it has ended."""
        if self._position in (0, len(self)):
            self._epoch_start, self._position = self.generator.get_state(), 0
        else:
            self.generator.set_state(self._epoch_start)
        order = torch.randperm(len(self.split), generator=self.generator)
        seed = int(torch.randint(2**31, (), generator=self.generator))
        chunks = torch.split(order, self.batch_size)[self._position : len(self)]
        for batch in self.split.fetch([self.part(chunk) for chunk in chunks], seed):
            self._position += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        finished = self._position in (0, len(self))
        state = self.generator.get_state() if finished else self._epoch_start
        return {"generator": state, "position": 0 if finished else self._position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch_start, self._position = state_dict["generator"], state_dict["position"]
        self.generator.set_state(self._epoch_start)
