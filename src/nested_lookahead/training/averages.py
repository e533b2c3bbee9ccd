"""Averages of the weights that are read out beside the run, and never fed back into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from nested_lookahead.settings import ema_names


class Average:
    """A copy of a model's parameters that follows them, in place.

    With a decay it is e ← decay · e + (1 − decay) · x after each step, from the weights at the start; without, the mean
    of the weights after each step beyond ``first``, which has nothing to show until then.
    """

    def __init__(self, params: Sequence[nn.Parameter], decay: float | None = None, first: int = 0) -> None:
        self.params, self.first, self.count = [*params], first, 0
        self.running = decay is not None
        self.kept = [param.detach().clone() for param in params]
        self._follow = get_swa_multi_avg_fn() if decay is None else get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @property
    def ready(self) -> bool:
        return self.running or self.count > 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step 1, 2, …."""
        if step <= self.first:
            return
        if self.ready:
            self._follow(self.kept, [param.detach() for param in self.params], self.count)
        else:
            _copy(self.kept, self.params)
        self.count += 1

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Put the average into the model for a ``with`` block; what was there comes back bit for bit at its end."""
        own = [param.detach().clone() for param in self.params]
        try:
            _copy(self.params, self.kept)
            yield
        finally:
            _copy(self.params, own)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, "count": self.count, "ready": self.ready}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        _copy(self.kept, state_dict["kept"])
        self.count = state_dict["count"]


def has_modes(optimizer: Any) -> bool:
    """Whether an optimizer trains other weights than those to evaluate, as Schedule-Free ones do."""
    return callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))


@contextmanager
def own_average(optimizer: Any) -> Iterator[None]:
    """Put the average that such an optimizer keeps into the model for a ``with`` block.

    Its way back computes the weights that it trains, and rounds: so they are kept, and come back bit for bit.
    """
    params = [param for group in optimizer.param_groups for param in group["params"]]
    trained = [param.detach().clone() for param in params]
    modes = [group["train_mode"] for group in optimizer.param_groups]
    optimizer.eval()
    try:
        yield
    finally:
        _copy(params, trained)
        for group, mode in zip(optimizer.param_groups, modes, strict=True):
            group["train_mode"] = mode


def averages_of(
    params: Sequence[nn.Parameter], decays: Sequence[float], tail: float | None, steps: int
) -> dict[str, Average]:
    """By the name of their kind of weights."""
    made = {name: Average(params, decay) for name, decay in zip(ema_names(decays), decays, strict=True)}
    if tail is not None:
        made["tail"] = Average(params, first=int(tail * steps))
    return made


@torch.no_grad()
def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
