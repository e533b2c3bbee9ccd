"""What a model's outputs are worth: the loss that is trained on, and the score that is reported."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Objective(Protocol):
    """What a model's outputs are worth."""

    bounds: ClassVar[tuple[float | None, float | None]]
    """The least and the most that a mean score can be; None where there is no bound."""

    def to(self, device: torch.device) -> Objective: ...

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        """Mean or sum over a batch."""

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Summed over a batch: 1 for each sample that is answered perfectly. The metrics call its mean accuracy."""


class Classification:
    """Cross-entropy in nats, and the number of correct answers."""

    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)

    def to(self, device: torch.device) -> Classification:
        return self

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        return cross_entropy(outputs, labels, label_smoothing=label_smoothing, reduction=reduction)

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs.argmax(1) == labels).sum()


CLASSIFICATION = Classification()
