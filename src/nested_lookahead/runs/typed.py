"""Plain values of a configuration held against the signature of what they are passed to."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, make_dataclass
from functools import cache, lru_cache
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nested_lookahead.errors import UserError, unknown_key
from nested_lookahead.settings import MISSING, check_range
from nested_lookahead.signatures import REQUIRED, signature_of


def typed_settings(
    group: str, target: str, given: dict[str, Any], passed: int, others: Iterable[str], some: bool = False
) -> dict[str, Any]:
    """Settings with the types of the target's signature: 1 becomes 1.0 where a float is wanted.

    Args:
        group: whose settings they are, for messages.
        target: dotted name of a function or class; where its source cannot be read, anything goes.
        passed: number of leading arguments that are passed by position.
        others: keys that the group has besides.
        some: whether settings that the target needs may be lacking.

    Raises:
        UserError: a key that the target does not take, one that it needs and is not there, a value of another type
            or outside its range.
    """
    signature = signature_of(target)
    if signature is None:
        return given
    settings = signature.less(passed).settings
    for key in given.keys() - settings.keys():
        if not signature.open or key.startswith("_"):  # which Hydra would take for its own
            known = [*others, *(settings if some else given.keys() & settings.keys())]
            raise UserError(unknown_key(f"{group}.{key}", known, settings))
    for key, setting in settings.items():
        if setting.default is REQUIRED and key not in given and not some:
            raise UserError(f"{group}.{key}: missing; {target} needs it")
    made = dict(given)
    for key in given.keys() & settings.keys():
        made[key] = typed_value(f"{group}.{key}", settings[key].type, given[key])
        if (allowed := settings[key].range) is not None:
            check_range(f"{group}.{key}", made[key], allowed)
    return made


def typed_value(key: str, kind: Any, value: Any) -> Any:
    """The value as one of this type, as OmegaConf converts it.

    Raises:
        UserError: it cannot be converted.
    """
    if kind is Any or type(value) is kind:
        return value
    try:
        return (_converted_once if isinstance(value, int | float | str | None) else _converted)(kind, value)
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: {str(error.msg or error).splitlines()[0]}") from error


def _converted(kind: Any, value: Any) -> Any:
    if (node := _node_of(kind)) is None:
        return value
    made = OmegaConf.to_container(OmegaConf.merge(node, {"value": value}))["value"]  # type: ignore[index, call-overload]
    return list(made) if isinstance(made, tuple) else made  # which OmegaConf makes of tuple[…] from 2.4 on


_converted_once = lru_cache(maxsize=4096, typed=True)(_converted)
"""The jobs of a sweep have most of their values in common."""


@cache
def _node_of(kind: Any) -> Any:
    """A configuration with one value of this type; None of a type that OmegaConf does not know."""
    if _holds_tuples(kind):  # which OmegaConf knows from 2.4 on; a run's identity must not depend on that
        return None
    try:
        return OmegaConf.structured(make_dataclass("Typed", [("value", kind, field(default=MISSING))]))
    except OmegaConfBaseException:
        return None


def _holds_tuples(kind: Any) -> bool:
    """Whether a container's values are tuples, such as ``list[tuple[int, float]]``."""
    inside = get_args(kind)
    if get_origin(kind) in (list, tuple, dict) and any(get_origin(part) is tuple for part in inside):
        return True
    return any(map(_holds_tuples, inside))


TRUSTED = (
    "nested_lookahead.optim",
    "nested_lookahead.replica",
    "nested_lookahead.tasks",
    "nested_lookahead.training",
    "torch.optim",
    "torch.nn",
    "schedulefree",
    "torchvision.models",
    "torchvision.transforms",
)
"""Modules whose functions and classes a configuration may name as a ``_target_``, which is called.

Of this package's own those that make what trains: elsewhere there is what imports a module by its name.
"""


def check_trusted(node: Any, more: Iterable[str]) -> None:
    """Raises:
    UserError: a ``_target_`` is neither in one of the modules `TRUSTED` nor in one of ``more``.
    """
    modules = (*TRUSTED, *more)
    for key, target in targets("", node):
        if not below(target, modules):
            raise UserError(untrusted(key, target, more))


def typed_trust(arguments: Iterable[str]) -> list[str]:
    """The modules that a command line names in ``trust=[…]``."""
    parse = OverridesParser.create().parse_override
    values = [parse(text).value() for text in arguments if text.lstrip("+").startswith("trust=")]
    return [str(one) for value in values if isinstance(value, list) for one in value]


def untrusted(key: str, target: str, more: Iterable[str]) -> str:
    """What is wrong with such a name, and what to do about it."""
    module = target.rpartition(".")[0] or target
    known = ", ".join((*TRUSTED, *more))
    return f"{key}={target}: is code outside of {known}; if you trust it, add trust=[{module}]"


def below(target: str, modules: Iterable[str]) -> bool:
    return any(target.startswith(f"{module}.") for module in modules)


def home(target: str) -> str:
    """The module that what a dotted name stands for says it is from; empty where it stands for nothing or says none."""
    try:
        return str(getattr(named(target), "__module__", "") or "")
    except ImportError:
        return ""


def named(target: str) -> Any:
    """What a dotted name stands for; None if it stands for nothing.

    Not by `pydoc.locate`, which tries to import every part of it: the failures leave cycles of frames behind, which
    keep a run's tensors alive.
    """
    first, *rest = target.split(".")
    found = importlib.import_module(first)
    for count, name in enumerate(rest, start=1):
        if hasattr(found, name):
            found = getattr(found, name)
            continue
        try:  # the module itself: one that Hydra's search for plugins has loaded is no attribute of its package
            found = importlib.import_module(".".join([first, *rest[:count]]))
        except ImportError:
            return None
    return found


def targets(path: str, node: Any) -> Iterator[tuple[str, str]]:
    """The keys and values of all ``_target_``, at any depth.

    Raises:
        UserError: there is another key that Hydra would act on.
    """
    if isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from targets(f"{path}[{i}]", value)
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        inside = f"{path}.{key}" if path else str(key)
        if key == "_target_":
            yield inside, str(value)
        elif str(key).startswith("_") and key != "_partial_":
            raise UserError(f"{inside}: no such key")
        else:
            yield from targets(inside, value)


def check_keys(path: str, node: Mapping[str, Any], allowed: list[str]) -> None:
    """Raises:
    UserError: a key that is not allowed.
    """
    for key in node:
        if key not in allowed:
            raise UserError(unknown_key(f"{path}{key}", allowed))


def require_keys(path: str, node: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raises:
    UserError: a key is not there, as after ``~key``.
    """
    for key in keys:
        if key not in node:
            raise UserError(f"{path}{key}: missing")
