"""The processes that train one run together, as ``torchrun`` starts them."""

from __future__ import annotations

import atexit
import json
import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from nested_lookahead.errors import UserError

if TYPE_CHECKING:  # a run that is over is skipped without waiting for torch
    import torch
    from torch import Tensor, nn

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""How long one process waits for another: PyTorch's default for NCCL, where gloo's is half an hour."""


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

        import nested_lookahead.communicate  # noqa: F401  before there is a process group: see there

        if not dist.is_initialized():
            dist.init_process_group(timeout=PATIENCE)  # gloo for tensors on the CPU, NCCL on CUDA
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

    def any(self, *here: bool) -> list[bool]:
        """Of each, whether it is so in at least one process."""
        if self.count == 1:
            return [*here]
        import torch
        import torch.distributed as dist

        flags = torch.tensor([int(one) for one in here])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return [bool(flag) for flag in flags]

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

    def gather(self, value: T) -> list[T]:
        """Every process's, in the first one; in the others their own."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.count if self.first else None
        dist.gather_object(value, values)
        return [value] if values is None else values

    def group(self, size: int) -> Any:
        """This process and its neighbours, so many, as `torch.distributed` has them; all must ask alike."""
        import torch.distributed as dist

        return dist.new_subgroups(size, timeout=PATIENCE)[0] if size < self.count else dist.group.WORLD

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            import torch.distributed as dist

            dist.barrier()

    def lost_one(self, error: BaseException | None) -> bool:
        """Whether an error is that another process has died or does not answer."""
        if self.count == 1 or error is None:
            return False
        import torch.distributed as dist

        of_gloo = isinstance(error, RuntimeError) and "gloo/" in str(error)  # which names the place in its code
        return of_gloo or isinstance(error, dist.DistError) or self.lost_one(error.__cause__)

    def tell_torchrun(self, error: Exception) -> None:
        """Let ``torchrun`` say in its last words what befell this process, of which the first alone speaks by itself.

        In the file that ``torch.distributed.elastic.multiprocessing.errors.ErrorHandler`` writes, with the traceback of
        the exception that is being handled, where the user is not to put it right.
        """
        file = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if file is None or self.lost_one(error):  # the cause is another's to tell
            return
        text = str(error) if isinstance(error, UserError) else traceback.format_exc()
        message = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError), open(file, "w", encoding="utf-8") as told:  # the error may be the disk's
            json.dump({"message": message}, told)


ALONE = Processes()
