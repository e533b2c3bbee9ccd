"""The data of several runs as one: every batch has the runs first, (runs, batch, …), each from its own split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nested_lookahead.metric import Metric
from nested_lookahead.tasks.data import Dataset, TensorSamples
from nested_lookahead.tasks.objectives import Objective
from nested_lookahead.training.batches import Batches


@dataclass(frozen=True)
class StackedSamples:
    """A split of each run, all of one size; runs that share theirs share the memory, too."""

    images: Tensor
    """(splits, n, …)."""
    labels: Tensor
    """(splits, n, …)."""
    which: Tensor
    """(runs, 1): the split of each run."""

    @classmethod
    def of(cls, parts: Sequence[TensorSamples]) -> StackedSamples:
        """From the split of each run."""
        distinct = list({id(part): part for part in parts}.values())
        place = {id(part): i for i, part in enumerate(distinct)}
        which = torch.tensor([[place[id(part)]] for part in parts], device=parts[0].labels.device)
        images, labels = ([getattr(part, name) for part in distinct] for name in ("images", "labels"))
        return cls(_stack(images), _stack(labels), which)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.images.shape[2:])

    def __len__(self) -> int:
        """Samples of one run."""
        return self.labels.shape[1]

    def take(self, indices: np.ndarray[Any, Any]) -> StackedSamples:
        chosen = torch.from_numpy(indices).to(self.labels.device)
        return StackedSamples(self.images[:, chosen], self.labels[:, chosen], self.which)

    def fetch(self, chunks: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch for each tensor of indices: (runs, batch), or (batch,) where they are the same for all."""
        if not len(chunks):
            return
        sizes = [chunk.shape[-1] for chunk in chunks]
        # One transfer for all chunks: copying each would wait for the device.
        indices = torch.cat(list(chunks), dim=-1).to(self.labels.device)
        for chunk in torch.split(indices, sizes, dim=-1):
            yield self.images[self.which, chunk], self.labels[self.which, chunk]


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


class StackedDataset(Dataset):
    """Three splits of each run; ``mean`` and ``std`` are (runs, channels)."""

    @classmethod
    def of(cls, datasets: Sequence[Dataset]) -> StackedDataset:
        names = ("train", "validation", "test")
        splits: list[Any] = [StackedSamples.of([getattr(data, name) for data in datasets]) for name in names]
        train, validation, test = splits
        mean, std = (torch.stack([getattr(data, name) for data in datasets]) for name in ("mean", "std"))
        first = datasets[0]
        objective = StackedObjective(first.objective)
        return cls(train, validation, test, first.num_classes, mean, std, objective, first.normalized)

    def normalize(self, images: Tensor, channels_last: bool = False) -> Tensor:
        """(runs, batch, …), each by its run's mean and spread. The layout is what it is: the runs lie between."""
        if not self.normalized:
            return images
        per_channel = (len(images), 1, -1, *(1 for _ in images.shape[3:]))
        return (images.to(torch.float32) - self.mean.view(per_channel)) / self.std.view(per_channel)


class StackedObjective(Objective):
    """An objective of each run: what it returns is (runs,)."""

    def __init__(self, one: Objective) -> None:
        self.one = one

    @property
    def metric(self) -> Metric:
        return self.one.metric

    @property
    def unit(self) -> str:  # type: ignore[override]
        return self.one.unit

    def units(self, shape: tuple[int, ...]) -> int:
        return self.one.units(shape)

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        def loss(outputs: Tensor, labels: Tensor) -> Tensor:
            return self.one.loss(outputs, labels, label_smoothing=label_smoothing, reduction=reduction)

        return torch.vmap(loss)(outputs, labels)

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.vmap(self.one.score)(outputs, labels)

    def count(self, labels: Tensor) -> Tensor:
        return torch.vmap(lambda own: torch.as_tensor(self.one.count(own), device=own.device))(labels)


class StackedBatches:
    """The minibatches of several runs, each in its own order, which `Batches` keeps."""

    def __init__(self, split: StackedSamples, runs: Sequence[Batches]) -> None:
        self.split, self.runs = split, runs
        self.batch_size = runs[0].batch_size

    def __len__(self) -> int:
        return len(self.runs[0])

    def size(self, index: int) -> int:
        return self.runs[0].size(index)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rest of the present epoch, at the same batch of which all runs are; a new one if it has ended."""
        orders = torch.stack([run.order()[0] for run in self.runs])
        for batch in self.split.fetch(torch.split(orders, self.batch_size, dim=1)):
            for run in self.runs:
                run.position += 1
            yield batch
