"""What code Hydra's own part of a configuration may name: Hydra calls it before any setting of a run is looked at."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nested_lookahead.errors import UserError
from nested_lookahead.runs.typed import TRUSTED, below, home, untrusted

CALLED = ("callbacks", "hydra_logging", "job_logging")
"""Parts of the node ``hydra`` whose classes are made in every run."""
IN_SWEEPS = ("launcher", "sweeper")
HYDRAS = (*TRUSTED, "hydra", "hydra_plugins", "logging", "colorlog", "optuna")
"""Packages that such a name may lie in: Hydra, its plugins, what logs, and Optuna's samplers."""
STREAMS = ("sys.stdout", "sys.stderr")
NAMES = ("_target_", "()", "class", "factory")
"""Keys whose value names what is called: Hydra's, and those of `logging.config`."""


def guard() -> None:
    """From now on a configuration is refused whose node ``hydra`` names code that is not trusted.

    The one place that every configuration passes through, that of a job in a worker process, too. Once is enough.
    """
    load: Any = ConfigLoaderImpl.load_configuration
    if hasattr(load, "__wrapped__"):
        return

    @functools.wraps(load)
    def checked(self: Any, config_name: Any, overrides: Any, run_mode: RunMode, *args: Any, **kwargs: Any) -> Any:
        config = load(self, config_name, overrides, run_mode, *args, **kwargs)
        check_hydra(config, (*CALLED, *(IN_SWEEPS if run_mode == RunMode.MULTIRUN else ())))
        return config

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]


def check_hydra(config: Any, parts: Iterable[str]) -> None:
    """Raises:
    UserError: in one of these parts of ``hydra`` something is called that lies neither in `HYDRAS` nor in a module that
        the configuration trusts.
    """
    trusted = OmegaConf.select(config, "trust")
    more = tuple(map(str, trusted)) if OmegaConf.is_list(trusted) else ()
    for part in parts:
        for key, target in _named(f"hydra.{part}", OmegaConf.select(config, f"hydra.{part}")):
            if not below(target, more) and target not in STREAMS and not _is_known(target):
                raise UserError(untrusted(key, target, more))


def _is_known(target: str) -> bool:
    """As `logging.os.system` would, a name can lead through a known module to what lies elsewhere; one that leads
    nowhere, as of a plugin that is not installed, is Hydra's to speak of."""
    lies_in = home(target) if below(target, HYDRAS) else "elsewhere"
    return not lies_in or below(f"{lies_in}.", HYDRAS)


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
