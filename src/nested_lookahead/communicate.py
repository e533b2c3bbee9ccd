"""Layers of slow weights that communicate: means over workers that train apart between syncs.

Local SGD, DiLoCo (arXiv:2311.08105) and hierarchies of them (HALoS, arXiv:2506.04531): every worker has a model and an
optimizer of its own, and steps by itself. What a layer with a `Group` syncs with is the mean over the group's workers
of the weights below it; then its rule acts as ever. Slow weights, and what a layer keeps beside them, are so the same
in all of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

# The first optimizer imports this, and its functions take the process group of that moment for their default: the group
# would outlive destroy_process_group(), and abort the process at its end ("terminate called without an active
# exception") in half of all cases. Imported before there is a group, it keeps none.
import torch.distributed.nn.functional
from torch import Tensor

from nested_lookahead.optim import MultilayerLookahead

BUCKET = 2**25
"""Bytes that are sent at once, about: many small messages cost more than few large ones."""


class Group:
    """The workers that a layer averages over, for ``groups`` of the optimizers of this package.

    What travels is the displacement below − slow, which is small where workers have not gone far: so it keeps what
    matters in 16 bits, too. A group of one worker communicates nothing, and leaves the weights as they are to the bit.

    Args:
        group: of `torch.distributed`; None is all workers. Its timeout is how long a worker is waited for; one that has
            died is noticed at once by gloo.
        wire: data type to send in, such as ``torch.bfloat16``; None is the weights' own.
    """

    def __init__(self, group: Any = None, wire: torch.dtype | None = None) -> None:
        self.group, self.wire = group, wire
        self.size = dist.get_world_size(group)

    @torch.no_grad()
    def __call__(self, below: list[Tensor], slow: list[Tensor]) -> None:
        """Set the weights below a layer to their mean over the workers, in place.

        Raises:
            RuntimeError: a worker has died, or not answered within the group's timeout.
        """
        if self.size == 1:
            return
        pairs = [(_local(a), _local(b)) for a, b in zip(below, slow, strict=True)]
        for bucket in self._buckets(pairs):
            sent = torch.cat([(a - b).to(self.wire or a.dtype).flatten() for a, b in bucket])
            try:
                dist.all_reduce(sent, group=self.group)
            except RuntimeError as error:
                raise RuntimeError(f"a mean over {self.size} workers failed, as one died or did not answer") from error
            sent = sent.to(bucket[0][0].dtype) / self.size
            for (a, b), part in zip(bucket, torch.split(sent, [a.numel() for a, _ in bucket]), strict=True):
                a.copy_(b + part.view(a.shape))

    def _buckets(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """The same on all workers: by the order of the parameters and their sizes."""
        bucket: list[tuple[Tensor, Tensor]] = []
        for pair in pairs:
            if bucket and self.bytes_per_sync([a for a, _ in (*bucket, pair)]) > BUCKET:
                yield bucket
                bucket = []
            bucket.append(pair)
        if bucket:
            yield bucket

    def bytes_per_sync(self, params: Sequence[Tensor]) -> int:
        """What each worker gives to the mean; a ring sends and receives 2 (n − 1) / n times as much for n workers."""
        if self.size == 1:
            return 0
        return sum(_local(param).numel() * (self.wire or param.dtype).itemsize for param in params)

    def __repr__(self) -> str:
        wire = "" if self.wire is None else f", {self.wire}"
        return f"{type(self).__name__}({self.size} workers{wire})"


def bytes_per_step(optimizer: MultilayerLookahead) -> tuple[float, ...]:
    """Of each layer, innermost first, what a worker gives to the means per fast step."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    found, period = [], 1
    for layer, group in zip(optimizer.layers, optimizer.groups or [None] * len(optimizer.layers), strict=True):
        period *= layer.k
        found.append(group.bytes_per_sync(params) / period if isinstance(group, Group) else 0.0)
    return tuple(found)


def _local(tensor: Any) -> Tensor:
    """This worker's part of one that is spread over others, as FSDP does."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[no-any-return]
