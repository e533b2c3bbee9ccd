"""The noisy quadratic model as a training task, for which `nested_lookahead.theory` has the exact answer.

Loss ½ Σ aᵢ (xᵢ − cᵢ)² of a point x, with a fresh c ~ N(0, σ²) for every sample (Zhang et al. 2019, Section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nested_lookahead.errors import UserError
from nested_lookahead.metric import Metric
from nested_lookahead.tasks.data import Source
from nested_lookahead.tasks.objectives import Objective
from nested_lookahead.tasks.spectrum import power_law


@dataclass(frozen=True)
class Targets:
    """Samples c, drawn anew in each epoch in training, and 0, their mean, in evaluation."""

    labels: Tensor
    """(n,) zeros: there are no classes."""
    std: Tensor
    """(coordinates,)."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.std.shape)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Targets:
        return Targets(self.labels.to(device), self.std.to(device))

    def take(self, indices: np.ndarray[Any, Any]) -> Targets:
        return Targets(self.labels[: len(indices)], self.std)

    def fetch(self, chunks: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        drawn = torch.zeros(1)
        if seed is not None:
            drawn = torch.randn(len(self), *self.shape, generator=torch.Generator().manual_seed(seed))
            drawn = drawn.to(self.std.device) * self.std
        for chunk in chunks:
            samples = torch.zeros(len(chunk), *self.shape, device=self.std.device) if seed is None else drawn[chunk]
            yield samples, self.labels[: len(chunk)]

    def moments(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(self.shape), torch.ones(self.shape)  # samples are used as they are


@dataclass(frozen=True)
class Quadratic(Objective):
    """The objective. Its score is the share of the risk at the start that is gone: 1 at the optimum, 0 at the start."""

    curvature: Tensor
    bounds: ClassVar[tuple[float | None, float | None]] = (None, 1.0)

    @property
    def metric(self) -> Metric:
        return Metric("share of the risk gone", "%", "up", 100.0, 2, 0.5)

    def to(self, device: torch.device) -> Quadratic:
        return Quadratic(self.curvature.to(device))

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        """Excess risk where the samples are 0."""
        if outputs.shape[1:] != self.curvature.shape:
            raise UserError("dataset=noisy_quadratic goes with model=point")
        losses = 0.5 * (outputs.square() @ self.curvature)
        return losses.mean() if reduction == "mean" else losses.sum()

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return len(outputs) - self.loss(outputs, labels, reduction="sum") / (0.5 * self.curvature.sum())


class Point(nn.Module):
    """Nothing but a point, at first (1, …, 1); its output is its distance from each sample."""

    def __init__(self, coordinates: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(coordinates))

    def forward(self, samples: Tensor) -> Tensor:
        return self.x - samples


def point(shape: tuple[int, ...], num_classes: int) -> Point:
    if len(shape) != 1:
        raise ValueError("point goes with dataset=noisy_quadratic alone")
    return Point(shape[0])


def noisy_quadratic(
    coordinates: Annotated[int, ">= 1"], power: float, noise_power: float, samples: Annotated[int, ">= 1"]
) -> Source:
    """Curvatures aᵢ = i^−power, noise variances σᵢ² = aᵢ^−noise_power; so many fresh samples make an epoch.

    A step on a batch of B samples sees the noise variance σ² / B; `nested_lookahead.theory` has B = 1.
    """
    curvature, noise = (torch.from_numpy(array).float() for array in power_law(coordinates, power, noise_power))
    train = Targets(torch.zeros(samples, dtype=torch.int64), noise.sqrt())
    test = train.take(np.arange(1))
    return Source(train, test, num_classes=1, objective=Quadratic(curvature))
