"""What a training step computes, as one CUDA graph: launched at once, instead of kernel by kernel.

A small network's step is a hundred kernels of microseconds each, and Python takes longer to launch one than the GPU to
compute it.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nested_lookahead.errors import one_line

log = logging.getLogger(__name__)

PURE = ("torch", "torchvision", "nested_lookahead")
"""Packages whose networks, augmentations and objectives do the same at every step but for what they draw."""
WARM_UP = 3
"""Batches of a shape that are computed kernel by kernel first: libraries choose algorithms and ask for memory then."""

Function = Callable[[Tensor, Tensor], Tensor]


def replayable(parts: Iterable[Any]) -> bool:
    """Whether all parts of a computation are known to run the same kernels every time.

    In a graph the Python code of a network is not run again: one that counts its calls, say, would stand still.
    """
    return all(_module(part).partition(".")[0] in PURE for part in parts)


def _module(part: Any) -> str:
    if isinstance(part, functools.partial):
        return _module(part.func)
    return str(getattr(part if callable(part) and hasattr(part, "__qualname__") else type(part), "__module__", ""))


@dataclass(frozen=True)
class _Recorded:
    graph: Any
    inputs: tuple[Tensor, Tensor]
    output: Tensor
    gradients: tuple[Tensor | None, ...]


class Replayed:
    """A function of a batch that leaves gradients, from CUDA graphs: one for each shape of its inputs.

    Its first calls are made as they are; then one is recorded, and replayed for every further batch, with the same
    random numbers as without. What it returns, and the gradients, lie where the next replay will overwrite them.
    Where recording fails it is made as it is, and the log says why.

    Args:
        params: those that the function leaves gradients in, all of them without any when it begins.
        generators: that it draws from, besides PyTorch's own.
    """

    def __init__(self, params: Sequence[Tensor], generators: Sequence[torch.Generator]) -> None:
        self._params, self._generators = params, generators
        self._device = params[0].device
        self._stream: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # the default is not recorded
        self._seen: Counter[Any] = Counter()
        self._recorded: dict[Any, _Recorded] = {}
        self.failure: Exception | None = None
        """Why nothing is recorded."""

    def __call__(self, function: Function, samples: Tensor, labels: Tensor) -> Tensor:
        """What the function returns, the same one at every call: it must run the same kernels for all batches of a
        shape, on tensors that stay where they are. It is not kept, as a trainer's method would keep the trainer."""
        key = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in (samples, labels))
        if key not in self._recorded:
            self._seen[key] += 1
            if self.failure is not None or self._seen[key] <= WARM_UP:
                return self._as_it_is(function, samples, labels)
            try:
                self._recorded[key] = self._record(function, samples, labels)
            except RuntimeError as error:
                self.failure = error
                log.info("not replayed as a CUDA graph: %s", one_line(f"{error}"))
                for param in self._params:
                    param.grad = None
                return self._as_it_is(function, samples, labels)
        recorded = self._recorded[key]
        for own, given in zip(recorded.inputs, (samples, labels), strict=True):
            own.copy_(given)
        recorded.graph.replay()
        for param, gradient in zip(self._params, recorded.gradients, strict=True):
            param.grad = gradient
        return recorded.output

    def _as_it_is(self, function: Function, samples: Tensor, labels: Tensor) -> Tensor:
        """On the stream that is recorded later: a gradient's node in autograd's graph stays on its first stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            output = function(samples, labels)
        current.wait_stream(self._stream)
        return output

    def _record(self, function: Function, samples: Tensor, labels: Tensor) -> _Recorded:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        inputs = samples.clone(), labels.clone()
        # One pool of memory for all shapes: what a replay leaves is used before the next one.
        pool = next((known.graph.pool() for known in self._recorded.values()), None)
        with torch.cuda.graph(graph, pool=pool, stream=self._stream):
            output = function(*inputs)
        return _Recorded(graph, inputs, output, tuple(param.grad for param in self._params))
