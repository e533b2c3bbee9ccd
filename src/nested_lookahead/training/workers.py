"""Workers that train apart and meet in the layers of slow weights: what ``workers=local`` trains with.

Every worker has a model and an inner optimizer of its own. A process trains one worker or several; their inner
optimizers are one `OptimizerList` under one Lookahead, whose layers average over workers. What is computed is the same,
to rounding, whatever the number of processes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nested_lookahead.communicate import Group
from nested_lookahead.errors import UserError
from nested_lookahead.optim import Mean, MultilayerLookahead, joined_state_dict
from nested_lookahead.tasks.data import Samples
from nested_lookahead.training.batches import Batches
from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.processes import Processes
from nested_lookahead.training.trainer import Recipe, Trainer


@dataclass(frozen=True)
class Workers:
    """``count`` workers, in groups of ``group_size``, of which this process trains its share."""

    count: int
    group_size: int
    processes: Processes

    def __post_init__(self) -> None:
        """Raises:
        UserError: they cannot be shared out among the processes that there are.
        """
        processes = self.processes.count
        if self.count % processes:
            raise UserError(f"workers.count={self.count}: cannot be shared out evenly among {processes} processes")
        if self.group_size % self.here and self.here % self.group_size:
            raise UserError(
                f"workers.group_size={self.group_size}: each of the {processes} processes trains {self.here} workers, "
                "which must be whole groups, or parts of one"
            )

    @property
    def here(self) -> int:
        """How many this process trains."""
        return self.count // self.processes.count

    @property
    def own(self) -> slice:
        """Their numbers."""
        return slice(self.processes.rank * self.here, (self.processes.rank + 1) * self.here)

    def share(self, samples: Tensor) -> Tensor:
        """This process's part of a batch that holds one worker's part after the other."""
        size = len(samples) // self.count
        return samples[self.own.start * size : self.own.stop * size]

    def means(self, layers: int) -> tuple[Mean, ...]:
        """Of each layer, innermost first: over its group, and of the outermost over all workers."""
        return (*[self._mean(self.group_size)] * (layers - 1), self._mean(self.count))

    def _mean(self, size: int) -> Mean:
        across = size // self.here if size > self.here else 1
        return MeanOfWorkers(self.here, min(size, self.here), self.processes.group(across) if across > 1 else None)


class MeanOfWorkers:
    """Sets the weights of each group of workers to their mean, in this process and, with a ``group``, across others.

    Args:
        here: workers in this process, whose tensors follow one another.
        size: how many of them belong together.
    """

    def __init__(self, here: int, size: int, group: Any = None) -> None:
        self.here, self.size = here, size
        self.group = None if group is None else Group(group)

    @torch.no_grad()
    def __call__(self, below: list[Tensor], slow: list[Tensor]) -> None:
        each = len(below) // self.here
        for first in range(0, self.here, self.size):
            members = [below[i * each : (i + 1) * each] for i in range(first, first + self.size)]
            origin = slow[first * each : (first + 1) * each]
            if self.size > 1:
                for same, start in zip(zip(*members, strict=True), origin, strict=True):
                    gone = torch.stack([weights - start for weights in same]).mean(0)  # as a `Group` sends it
                    same[0].copy_(start + gone)
            if self.group is not None:
                self.group(members[0], origin)
            for member in members[1:]:
                for weights, mean in zip(member, members[0], strict=True):
                    weights.copy_(mean)


class WorkersBatches(Batches):
    """Batches of which each worker has an equal part, one after the other; what cannot be shared out is left over.

    ``parts`` are the samples of each worker, as many of each, in an order of its own each epoch; None shares out one
    order of all samples.
    """

    def __init__(
        self,
        split: Samples,
        batch_size: int,
        generator: torch.Generator,
        workers: int,
        parts: Sequence[Tensor] | None = None,
        part: Callable[[Tensor], Tensor] = lambda indices: indices,
    ) -> None:
        super().__init__(split, batch_size, generator, part)
        self.workers, self.parts = workers, parts
        self.samples = len(split) if parts is None else sum(map(len, parts))

    def __len__(self) -> int:
        full, rest = divmod(self.samples, self.batch_size)
        return full + (rest // self.workers > 1 or (rest // self.workers == 1 and full == 0))

    def size(self, index: int) -> int:
        return min(self.batch_size, self.samples - index * self.batch_size) // self.workers * self.workers

    def draw(self) -> Tensor:
        if self.parts is None:
            order = super().draw()
            return order[: self.size(len(self) - 1) + (len(self) - 1) * self.batch_size]
        orders = torch.stack([part[torch.randperm(len(part), generator=self.generator)] for part in self.parts])
        return torch.cat([chunk.flatten() for chunk in torch.split(orders, self.batch_size // self.workers, dim=1)])


def skewed_parts(labels: Tensor, workers: int, skew: float, seed: int) -> list[Tensor]:
    """Indices of each worker's own samples, disjoint, as many for each, with shares of the classes that differ.

    Each worker's shares are drawn from a Dirichlet distribution around those of the whole, and its samples by them,
    one after the other, from what is left (Hsu et al. 2019, arXiv:1909.06335).

    Args:
        skew: the distribution's concentration: 0.1 gives a worker one or two classes, 100 nearly all alike.
    """
    random = np.random.default_rng(seed)
    classes, counts = np.unique(labels.cpu().numpy(), return_counts=True)
    left = [list(random.permutation(np.flatnonzero(labels.cpu().numpy() == one))) for one in classes]
    shares = random.dirichlet(skew * counts / counts.sum() * len(classes), size=workers)
    parts: list[list[int]] = [[] for _ in range(workers)]
    for _ in range(len(labels) // workers):
        for part, share in zip(parts, shares, strict=True):  # in turn, so that none has to take what others leave
            there = np.array([bool(samples) for samples in left])
            chances = np.where(there, np.maximum(share, 1e-12), 0.0)
            part.append(int(left[random.choice(len(classes), p=chances / chances.sum())].pop()))
    return [torch.tensor(part) for part in parts]


class WorkersTrainer(Trainer):
    """A trainer of the workers of this process; ``model`` is the first one's, and has the mean's weights when measured.

    Args:
        replicas: this process's models, alike.
        optimizer: over an `OptimizerList` of the replicas' inner optimizers, in their order.
    """

    optimizer: MultilayerLookahead

    def __init__(
        self,
        replicas: Sequence[nn.Module],
        optimizer: MultilayerLookahead,
        data: Any,
        batches: WorkersBatches,
        recipe: Recipe,
        hardware: Hardware,
        augment_seed: int,
        workers: Workers,
    ) -> None:
        self.replicas, self.workers = replicas, workers
        super().__init__(replicas[0], optimizer, data, batches, recipe, hardware, augment_seed, workers.processes)
        self._forwards = [self._wrapped, *(hardware.compiled(replica)[0] for replica in replicas[1:])]
        self._mean = workers.means(1)[0]
        if workers.processes.count > 1:  # nothing is sent between the layers' syncs, to look for signals, either
            self.check_every = max(self.check_every, math.prod(layer.k for layer in optimizer.layers))

    def _parallel(self, model: nn.Module) -> nn.Module:
        return model

    def _share(self, samples: Tensor) -> Tensor:
        return self.workers.share(samples)

    def _can_be_graphs(self) -> bool:
        return False

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = super().train_step(images, labels)
        if self.optimizer.layers_due() == len(self.optimizer.layers):
            self._average_buffers()
        return loss

    def _compute_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        inputs, labels = self._prepared(images, labels)
        losses = [
            self._loss_of(self._forwards[i], own, wanted)
            for i, (own, wanted) in enumerate(zip(inputs.chunk(self.here), labels.chunk(self.here), strict=True))
        ]
        loss = torch.stack(losses)
        self.scaler.scale(loss.sum()).backward()  # type: ignore[no-untyped-call]  # each has its own mean's gradient
        return loss.detach().mean()

    @property
    def here(self) -> int:
        return self.workers.here

    def models(self) -> Sequence[nn.Module]:
        return self.replicas

    @torch.no_grad()
    def _average_buffers(self) -> None:
        """Batch norm's statistics, which belong to weights that are now the same everywhere."""
        buffers = self._floats()
        for values in zip(*buffers, strict=True):
            mean = torch.stack(values).mean(0)
            self.processes.sum(mean)
            for value in values:
                value.copy_(mean / self.processes.count)

    def _floats(self) -> list[list[Tensor]]:
        return [[buffer for buffer in one.buffers() if buffer.is_floating_point()] for one in self.replicas]

    def agree(self) -> None:
        """Nothing is to be agreed on: `fast_weights` is the mean."""

    @contextmanager
    def fast_weights(self) -> Iterator[None]:
        """The mean of the workers' fast weights and statistics in `model`, for a block."""
        kept = [[tensor.detach().clone() for tensor in _tensors(one)] for one in self.replicas]
        origin = [*self._slow()]
        try:
            with torch.no_grad():
                self._mean([*_parameters(self.replicas)], origin)
                self._average_buffers()
            yield
        finally:
            with torch.no_grad():
                for one, values in zip(self.replicas, kept, strict=True):
                    for tensor, value in zip(_tensors(one), values, strict=True):
                        tensor.copy_(value)

    def _slow(self) -> Iterator[Tensor]:
        """What the fast weights are measured from, the same for all workers."""
        depth = len(self.optimizer.layers)
        for param in _parameters(self.replicas):
            yield self.optimizer.state.get(param, {}).get(f"slow_{depth}", torch.zeros_like(param))

    def state_dict(self) -> dict[str, Any]:
        """That of the first worker, as if it were alone, and each one's of its own."""
        state = super().state_dict()
        whole = state["optimizer"]
        own = [
            {"model": one.state_dict(), "optimizer": part}
            for one, part in zip(self.replicas, _divided(whole, self.here), strict=True)
        ]
        everywhere = [one for some in self.processes.gather(own) for one in some]
        each = len(own[0]["optimizer"]["param_groups"])
        scheduler = {key: kept[:each] if isinstance(kept, list) else kept for key, kept in state["scheduler"].items()}
        return state | {"optimizer": own[0]["optimizer"], "scheduler": scheduler, "workers": everywhere}

    def _names_in_optimizer(self) -> list[str]:
        names = {param: name for name, param in self.model.named_parameters()}
        groups = self.optimizer.param_groups
        return [names[param] for group in groups for param in group["params"] if param in names]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = state_dict["workers"][self.workers.own]
        first = {
            "model": own[0]["model"],
            "optimizer": joined_state_dict([one["optimizer"] for one in own]),
            "scheduler": {  # which has lists of a value per param group
                key: kept * self.here if isinstance(kept, list) else kept
                for key, kept in state_dict["scheduler"].items()
            },
        }
        super().load_state_dict(state_dict | first)
        for replica, one in zip(self.replicas, own, strict=True):
            replica.load_state_dict(one["model"])


def replicas_of(model: nn.Module, count: int) -> list[nn.Module]:
    return [model, *(copy.deepcopy(model) for _ in range(count - 1))]


def _parameters(replicas: Sequence[nn.Module]) -> Iterator[nn.Parameter]:
    for one in replicas:
        yield from one.parameters()


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _divided(state: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """An optimizer's state dict in equal parts, each as if it were all: what `joined_state_dict` undoes."""
    each = len(state["param_groups"]) // count
    made = []
    for i in range(count):
        groups = state["param_groups"][i * each : (i + 1) * each]
        numbers = [number for group in groups for number in group["params"]]
        new = {number: position for position, number in enumerate(numbers)}
        groups = [group | {"params": [new[number] for number in group["params"]]} for group in groups]
        kept = {new[number]: state["state"][number] for number in numbers if number in state["state"]}
        made.append({"state": kept, "param_groups": groups})
    return made
