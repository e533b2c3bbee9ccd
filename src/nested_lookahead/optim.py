"""Lookahead, Nested Lookahead and Multilayer Lookahead for PyTorch, in one file that needs torch and nothing else.

An inner optimizer moves the *fast* weights. Every ``k`` fast steps a layer of *slow* weights moves a fraction
``alpha`` of the way toward them, and the fast weights continue from there (Zhang et al. 2019, "Lookahead Optimizer:
k steps forward, 1 step back", arXiv:1907.08610, Algorithm 1). A further layer treats the one below it in the same way
(Pushkin & Barba 2021, "Multilayer Lookahead", arXiv:2110.14254); two layers are Nested Lookahead. A layer may keep
momentum of its own, as in SlowMo (arXiv:1910.00643), DiLoCo (arXiv:2311.08105) and SNOO (arXiv:2510.15830).
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = [
    "Layer",
    "Lookahead",
    "MultilayerLookahead",
    "NestedLookahead",
    "OptimizerList",
    "PULLBACK_MODES",
    "PULLBACK_SCOPES",
    "SCHEDULES",
    "SlowMomentum",
]

PULLBACK_MODES = ("none", "reset", "pullback")  # what a layer's sync does to the inner optimizer's momentum
PULLBACK_SCOPES = (*PULLBACK_MODES, "reset_inner", "reset_outer", "pullback_inner", "pullback_outer")
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda alpha, done: alpha,
    "linear": lambda alpha, done: alpha + (1 - alpha) * done,  # to 1: plain training at the end
    "cubic": lambda alpha, done: 1 - (1 - alpha) * done**3,  # from 1, as in github.com/KellerJordan/cifar10-airbench
}
"""A layer's step size by its alpha and the share of training that is done."""
MOMENTUM_BUFFERS = ("momentum_buffer", "exp_avg")  # SGD, RMSprop and Muon keep the first, the Adam family the second
PLAIN = (Tensor, torch.nn.Parameter)  # other subclasses (DTensor) have no foreach


@dataclass(frozen=True)
class Layer:
    """One layer of slow weights: its settings, its buffers, its update. A subclass is another kind of layer.

    Its fields are what is saved, restored and printed: numbers, strings or booleans, and those that a kind adds have
    defaults. Tensors come to it in lists, all of one device and dtype, which `apply_` works on.
    """

    k: int  # synchronization period, counted in syncs of the layer below; for the innermost layer, in fast steps
    alpha: float  # slow weights step size, in (0, 1]
    pullback: str = "none"  # one of PULLBACK_MODES
    schedule: str = "constant"  # one of SCHEDULES
    horizon: int = 0  # fast steps over which the schedule runs; 0: not known yet
    largest_alpha = 1.0  # no field: a kind may have another, also as a property of its fields

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", checked_integer("k", self.k, least=1))
        object.__setattr__(self, "alpha", checked_step_size("alpha", self.alpha, self.largest_alpha))
        if self.pullback not in PULLBACK_MODES:
            raise ValueError(f"pullback of a layer must be one of {', '.join(PULLBACK_MODES)}, got {self.pullback!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule of a layer must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        object.__setattr__(self, "horizon", checked_integer("horizon", self.horizon, least=0))

    def settings(self) -> dict[str, Any]:
        """Its fields, in short: those that not every layer had from the beginning only where they are not as usual."""
        usual = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        return {key: x for key, x in asdict(self).items() if key == "pullback" or key not in usual or x != usual[key]}

    def at(self, fast_steps: int) -> Layer:
        """The layer as it syncs after so many fast steps: with the step size that its schedule has reached."""
        if self.schedule == "constant":
            return self
        reached = SCHEDULES[self.schedule](self.alpha, min(1.0, fast_steps / self.horizon))
        return replace(self, alpha=reached, schedule="constant")

    def buffers(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The name of each buffer beside the slow weights, and what makes it from their first value.

        The layers above reset or pull back one that is called ``momentum`` as they do the inner optimizer's.
        """
        return {}

    def update_(self, below: list[Tensor], own: dict[str, list[Tensor]]) -> None:
        """Move ``own["slow"]`` and the buffers in ``own``, in place. The weights below may serve as scratch space."""
        apply_("lerp_", own["slow"], below, self.alpha)  # slow + alpha · (below − slow)

    def pull_back_(self, momentum: list[Tensor], cache: list[Tensor]) -> None:
        """Act on a momentum below, in place; the cache is empty unless the mode is pullback."""
        if self.pullback == "reset":
            apply_("zero_", momentum)
        elif self.pullback == "pullback":
            apply_("lerp_", cache, momentum, self.alpha)
            apply_("copy_", momentum, cache)


@dataclass(frozen=True)
class SlowMomentum(Layer):
    """A layer with momentum: the distance back from the weights below is what SGD would take for a gradient.

    d = slow − below, b ← momentum · b + d, slow ← slow − alpha · u with u = d + momentum · b (Nesterov) or b (heavy
    ball). What a layer takes in the long run is alpha / (1 − momentum) of the way, and alpha may exceed 1. Layers above
    act on b as on the inner optimizer's momentum. With momentum 0 it is a plain layer.
    """

    momentum: float = 0.0  # in [0, 1)
    nesterov: bool = True
    largest_alpha = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.momentum, bool) or not isinstance(self.momentum, Real) or not 0 <= self.momentum < 1:
            raise ValueError(f"momentum of a layer must be in [0, 1), got {self.momentum!r}")
        object.__setattr__(self, "momentum", float(self.momentum))
        if not isinstance(self.nesterov, bool):
            raise ValueError(f"nesterov must be True or False, got {self.nesterov!r}")
        if self.alpha > 1 and self.pullback == "pullback":
            raise ValueError(f"alpha must be in (0, 1] where pullback is 'pullback', got {self.alpha!r}")

    def buffers(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"momentum": torch.zeros_like} if self.momentum else {}

    def update_(self, below: list[Tensor], own: dict[str, list[Tensor]]) -> None:
        if not self.momentum:
            return super().update_(below, own)
        apply_("sub_", below, own["slow"])  # −d
        apply_("mul_", own["momentum"], self.momentum)
        apply_("sub_", own["momentum"], below)
        if self.nesterov:
            apply_("add_", own["slow"], below, alpha=self.alpha)
        apply_("add_", own["slow"], own["momentum"], alpha=-self.alpha * (self.momentum if self.nesterov else 1))
        return None


def layer_of(k: int, alpha: float, pullback: str, schedule: str, momentum: float, nesterov: bool) -> Layer:
    """A layer with momentum, or a plain one where that is 0."""
    if momentum == 0:
        return Layer(k, alpha, pullback, schedule)
    return SlowMomentum(k, alpha, pullback, schedule, momentum=momentum, nesterov=nesterov)


def apply_(method: str, targets: list[Tensor], *arguments: Any, **options: Any) -> None:
    """Call an in-place method of tensors, such as ``lerp_``, on each target; arguments may be lists of tensors."""
    if len(targets) == 1:  # the plain call costs less
        plain = [argument[0] if isinstance(argument, list) else argument for argument in arguments]
        getattr(targets[0], method)(*plain, **options)
    else:
        getattr(torch, f"_foreach_{method}")(targets, *arguments, **options)


Mean = Callable[[list[Tensor], list[Tensor]], None]
"""Sets the weights below a layer to their mean over workers, in place, given them and the layer's slow weights."""


def sync_(
    layers: Sequence[Layer], fast: list[Tensor], own: list[dict[str, list[Tensor]]], means: Sequence[Mean | None] = ()
) -> None:
    """Synchronize layers, innermost first, in place, given the slow weights and buffers of each.

    What is below the outermost is then set to its new value: intermediate resets are never written to memory.
    """
    weights = [fast, *[tensors["slow"] for tensors in own]]
    for depth, (layer, below, tensors) in enumerate(zip(layers, weights, own, strict=False)):
        if means and (mean := means[depth]) is not None:
            mean(below, tensors["slow"])
        layer.update_(below, tensors)
    for values in weights[:-1]:
        apply_("copy_", values, weights[-1])


class MultilayerLookahead(Optimizer):
    """Lookahead of any depth around an inner optimizer.

    Layer l syncs every k₁·…·k_l fast steps: its slow weights φ_l move to φ_l + α_l (φ_{l−1} − φ_l), where φ₀ are the
    fast weights, and every layer below it is reset to the new value. Slow weights start as a copy of the parameters
    taken here, so load a model's weights *before* you build its optimizer (or load both from a checkpoint).

    `param_groups` are the inner optimizer's own, so that learning-rate schedulers work as usual. From the first step
    on `state` holds one ``slow_<l>`` tensor per parameter and layer, and ``momentum_cache_<l>`` where layer l pulls
    momentum back; the inner optimizer's state stays in ``opt.state``. Parameters frozen from the start cost nothing.

    Args:
        opt: inner optimizer, also reachable as ``.opt``; or a list of them, which becomes an `OptimizerList`.
        layers: ``(k, alpha)`` pairs or `Layer` objects, innermost first.
        pullback: what a sync does to the inner optimizer's momentum. ``"none"`` leaves it (or to the `Layer` objects),
            ``"reset"`` sets it to zero, ``"pullback"`` averages it as the weights are averaged: m ← α m + (1 − α) c,
            c ← m, where the cache c starts at zero. ``mode_inner`` or ``mode_outer`` acts in the innermost or outermost
            layer alone; a sequence gives one mode per layer.
        lr: learning rate set in every param group; None leaves the inner optimizer's. ``weight_decay`` likewise.
        groups: one per layer, over whose workers it averages the weights below before its rule acts, such as a
            ``nested_lookahead.communicate.Group``; None, for a layer or altogether, communicates nothing. They are not
            saved.

    Raises:
        TypeError: ``opt`` is no `torch.optim.Optimizer`, or is itself a Lookahead; or a group cannot be called.
        ValueError: a value outside its range, or a pullback with an inner optimizer that keeps no momentum.

    Example:
        >>> optimizer = MultilayerLookahead(torch.optim.Adam(model.parameters()), layers=[(5, 0.5), (5, 0.5), (4, 0.8)])
    """

    def __init__(
        self,
        opt: Optimizer | Sequence[Optimizer],
        layers: Sequence[tuple[int, float] | Layer],
        pullback: str | Sequence[str] = "none",
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
        groups: Sequence[Mean | None] | None = None,
    ) -> None:
        made = []
        for layer in layers:
            if not isinstance(layer, Layer) and not (isinstance(layer, Sequence) and len(layer) == 2):
                raise ValueError(f"each of layers must be a (k, alpha) pair, got {layer!r}")
            made.append(layer if isinstance(layer, Layer) else Layer(*layer))
        if not made:
            raise ValueError("layers must hold at least one (k, alpha) pair, got none")
        if pullback != "none":
            modes = resolve_pullback(pullback, len(made))
            made = [replace(layer, pullback=mode) for layer, mode in zip(made, modes, strict=True)]
        if groups is not None and len(groups) != len(made):
            raise ValueError(f"groups must be one per layer, {len(made)}, got {len(groups)}")
        if not all(group is None or callable(group) for group in groups or ()):
            raise TypeError(f"each of groups must be callable, such as a communicate.Group, or None, got {groups}")
        opt = OptimizerList(opt) if isinstance(opt, list | tuple) else opt
        for one in _bare(opt):
            _check_inner(one, needs_momentum=_need_momentum(made))
        assert isinstance(opt, Optimizer)
        _set_hyperparameters(opt, lr=lr, weight_decay=weight_decay)
        self.opt, self.layers, self.fast_steps = opt, tuple(made), 0
        self.groups: tuple[Mean | None, ...] = tuple(groups or ())
        self._slow_in_place = False
        self._compiled: Callable[..., None] | None = None
        # What becomes the slow weights of parameters that have not been stepped yet; None of frozen ones, which have
        # not moved when they are unfrozen. Outside `state`, because torch.distributed.checkpoint takes an optimizer
        # whose state is empty for a fresh one, and has it step once to fill the state of the inner optimizer, too.
        self._initial: dict[Tensor, Tensor | None] = {}
        super().__init__(opt.param_groups, opt.defaults)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.opt.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        if groups:  # torch's constructor sets an empty list
            self.opt.param_groups = groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group to the inner optimizer, of several the last; its slow weights start at what it is now."""
        if not any(param_group is group for group in self.param_groups):  # the constructor passes those it has
            self.opt.add_param_group(param_group)
        self._initial |= {param: _copy_if_moving(param) for param in param_group["params"]}

    def _start_layers(self) -> None:
        """Give slow weights and buffers to the parameters that can move and have none yet."""
        starts = {p: _copy_if_moving(p) if start is None else start for p, start in self._initial.items()}
        for param, start in starts.items():
            if start is not None:
                makers = _makers(self.layers).items()
                self.state[param] = {key: start if key == "slow_1" else make(start) for key, make in makers}
                del self._initial[param]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one fast step, then sync the layers whose period ends with it. Returns the closure's value."""
        if any(layer.schedule != "constant" and not layer.horizon for layer in self.layers):
            raise RuntimeError("a scheduled alpha needs the length of training: call set_horizon(steps) first")
        if self._slow_in_place:
            raise RuntimeError("step() inside slow_weights(): the step would be undone when the block ends")
        if self._initial:
            self._start_layers()
        loss = self.opt.step() if closure is None else self.opt.step(closure)
        self.fast_steps += 1
        if due := self.layers_due():
            self._sync(due)
        return loss

    def set_horizon(self, steps: int) -> None:
        """Say how many fast steps training has, over which scheduled step sizes go; it is saved with the layers."""
        horizon = checked_integer("steps", steps, least=1)
        scheduled = [layer.schedule != "constant" for layer in self.layers]
        pairs = zip(self.layers, scheduled, strict=True)
        self.layers = tuple(replace(layer, horizon=horizon) if has else layer for layer, has in pairs)

    def compile(self, **options: Any) -> None:
        """Compile the sync into kernels that read and write each tensor once, by `torch.compile` with these options.

        For large models on a CPU: needs a C++ compiler, and seconds at each layer's first sync. The result is the same
        to rounding. Copies and pickles are not compiled, nor is a sync with a scheduled step size, new every time.
        """
        self._compiled = torch.compile(sync_, dynamic=False, **options)

    def layers_due(self) -> int:
        """How many layers, from the innermost, sync after the present number of fast steps."""
        periods = [math.prod(layer.k for layer in self.layers[: i + 1]) for i in range(len(self.layers))]
        return sum(self.fast_steps % period == 0 for period in periods)

    @torch._disable_dynamo  # type: ignore[attr-defined]  # a few launches every k steps are not worth a graph
    @torch.no_grad()
    def _sync(self, due: int) -> None:
        synced, layers = self._synced(), [layer.at(self.fast_steps) for layer in self.layers[:due]]
        means = self.groups[:due] if any(self.groups[:due]) else ()
        scheduled = any(layer.schedule != "constant" for layer in self.layers[:due])
        compiled = None if means or scheduled else self._compiled
        names = [("slow", *layer.buffers()) for layer in layers]
        for params, _ in _buckets(synced, synced, one_by_one=compiled is None and not means):
            own = [{name: self._own(params, f"{name}_{i}") for name in kept} for i, kept in enumerate(names, start=1)]
            run = sync_ if compiled is None or type(params[0]) not in PLAIN else compiled
            try:
                run(layers, params, own, *([means] if means else []))
            except RuntimeError as error:
                error.add_note(f"while {due} layer(s) synced after {self.fast_steps} fast steps")
                raise
        for level, key in _momentum_keys(layers).items():
            if any(layer.pullback != "none" for layer in layers[level:]):
                self._sync_momentum(level, key, layers[level:])

    def _sync_momentum(self, level: int, key: str, layers: Sequence[Layer]) -> None:
        """Have layers act on the momentum of the level below them."""
        for momentum, params in _buckets(*self._momenta(level, key)):
            caches: list[list[Tensor]] = []
            for depth, layer in enumerate(layers, start=level + 1):
                if pulls := layer.pullback == "pullback":
                    caches.append(self._own(params, f"{key}_cache_{depth}", like=momentum))
                layer.pull_back_(momentum, caches[-1] if pulls else [])
            for cache in caches if len(layers) > 1 else ():  # an outer sync overwrites them as it does the weights
                apply_("copy_", cache, momentum)

    def _momenta(self, level: int, key: str) -> tuple[list[Tensor], list[Tensor]]:
        """The momentum buffers that there are by now, and the parameters they belong to."""
        params = self._synced()
        if level:
            return self._own(params, key), params
        kept = self.opt.state
        states = [(param, kept.get(param) or {}) for param in params]
        found = {p: s[name] for p, s in states for name in reversed(MOMENTUM_BUFFERS) if s.get(name) is not None}
        for opt in _bare(self.opt) if _need_momentum(self.layers) else ():
            moved = [param for param in _params(opt.param_groups) if param.grad is not None]
            if moved and not any(param in found for param in _params(opt.param_groups)):
                raise ValueError(_no_momentum(opt))
        return [*found.values()], [*found]

    def _synced(self) -> list[Tensor]:
        """The parameters that have slow weights: all but those that have been frozen from the start."""
        params = _params(self.param_groups)
        if not all(self.state.get(param) or param in self._initial for param in params):
            raise RuntimeError("a parameter was added to the inner optimizer alone: use this add_param_group")
        return [param for param in params if self.state.get(param)]

    def _own(self, params: list[Tensor], key: str, like: list[Tensor] | None = None) -> list[Tensor]:
        """A buffer of each, brought to where and what ``like`` is by now (a model may have been moved)."""
        states = [self.state[param] for param in params]
        for state, target in zip(states, like or params, strict=True):
            if state[key].device != target.device or state[key].dtype != target.dtype:
                state[key] = state[key].to(target)
        return [state[key] for state in states]

    @contextmanager
    def slow_weights(self, layer: int = -1) -> Iterator[None]:
        """Put the slow weights of a layer (default: the outermost) into the parameters for a ``with`` block.

        The fast weights come back bit for bit at its end, also when it raises. Buffers of the model (batch-norm
        statistics) are not touched: they belong to the fast weights.
        """
        depth = range(1, len(self.layers) + 1)[layer]
        self._start_layers()
        params = self._synced()
        fast = [param.detach().clone() for param in params]
        nested, self._slow_in_place = self._slow_in_place, True
        try:
            with torch.no_grad():
                for param, slow in zip(params, self._own(params, f"slow_{depth}"), strict=True):
                    param.copy_(slow)
            yield
        finally:
            with torch.no_grad():
                for param, value in zip(params, fast, strict=True):
                    param.copy_(value)
            self._slow_in_place = nested

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's state dict with ours merged in: all of it, at any point of a cycle.

        ``state[i]`` holds the layers' buffers, such as ``slow_<l>``, beside the inner optimizer's; each param group has
        a ``"lookahead"`` entry with the fast steps taken and the layers' fields.
        """
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        self._start_layers()
        inner = self.opt.state_dict()
        groups, state = [dict(group) for group in inner["param_groups"]], dict(inner["state"])
        for index, param in zip(_params(groups), _params(self.param_groups), strict=True):
            if self.state.get(param):
                state[index] = state.get(index, {}) | self.state[param]
        for group in groups:
            group["lookahead"] = {"fast_steps": self.fast_steps, "layers": [layer.settings() for layer in self.layers]}
        return _hooked(self, "state_dict_post", inner | {"state": state, "param_groups": groups})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; as always in torch, saved hyperparameters replace the present ones.

        Raises:
            ValueError: no Lookahead's state, or that of other layers, groups or parameters; nothing is changed then.
        """
        state_dict = _hooked(self, "load_state_dict_pre", state_dict.copy())
        saved_groups, state = copy.deepcopy((state_dict["param_groups"], state_dict["state"]))  # torch shares tensors
        if not all("lookahead" in group for group in saved_groups):
            raise ValueError("loaded state dict is not a Lookahead's; for the inner optimizer's, .opt.load_state_dict")
        groups = [{key: value for key, value in group.items() if key != "lookahead"} for group in saved_groups]
        lookahead = saved_groups[0]["lookahead"]
        layers = self._saved_layers(lookahead["layers"])
        buffers = [state[i] if isinstance(state.get(i), dict) else {} for i in _params(groups)]
        own = [{key: kept.pop(key) for key in _makers(layers) if key in kept} for kept in buffers]
        lacking = {key for kept in own if kept for key in _makers(layers) if key not in kept}
        if lacking:
            raise ValueError(f"loaded state dict lacks {', '.join(sorted(lacking))}, which {type(self).__name__} keeps")
        inner = {index: value for index, value in state.items() if value or not isinstance(value, dict)}
        self.opt.load_state_dict(state_dict | {"state": inner, "param_groups": groups})
        self.layers, self.fast_steps = layers, lookahead["fast_steps"]
        saved = dict(zip(_params(self.param_groups), own, strict=True))
        # Those that were frozen when it was saved start from what they are by the next step.
        self._initial = {param: None for param, buffers in saved.items() if not buffers}
        self.state.clear()
        self.state.update({p: {key: b.to(p) for key, b in buffers.items()} for p, buffers in saved.items() if buffers})
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def _saved_layers(self, saved: Sequence[Any]) -> tuple[Layer, ...]:
        """Layers of the present kinds from their fields; one saved before a field existed has the field's default."""
        name, count = type(self).__name__, f"{len(saved)} layer(s) of slow weights"
        if len(saved) != len(self.layers):
            raise ValueError(f"loaded state dict has {count}, but this {name} has {len(self.layers)}")
        pairs = zip(self.layers, saved, strict=True)
        try:
            return tuple(type(layer)(**x) if isinstance(x, dict) else type(layer)(*x) for layer, x in pairs)
        except TypeError as error:
            raise ValueError(f"loaded state dict has a layer that is none of this {name}'s: {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("opt", "layers", "groups", "fast_steps", "_initial")}
        kept = super().__getstate__()
        del kept["param_groups"]  # the inner optimizer's
        return {**kept, **own, "_slow_in_place": False, "_compiled": None}

    def __repr__(self) -> str:
        settings = [" ".join(f"{key}={value}" for key, value in layer.settings().items()) for layer in self.layers]
        lines = [f"layer {depth}: {line}" for depth, line in enumerate(settings, start=1)]
        lines.append("opt: " + repr(self.opt).replace("\n", "\n  "))
        return f"{type(self).__name__} (\n  " + "\n  ".join(lines) + "\n)"


class Lookahead(MultilayerLookahead):
    """Lookahead (Zhang et al. 2019, Algorithm 1): one layer of slow weights around an inner optimizer.

    Syncs every ``k`` ≥ 1 fast steps with step size ``alpha`` in (0, 1], which may follow a ``schedule`` out of
    `SCHEDULES`, and with ``slow_momentum`` in [0, 1), as `SlowMomentum` has it: SNOO, DiLoCo (Nesterov) and SlowMo
    (heavy ball), where alpha may exceed 1. The rest is as in `MultilayerLookahead`.

    Example:
        >>> optimizer = Lookahead(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), k=5, alpha=0.5)
    """

    def __init__(
        self,
        opt: Optimizer | Sequence[Optimizer],
        k: int = 5,
        alpha: float = 0.5,
        pullback: str | Sequence[str] = "none",
        *,
        slow_momentum: float = 0.0,
        nesterov: bool = True,
        schedule: str = "constant",
        lr: float | None = None,
        weight_decay: float | None = None,
        groups: Sequence[Mean | None] | None = None,
    ) -> None:
        layer = layer_of(k, alpha, resolve_pullback(pullback, 1)[0], schedule, slow_momentum, nesterov)
        super().__init__(opt, [layer], lr=lr, weight_decay=weight_decay, groups=groups)


class NestedLookahead(MultilayerLookahead):
    """Nested Lookahead: two layers of slow weights, the outer one looking ahead over syncs of the inner one.

    The inner layer syncs every ``k`` ≥ 1 fast steps with step size ``alpha`` in (0, 1], the outer one every ``s`` ≥ 0
    inner syncs with step size ``h`` in (0, 1]; s = 0 turns it off. ``pullback`` is a name out of `PULLBACK_SCOPES` or
    an (inner, outer) pair of modes. With ``outer_momentum`` in [0, 1) the outer layer is a `SlowMomentum`, whose h may
    exceed 1; ``schedule`` and ``outer_schedule`` are those of alpha and h. The rest is as in `MultilayerLookahead`.

    Example:
        >>> optimizer = NestedLookahead(torch.optim.Adam(model.parameters()), lr=0.001, k=5, s=5, pullback="pullback")
    """

    def __init__(
        self,
        opt: Optimizer | Sequence[Optimizer],
        k: int = 5,
        s: int = 5,
        alpha: float = 0.5,
        h: float = 0.5,
        pullback: str | Sequence[str] = "none",
        *,
        outer_momentum: float = 0.0,
        nesterov: bool = True,
        schedule: str = "constant",
        outer_schedule: str = "constant",
        lr: float | None = None,
        weight_decay: float | None = None,
        groups: Sequence[Mean | None] | None = None,
    ) -> None:
        modes = resolve_pullback(pullback, 2)
        layers = [Layer(k, alpha, modes[0], schedule)]
        s, h = checked_integer("s", s, least=0), checked_step_size("h", h, math.inf if outer_momentum else 1.0)
        if s:
            layers.append(layer_of(s, h, modes[1], outer_schedule, outer_momentum, nesterov))
        super().__init__(opt, layers, lr=lr, weight_decay=weight_decay, groups=groups)


class OptimizerList(Optimizer):
    """Several optimizers as one, such as Muon for matrices and AdamW for the rest: stepped in order, saved together.

    `param_groups` are theirs, one after the other, and `state` is a view of theirs; a state dict has the form that one
    optimizer with all these param groups would give. A closure is evaluated once, before the first of them steps. A
    param group that is added goes to the last of them.

    Args:
        opts: the optimizers, also reachable as ``.opts``. A parameter belongs to one of them.

    Raises:
        TypeError: one is no `torch.optim.Optimizer`, or is LBFGS, which evaluates its closure many times.
        ValueError: there is none, or a parameter belongs to two.

    Example:
        >>> optimizer = OptimizerList([torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=0.001)])
    """

    def __init__(self, opts: Sequence[Optimizer]) -> None:
        if not opts:
            raise ValueError("a list of optimizers must hold at least one, got none")
        owners: dict[Tensor, int] = {}
        for i, opt in enumerate(opts):
            if not isinstance(opt, Optimizer):
                raise TypeError(f"opts[{i}] must be a torch.optim.Optimizer, got {type(opt).__name__}")
            if isinstance(opt, torch.optim.LBFGS):
                raise TypeError(f"opts[{i}] is LBFGS, which evaluates its closure many times: it can only be alone")
            for param in _params(opt.param_groups):
                if (first := owners.setdefault(param, i)) != i:
                    both = f"opts[{first}] and opts[{i}]"
                    raise ValueError(f"a parameter of shape {tuple(param.shape)} is in {both}, and can be in one alone")
        common = set.intersection(*(set(opt.defaults) for opt in opts))
        self.opts: tuple[Optimizer, ...] = ()  # torch's constructor sets an empty state, which must not reach theirs
        groups = [group for opt in opts for group in opt.param_groups]
        super().__init__(groups, {key: value for key, value in opts[0].defaults.items() if key in common})
        self.opts = tuple(opts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for opt in self.opts for group in opt.param_groups]

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        for opt, own in self._shared_out(groups):
            opt.param_groups = own

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        return defaultdict(dict, {key: kept for opt in self.opts for key, kept in opt.state.items()})

    @state.setter
    def state(self, state: dict[Tensor, Any]) -> None:
        for opt in self.opts:
            opt.state = defaultdict(dict, {p: state[p] for p in _params(opt.param_groups) if p in state})

    def _shared_out(self, groups: list[dict[str, Any]]) -> Iterator[tuple[Optimizer, list[dict[str, Any]]]]:
        """Each optimizer, and as many of the groups as it has."""
        first = 0
        for opt in self.opts:
            yield opt, groups[first : first + len(opt.param_groups)]
            first += len(opt.param_groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if not self.opts:
            return  # the constructor passes those that there are
        *others, last = self.opts
        last.add_param_group(param_group)
        taken = {param for opt in others for param in _params(opt.param_groups)}
        if not taken.isdisjoint(param_group["params"]):
            last.param_groups.pop()
            raise ValueError("some parameters appear in more than one parameter group")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step each; returns the closure's value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for opt in self.opts:
            opt.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Theirs in one, with parameters numbered through."""
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        return _hooked(self, "state_dict_post", joined_state_dict([opt.state_dict() for opt in self.opts]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises:
        ValueError: it has other groups; nothing is changed then.
        """
        state_dict = _hooked(self, "load_state_dict_pre", state_dict.copy())
        groups, state = state_dict["param_groups"], state_dict["state"]
        ours, saved = ([len(group["params"]) for group in those] for those in (self.param_groups, groups))
        if len(ours) != len(saved):
            raise ValueError(f"loaded state dict has a different number of parameter groups: {len(saved)}")
        if ours != saved:
            raise ValueError("loaded state dict has a parameter group that doesn't match the size of the optimizer's")
        for opt, own in self._shared_out(groups):
            kept = {index: state[index] for index in _params(own) if index in state}
            opt.load_state_dict(state_dict | {"state": kept, "param_groups": own})
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "opts": self.opts}

    def __repr__(self) -> str:
        lines = [f"opts[{i}]: " + repr(opt).replace("\n", "\n  ") for i, opt in enumerate(self.opts)]
        return f"{type(self).__name__} (\n  " + "\n  ".join(lines) + "\n)"


def joined_state_dict(saved: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Optimizers' state dicts in one, with parameters numbered through."""
    made: dict[str, Any] = {"state": {}, "param_groups": []}
    first = 0
    for one in saved:
        made["state"] |= {first + index: kept for index, kept in one["state"].items()}
        groups = one["param_groups"]
        made["param_groups"] += [group | {"params": [first + i for i in group["params"]]} for group in groups]
        first += len(_params(groups))
    return made


def resolve_pullback(pullback: str | Sequence[str], depth: int) -> tuple[str, ...]:
    """One mode per layer, innermost first, from a name out of `PULLBACK_SCOPES` or a sequence of that many modes."""
    if not isinstance(pullback, str):
        if len(pullback) != depth:
            raise ValueError(
                f"pullback must be a name or {depth} mode(s), one per layer, got {len(pullback)}: {pullback}"
            )
        return tuple(pullback)
    if pullback not in PULLBACK_SCOPES:
        raise ValueError(f"pullback must be one of {', '.join(PULLBACK_SCOPES)}, got {pullback!r}")
    mode, _, scope = pullback.partition("_")
    if scope and depth == 1:
        raise ValueError(f"pullback={pullback!r} tells two layers apart, but there is one: use {mode!r} or 'none'")
    others = ("none" if scope else mode,) * (depth - 1)
    return (*others, mode) if scope == "outer" else (mode, *others)


def checked_integer(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


def checked_step_size(name: str, value: object, most: float = 1.0) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= min(most, 1e300):
        allowed = f"in (0, {most:g}]" if math.isfinite(most) else "a finite number > 0"
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return float(value)


def _check_inner(opt: object, needs_momentum: bool) -> None:
    kind = type(opt).__name__
    if isinstance(opt, MultilayerLookahead):
        raise TypeError(f"opt is already a {kind}, whose fast steps another would count: use more layers instead")
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt must be a torch.optim.Optimizer, got {kind}")
    known = type(opt).__module__.startswith("torch.optim.")  # of others, the first sync will tell
    without = [(known or "momentum" in g) and "betas" not in g and not g.get("momentum") for g in opt.param_groups]
    if needs_momentum and all(without):
        raise ValueError(_no_momentum(opt))


def _no_momentum(opt: Optimizer) -> str:
    kind = type(opt).__name__ + (" with momentum=0" if "momentum" in opt.defaults else "")
    return f"{kind} keeps no momentum to reset or pull back: use pullback='none' or add momentum"


def _bare(opt: Any) -> list[Any]:
    """The optimizers of a list, also of one inside another; or the one."""
    return [bare for one in opt.opts for bare in _bare(one)] if isinstance(opt, OptimizerList) else [opt]


def _set_hyperparameters(opt: Optimizer, **given: float | None) -> None:
    for name, value in ((name, value) for name, value in given.items() if value is not None):
        if isinstance(value, bool) or not isinstance(value, (Real, Tensor)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
        for one in _bare(opt):
            if name not in one.defaults:
                raise ValueError(f"{name} given, but {type(one).__name__} has no {name}")
        for one in (*_bare(opt), opt):
            for group in (one.defaults, *one.param_groups):  # defaults are those of param groups yet to come
                group[name] = value


def _hooked(opt: Optimizer, kind: str, state_dict: dict[str, Any]) -> dict[str, Any]:
    """What an optimizer's hooks of this kind make of a state dict."""
    for hook in getattr(opt, f"_optimizer_{kind}_hooks").values():
        state_dict = state_dict if (changed := hook(opt, state_dict)) is None else changed
    return state_dict


def _need_momentum(layers: Sequence[Layer]) -> bool:
    """Whether a layer acts on momentum, and there is none below it but, it may be, the inner optimizer's."""
    first = min([level for level in _momentum_keys(layers) if level], default=len(layers))
    return any(layer.pullback != "none" for layer in layers[:first])


def _momentum_keys(layers: Sequence[Layer]) -> dict[int, str]:
    """The levels that have a momentum: 0, the inner optimizer, and the layers that keep one in this key of `state`."""
    return {0: "momentum"} | {i: f"momentum_{i}" for i, layer in enumerate(layers, 1) if "momentum" in layer.buffers()}


def _makers(layers: Sequence[Layer]) -> dict[str, Callable[[Tensor], Tensor]]:
    """What makes each buffer that layers keep in `state` from a parameter's first value."""
    made: dict[str, Callable[[Tensor], Tensor]] = {}
    for depth, layer in enumerate(layers, start=1):
        made |= {f"{name}_{depth}": make for name, make in {"slow": torch.clone, **layer.buffers()}.items()}
        pulled = _momentum_keys(layers[: depth - 1]).values() if layer.pullback == "pullback" else ()
        made |= {f"{key}_cache_{depth}": torch.zeros_like for key in pulled}
    return made


def _buckets(
    tensors: list[Tensor], owners: list[Tensor], one_by_one: bool = True
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """What one foreach call should take: lists of tensors, and of their owners.

    On an accelerator all tensors of a device and dtype, in two launches a layer; on a CPU, unless ``one_by_one`` is
    false, one tensor: what the first pass over it read is still in the cache for the second.
    """
    buckets: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    for i, (tensor, owner) in enumerate(zip(tensors, owners, strict=True)):
        alone = (one_by_one and tensor.device.type == "cpu") or type(tensor) not in PLAIN
        bucket = buckets.setdefault(i if alone else (tensor.device, tensor.dtype), ([], []))
        bucket[0].append(tensor)
        bucket[1].append(owner)
    return [*buckets.values()]


def _copy_if_moving(param: Tensor) -> Tensor | None:
    return param.detach().clone() if param.requires_grad or param.grad is not None else None


def _params(groups: list[dict[str, Any]]) -> list[Any]:
    return [param for group in groups for param in group["params"]]
