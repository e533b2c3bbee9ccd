"""Samples, and their splits into training, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

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
        """(n,), int64, of classes; else (n, …), of any type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of an image, (channels, length) of a signal, (features,) of a row of a table."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Samples:
        """The same samples, delivered on another device."""

    def take(self, indices: np.ndarray[Any, Any]) -> Samples:
        """A part of the samples, in this order."""

    def fetch(self, chunks: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch (samples, labels) for each tensor of indices; with a seed, as they are shown in training."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, in the samples' units."""


@runtime_checkable
class Stream(Samples, Protocol):
    """Samples that lie one after another, and are not to be held out here and there."""

    def divide(self, wanted: Split) -> tuple[Samples, Samples]:
        """The samples to train on, and those held out."""


def in_order(
    samples: Samples, size: int, every: slice = slice(None), seed: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of ``size``, the last one possibly smaller; of these, the ones that ``every`` takes. With a seed, as they
    are shown in training."""
    return samples.fetch(torch.split(torch.arange(len(samples)), size)[every], seed) if len(samples) else iter(())


@dataclass(frozen=True)
class TensorSamples:
    """Samples that fit in the device's memory.

    ``images``: (n, channels, height, width), uint8, or signals (n, channels, length), or tables (n, features).
    ``labels``: (n,), int64, of classes; else (n, …), of any type.
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
    """Outputs of a model, for each sample or token."""
    objective: Objective = CLASSIFICATION
    normalize: bool = True
    """Whether a model gets the samples as float32 of zero mean and unit variance, or as they are."""


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
    normalized: bool = True

    @classmethod
    def from_splits(
        cls,
        train: Samples,
        validation: Samples,
        test: Samples,
        num_classes: int,
        objective: Objective = CLASSIFICATION,
        normalized: bool = True,
    ) -> Dataset:
        scale = _scale(*train.moments()) if normalized else (torch.zeros(1), torch.ones(1))
        return cls(train, validation, test, num_classes, *scale, objective, normalized)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.train.shape

    def to(self, device: torch.device) -> Dataset:
        names = ("train", "validation", "test", "mean", "std", "objective")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def normalize(self, images: Tensor, channels_last: bool = False) -> Tensor:
        """Samples as float32 of zero mean and unit variance over the training set, per channel; else as they are."""
        if not self.normalized:
            return images
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


def _check_samples(part: str, samples: Samples, source: Source) -> None:
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
    labels = samples.labels
    if source.objective.classes:
        if labels.is_floating_point() or labels.dim() != 1:
            raise UserError(f"dataset: {part} labels must be integers, one per sample; for others, give an objective")
        least, most = int(labels.min()), int(labels.max())
        if least < 0 or most >= source.num_classes:
            allowed = f"[0, {source.num_classes - 1}]"
            raise UserError(f"dataset: {part} labels must be in {allowed}, and are in [{least}, {most}]")
    elif labels.is_floating_point() and not bool(torch.isfinite(labels).all()):
        raise UserError(f"dataset: {part} labels hold numbers that are not finite")


def split_source(source: Source, wanted: Split, seed: int) -> Dataset:
    """Hold out a validation split, and keep a subset of the rest to train on: stratified where labels are classes, else
    at random; of a `Stream`, as it divides itself.

    Args:
        seed: of both choices, 0 to 2³² − 1, unless ``wanted`` has one.

    Raises:
        UserError: a size that the data set does not have.
    """
    for part, samples in (("training", source.train), ("test", source.test)):
        _check_samples(part, samples, source)
    if isinstance(source.train, Stream):
        train, validation = source.train.divide(wanted)
    else:
        train, validation = _divide(source, source.train, wanted, seed if wanted.seed is None else wanted.seed)
    return Dataset.from_splits(train, validation, source.test, source.num_classes, source.objective, source.normalize)


def _divide(source: Source, samples: Samples, wanted: Split, seed: int) -> tuple[Samples, Samples]:
    count, size = len(samples), wanted.train_size
    classes = samples.labels.numpy() if source.objective.classes else None
    kept, validation = _chosen(np.arange(count), classes, round(wanted.val_fraction * count), seed)
    if size is not None:
        least = source.num_classes if source.objective.classes else 1
        if not least <= size <= len(kept):
            raise UserError(f"dataset.split.train_size={size}: must be in [{least}, {len(kept)}] here")
        _, kept = _chosen(kept, classes, size, seed)
    if not len(kept):
        raise UserError(
            f"dataset.split.val_fraction={wanted.val_fraction}: leaves none of the {count:,} samples to train on"
        )

    def take(chosen: np.ndarray[Any, Any]) -> Samples:
        return samples if len(chosen) == count else samples.take(chosen)

    return take(kept), take(validation)


def _chosen(
    indices: np.ndarray[Any, Any], classes: np.ndarray[Any, Any] | None, size: int, seed: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(the others, ``size`` of the indices), in equal shares of the classes."""
    if size in (0, len(indices)):
        return (indices, indices[:0]) if size == 0 else (indices[:0], indices)
    if classes is None:
        shuffled = indices[np.random.default_rng(seed).permutation(len(indices))]
        return np.sort(shuffled[size:]), np.sort(shuffled[:size])
    from sklearn.model_selection import train_test_split

    try:
        others, chosen = train_test_split(indices, test_size=size, stratify=classes[indices], random_state=seed)
    except ValueError as error:
        raise UserError(f"dataset: no stratified split of {size} out of {len(indices)} samples: {error}") from None
    return others, chosen
