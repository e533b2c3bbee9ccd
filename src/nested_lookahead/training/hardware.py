"""Where a run computes: device, precision, memory layout, CPU threads."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nested_lookahead.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h: the bytes free at the heap's end from which it is cut, the number of blocks outside the heap."""


@dataclass(frozen=True)
class Hardware:
    device: torch.device
    precision: str
    """``fp32``, ``bf16`` or ``fp16``: of the forward pass; weights and optimizer are float32."""
    channels_last: bool
    compile: bool = False
    """Whether the model runs through `torch.compile`."""

    @classmethod
    def choose(
        cls,
        device: str,
        precision: str,
        channels_last: bool | None,
        threads: int | None,
        compile: bool = False,
        turn: int | None = None,
    ) -> Hardware:
        """Settle what is left open (``auto``, None) on this machine, and set the number of CPU threads.

        ``precision=auto`` is bf16 where it cannot lose: in compiled kernels of a GPU that computes in it. Uncompiled,
        autocast casts each weight in a launch of its own, which on small networks costs more than bf16 saves; and
        runs on a CPU stay comparable from one machine to the next. Of several CUDA devices, ``auto`` and ``cuda``
        take the ``turn``-th, counted around; without a turn, PyTorch's current one.

        Raises:
            UserError: the device does not exist here.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        chosen = _find_device(device)
        if chosen == torch.device("cuda") and turn is not None:
            chosen = torch.device("cuda", turn % torch.cuda.device_count())
        if chosen.index is not None and chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        if precision == "auto":
            fast = compile and chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            precision = "bf16" if fast else "fp32"
        if channels_last is None:
            channels_last = chosen.type in ("cpu", "cuda")
        return cls(chosen, precision, channels_last, compile)

    def autocast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def compiled(self, model: nn.Module, in_graphs: bool = False) -> tuple[nn.Module, CompileClock]:
        """The model through `torch.compile` if it is to be, else as it is; and what compiling takes from now on.

        On CUDA its kernels are replayed as CUDA graphs by torch, unless they are part of others (``in_graphs``).
        Compiling waits for the first call. One model at a time: what was compiled before is let go, as it counts
        toward a limit; the kernels are kept on disk by torch.
        """
        clock = CompileClock()
        if self.compile:
            torch.compiler.reset()
            clock.start()
            mode = "reduce-overhead" if self.device.type == "cuda" and not in_graphs else None
            model = torch.compile(model, dynamic=False, mode=mode)  # type: ignore[assignment]
        return model, clock

    def keep_freed_memory(self) -> None:
        """On a CPU, tell glibc's allocator to keep for the next tensor what was freed.

        It gives large blocks back to the system and asks for them anew, and the faults of the fresh pages can take
        longer than what is computed in them. Elsewhere PyTorch keeps the memory itself, or another allocator decides.
        """
        if self.device.type == "cpu" and sys.platform == "linux":
            libc = ctypes.CDLL(None)
            if hasattr(libc, "mallopt"):  # not in musl
                libc.mallopt(M_MMAP_MAX, 0)
                libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read next counts all work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def reset_peak_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> int | None:
        """Bytes: on CUDA of tensors since `reset_peak_memory`, elsewhere of the whole process since its start."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak

    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "mps":
            return f"Apple GPU ({platform.processor()})"
        return _cpu_name()

    def __str__(self) -> str:
        where = f"cpu, {torch.get_num_threads()} thread(s)" if self.device.type == "cpu" else str(self.device)
        return f"{where}, {self.precision}"


class CompileClock:
    """Sums up the time that `torch.compile` takes, until the next `torch.compiler.reset`."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def start(self) -> None:
        from torch._dynamo.callback import callback_handler

        callback_handler.register_start_callback(self._on_start)
        callback_handler.register_end_callback(self._on_end)

    def _on_start(self, *_: object) -> None:
        self._began = time.perf_counter()

    def _on_end(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


def _find_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name}: must be auto, cpu, cuda, cuda:N or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device={name}: must be auto, cpu, cuda, cuda:N or mps")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"device={name}: there is none on this machine; use device=auto or device=cpu") from None
    return device


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
