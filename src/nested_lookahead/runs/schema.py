"""The configuration: its types and ranges. The values are in ``conf/``.

A group's own settings are not declared here: their names, types, ranges and defaults are those in the signature of what
the group's ``_target_`` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from nested_lookahead.command import invocation
from nested_lookahead.errors import UserError
from nested_lookahead.runs.identity import run_name
from nested_lookahead.runs.loggers import LOGGERS
from nested_lookahead.runs.typed import check_keys, check_trusted, require_keys, typed_settings, typed_value
from nested_lookahead.runs.versions import newer, register_resolver
from nested_lookahead.runs.workers import jobs_at_once
from nested_lookahead.settings import (
    LOCAL,
    MISSING,
    SHARED,
    Analysis,
    Evaluation,
    Split,
    Workers,
    check_range,
    check_ranges,
    check_values,
    ema_names,
    within,
)
from nested_lookahead.signatures import signature_of

LAYER = "nested_lookahead.optim.Layer"
MUON = "nested_lookahead.training.parameters.muon"
"""Is called with the model, too, by which it tells the parameters apart."""


@dataclass(frozen=True)
class Choice:
    """What a group was set to: a function or class, by its dotted name, and the settings it is called with."""

    name: str
    target: str
    settings: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "_target_": self.target, **self.settings}


@dataclass(frozen=True)
class OptimizerChoice(Choice):
    inner: Choice | None
    """None of a plain optimizer."""

    def plain(self) -> dict[str, Any]:
        return super().plain() | ({} if self.inner is None else {"inner": self.inner.plain()})


@dataclass(frozen=True)
class DatasetChoice(Choice):
    split: Split

    def plain(self) -> dict[str, Any]:
        return super().plain() | {"split": dict(vars(self.split))}


@dataclass(frozen=True)
class SchedulerChoice(Choice):
    warmup: float
    """Share of training in which the learning rate rises."""

    def plain(self) -> dict[str, Any]:
        return super().plain() | {"warmup": self.warmup}


@dataclass
class Config:
    """All settings of a run. Hydra composes them with groups that are open; `resolve` makes these `Choice`s."""

    optimizer: Any = MISSING
    pullback: str = MISSING
    dataset: Any = MISSING
    model: Any = MISSING
    augment: Any = MISSING
    scheduler: Any = MISSING
    epochs: int = within(">= 1")
    batch_size: int = within(">= 1")
    seed: int = within(">= 0")
    lr: float | None = None
    weight_decay: float | None = None
    decay: str = within("one of all, matrices")
    param_groups: Any = None
    label_smoothing: float = within("in [0, 1)")
    grad_clip: float | None = within("> 0")
    ema: Any = within("in (0, 1)")  # noqa: RUF009  # a number or a list of them
    tail: float | None = within("in [0, 1)")
    precision: str = within("one of auto, fp32, bf16, fp16")
    channels_last: bool | None = None
    compile: bool = MISSING
    workers: Any = MISSING
    evaluation: Evaluation = MISSING
    analysis: Analysis = MISSING
    device: str = MISSING
    threads: int | None = within("in [1, 4096]")
    study: str = MISSING
    output_dir: str = MISSING
    progress: bool = MISSING
    logger: Any = MISSING
    overwrite: bool = MISSING
    fail_fast: bool = MISSING
    trust: list[str] = MISSING
    checkpoint_minutes: float = within(">= 0")

    def decays(self) -> tuple[float, ...]:
        """Of the exponential averages: none, one or several."""
        return tuple(self.ema if isinstance(self.ema, list) else [] if self.ema is None else [self.ema])

    def plain(self) -> dict[str, Any]:
        """Nested dictionaries of plain values, as a run directory's config.yaml has them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        made = {key: value.plain() if isinstance(value, Choice) else value for key, value in values.items()}
        made |= {name: dict(vars(values[name])) for name in ("evaluation", "analysis")}
        return made | {"workers": {"name": SHARED} if self.workers is None else dict(vars(self.workers))}


def register() -> None:
    """Make the schema and the resolvers known to Hydra; must come before it composes, in worker processes, too."""
    ConfigStore.instance().store(group="hydra/schema", name="config", node=Config, **newer(replace=True))
    # The name of the directory in which Hydra runs a job, relative to the study's.
    register_resolver("run_name", lambda *, _root_: run_name(resolve(_root_).plain()))
    register_resolver("made_folder", _made_folder)
    register_resolver("jobs_at_once", jobs_at_once)
    register_resolver("invocation", invocation)


def _made_folder(path: str) -> str:
    """A folder that is there from now on: a search keeps its trials in it before the first run makes it."""
    Path(path).mkdir(parents=True, exist_ok=True)
    return path


def resolve(cfg: DictConfig) -> Config:
    """The configuration, typed and checked.

    Raises:
        UserError: a key that there is not (``+key=value`` gets past Hydra) or is lacking, a value of another type or
            out of range.
    """
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    values: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    check_values("", values)
    _check_places(values)
    _check_typed(Config, values, "")
    _check_typed(Evaluation, values["evaluation"], "evaluation.")
    _check_typed(Analysis, values["analysis"], "analysis.")
    fed = {key: values[key] for key in ("lr", "weight_decay") if values[key] is not None}
    chosen = {
        "optimizer": _optimizer(values["optimizer"], fed),
        "dataset": _dataset(values["dataset"]),
        "model": Choice(*_choice("model", values["model"], passed=2)),  # shape, number of classes
        "augment": Choice(*_choice("augment", values["augment"], passed=2)),  # images, generator
        "scheduler": _scheduler(values["scheduler"]),
        "workers": _workers(values["workers"]),
        "evaluation": Evaluation(**values["evaluation"]),
        "analysis": Analysis(**values["analysis"]),
        "logger": _loggers(values["logger"]),
    }
    config = Config(**values | chosen)
    config.param_groups = _param_groups(config)
    if config.evaluation.augment and config.augment.name == "none":
        raise UserError(
            "evaluation.augment=true: augment=none augments nothing; choose another, such as augment=standard"
        )
    kinds = ["fast", "slow", *ema_names(config.decays()), *(["tail"] if config.tail is not None else [])]
    check_range(
        "evaluation.weights", config.evaluation.weights, f"one of {', '.join(kinds)}", "; ema and tail add some"
    )
    _check_workers(config)
    check_trusted(config.plain(), config.trust)
    if config.optimizer.inner is None and config.pullback != "none":
        raise UserError(
            f"pullback={config.pullback}: optimizer={config.optimizer.name} has no slow weights to pull back "
            "to; use pullback=none, or optimizer=lookahead, nested_lookahead or multilayer_lookahead"
        )
    return config


def _check_places(values: dict[str, Any]) -> None:
    """Raises:
    UserError: runs would be recorded elsewhere than below ``output_dir``.
    """
    if not values.get("output_dir"):
        raise UserError("output_dir=: must name a folder; . is the present one")
    study = str(values.get("study"))
    if study != study.strip("/") or {"", ".", ".."} & set(study.split("/")):
        raise UserError(f"study={study}: must be a folder below output_dir, such as mine or mine/first")
    inner = values["optimizer"].get("inner") if isinstance(values.get("optimizer"), dict) else None
    for key, node in (("optimizer", values.get("optimizer")), ("optimizer.inner", inner)):
        name = node.get("name", "") if isinstance(node, dict) else ""
        if not re.fullmatch(r"[\w+-][\w.+-]*|", str(name)):
            raise UserError(f"{key}.name={name}: is part of a folder's name; use letters, digits, and . + - _")


def _loggers(given: Any) -> list[str]:
    """None, a name or a list of them: each once."""
    names = [str(name) for name in (given if isinstance(given, list) else [] if given is None else [given])]
    check_range("logger", names, f"one of {', '.join(LOGGERS)}")
    return list(dict.fromkeys(names))


def _check_typed(kind: type, node: dict[str, Any], path: str) -> None:
    """Keys and ranges; Hydra has seen to the types."""
    names = [setting.name for setting in fields(kind)]
    check_keys(path, node, names)
    require_keys(path, node, names)
    check_ranges(kind, node, path)


def _choice(group: str, node: dict[str, Any], passed: int, *others: str) -> tuple[str, str, dict[str, Any]]:
    """Name, target, settings. ``others`` are keys of the group that its target is not called with."""
    keys = ("name", "_target_", *others)
    _check_group(group, node)
    require_keys(f"{group}.", node, keys)
    given = {key: value for key, value in node.items() if key not in keys}
    target = str(node["_target_"])
    return str(node["name"]), target, typed_settings(group, target, given, passed, keys)


def _check_group(group: str, node: Any) -> None:
    """Raises:
    UserError: it was given a value where a choice belongs, such as ``optimizer.inner=adam``.
    """
    if not isinstance(node, dict):
        raise UserError(f"{group}: is a group; choose as {group.replace('.', '/')}={node}")


def _dataset(node: dict[str, Any]) -> DatasetChoice:
    choice = _choice("dataset", node, 0, "split")
    return DatasetChoice(*choice, Split(**_typed_node("dataset.split", Split, node["split"])))


def _typed_node(key: str, kind: type, node: dict[str, Any]) -> dict[str, Any]:
    """The settings of a dataclass, with the types and in the ranges of its fields."""
    names = [setting.name for setting in fields(kind)]
    check_keys(f"{key}.", node, names)
    require_keys(f"{key}.", node, names)
    types = signature_of(f"{kind.__module__}.{kind.__name__}")
    assert types is not None
    typed = {name: typed_value(f"{key}.{name}", types.settings[name].type, value) for name, value in node.items()}
    check_ranges(kind, typed, f"{key}.")
    return typed


def _workers(node: Any) -> Workers | None:
    """None where they share a model."""
    _check_group("workers", node)
    if node.get("name") == SHARED:
        check_keys("workers.", node, ["name"])
        return None
    return Workers(**_typed_node("workers", Workers, node))


def _check_workers(config: Config) -> None:
    """Raises:
    UserError: they have no layer to meet in, or cannot be told apart, or what is asked for is not kept of several.
    """
    workers = config.workers
    if workers is None:
        return
    if config.optimizer.inner is None:
        raise UserError(
            f"workers={LOCAL}: optimizer={config.optimizer.name} has no layers in which workers meet; their mean every "
            "5 steps, say, is optimizer=lookahead optimizer.k=5 optimizer.alpha=1"
        )
    if workers.group_size is not None and workers.count % workers.group_size:
        raise UserError(
            f"workers.group_size={workers.group_size}: must divide workers.count={workers.count}, or be null"
        )
    if config.batch_size % workers.count:
        raise UserError(f"batch_size={config.batch_size}: must be a multiple of workers.count={workers.count}")
    if config.decays() or config.tail is not None:
        raise UserError(f"ema, tail: are kept of one model, and not with workers={LOCAL}; use null for both")


def _scheduler(node: dict[str, Any]) -> SchedulerChoice:
    choice = _choice("scheduler", node, 1, "warmup")  # progress
    warmup = typed_value("scheduler.warmup", float, node["warmup"])
    check_range("scheduler.warmup", warmup, "in [0, 1)")
    return SchedulerChoice(*choice, warmup)


def _optimizer(node: dict[str, Any], fed: dict[str, Any]) -> OptimizerChoice:
    """With the top level's learning rate and weight decay, whether it is plain or has an inner one."""
    _check_group("optimizer", node)
    if "inner" not in node:
        return OptimizerChoice(*_torch_optimizer("optimizer", node | fed), None)
    _check_group("optimizer.inner", node["inner"])
    inner = Choice(*_torch_optimizer("optimizer.inner", node["inner"] | fed))
    name, target, settings = _choice("optimizer", node, 1, "inner")  # the inner optimizer
    return OptimizerChoice(name, target, _one_spelling(settings), inner)


def _torch_optimizer(group: str, node: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """A setting that is null is not passed on: there are optimizers without weight decay, say."""
    further = node.get("kwargs") or {}
    plain = {key: value for key, value in node.items() if key != "kwargs"} | further
    null = {key: None for key, value in plain.items() if value is None}
    passed = 2 if plain.get("_target_") == MUON else 1  # parameters, and the model
    name, target, settings = _choice(group, {k: v for k, v in plain.items() if k not in null}, passed)
    # By its class, so that two of them look different.
    name = target.rpartition(".")[2].lower() if name == "custom" else name
    return name, target, settings | null


def _param_groups(config: Config) -> list[dict[str, Any]] | None:
    """Each with the types of the optimizer's settings.

    Raises:
        UserError: one is no group, or has a setting that the optimizer does not have.
    """
    optimizer = config.optimizer.inner or config.optimizer
    known = signature_of(optimizer.target)
    if config.decay != "all" and known is not None and not known.open and "weight_decay" not in known.settings:
        raise UserError(f"decay={config.decay}: optimizer {optimizer.name} has no weight_decay")
    groups = [] if config.param_groups is None else config.param_groups
    if not isinstance(groups, list):
        raise UserError(f"param_groups={groups}: must be a list, such as [{{match: head.*, lr: 0.01}}]")
    return [_param_group(f"param_groups[{i}]", group, optimizer) for i, group in enumerate(groups)] or None


def _param_group(key: str, group: Any, optimizer: Choice) -> dict[str, Any]:
    if not isinstance(group, dict) or not isinstance(group.get("match"), str) or len(group) < 2:
        raise UserError(f"{key}={group}: must have a match and a setting, such as {{match: head.*, lr: 0.01}}")
    given = {str(name): value for name, value in group.items() if name != "match"}
    passed = 2 if optimizer.target == MUON else 1
    made = typed_settings(key, optimizer.target, given, passed, ["match"], some=True)
    for name, value in made.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            check_range(f"{key}.{name}", value, ">= 0")
    return {"match": group["match"], **made}


def _one_spelling(settings: dict[str, Any]) -> dict[str, Any]:
    """For what has several: [5, 1] and [5, 1.0]; [reset, reset] and reset; [reset, none] and reset_inner."""
    made = dict(settings)
    if isinstance(layers := made.get("layers"), list):
        made["layers"] = [_layer(f"optimizer.layers[{i}]", layer) for i, layer in enumerate(layers)]
    modes = made.get("pullback")
    if isinstance(modes, list) and len(modes) == (len(made["layers"]) if "layers" in made else 2):
        if len(set(modes)) == 1:
            made["pullback"] = modes[0]
        elif len(modes) == 2 and "none" in modes:
            made["pullback"] = f"{modes[0]}_inner" if modes[1] == "none" else f"{modes[1]}_outer"
    return made


def _layer(key: str, layer: Any) -> Any:
    """A (k, alpha) pair, or a layer with its ``_target_``, with the types and in the order of its signature.

    Anything else as it is.
    """
    if isinstance(layer, dict) and "_target_" in layer:
        target = str(layer["_target_"])
        known = signature_of(target)
        keys = ["_target_", *(known.settings if known else ())]  # unlike a group's, all may be given without a plus
        given = {name: layer[name] for name in (*keys, *layer) if name in layer and name != "_target_"}
        return {"_target_": target, **typed_settings(key, target, given, 0, keys)}
    types = signature_of(LAYER)
    assert types is not None
    kinds = [setting.type for setting in types.settings.values()]
    if not isinstance(layer, list) or len(layer) > len(kinds):
        return layer
    return [
        float(value) if kind is float and type(value) is int else value
        for kind, value in zip(kinds, layer, strict=False)
    ]
