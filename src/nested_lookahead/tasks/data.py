"""Samples, and their splits into training, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nested_lookahead.errors import UserError
from nested_lookahead.settings import Split
from nested_lookahead.tasks.objectives import CLASSIFICATION, Objective

log = logging.getLogger(__name__)


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
class TensorSamples:
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

    def to(self, device: torch.device) -> TensorSamples:
        return TensorSamples(self.images.to(device), self.labels.to(device))

    def take(self, indices: np.ndarray[Any, Any]) -> TensorSamples:
        chosen = torch.from_numpy(indices).to(self.labels.device)
        return TensorSamples(self.images[chosen], self.labels[chosen])

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


@dataclass(frozen=True)
class Source:
    """A data set as it is distributed: training and test samples."""

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
        return cls(train, validation, test, num_classes, *_scale(*train.moments()), objective)

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


def _scale(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """What samples are normalised by; a channel that is constant is centred alone."""
    constant = torch.nonzero(~(std > 0)).flatten().tolist()
    if constant:
        named = ", ".join(map(str, constant[:5])) + (", …" if len(constant) > 5 else "")
        log.warning(
            "dataset: %d channel(s) of the training samples are constant (%s, counted from 0): they are centred, and "
            "not divided by a spread of 0",
            len(constant),
            named,
        )
    return mean, torch.where(std > 0, std, 1.0)


def _check_samples(part: str, samples: Samples, num_classes: int) -> None:
    """Raises:
    UserError: there are none, or a value is not finite, or a label none of the classes'.
    """
    if not len(samples):
        raise UserError(f"dataset: there are no {part} samples")
    if isinstance(samples, TensorSamples) and samples.images.is_floating_point():
        bad = ~torch.isfinite(samples.images.transpose(0, 1).reshape(samples.images.shape[1], -1)).all(1)
        if bad.any():
            channel = int(torch.nonzero(bad)[0])
            raise UserError(f"dataset: {part} samples hold numbers that are not finite, in channel {channel} (from 0)")
    least, most = int(samples.labels.min()), int(samples.labels.max())
    if least < 0 or most >= num_classes:
        raise UserError(f"dataset: {part} labels must be in [0, {num_classes - 1}], and are in [{least}, {most}]")


def split_source(source: Source, wanted: Split, seed: int) -> Dataset:
    """Hold out a stratified validation split, and keep a stratified subset of the rest to train on.

    Args:
        seed: of both choices, 0 to 2³² − 1, unless ``wanted`` has one.

    Raises:
        UserError: a size that the data set does not have.
    """
    for part, samples in (("training", source.train), ("test", source.test)):
        _check_samples(part, samples, source.num_classes)
    labels, size = source.train.labels.numpy(), wanted.train_size
    seed = seed if wanted.seed is None else wanted.seed
    kept, validation = _stratified(np.arange(len(labels)), labels, round(wanted.val_fraction * len(labels)), seed)
    if size is not None:
        if not source.num_classes <= size <= len(kept):
            allowed = f"in [{source.num_classes}, {len(kept)}]"
            raise UserError(f"dataset.split.train_size={size}: must be {allowed} here")
        _, kept = _stratified(kept, labels, size, seed)

    if not len(kept):
        raise UserError(
            f"dataset.split.val_fraction={wanted.val_fraction}: leaves none of the {len(labels):,} samples to train on"
        )

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
