"""What a model's outputs are worth: the loss that is trained on, and the score that is reported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from nested_lookahead.metric import ACCURACY, Metric


class Objective:
    """The base of a task's own: it says `metric`, `loss` and `score`; the rest has a default."""

    bounds: ClassVar[tuple[float | None, float | None]] = (None, None)
    """The least and the most that a mean score can be; None where there is no bound."""
    classes: ClassVar[bool] = False
    """Whether a label is a class, one per sample: then they are in [0, num_classes), and a split is stratified."""
    unit: ClassVar[str] = "samples"
    """What `count` counts, and speed is told in."""
    optimum: float | None = None
    """The least expected loss that any model can have, where it is known."""

    @property
    def metric(self) -> Metric:
        """What the mean of `score` is called, and which way is better."""
        return ACCURACY

    def to(self, device: torch.device) -> Objective:
        return self

    def units(self, shape: tuple[int, ...]) -> int:
        """Units in a sample of this shape."""
        return 1

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        """Mean or sum over all that `count` counts."""
        raise NotImplementedError

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Summed over the same."""
        raise NotImplementedError

    def count(self, labels: Tensor) -> Tensor | int:
        """The answers that these labels ask for: the means are over them."""
        return len(labels)


class Classification(Objective):
    """Cross-entropy in nats, and the number of correct answers."""

    bounds = (0.0, 1.0)
    classes = True

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        return cross_entropy(outputs, labels, label_smoothing=label_smoothing, reduction=reduction)

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs.argmax(1) == labels).sum()


class Regression(Objective):
    """Mean squared error of labels (n,) or (n, targets), and R²: 1 − error / variance."""

    bounds = (None, 1.0)

    @property
    def metric(self) -> Metric:
        return Metric("R²")

    def __init__(self, labels: Tensor) -> None:
        """The labels are those to measure the variance on: of the test part, say."""
        self.variance = float(labels.double().reshape(len(labels), -1).var(0, unbiased=False).mean())

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        losses = mse_loss(outputs.reshape(labels.shape), labels, reduction="none").reshape(len(labels), -1).mean(1)
        return losses.mean() if reduction == "mean" else losses.sum()

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return len(labels) - self.loss(outputs.float(), labels, reduction="sum") / self.variance


NO_LABEL = -100
"""Stands where no answer is asked for, as in torch's cross-entropy."""


@dataclass(frozen=True)
class NextToken(Objective):
    """Cross-entropy in nats per token of logits (batch, length, tokens) and labels (batch, length), and bits."""

    token: str = "character"
    optimum: float | None = None
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    unit: ClassVar[str] = "tokens"

    @property
    def metric(self) -> Metric:
        return Metric(f"bits per {self.token}", better="down", loss_unit="nats")

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
        flat = outputs.flatten(0, 1)
        return cross_entropy(flat, labels.flatten(), label_smoothing=label_smoothing, reduction=reduction)

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.loss(outputs.float(), labels, reduction="sum") / math.log(2)

    def units(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    def count(self, labels: Tensor) -> Tensor | int:
        return (labels != NO_LABEL).sum()


CLASSIFICATION = Classification()
