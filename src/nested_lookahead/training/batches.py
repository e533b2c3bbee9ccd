"""Minibatches of a set of samples, in an order that can be saved at any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from nested_lookahead.tasks.data import Samples


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
        self.position = 0
        """Batches of the present epoch that have been fetched."""

    def __len__(self) -> int:
        full, rest = divmod(len(self.split), self.batch_size)
        # Batch norm cannot train on a single sample, so a last batch of one is left out.
        return full + (rest > 1 or (rest == 1 and full == 0))

    def size(self, index: int) -> int:
        """Samples in the batch of this number."""
        return min(self.batch_size, len(self.split) - index * self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rest of the present epoch; a new one if it has ended."""
        chunks, seed = self.rest()
        for batch in self.split.fetch(chunks, seed):
            self.position += 1
            yield batch

    def rest(self) -> tuple[list[Tensor], int]:
        """The indices of each batch that is left, of a new epoch if the present one has ended; and the epoch's seed."""
        order, seed = self.order()
        return [self.part(chunk) for chunk in torch.split(order, self.batch_size)], seed

    def order(self) -> tuple[Tensor, int]:
        """The same, all batches' indices in one tensor."""
        if self.position in (0, len(self)):
            self._epoch_start, self.position = self.generator.get_state(), 0
        else:
            self.generator.set_state(self._epoch_start)
        order = self.draw()
        seed = int(torch.randint(2**31, (), generator=self.generator))
        return order[self.position * self.batch_size : len(self) * self.batch_size], seed

    def draw(self) -> Tensor:
        """A new order of the samples, from the generator."""
        return torch.randperm(len(self.split), generator=self.generator)

    def state_dict(self) -> dict[str, Any]:
        finished = self.position in (0, len(self))
        state = self.generator.get_state() if finished else self._epoch_start
        return {"generator": state, "position": 0 if finished else self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch_start, self.position = state_dict["generator"], state_dict["position"]
        self.generator.set_state(self._epoch_start)
