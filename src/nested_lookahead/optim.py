"""Lookahead, Nested Lookahead and Multilayer Lookahead for PyTorch.

An inner optimizer moves the *fast* weights. Every ``k`` fast steps a layer of *slow* weights moves a fraction
``alpha`` of the way toward them, and the fast weights continue from there (Zhang et al. 2019, "Lookahead Optimizer:
k steps forward, 1 step back", arXiv:1907.08610, Algorithm 1). A further layer treats the one below it in the same way
(Pushkin & Barba 2021, "Multilayer Lookahead", arXiv:2110.14254); two layers are Nested Lookahead.

This module needs torch and nothing else.
"""

from __future__ import annotations

import copy
import math
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Layer", "Lookahead", "MultilayerLookahead", "NestedLookahead", "PULLBACK_MODES", "PULLBACK_SCOPES"]

PULLBACK_MODES = ("none", "reset", "pullback")
"""What a layer's sync does to the inner optimizer's momentum."""

PULLBACK_SCOPES = (*PULLBACK_MODES, "reset_inner", "reset_outer", "pullback_inner", "pullback_outer")
"""Names that stand for one mode per layer: ``mode`` for all, ``mode_inner`` or ``mode_outer`` for one end alone."""

MOMENTUM_BUFFERS = ("momentum_buffer", "exp_avg")
"""First-moment buffers: SGD, RMSprop and Muon keep the first, the Adam family the second."""


OWN_BUFFER = re.compile(r"(slow|momentum_cache)_\d+")


class Layer(NamedTuple):
    """One layer of slow weights."""

    k: int
    """Synchronization period, counted in syncs of the layer below; for the innermost layer, in fast steps."""
    alpha: float
    """Slow weights step size, in (0, 1]."""
    pullback: str = "none"
    """One of `PULLBACK_MODES`."""


def sync_(fast: list[Tensor], slow_layers: list[list[Tensor]], step_sizes: list[float]) -> None:
    """Synchronize layers, innermost first, in place: slow ← slow + step_size · (the layer below − slow).

    Everything below the outermost of them is then set to its new value. The intermediate resets of an inner layer,
    which the outer one would overwrite at once, are never written to memory.
    """
    below = fast
    for slow, step_size in zip(slow_layers, step_sizes, strict=True):
        _move_toward_(slow, below, step_size)
        below = slow
    for values in (fast, *slow_layers[:-1]):
        _copy_(values, below)


class MultilayerLookahead(Optimizer):
    """Lookahead of any depth around an inner optimizer.

    Layer l syncs every k₁·…·k_l fast steps: its slow weights φ_l move to φ_l + α_l (φ_{l−1} − φ_l), where φ₀ are the
    fast weights, and every layer below it is reset to the new value. Slow weights start as a copy of the parameters
    taken here, so load a model's weights *before* you build its optimizer (or load both from a checkpoint).

    `param_groups` are the inner optimizer's own, so that learning-rate schedulers work as usual. From the first step
    on `state` holds one ``slow_<l>`` tensor per parameter and layer, and ``momentum_cache_<l>`` where layer l pulls
    momentum back; the inner optimizer's state stays in ``opt.state``. `state_dict` merges the two. Parameters that
    have been frozen from the start are left alone and cost nothing.

    Args:
        opt: inner optimizer; also reachable as ``.opt``.
        layers: ``(k, alpha)`` pairs, innermost first.
        pullback: what a sync does to the inner optimizer's momentum. ``"none"`` leaves it, ``"reset"`` sets it to
            zero, ``"pullback"`` averages it as the weights are averaged: m ← α m + (1 − α) c, c ← m, where the
            cache c starts at zero. ``"reset_inner"``, ``"reset_outer"``, ``"pullback_inner"`` and
            ``"pullback_outer"`` act in the innermost or outermost layer alone; a sequence gives one mode per layer.
        lr: learning rate set in every param group; None leaves the inner optimizer's.
        weight_decay: likewise.

    Raises:
        TypeError: ``opt`` is no `torch.optim.Optimizer`, or is itself a Lookahead.
        ValueError: a value outside its range, or a pullback with an inner optimizer that keeps no momentum.

    Example:
        >>> adam = torch.optim.Adam(model.parameters(), lr=0.001)
        >>> optimizer = MultilayerLookahead(adam, layers=[(5, 0.5), (5, 0.5), (4, 0.8)])
    """

    def __init__(
        self,
        opt: Optimizer,
        layers: Sequence[tuple[int, float]],
        pullback: str | Sequence[str] = "none",
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        _check_inner(opt)
        pairs = [_check_pair(layer) for layer in layers]
        if not pairs:
            raise ValueError("layers must hold at least one (k, alpha) pair, got none")
        modes = resolve_pullback(pullback, len(pairs))
        self._build(opt, [Layer(*pair, mode) for pair, mode in zip(pairs, modes, strict=True)], lr, weight_decay)

    def _build(self, opt: Optimizer, layers: Sequence[Layer], lr: float | None, weight_decay: float | None) -> None:
        if any(layer.pullback != "none" for layer in layers):
            _check_momentum(opt)
        _set_hyperparameter(opt, "lr", lr)
        _set_hyperparameter(opt, "weight_decay", weight_decay)
        self.opt = opt
        self.layers = tuple(layers)
        self.fast_steps = 0
        # What becomes the slow weights of parameters that have not been stepped yet; None of frozen ones, which have
        # not moved when they are unfrozen. Outside `state`, because torch.distributed.checkpoint takes an optimizer
        # whose state is empty for a fresh one, and has it step once to fill the state of the inner optimizer, too.
        self._initial: dict[Tensor, Tensor | None] = {}
        self._slow_in_place = False
        self._compiled: Callable[..., None] | None = None
        super().__init__(opt.param_groups, opt.defaults)
        self._share_param_groups()

    def _share_param_groups(self) -> None:
        """Keep one list of param groups for both, also after ``opt.load_state_dict`` has replaced its own."""

        this = weakref.ref(self)  # else the two would hold each other, and their tensors, until a garbage collection

        def share(opt: Optimizer) -> None:
            if (wrapper := this()) is not None:
                wrapper.param_groups = opt.param_groups

        share(self.opt)
        self.opt.register_load_state_dict_post_hook(share)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group to the inner optimizer; its slow weights start at its present values."""
        if not any(param_group is group for group in self.opt.param_groups):  # the constructor passes those it has
            self.opt.add_param_group(param_group)
        for param in param_group["params"]:
            self._initial[param] = _copy_of(param) if _can_move(param) else None

    def _start_slow_weights(self) -> None:
        """Give slow weights to the parameters that can move and have none yet."""
        for param, start in list(self._initial.items()):
            if start is None and not _can_move(param):
                continue
            start = _copy_of(param) if start is None else start
            for depth, layer in enumerate(self.layers, start=1):
                self.state[param][f"slow_{depth}"] = start if depth == 1 else _copy_of(start)
                if layer.pullback == "pullback":
                    self.state[param][f"momentum_cache_{depth}"] = torch.zeros_like(start)
            del self._initial[param]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one fast step, then sync the layers whose period ends with it. Returns the closure's value."""
        if self._slow_in_place:
            raise RuntimeError("step() inside slow_weights(): the step would be undone when the block ends")
        if self._initial:
            self._start_slow_weights()
        loss = self.opt.step() if closure is None else self.opt.step(closure)
        self.fast_steps += 1
        due = self._layers_due()
        if due:
            self._sync(due)
        return loss

    def compile(self, **options: Any) -> None:
        """Compile the sync into kernels that read and write each tensor once, by `torch.compile` with these options.

        For large models on a CPU; on a GPU a sync is two launches per layer as it is. Compiling takes seconds, at the
        first sync of each layer, and needs a C++ compiler. The result is the same to rounding. Copies and pickles of
        the optimizer are not compiled.
        """
        self._compiled = torch.compile(sync_, dynamic=False, **options)

    def _layers_due(self) -> int:
        """How many layers, from the innermost, sync after the present number of fast steps."""
        period = 1
        for depth, layer in enumerate(self.layers):
            period *= layer.k
            if self.fast_steps % period:
                return depth
        return len(self.layers)

    @torch._disable_dynamo  # type: ignore[attr-defined]  # a few launches every k steps are not worth a graph
    @torch.no_grad()
    def _sync(self, due: int) -> None:
        layers = self.layers[:due]
        step_sizes = [layer.alpha for layer in layers]
        for params, _ in _buckets(self._synced(), one_by_one=self._compiled is None):
            slow = [self._slow(params, depth) for depth in range(1, due + 1)]
            (self._compiled if self._compiled is not None and _is_plain(params[0]) else sync_)(params, slow, step_sizes)
        if any(layer.pullback != "none" for layer in layers):
            self._sync_momentum(layers)

    def _synced(self) -> list[Tensor]:
        """The parameters that have slow weights: all but those that have been frozen from the start."""
        synced = []
        for group in self.param_groups:
            for param in group["params"]:
                if self.state.get(param):
                    synced.append(param)
                elif param not in self._initial:
                    raise RuntimeError("a parameter was added to the inner optimizer alone: use this add_param_group")
        return synced

    def _slow(self, params: list[Tensor], depth: int) -> list[Tensor]:
        return [self._buffer(param, f"slow_{depth}", like=param) for param in params]

    def _buffer(self, param: Tensor, key: str, like: Tensor) -> Tensor:
        """One of our buffers, brought to where and what ``like`` is by now (a model may have been moved)."""
        buffer: Tensor = self.state[param][key]
        if buffer.device != like.device or buffer.dtype != like.dtype:
            buffer = self.state[param][key] = buffer.to(like)
        return buffer

    def _sync_momentum(self, layers: Sequence[Layer]) -> None:
        params, buffers = self._momentum()
        if not params and any(param.grad is not None for param in self._synced()):
            raise ValueError(_no_momentum_message(self.opt))
        for momentum, owners in _buckets(buffers, owners=params):
            caches: list[list[Tensor]] = []
            for depth, layer in enumerate(layers, start=1):
                if layer.pullback == "reset":
                    _zero_(momentum)
                elif layer.pullback == "pullback":
                    key = f"momentum_cache_{depth}"
                    cache = [self._buffer(param, key, like=m) for param, m in zip(owners, momentum, strict=True)]
                    sync_(momentum, [cache], [layer.alpha])
                    caches.append(cache)
            if len(layers) > 1:  # an outer sync overwrites the caches below it, as it overwrites their weights
                for cache in caches:
                    _copy_(cache, momentum)

    def _momentum(self) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters that have a momentum buffer by now, and those buffers."""
        params, buffers = [], []
        for param in self._synced():
            state = self.opt.state.get(param) or {}
            buffer = next((state[key] for key in MOMENTUM_BUFFERS if state.get(key) is not None), None)
            if buffer is not None:
                params.append(param)
                buffers.append(buffer)
        return params, buffers

    @contextmanager
    def slow_weights(self, layer: int = -1) -> Iterator[None]:
        """Put the slow weights of a layer (default: the outermost) into the parameters for a ``with`` block.

        The fast weights come back bit for bit at the end of the block, also when it raises. Buffers of the model
        (batch-norm statistics) are not touched: they belong to the fast weights.

        Example:
            >>> with optimizer.slow_weights():
            ...     validate(model)
        """
        depth = range(1, len(self.layers) + 1)[layer]
        self._start_slow_weights()
        params = self._synced()
        fast = [_copy_of(param) for param in params]
        nested, self._slow_in_place = self._slow_in_place, True
        try:
            with torch.no_grad():
                for param, slow in zip(params, self._slow(params, depth), strict=True):
                    param.copy_(slow)
            yield
        finally:
            with torch.no_grad():
                for param, value in zip(params, fast, strict=True):
                    param.copy_(value)
            self._slow_in_place = nested

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's state dict with ours merged in: all of it, at any point of a cycle.

        ``state[i]`` holds the inner optimizer's buffers and, beside them, ``slow_<l>`` and ``momentum_cache_<l>``;
        each of ``param_groups`` has a ``"lookahead"`` entry with the fast steps taken and the layers.
        """
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        self._start_slow_weights()
        inner = self.opt.state_dict()
        state = dict(inner["state"])
        for index, param in _indexed(inner["param_groups"], self.param_groups):
            if self.state.get(param):
                state[index] = {**state.get(index, {}), **self.state[param]}
        lookahead = {"fast_steps": self.fast_steps, "layers": [list(layer) for layer in self.layers]}
        groups = [{**group, "lookahead": copy.deepcopy(lookahead)} for group in inner["param_groups"]]
        state_dict = {**inner, "state": state, "param_groups": groups}
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            result = post_hook(self, state_dict)
            state_dict = state_dict if result is None else result
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; as always in torch, saved hyperparameters replace the present ones.

        Raises:
            ValueError: the state is not a Lookahead's, or has another number of layers, groups or parameters;
                nothing has been changed then.
        """
        state_dict = state_dict.copy()
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            result = pre_hook(self, state_dict)
            state_dict = state_dict if result is None else result
        own, inner, lookahead = _split_state_dict(state_dict)
        layers = [Layer(*layer) for layer in lookahead["layers"]]
        if len(layers) != len(self.layers):
            raise ValueError(
                f"loaded state dict has {len(layers)} layer(s) of slow weights, "
                f"but this {type(self).__name__} has {len(self.layers)}"
            )
        self.opt.load_state_dict(inner)
        self.layers, self.fast_steps = tuple(layers), lookahead["fast_steps"]
        self.state.clear()
        self._initial.clear()
        for index, param in _indexed(inner["param_groups"], self.param_groups):
            if own.get(index):
                self.state[param] = {key: value.to(param) for key, value in own[index].items()}
            else:
                self._initial[param] = None  # frozen when it was saved; starts from what it is by the next step
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        own = {"opt": self.opt, "layers": self.layers, "fast_steps": self.fast_steps}
        own |= {"_initial": self._initial, "_slow_in_place": False, "_compiled": None}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share_param_groups()  # hooks do not travel

    def __repr__(self) -> str:
        layers = "".join(
            f"\n  layer {depth}: k={layer.k} alpha={layer.alpha} pullback={layer.pullback}"
            for depth, layer in enumerate(self.layers, start=1)
        )
        inner = repr(self.opt).replace("\n", "\n  ")
        return f"{type(self).__name__} ({layers}\n  opt: {inner}\n)"


class Lookahead(MultilayerLookahead):
    """Lookahead (Zhang et al. 2019, Algorithm 1): one layer of slow weights around an inner optimizer.

    Args:
        opt: inner optimizer.
        k: synchronization period in fast steps, an integer ≥ 1.
        alpha: slow weights step size, in (0, 1].
        pullback: ``"none"``, ``"reset"`` or ``"pullback"``; see `MultilayerLookahead`, also for the rest.

    Example:
        >>> optimizer = Lookahead(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), k=5, alpha=0.5)
    """

    def __init__(
        self,
        opt: Optimizer,
        k: int = 5,
        alpha: float = 0.5,
        pullback: str | Sequence[str] = "none",
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        _check_inner(opt)
        (mode,) = resolve_pullback(pullback, 1)
        layer = Layer(_check_period("k", k, least=1), _check_step_size("alpha", alpha), mode)
        self._build(opt, [layer], lr, weight_decay)


class NestedLookahead(MultilayerLookahead):
    """Nested Lookahead: two layers of slow weights, the outer one looking ahead over syncs of the inner one.

    Args:
        opt: inner optimizer.
        k: inner synchronization period in fast steps, an integer ≥ 1.
        s: outer synchronization period in inner syncs, an integer ≥ 0; 0 turns the outer layer off.
        alpha: inner step size, in (0, 1].
        h: outer step size, in (0, 1].
        pullback: a name out of `PULLBACK_SCOPES`, or an (inner, outer) pair of modes; see `MultilayerLookahead`,
            also for the rest.

    Example:
        >>> optimizer = NestedLookahead(torch.optim.Adam(model.parameters()), lr=0.001, k=5, s=5, pullback="pullback")
    """

    def __init__(
        self,
        opt: Optimizer,
        k: int = 5,
        s: int = 5,
        alpha: float = 0.5,
        h: float = 0.5,
        pullback: str | Sequence[str] = "none",
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        _check_inner(opt)
        inner_mode, outer_mode = resolve_pullback(pullback, 2)
        inner = Layer(_check_period("k", k, least=1), _check_step_size("alpha", alpha), inner_mode)
        outer = Layer(_check_period("s", s, least=0), _check_step_size("h", h), outer_mode)
        self._build(opt, [inner, outer] if outer.k else [inner], lr, weight_decay)


def resolve_pullback(pullback: str | Sequence[str], depth: int) -> tuple[str, ...]:
    """One mode per layer, innermost first, from a scope's name or a sequence of modes.

    Raises:
        ValueError: an unknown name, a scope (``_inner``, ``_outer``) that needs two layers where there is one, or a
            sequence of another length than ``depth``.
    """
    if isinstance(pullback, str):
        if pullback not in PULLBACK_SCOPES:
            raise ValueError(f"pullback must be one of {', '.join(PULLBACK_SCOPES)}, got {pullback!r}")
        mode, _, scope = pullback.partition("_")
        if not scope:
            return (mode,) * depth
        if depth == 1:
            raise ValueError(f"pullback={pullback!r} tells two layers apart, but there is one: use {mode!r} or 'none'")
        rest = ("none",) * (depth - 1)
        return (mode, *rest) if scope == "inner" else (*rest, mode)
    modes = tuple(pullback)
    for mode in modes:
        if mode not in PULLBACK_MODES:
            raise ValueError(f"pullback of a layer must be one of {', '.join(PULLBACK_MODES)}, got {mode!r}")
    if len(modes) != depth:
        raise ValueError(f"pullback must be one name or {depth} mode(s), one per layer, got {len(modes)}: {modes!r}")
    return modes


def _check_inner(opt: object) -> None:
    if isinstance(opt, MultilayerLookahead):
        raise TypeError(
            f"opt is already a {type(opt).__name__}: a second one around it would count fast steps, not syncs; "
            "use NestedLookahead or MultilayerLookahead(layers=...)"
        )
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt must be a torch.optim.Optimizer, got {type(opt).__name__}")


def _check_pair(layer: Sequence[Any]) -> tuple[int, float]:
    try:
        k, alpha = layer
    except (TypeError, ValueError):
        raise ValueError(f"each of layers must be a (k, alpha) pair, got {layer!r}") from None
    return _check_period("k", k, least=1), _check_step_size("alpha", alpha)


def _check_period(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


def _check_step_size(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {value!r}")
    return float(value)


def _check_momentum(opt: Optimizer) -> None:
    """Refuse an inner optimizer that is known to keep no momentum; of others, the first sync will tell."""

    def has_none(group: dict[str, Any]) -> bool:
        known = type(opt).__module__.startswith("torch.optim.") or "momentum" in group
        return known and "betas" not in group and not group.get("momentum")

    if all(has_none(group) for group in opt.param_groups):
        raise ValueError(_no_momentum_message(opt))


def _no_momentum_message(opt: Optimizer) -> str:
    setting = " with momentum=0" if "momentum" in opt.defaults else ""
    return f"{type(opt).__name__}{setting} keeps no momentum to reset or pull back: use pullback='none' or add momentum"


def _set_hyperparameter(opt: Optimizer, name: str, value: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (Real, Tensor)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
    if name not in opt.defaults:
        raise ValueError(f"{name} given, but {type(opt).__name__} has no {name}")
    opt.defaults[name] = value  # of param groups yet to come
    for group in opt.param_groups:
        group[name] = value


def _buckets(
    tensors: list[Tensor], owners: list[Tensor] | None = None, one_by_one: bool = True
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """What one foreach call should take: lists of tensors, and of their owners.

    On an accelerator that is all tensors of a device and dtype, in two launches a layer. On a CPU it is one tensor
    at a time, unless ``one_by_one`` is false: what the first pass over it read is then still in the cache for the
    second. Tensor subclasses go alone.
    """
    buckets: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    for i, (tensor, owner) in enumerate(zip(tensors, owners or tensors, strict=True)):
        alone = (one_by_one and tensor.device.type == "cpu") or not _is_plain(tensor)
        bucket = buckets.setdefault(i if alone else (tensor.device, tensor.dtype), ([], []))
        bucket[0].append(tensor)
        bucket[1].append(owner)
    return list(buckets.values())


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, torch.nn.Parameter)


def _can_move(param: Tensor) -> bool:
    return param.requires_grad or param.grad is not None


def _copy_of(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.preserve_format)


# A bucket of one takes the plain call: it costs less, and tensor subclasses (DTensor) have no foreach.


def _move_toward_(slow: list[Tensor], fast: list[Tensor], step_size: float) -> None:
    if len(slow) == 1:
        slow[0].lerp_(fast[0], step_size)
    else:
        torch._foreach_lerp_(slow, fast, step_size)


def _copy_(targets: list[Tensor], sources: list[Tensor]) -> None:
    if len(targets) == 1:
        targets[0].copy_(sources[0])
    else:
        torch._foreach_copy_(targets, sources)


def _zero_(tensors: list[Tensor]) -> None:
    if len(tensors) == 1:
        tensors[0].zero_()
    else:
        torch._foreach_zero_(tensors)


def _indexed(saved_groups: list[dict[str, Any]], groups: list[dict[str, Any]]) -> Iterator[tuple[int, Tensor]]:
    """Pairs of a parameter's index in a state dict and the parameter."""
    for saved, group in zip(saved_groups, groups, strict=True):
        yield from zip(saved["params"], group["params"], strict=True)


def _split_state_dict(state_dict: dict[str, Any]) -> tuple[dict[Any, Any], dict[str, Any], dict[str, Any]]:
    """Undo the merge of `MultilayerLookahead.state_dict`: (our buffers, the inner state dict, the "lookahead" entry).

    Tensors are copied: torch's loading would share them with the optimizer that the state was taken from.
    """
    saved_groups = copy.deepcopy(state_dict["param_groups"])
    if not all("lookahead" in group for group in saved_groups):
        raise ValueError(
            "loaded state dict is not a Lookahead's: its param_groups have no 'lookahead' entry; "
            "to load the inner optimizer alone, use .opt.load_state_dict"
        )
    lookahead = saved_groups[0]["lookahead"]
    groups = [{key: value for key, value in group.items() if key != "lookahead"} for group in saved_groups]
    own: dict[Any, Any] = {}
    inner: dict[Any, Any] = {}
    for index, buffers in copy.deepcopy(state_dict["state"]).items():
        if not isinstance(buffers, dict):
            inner[index] = buffers
            continue
        own[index] = {key: value for key, value in buffers.items() if OWN_BUFFER.fullmatch(str(key))}
        rest = {key: value for key, value in buffers.items() if key not in own[index]}
        if rest:
            inner[index] = rest
    return own, {**state_dict, "state": inner, "param_groups": groups}, lookahead
