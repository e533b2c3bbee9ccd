"""The optimizers of several runs as one: each run is a row, and their numbers are columns.

The weights of all runs are one matrix (runs, weights), and so is each buffer: a step takes a few operations, however
many runs or tensors there are. Slow weights are those of `MultilayerLookahead` itself, to which some rows of a matrix
are one parameter. What is computed equals the optimizers of the single runs to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from nested_lookahead.optim import Layer, Lookahead, MultilayerLookahead, NestedLookahead, SlowMomentum
from nested_lookahead.training.stacked_rules import RULES, Numbers

LOOKAHEADS = (Lookahead, NestedLookahead, MultilayerLookahead)


def why_not(optimizer: Optimizer) -> str | None:
    """What of a run's optimizer a stack cannot do; None if it can do all of it."""
    outer = isinstance(optimizer, MultilayerLookahead)
    inner = inner_of(optimizer)
    layers = optimizer.layers if isinstance(optimizer, MultilayerLookahead) else ()
    if (outer and type(optimizer) not in LOOKAHEADS) or not {type(layer) for layer in layers} <= {Layer, SlowMomentum}:
        return f"{type(optimizer).__name__} has a rule of its own"
    if type(inner) not in RULES:
        return f"{type(inner).__name__} is none of {', '.join(kind.__name__ for kind in RULES)}"
    if len(inner.param_groups) > 1:
        return "it has several param groups"
    others = [key for key in ("amsgrad", "maximize", "dampening") if inner.param_groups[0].get(key)]
    return f"{type(inner).__name__} has {others[0]}" if others else None


def inner_of(optimizer: Optimizer) -> Optimizer:
    """The one that takes the fast steps."""
    return optimizer.opt if isinstance(optimizer, MultilayerLookahead) else optimizer


def periods(optimizer: Optimizer) -> tuple[int, ...]:
    """k of each layer; runs that have the same are best neighbours in a stack."""
    return tuple(layer.k for layer in optimizer.layers) if isinstance(optimizer, MultilayerLookahead) else ()


@dataclass(frozen=True)
class StackedLayer(SlowMomentum):
    """A layer of several runs' slow weights, which are rows: its ``alpha`` and ``momentum`` are (runs, 1)."""

    alpha: Any
    momentum: Any = None
    """None of plain layers."""

    def __post_init__(self) -> None:
        """Nothing: each run's own layer has checked its numbers."""

    def buffers(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {} if self.momentum is None else {"momentum": torch.zeros_like}

    def update_(self, below: list[Tensor], own: dict[str, list[Tensor]]) -> None:
        if self.momentum is None:
            return Layer.update_(self, below, own)
        (weights,), (slow,), (momentum,) = below, own["slow"], own["momentum"]
        weights.sub_(slow)  # −d, as in SlowMomentum
        momentum.mul_(self.momentum).sub_(weights)
        if self.nesterov:
            slow.addcmul_(weights, self.alpha)
        slow.addcmul_(momentum, self.alpha * self.momentum if self.nesterov else self.alpha, value=-1)
        return None


def stacked_layer(layers: Sequence[Layer], weights: Tensor) -> StackedLayer:
    """The layers that runs have at one depth, as one, for rows that are like these weights."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[:, None].to(weights)

    first, momenta = layers[0], [getattr(layer, "momentum", 0.0) for layer in layers]
    return StackedLayer(
        first.k,
        column([layer.alpha for layer in layers]),
        first.pullback,
        first.schedule,
        first.horizon,
        momentum=column(momenta) if any(momenta) else None,
        nesterov=getattr(first, "nesterov", True),
    )


class SteppedRows(Optimizer):
    """Stands for the inner optimizer of some rows of a stack, whose step all rows have taken together."""

    def __init__(self, weights: nn.Parameter, buffers: dict[str, Tensor]) -> None:
        super().__init__([weights], {})
        self.state[weights] = buffers

    def step(self, closure: Any = None) -> Any: ...


class LookaheadRows(MultilayerLookahead):
    """The slow weights of those rows of a stack whose layers sync at the same steps."""

    def __init__(self, inner: SteppedRows, optimizers: Sequence[MultilayerLookahead], steps: int) -> None:
        (weights,) = inner.param_groups[0]["params"]
        depths = zip(*(optimizer.layers for optimizer in optimizers), strict=True)
        super().__init__(inner, [stacked_layer(layers, weights) for layers in depths])
        self.fast_steps = steps
        self._start_layers()


class StackedOptimizer(Optimizer):
    """The optimizers of several runs, which are alike but for numbers.

    The learning rate in `param_groups` is a factor, by which those of all runs are multiplied: a scheduler sets it.

    Args:
        weights: (runs, weights), all parameters of a run one after another.
        tensors: the same memory as the stacked parameters of a model, each (runs, …), in this order.
        optimizers: of the runs, which `why_not` has nothing against; their state is taken over by `load`.
        steps: that the runs have taken.
    """

    def __init__(
        self, weights: nn.Parameter, tensors: Sequence[nn.Parameter], optimizers: Sequence[Optimizer], steps: int
    ) -> None:
        super().__init__([weights], {"lr": 1.0})
        inner = [inner_of(optimizer) for optimizer in optimizers]
        self.weights, self.tensors, self.steps = weights, list(tensors), steps
        self.rule = RULES[type(inner[0])]([optimizer.param_groups[0] for optimizer in inner])
        self.state[weights] = {name: torch.zeros_like(weights, requires_grad=False) for name in self.rule.buffers}
        self._fixed = self._sent(self.rule.fixed)
        self.slow: list[LookaheadRows] = []
        self.places: list[tuple[LookaheadRows, int]] = []
        """Of each run of a Lookahead, which of these has its slow weights, and in which row."""
        for own_periods, group in groupby(optimizers, periods):
            if own_periods:
                self._add_rows([one for one in group if isinstance(one, MultilayerLookahead)])

    def _add_rows(self, optimizers: Sequence[MultilayerLookahead]) -> None:
        first = len(self.places)
        rows = slice(first, first + len(optimizers))
        buffers = {name: buffer[rows] for name, buffer in self.state[self.weights].items()}
        inner = SteppedRows(nn.Parameter(self.weights.detach()[rows]), buffers)
        self.slow.append(LookaheadRows(inner, optimizers, self.steps))
        self.places += [(self.slow[-1], row) for row in range(len(optimizers))]

    def _sent(self, numbers: Numbers) -> Numbers:
        """On the weights' device, in one transfer that does not wait for it."""
        table = torch.cat([*numbers.values()], dim=1).to(self.weights.dtype)
        sent = table.to(self.weights.device, non_blocking=self.weights.is_cuda)
        return dict(zip(numbers, torch.split(sent, 1, dim=1), strict=True))

    @torch.no_grad()
    def gather(self, clip: float | None) -> None:
        """Make the gradient of the tensors that of the weights; clip its norm, run by run, as `clip_grad_norm_` does.

        Raises:
            ValueError: a tensor has none; the optimizers of single runs would leave it as it is.
        """
        gradients = [tensor.grad for tensor in self.tensors]
        if any(gradient is None for gradient in gradients):
            raise ValueError("a parameter has no gradient")
        gradient = torch.cat([gradient.flatten(1) for gradient in gradients if gradient is not None], dim=1)
        if clip is not None:
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient *= (clip / (norm + 1e-6)).clamp(max=1.0)
        self.weights.grad = gradient

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of each run, with the gradient that `gather` has left."""
        assert self.weights.grad is not None
        self.steps += 1
        moving = self._sent(self.rule.moving(float(self.param_groups[0]["lr"]), self.steps))
        self.rule.update_(self.weights, self.weights.grad, self.state[self.weights], self._fixed | moving)
        for slow in self.slow:
            slow.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for tensor in self.tensors:
            tensor.grad = None

    @property
    def slow_weights(self) -> Callable[[], Any]:
        """As that of `MultilayerLookahead`, which plain optimizers do not have."""
        if not self.places:
            raise AttributeError("plain optimizers have no slow weights")
        return self._slow_weights

    @contextmanager
    def _slow_weights(self) -> Iterator[None]:
        with ExitStack() as stack:
            for slow in self.slow:
                stack.enter_context(slow.slow_weights())
            yield

    def _kept(self, row: int, optimizer: Optimizer) -> Iterator[tuple[dict[Any, Any], dict[str, Tensor]]]:
        """The states of a run's optimizer, by parameter, and what the stack has for each: a row of each buffer."""
        yield inner_of(optimizer).state, {name: buffer[row] for name, buffer in self.state[self.weights].items()}
        if self.places:
            slow, place = self.places[row]
            (state,) = slow.state.values()
            yield optimizer.state, {name: buffer[place] for name, buffer in state.items()}

    @torch.no_grad()
    def load(self, row: int, optimizer: Optimizer) -> None:
        """Take over the state of a run's optimizer, as far as it has one."""
        optimizer.state_dict()  # a Lookahead takes its slow weights by now
        for state, rows in self._kept(row, optimizer):
            for name, parts in zip(rows, self._parts(rows), strict=True):
                for param, part in zip(_params(optimizer), parts, strict=True):
                    if state[param].get(name) is not None:
                        part.copy_(state[param][name].reshape(-1))

    @torch.no_grad()
    def store(self, row: int, optimizer: Optimizer) -> None:
        """Bring a run's optimizer, and the parameters that it has, to where the stack is."""
        params = _params(optimizer)
        (weights,) = self._parts({"": self.weights.detach()[row]})
        for param, part in zip(params, weights, strict=True):
            param.copy_(part.view(param.shape))
        for state, rows in self._kept(row, optimizer):
            for name, parts in zip(rows, self._parts(rows), strict=True):
                for param, part in zip(params, parts, strict=True):
                    state[param][name] = torch.empty_like(param, requires_grad=False).copy_(part.view(param.shape))
        inner = inner_of(optimizer)
        if isinstance(inner, Adam):
            self._store_step(inner)
        if isinstance(optimizer, MultilayerLookahead):
            optimizer.fast_steps = self.steps

    def _store_step(self, adam: Adam) -> None:
        """As Adam counts: a tensor for each parameter."""
        group = adam.param_groups[0]
        for param in group["params"]:
            device = param.device if group["capturable"] or group["fused"] else "cpu"
            adam.state[param]["step"] = torch.tensor(float(self.steps), device=device)

    def _parts(self, rows: dict[str, Tensor]) -> list[tuple[Tensor, ...]]:
        """Of each of these vectors, what belongs to each tensor."""
        sizes = [tensor[0].numel() for tensor in self.tensors]
        return [torch.split(row, sizes) for row in rows.values()]

    @torch.no_grad()
    def freeze(self, row: int) -> None:
        """Set all that a run has to zero, and its learning rate: from now on it stands still."""
        self.rule.lr[row] = 0.0
        self.rule.decay[row] = 0.0
        self._fixed = self._sent(self.rule.fixed)
        for tensor in (self.weights, *self.state[self.weights].values()):
            tensor[row].zero_()
        if self.places:
            slow, place = self.places[row]
            for buffer in next(iter(slow.state.values())).values():
                buffer[place].zero_()


def _params(optimizer: Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]
