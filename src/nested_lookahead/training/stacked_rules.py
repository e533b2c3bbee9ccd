"""The steps of several inner optimizers as one, in place: the runs are rows, and their numbers are columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

Numbers = dict[str, Tensor]
"""Each (runs, 1)."""


def sgd_(weights: Tensor, gradient: Tensor, buffers: dict[str, Tensor], n: Numbers, nesterov: bool) -> None:
    """The step of `torch.optim.SGD` without dampening, in place. A buffer of zeros is what its first step starts from.

    Args:
        weights, gradient: (runs, weights), and so is ``momentum_buffer``, which is there where there is momentum.
        n: ``lr``, ``weight_decay`` and ``momentum``.
    """
    gradient = torch.addcmul(gradient, weights, n["weight_decay"])
    if buffers:
        momentum = buffers["momentum_buffer"].mul_(n["momentum"]).add_(gradient)
        gradient = torch.addcmul(gradient, momentum, n["momentum"]) if nesterov else momentum
    weights.addcmul_(gradient, n["lr"], value=-1)


def adam_(weights: Tensor, gradient: Tensor, buffers: dict[str, Tensor], n: Numbers, decoupled: bool) -> None:
    """The step of `torch.optim.Adam` or, decoupled, `AdamW`, in place.

    Args:
        weights, gradient: (runs, weights), and so are ``exp_avg`` and ``exp_avg_sq``.
        n: ``weight_decay``, ``eps``, ``new1`` = 1 − β₁, ``new2`` = 1 − β₂, and of this step ``size`` = lr / (1 − β₁ᵗ),
            ``root`` = √(1 − β₂ᵗ), ``kept`` = 1 − lr · weight decay.
    """
    if decoupled:
        weights.mul_(n["kept"])
    else:
        gradient = torch.addcmul(gradient, weights, n["weight_decay"])
    mean = buffers["exp_avg"].lerp_(gradient, n["new1"])
    square = buffers["exp_avg_sq"].lerp_(gradient.square(), n["new2"])
    weights.addcdiv_(mean * n["size"], square.sqrt().div_(n["root"]).add_(n["eps"]), value=-1)


class Rule:
    """What the inner optimizers of all runs do, the buffers that it takes, and their numbers in float64 on the CPU."""

    buffers: tuple[str, ...]
    fixed: Numbers

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        """From the param group of each run's optimizer."""
        self.groups = groups
        self.lr, self.decay = self.number("initial_lr"), self.number("weight_decay")

    def number(self, name: str) -> Tensor:
        return torch.tensor([[float(group[name])] for group in self.groups], dtype=torch.float64)

    def moving(self, factor: float, step: int) -> Numbers:
        """Those of step 1, 2, …, at which the schedule multiplies the learning rate by a factor."""
        raise NotImplementedError

    def update_(self, weights: Tensor, gradient: Tensor, buffers: dict[str, Tensor], n: Numbers) -> None:
        raise NotImplementedError


class SGDRule(Rule):
    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        super().__init__(groups)
        self.fixed = {"weight_decay": self.decay, "momentum": self.number("momentum")}
        self.buffers = ("momentum_buffer",) if self.fixed["momentum"].all() else ()

    def update_(self, weights: Tensor, gradient: Tensor, buffers: dict[str, Tensor], n: Numbers) -> None:
        sgd_(weights, gradient, buffers, n, self.groups[0]["nesterov"])

    def moving(self, factor: float, step: int) -> Numbers:
        return {"lr": self.lr * factor}


class AdamRule(Rule):
    buffers = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        super().__init__(groups)
        pairs = torch.tensor([[float(beta) for beta in group["betas"]] for group in groups], dtype=torch.float64)
        self.beta1, self.beta2 = torch.split(pairs, 1, dim=1)
        self.fixed = {"weight_decay": self.decay, "eps": self.number("eps")}
        self.fixed |= {"new1": 1 - self.beta1, "new2": 1 - self.beta2}

    def update_(self, weights: Tensor, gradient: Tensor, buffers: dict[str, Tensor], n: Numbers) -> None:
        adam_(weights, gradient, buffers, n, self.decoupled)

    def moving(self, factor: float, step: int) -> Numbers:
        lr = self.lr * factor
        sizes = {"size": lr / (1 - self.beta1**step), "root": (1 - self.beta2**step).sqrt()}
        return sizes | {"kept": 1 - lr * self.decay}


class AdamWRule(AdamRule):
    decoupled = True


RULES: dict[type, type[Rule]] = {SGD: SGDRule, Adam: AdamRule, AdamW: AdamWRule}
