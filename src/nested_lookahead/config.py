"""The configuration: its schema (types; the values are in ``conf/``), its validation, and a run's identity."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf

from nested_lookahead.errors import UserError, flatten, unknown_key
from nested_lookahead.processes import jobs_at_once
from nested_lookahead.records import ADDED, BOOKKEEPING, FEEDERS


@dataclass
class InnerConf:
    name: str = MISSING
    _target_: str = MISSING
    lr: float = MISSING
    weight_decay: float | None = MISSING  # None: not passed on, for a class without it


@dataclass
class SGDConf(InnerConf):
    momentum: float = MISSING
    nesterov: bool = MISSING


@dataclass
class AdamConf(InnerConf):
    betas: tuple[float, float] = MISSING
    eps: float = MISSING


@dataclass
class RMSpropConf(InnerConf):
    alpha: float = MISSING
    eps: float = MISSING
    momentum: float = MISSING


@dataclass
class AdagradConf(InnerConf):
    lr_decay: float = MISSING
    eps: float = MISSING


@dataclass
class CustomConf(InnerConf):
    kwargs: dict[str, Any] = MISSING


@dataclass
class WrapperConf:
    """``pullback`` is a scope's name or a list of modes, innermost first."""

    name: str = MISSING
    _target_: str = MISSING
    inner: InnerConf = MISSING
    pullback: Any = MISSING


@dataclass
class LookaheadConf(WrapperConf):
    k: int = MISSING
    alpha: float = MISSING


@dataclass
class NestedLookaheadConf(LookaheadConf):
    s: int = MISSING
    h: float = MISSING


@dataclass
class MultilayerLookaheadConf(WrapperConf):
    layers: list[Any] = MISSING  # [[k, alpha], …]; OmegaConf has no type for such a pair


@dataclass
class DatasetConf:
    name: str = MISSING
    _target_: str = MISSING
    val_fraction: float = MISSING
    train_size: int | None = None
    split_seed: int | None = None


@dataclass
class NoisyQuadraticConf(DatasetConf):
    coordinates: int = MISSING
    power: float = MISSING
    noise_power: float = MISSING
    samples: int = MISSING


@dataclass
class StoredConf(DatasetConf):
    data_dir: str = MISSING


@dataclass
class DownloadedConf(StoredConf):
    download: bool = MISSING


@dataclass
class ImageNetConf(StoredConf):
    size: int = MISSING
    workers: int = MISSING


@dataclass
class AugmentConf:
    name: str = MISSING
    _target_: str = MISSING


@dataclass
class StandardConf(AugmentConf):
    padding: int = MISSING


@dataclass
class PublishedConf(StandardConf):
    contrast: tuple[float, float] = MISSING
    saturation: tuple[float, float] = MISSING
    hue: tuple[float, float] = MISSING
    degrees: float = MISSING


@dataclass
class ModelConf:
    name: str = MISSING
    _target_: str = MISSING


@dataclass
class MLPConf(ModelConf):
    hidden: list[int] = MISSING


@dataclass
class CNNConf(ModelConf):
    width: int = MISSING


@dataclass
class WideResNetConf(ModelConf):
    depth: int = MISSING
    widen: int = MISSING


@dataclass
class ViTConf(ModelConf):
    patch_size: int = MISSING
    layers: int = MISSING
    heads: int = MISSING
    hidden: int = MISSING


@dataclass
class SchedulerConf:
    name: str = MISSING
    _target_: str = MISSING
    warmup: float = MISSING


@dataclass
class FinalConf(SchedulerConf):
    final: float = MISSING


@dataclass
class MultistepConf(SchedulerConf):
    milestones: list[float] = MISSING
    gamma: float = MISSING


@dataclass
class EvaluationConf:
    every: int = MISSING
    batch_size: int = MISSING
    train_samples: int = MISSING
    bn_batches: int = MISSING
    weights: str = MISSING


@dataclass
class Config:
    optimizer: Any = MISSING
    pullback: str = MISSING
    dataset: DatasetConf = MISSING
    model: ModelConf = MISSING
    augment: AugmentConf = MISSING
    scheduler: SchedulerConf = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    seed: int = MISSING
    lr: float | None = None
    weight_decay: float | None = None
    label_smoothing: float = MISSING
    grad_clip: float | None = None
    evaluation: EvaluationConf = MISSING
    precision: str = MISSING
    channels_last: bool | None = None
    compile: bool = MISSING
    device: str = MISSING
    threads: int | None = None
    study: str = MISSING
    output_dir: str = MISSING
    progress: bool = MISSING
    overwrite: bool = MISSING
    fail_fast: bool = MISSING
    checkpoint_minutes: float = MISSING


SCHEMAS: dict[str, dict[str, type]] = {
    "": {"config": Config},
    "optimizer": {
        "lookahead": LookaheadConf,
        "nested_lookahead": NestedLookaheadConf,
        "multilayer_lookahead": MultilayerLookaheadConf,
    },
    "optimizer/inner": {
        "sgd": SGDConf,
        "adam": AdamConf,
        "rmsprop": RMSpropConf,
        "adagrad": AdagradConf,
        "custom": CustomConf,
    },
    "dataset": {
        "dataset": DatasetConf,
        "noisy_quadratic": NoisyQuadraticConf,
        "stored": StoredConf,
        "downloaded": DownloadedConf,
        "imagenet": ImageNetConf,
    },
    "augment": {"augment": AugmentConf, "standard": StandardConf, "published": PublishedConf},
    "model": {"model": ModelConf, "mlp": MLPConf, "cnn": CNNConf, "wide_resnet": WideResNetConf, "vit": ViTConf},
    "scheduler": {"scheduler": SchedulerConf, "final": FinalConf, "multistep": MultistepConf},
}


FUSED = ("torch.optim.SGD", "torch.optim.Adam", "torch.optim.AdamW")


def register() -> None:
    """Make the schema and the resolvers known; must come before Hydra composes."""
    store = ConfigStore.instance()
    for group, nodes in SCHEMAS.items():
        for name, node in nodes.items():
            store.store(group="/".join(filter(None, ("hydra/schema", group))), name=name, node=node)
    # The name of the directory in which Hydra runs a job, relative to the study's.
    OmegaConf.register_new_resolver("run_name", lambda *, _root_: run_name(resolve(_root_)), replace=True)
    OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once, replace=True)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, checked.

    Raises:
        UserError: a key that the schema does not have (``+key=value`` gets past Hydra), or a value out of range.
    """
    _reject_unknown_keys(cfg)
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    config = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    plain = {str(key): value for key, value in config.items()}
    inner = plain["optimizer"].get("inner", plain["optimizer"])
    for key in ("lr", "weight_decay"):
        if plain[key] is not None:
            inner[key] = plain[key]
    _normalize(plain["optimizer"])
    _check(plain)
    return plain


def _normalize(optimizer: dict[str, Any]) -> None:
    """One spelling for settings without a type: 1 and 1.0, [reset, reset] and reset, [reset, none] and reset_inner."""
    if "layers" in optimizer:
        for layer in optimizer["layers"]:
            if isinstance(layer, list) and len(layer) == 2 and type(layer[1]) is int:
                layer[1] = float(layer[1])
    modes = optimizer.get("pullback")
    if isinstance(modes, list) and len(modes) == (len(optimizer["layers"]) if "layers" in optimizer else 2):
        if len(set(modes)) == 1:
            optimizer["pullback"] = modes[0]
        elif len(modes) == 2 and "none" in modes:
            optimizer["pullback"] = f"{modes[0]}_inner" if modes[1] == "none" else f"{modes[1]}_outer"


def _reject_unknown_keys(node: DictConfig, path: str = "") -> None:
    known = getattr(OmegaConf.get_type(node), "__dataclass_fields__", None)
    for key in known or ():
        if key not in node:
            raise UserError(f"{path}.{key}: missing".lstrip("."))
    for key in node:
        full_key = f"{path}.{key!s}" if path else str(key)
        if full_key == "hydra":
            continue
        if known is not None and key not in known:
            raise UserError(unknown_key(full_key, list(known)))
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            _reject_unknown_keys(node[key], full_key)


def _check(config: dict[str, Any]) -> None:
    """Ranges that no constructor further down would check with the key's name."""
    evaluation = config["evaluation"]
    for key, value, least in (
        ("epochs", config["epochs"], 1),
        ("batch_size", config["batch_size"], 1),
        ("seed", config["seed"], 0),
        ("threads", config["threads"], 1),
        ("evaluation.every", evaluation["every"], 1),
        ("evaluation.batch_size", evaluation["batch_size"], 1),
        ("evaluation.train_samples", evaluation["train_samples"], 1),
        ("evaluation.bn_batches", evaluation["bn_batches"], 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{key}={value}: must be an integer >= {least}")
    for key, choice, choices in (
        ("precision", str(config["precision"]), ("auto", "fp32", "bf16", "fp16")),
        ("evaluation.weights", str(evaluation["weights"]), ("fast", "slow")),
    ):
        if choice not in choices:
            raise UserError(f"{key}={choice}: must be one of {', '.join(choices)}")
    for key, share in (("label_smoothing", config["label_smoothing"]), ("warmup", config["scheduler"]["warmup"])):
        if not 0 <= share < 1:
            raise UserError(f"{key}={share}: must be in [0, 1)")
    if config["scheduler"].get("final", 0) < 0:
        raise UserError(f"scheduler.final={config['scheduler']['final']}: must be >= 0")
    if config["checkpoint_minutes"] < 0:
        raise UserError(f"checkpoint_minutes={config['checkpoint_minutes']}: must be >= 0")
    if config["grad_clip"] is not None and not config["grad_clip"] > 0:
        raise UserError(f"grad_clip={config['grad_clip']}: must be > 0, or null")
    if "inner" not in config["optimizer"] and config["pullback"] != "none":
        raise UserError(
            f"pullback={config['pullback']}: optimizer={config['optimizer']['name']} has no slow weights to pull back "
            "to; use pullback=none, or optimizer=lookahead, nested_lookahead or multilayer_lookahead"
        )


def identity(config: dict[str, Any]) -> str:
    """Eight hex digits that stand for what a run computes, whatever its seed.

    It hashes the resolved configuration less bookkeeping, less the seed, and less the keys that only feed others.
    """
    return hashlib.sha256(json.dumps(computed(config), sort_keys=True).encode()).hexdigest()[:8]


def computed(config: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration decides what a run computes, but for the seed."""

    def kept(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        return {
            key: kept(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in node.items()
            if (full_key := prefix + key) not in (*BOOKKEEPING, *FEEDERS, "seed")
            and not (full_key in ADDED and value == ADDED[full_key])
        }

    return kept(config)


def label(config: dict[str, Any]) -> str:
    """A readable name for the optimizer's settings, such as ``nested_lookahead-adam-k5-a0.5-s5-h0.5-reset``."""
    optimizer = config["optimizer"]
    if "inner" not in optimizer:
        return str(optimizer["name"])
    parts = [optimizer["name"], optimizer["inner"]["name"]]
    for key, short in (("k", "k"), ("alpha", "a"), ("s", "s"), ("h", "h")):
        if key in optimizer:
            parts.append(f"{short}{optimizer[key]:g}")
    parts += [re.sub(r"[^\w.]+", "x", str(layer)).strip("x") for layer in optimizer.get("layers", [])]
    pullback = optimizer["pullback"]
    parts.append("+".join(map(str, pullback)) if isinstance(pullback, list) else str(pullback))
    return "-".join(parts)


def run_name(config: dict[str, Any]) -> str:
    """Directory of a run below its study: ``<label>-<identity>/seed=<n>``."""
    return f"{label(config)}-{identity(config)}/seed={config['seed']}"


def build(group: str, settings: dict[str, Any], *args: Any) -> Any:
    """Call a group's ``_target_`` with its settings.

    Raises:
        UserError: the target does not take a setting; the message names the group.
    """
    kwargs = {key: value for key, value in settings.items() if key not in ("name", "kwargs")}
    kwargs |= settings.get("kwargs", {})
    try:
        return instantiate(kwargs, *args, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, TypeError, ImportError)):
            raise UserError(f"{group}={settings['name']}: {flatten(str(cause))}") from error
        raise (cause or error) from None


def build_function(group: str, settings: dict[str, Any]) -> functools.partial[Any]:
    """A group's ``_target_`` with its settings, to be called with the arguments that are left."""
    made = build(group, {**settings, "_partial_": True})
    # Hydra's own partial checks its target at every call, for 0.07 ms.
    return functools.partial(made.func, *made.args, **made.keywords)


def build_source(settings: dict[str, Any]) -> Any:
    """A data set as published; the last one is kept, as the jobs of a sweep have it in common and none changes it."""
    return _build_source(json.dumps(settings))


@functools.lru_cache(maxsize=1)
def _build_source(settings: str) -> Any:
    return build("dataset", json.loads(settings))


def build_optimizer(settings: dict[str, Any], params: Sequence[Any]) -> Any:
    """An optimizer, around its inner one where the settings have an ``inner``."""
    if "inner" not in settings:
        return build("optimizer", settings | _fused(settings, params), params)
    inner = {key: value for key, value in settings["inner"].items() if value is not None}
    opt = build("optimizer/inner", inner | _fused(inner, params), params)
    return build("optimizer", {key: value for key, value in settings.items() if key != "inner"}, opt)


def _fused(settings: dict[str, Any], params: Sequence[Any]) -> dict[str, bool]:
    """``fused=True`` for the classes of torch that have such a kernel, where it is the fastest."""
    if settings["_target_"] not in FUSED or any(param.device.type not in ("cpu", "cuda") for param in params):
        return {}
    # On a CPU it copies tensors that are not contiguous, such as channels-last weights: Adam gains all the same.
    copies = any(param.device.type == "cpu" and not param.is_contiguous() for param in params)
    return {} if copies and settings["_target_"] == "torch.optim.SGD" else {"fused": True}
