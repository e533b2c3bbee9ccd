"""Hydra 1.3 and 1.4: what the newer one asks to be told, and the older one does not know. Goes when 1.3 does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from nested_lookahead.runs.typed import TRUSTED, typed_trust

NEWER = "execution_whitelist" in inspect.signature(hydra.main).parameters


def newer(**settings: Any) -> dict[str, Any]:
    """Arguments for Hydra from 1.4 on; none for an older one."""
    return settings if NEWER else {}


def main_settings(arguments: Iterable[str]) -> dict[str, Any]:
    """Of ``hydra.main``: its version or, from 1.4 on, what a log's or a callback's ``_target_`` may name.

    That is what any other one may, with the modules that the command line trusts.
    """
    if not NEWER:
        return {"version_base": "1.3"}
    modules = [*TRUSTED, "nested_lookahead", "logging", *typed_trust(arguments)]
    return {"execution_whitelist": [f"{module}.*" for module in modules]}


def presets_set_the_mode() -> None:
    """A study is typed without ``-m``, as its preset sets ``hydra.mode``.

    Hydra 1.3 composes everything to find it; 1.4 looks at the command line and at config.yaml alone, and refuses a
    preset that sets it: there it is found as before.
    """
    typed: Any = Hydra.get_mode
    if not NEWER or hasattr(typed, "__wrapped__"):
        return

    @functools.wraps(typed)
    def composed(self: Hydra, config_name: str | None, overrides: list[str], **further: Any) -> Any:
        mode = typed(self, config_name, overrides, **further)
        if mode is None and any(text.startswith("experiment=") for text in overrides):
            with suppress(Exception):  # which composing for the run itself will raise again
                config = self.compose_config(
                    config_name, overrides, RunMode.MULTIRUN, False, validate_sweep_overrides=False
                )
                mode = config.hydra.mode
        return mode

    Hydra.get_mode = composed  # type: ignore[method-assign]


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    register: Any = OmegaConf.register_resolver if NEWER else OmegaConf.register_new_resolver
    register(name, resolver, replace=True)
