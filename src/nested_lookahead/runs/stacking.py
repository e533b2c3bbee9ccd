"""Which runs of a sweep can be one stack: a pure function of their configurations."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from nested_lookahead.runs.identity import FEEDERS
from nested_lookahead.runs.schema import Config

T = TypeVar("T")

NUMBERS = ("lr", "weight_decay", "momentum", "betas", "eps", "k", "s", "alpha", "h", "slow_momentum", "outer_momentum")
"""Settings of an optimizer and of its layers in which runs of a stack can differ, where they are numbers."""

SWITCHES = ("s", "momentum", "slow_momentum", "outer_momentum")
"""Those of them that turn something off where they are 0: a layer, or a buffer."""


def in_common(config: Config) -> str:
    """All that the runs of a stack must have in common, as text: their configuration less the seed and numbers."""
    plain = {key: value for key, value in config.plain().items() if key not in ("seed", *FEEDERS)}
    return json.dumps(plain | {"optimizer": _less_numbers("", plain["optimizer"])}, sort_keys=True)


def _less_numbers(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _less_numbers(name, inner) for name, inner in value.items()}
    if isinstance(value, list):  # of betas; of layers, which are mappings or lists that begin with k and alpha
        return [_less_numbers(key, inner) for inner in value]
    if type(value) in (int, float) and key in (*NUMBERS, "layers"):
        return "0" if key in SWITCHES and value == 0 else "a number"
    return value


def grouped(runs: Iterable[tuple[Hashable, T]]) -> list[list[T]]:
    """Those of one key together, keys in the order in which they come first."""
    groups: dict[Hashable, list[T]] = {}
    for key, run in runs:
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def chunks(runs: list[T], most: int) -> list[list[T]]:
    """In order, so many at a time."""
    return [runs[first : first + most] for first in range(0, len(runs), most)]
