"""What makes two runs the same: the one place for that rule. See docs/run_directory.md.

Everything here takes a configuration as plain nested dictionaries, as it is composed or as config.yaml has it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

RULE = 2
"""The version of this rule. Version 1 hashed where this project's own code lies (``_target_``), too."""

BOOKKEEPING = (
    "study",
    "output_dir",
    "device",
    "threads",
    "progress",
    "logger",
    "overwrite",
    "fail_fast",
    "trust",
    "checkpoint_minutes",
    *("analysis", "analysis.delta", "analysis.target", "analysis.baseline", "analysis.compare"),
    "dataset.data_dir",
    "dataset.download",
    "dataset.workers",
)
"""Keys that change where and how a run takes place, but not what it computes."""

FEEDERS = ("pullback", "lr", "weight_decay")
"""Keys whose values end up in the optimizer's."""

ADDED: dict[str, Any] = {
    "compile": False,
    "ema": None,
    "tail": None,
    "decay": "all",
    "param_groups": None,
    "dataset.train_samples": 4000,
    "dataset.test_samples": 1000,
    "evaluation.augment": False,
    "workers.name": "shared",
    **dict.fromkeys(("optimizer.outer_misfires", "optimizer.off_by_one", "optimizer.pullback_inert"), True),
}
"""Keys that came after runs had been recorded, with the value that stands for what those runs did.

A key at this value is left out, so that adding it does not orphan the runs made before.
"""

OWN = "nested_lookahead."
"""Our own code is named by its group's ``name``, wherever it lies; other people's by its ``_target_``, too.

What has no ``name``, such as a layer that is a dictionary, is named by the last part of its ``_target_``.
"""


def computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration decides what a run computes, but for the seed."""

    def counts(key: str, value: Any) -> bool:
        if key.endswith("_target_"):
            return not str(value).startswith(OWN)
        return key not in (*BOOKKEEPING, *FEEDERS, "seed") and not _as_before(key, value)

    def kept(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        made = {key: inside(v, f"{prefix}{key}.") for key, v in node.items() if counts(prefix + key, v)}
        found = {key: value for key, value in made.items() if value != {} or not node[key]}  # a group of added keys
        target = str(node.get("_target_", ""))
        if target.startswith(OWN) and "name" not in node:
            found["_target_"] = _last(target)
        return found

    def inside(value: Any, prefix: str) -> Any:
        if isinstance(value, list):
            return [inside(one, prefix) for one in value]
        return kept(value, prefix) if isinstance(value, Mapping) else value

    return kept(config, "")


def _as_before(key: str, value: Any) -> bool:
    return key in ADDED and value == ADDED[key]


def identity(config: Mapping[str, Any]) -> str:
    """Eight hex digits that stand for what a run computes, whatever its seed."""
    return hashlib.sha256(json.dumps(computed(config), sort_keys=True).encode()).hexdigest()[:8]


def label(config: Mapping[str, Any]) -> str:
    """A readable name for the optimizer's settings, such as ``nested_lookahead-adam-k5-a0.5-s5-h0.5-reset``."""
    optimizer = config["optimizer"]
    if "inner" not in optimizer:
        return str(optimizer["name"])
    parts = [optimizer["name"], optimizer["inner"]["name"]]
    parts += [
        _initials(key) + _short(value)
        for key, value in optimizer.items()
        if key not in SAID_APART and not _as_before(f"optimizer.{key}", value)
    ]
    parts += [_layer(layer) for layer in optimizer.get("layers", [])]
    pullback = optimizer["pullback"]
    parts.append("+".join(map(str, pullback)) if isinstance(pullback, list) else str(pullback))
    return "-".join(parts)[:LONGEST]


LONGEST = 180
"""Characters of a label: with the identity, a name that every file system takes."""


SAID_APART = ("name", "_target_", "inner", "layers", "pullback")


def _layer(layer: Any) -> str:
    """``[5, 0.5]`` as 5x0.5; one with its ``_target_`` as heavyball-k5-a0.5-m0.9."""
    if not isinstance(layer, Mapping):
        return _plain(layer)
    parts = [_last(str(layer.get("_target_", ""))).lower()]
    parts += [
        value if isinstance(value, str) else _initials(key) + _short(value)
        for key, value in layer.items()
        if key != "_target_"
    ]
    return "-".join(map(_plain, parts))


def _last(target: str) -> str:
    return target.rpartition(".")[2]


def _plain(value: Any) -> str:
    return re.sub(r"[^\w.]+", "x", str(value)).strip("x")


def _initials(key: str) -> str:
    """``alpha`` as a, ``outer_momentum`` as om."""
    return "".join(word[0] for word in key.split("_"))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def run_name(config: Mapping[str, Any]) -> str:
    """Directory of a run below its study: ``<label>-<identity>/seed=<n>``."""
    return f"{label(config)}-{identity(config)}/seed={config['seed']}"
