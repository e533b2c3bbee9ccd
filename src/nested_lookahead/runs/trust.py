"""What code Hydra's own part of a configuration may name: Hydra calls it before any setting of a run is looked at."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nested_lookahead.errors import UserError
from nested_lookahead.runs.typed import TRUSTED, below, named, typed_trust, untrusted
from nested_lookahead.runs.versions import NEWER

CALLED = ("callbacks", "hydra_logging", "job_logging")
"""Parts of the node ``hydra`` whose classes are made in every run."""
IN_SWEEPS = ("launcher", "sweeper")
HYDRAS = (*TRUSTED, "nested_lookahead", "hydra", "hydra_plugins", "logging", "colorlog", "optuna")
"""Packages whose classes such a name may stand for: Hydra, its plugins, what logs, and Optuna's samplers."""
STREAMS = ("sys.stdout", "sys.stderr")
NAMES = ("_target_", "()", "class", "factory", "queue", "listener")
"""Keys whose value names what is called: Hydra's, and those of `logging.config`; the last two from Python 3.12 on."""
ENVIRONMENT = "hydra.job.env_set"
LOADS = "_load_configuration" if NEWER else "load_configuration"
"""Of Hydra's loader: what all else of it calls, and Hydra itself from 1.4 on."""


def guard() -> None:
    """From now on a configuration is refused whose node ``hydra`` names code that is not trusted.

    The one place that every configuration passes through, that of a job in a worker process, too. Once is enough.
    """
    load: Any = getattr(ConfigLoaderImpl, LOADS)
    if hasattr(load, "__wrapped__"):
        return
    called_with = inspect.signature(load)

    @functools.wraps(load)
    def checked(*args: Any, **kwargs: Any) -> Any:
        config, given = load(*args, **kwargs), called_with.bind(*args, **kwargs).arguments
        several = given["run_mode"] == RunMode.MULTIRUN
        check_typed(config, given["overrides"])
        check_hydra(config, (*CALLED, *(IN_SWEEPS if several else ())))
        return config

    setattr(ConfigLoaderImpl, LOADS, checked)


def check_typed(config: Any, typed: Sequence[str]) -> None:
    """What no file may say for itself: whom to trust, and the environment, by which compilers and the like are found.

    Raises:
        UserError: a file says it.
    """
    sweeper = OmegaConf.select(config, "hydra.sweeper")
    for_jobs = _keys(OmegaConf.to_container(sweeper, resolve=False)) if OmegaConf.is_config(sweeper) else set()
    if not {*_trusted(config)} <= {*typed_trust(typed)} or "trust" in for_jobs:
        raise UserError("trust: is set in a file; only who types a command says whom to trust, as trust=[mine]")
    by_hand = any(text.lstrip("+").startswith(ENVIRONMENT) for text in typed)
    if (OmegaConf.select(config, ENVIRONMENT) and not by_hand) or any(key.startswith(ENVIRONMENT) for key in for_jobs):
        raise UserError(f"{ENVIRONMENT}: is set in a file; only who types a command sets the environment")


def _trusted(config: Any) -> tuple[str, ...]:
    found = OmegaConf.select(config, "trust")
    return tuple(map(str, found)) if OmegaConf.is_list(found) else ()


def _keys(node: Any) -> set[str]:
    """All that a sweep's parameters, grids or arms set, at any depth."""
    if isinstance(node, list):
        return {key for value in node for key in _keys(value)}
    if not isinstance(node, dict):
        return set()
    return {str(name).lstrip("+") for name in node} | {key for value in node.values() for key in _keys(value)}


def check_hydra(config: Any, parts: Iterable[str]) -> None:
    """Raises:
    UserError: in one of these parts of ``hydra`` something is called that lies neither in `HYDRAS` nor in a module that
        the configuration trusts.
    """
    more = _trusted(config)
    for part in parts:
        for key, target in _named(f"hydra.{part}", OmegaConf.select(config, f"hydra.{part}")):
            if not below(target, more) and target not in STREAMS and not _is_known(target):
                raise UserError(untrusted(key, target, more))


def _is_known(target: str) -> bool:
    """Whether it is one of their classes: a function, such as ``logging.config.fileConfig``, evaluates what it reads.

    As `logging.os.system` would, a name can lead through a known module to what lies elsewhere; one that leads nowhere,
    as of a plugin that is not installed, is Hydra's to speak of.
    """
    if not below(target, HYDRAS):
        return False
    try:
        found = named(target)
    except ImportError:
        return True
    return found is None or (inspect.isclass(found) and below(f"{found.__module__}.", HYDRAS))


def _named(path: str, node: Any) -> Iterator[tuple[str, str]]:
    """Key and value of all that is called, at any depth; of a value that cannot be told yet, its text."""
    if OmegaConf.is_list(node):
        keys: list[Any] = list(range(len(node)))
    elif OmegaConf.is_dict(node):
        keys = list(node)
    else:
        return
    for key in keys:
        inside = f"{path}.{key}" if OmegaConf.is_dict(node) else f"{path}[{key}]"
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]
        except OmegaConfBaseException:  # a file's name that has the run's folder in it, say
            value = OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index]
        if isinstance(value, str) and (key in NAMES or value.startswith("ext://")):
            yield inside, value.removeprefix("ext://")
        else:
            yield from _named(inside, value)
