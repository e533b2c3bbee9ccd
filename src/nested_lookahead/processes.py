"""Processes: those that train one run together, as ``torchrun`` starts them, and those that make runs side by side."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # a run that is over is skipped without waiting for torch
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def first_process() -> bool:
    """Whether this is the process that writes and speaks."""
    return not under_torchrun() or os.environ["RANK"] == "0"


@dataclass(frozen=True)
class Processes:
    """This process and its fellows. Every method but `share` and `wrap` must be called by all of them alike."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Number among those of this machine."""

    @classmethod
    def join(cls) -> Processes:
        """The processes that ``torchrun`` has started (environment variables ``RANK``, …); else this one alone."""
        if not under_torchrun():
            return cls()
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group()  # gloo for tensors on the CPU, NCCL on CUDA
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def every(self) -> slice:
        """Takes this process's items of a list."""
        return slice(self.rank, None, self.count)

    def share(self, samples: Tensor) -> Tensor:
        """This process's part of a batch; one sample, which is to have no weight, where there are too few."""
        if self.count == 1:
            return samples
        part = samples[self.every]
        return part if len(part) else samples[:1]

    def weight(self, batch_size: int) -> float:
        """What the mean loss over this process's part counts, so that the mean over processes is that of the batch."""
        return len(range(self.rank, batch_size, self.count)) * self.count / batch_size

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model, with gradients averaged over the processes."""
        if self.count == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def sum(self, *values: Tensor) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.count > 1:
            import torch.distributed as dist

            for value in values:
                dist.all_reduce(value)

    def copy_from_first(self, *values: Tensor) -> None:
        """Replace each tensor by the first process's."""
        if self.count > 1:
            import torch.distributed as dist

            for value in values:
                dist.broadcast(value, src=0)

    def any(self, here: bool) -> bool:
        """Whether it is so in at least one process."""
        if self.count == 1:
            return here
        import torch
        import torch.distributed as dist

        flag = torch.tensor([int(here)])
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def first_says(self, find: Callable[[], T]) -> T:
        """What ``find`` returns in the first process, or raises there, in all of them."""
        if self.count == 1:
            return find()
        import torch.distributed as dist

        said: list[Any] = [None, None]
        if self.first:
            try:
                said[0] = find()
            except Exception as error:
                said[1] = error
        dist.broadcast_object_list(said)
        if said[1] is not None:
            raise said[1]
        return said[0]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            import torch.distributed as dist

            dist.barrier()


ALONE = Processes()


@contextmanager
def importing() -> Iterator[None]:
    """For large libraries: nothing is garbage while they are imported, and what they have made never will be.

    The collector would look at all of their objects, a third of a million for torch, again and again: for a fifth of
    the import's time, and for 0.2 s at every full collection from then on.
    """
    was_on, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
            atexit.register(gc.unfreeze)  # or some libraries would report that they leak
        if was_on:
            gc.enable()


def in_worker() -> bool:
    """Whether this is one of several worker processes of one machine, which share a terminal."""
    return multiprocessing.parent_process() is not None


def worker_number() -> int | None:
    """Which of the worker processes of one machine this is, counted from 0; None outside of one."""
    if not in_worker():
        return None
    return int(multiprocessing.current_process().name.rpartition("-")[2]) - 1  # such as LokyProcess-3


def jobs_at_once(device: str) -> int:
    """How many runs to make side by side: two per GPU (one computes while the other prepares), else one per core."""
    gpus = 0
    if device in ("auto", "cuda"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        known = Path("/proc/driver/nvidia/gpus")  # asking torch would import it
        if visible is not None:
            gpus = len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
        elif known.is_dir():
            gpus = len(list(known.iterdir()))
    if gpus:
        return 2 * gpus
    from joblib import cpu_count

    return int(cpu_count())
