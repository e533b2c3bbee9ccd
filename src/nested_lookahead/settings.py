"""Settings with their types and ranges: how a range is written, and the settings that several rooms share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from nested_lookahead.errors import UserError

MISSING: Any = "???"
"""OmegaConf's mark of a value that a YAML file has to give."""


def within(allowed: str) -> Any:
    """A dataclass's field with a range, as `check_range` reads it, and no default."""
    return field(default=MISSING, metadata={"range": allowed})


def check_range(key: str, value: Any, allowed: str, way_out: str = "") -> None:
    """Hold a value, or each of a list, against a range such as ``>= 1``, ``> 0``, ``in [0, 1)``, ``one of a, b``.

    With ``ascending, `` before it, the values of the list must not descend, either. None is outside of any range and
    allowed, as ``way_out`` may add; a number that is not finite never is.

    Raises:
        UserError: the value is outside; the message has the key, the value, and what is allowed.
    """
    values = list(value) if isinstance(value, list | tuple) else [value]
    bounds = allowed.removeprefix("ascending, ")
    held = all(one is None or _holds(one, bounds) for one in values)
    if not held or (bounds != allowed and values != sorted(values)):
        whole = "an integer " if all(isinstance(one, int) for one in values) else ""
        raise UserError(f"{key}={value}: must be {whole}{allowed}{way_out}")


def _holds(value: Any, allowed: str) -> bool:
    if allowed.startswith("one of "):
        return str(value) in allowed.removeprefix("one of ").split(", ")
    if not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if bound := re.fullmatch(r"(>=?) (\S+)", allowed):
        return value > float(bound[2]) or (bound[1] == ">=" and value == float(bound[2]))
    if ends := re.fullmatch(r"in ([\[(])(\S+), (\S+)([\])])", allowed):
        least, most = float(ends[2]), float(ends[3])
        return least < value < most or (value == least and ends[1] == "[") or (value == most and ends[4] == "]")
    raise ValueError(f"no such kind of range: {allowed}")


def check_ranges(kind: type, values: dict[str, Any], path: str = "") -> None:
    """Hold values against the ranges of a dataclass's fields.

    Raises:
        UserError: a value outside its range.
    """
    for setting in fields(kind):
        if (allowed := setting.metadata.get("range")) is not None:
            way_out = ", or null" if "None" in str(setting.type) else ""
            check_range(f"{path}{setting.name}", values[setting.name], allowed, way_out)


LARGEST = 2**63 - 1
"""Of the numbers that torch counts with."""


def check_values(key: str, value: Any) -> None:
    """Refuse what no setting can be, wherever it stands in nested dictionaries and lists.

    Raises:
        UserError: a number that is not finite, or too large to count with; text with a NUL, or that is no Unicode.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            check_values(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_values(key, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: must be a finite number")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"{key}={str(value)[:30]}…: must be at most {LARGEST:,} in size")
    elif isinstance(value, str) and ("\0" in value or (not value.isprintable() and _is_broken(value))):
        raise UserError(f"{key}: holds a character that is none")


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def ema_names(decays: Sequence[float]) -> list[str]:
    """The kinds of weights that averages with these decays are: ``ema``, or ``ema0.99`` and so on of several."""
    return [f"ema{decay}" if len(decays) > 1 else "ema" for decay in decays]


@dataclass
class Split:
    """How a data set's training samples are split into those trained on, those held out, and those left out."""

    val_fraction: float = within("in [0, 1)")
    """Share held out for validation; 0 holds out nothing."""
    train_size: int | None = within(">= 1")
    """Number of the others to train on, in equal shares of the classes; None takes all."""
    seed: int | None = within(">= 0")
    """Of both choices; None takes the run's."""


@dataclass
class Evaluation:
    """How a run is measured: the same for every method of a study."""

    every: int = within(">= 1")
    """Epochs between evaluations; the last epoch is always evaluated."""
    batch_size: int = within(">= 1")
    train_samples: int = within(">= 1")
    """Size of the fixed part of the training data that the train metrics come from."""
    bn_batches: int = within(">= 1")
    """Number of training batches from which batch-norm statistics are estimated for the slow weights."""
    weights: str = MISSING
    """Whose validation metric is a run's one number: ``fast``, ``slow``, or an average that the run keeps."""
    augment: bool = MISSING
    """Whether the fast weights are also measured on samples that are augmented as in training, as ``augmented``."""


SHARED, LOCAL = "shared", "local"


@dataclass
class Workers:
    """Who trains a run: ``shared``, one model, of whose batches ``torchrun``'s processes each take a part; or
    ``local``, models that train apart and meet in the layers of slow weights."""

    name: str = within(f"one of {SHARED}, {LOCAL}")
    count: int = within(">= 1")
    """Workers, on however many processes; each takes an equal part of every batch."""
    group_size: int | None = within(">= 1")
    """Over so many the inner layers average; None: over all. The outermost layer averages over all."""
    skew: float | None = within("> 0")
    """Concentration of the Dirichlet distribution of each worker's shares of the classes; None: all draw from all."""


@dataclass
class Analysis:
    """What a study fixes about its analysis before its runs are made; None leaves it to the analysis."""

    delta: float | None = within("> 0")
    """The difference that matters, in points of accuracy, or in the task's own metric."""
    target: float | None = MISSING
    """Accuracy (%), or the task's own metric, whose time is looked for."""
    baseline: str | None = MISSING
    """What the methods are compared with: a method, or settings such as ``k=5,alpha=0.5``."""
    compare: str | None = within("one of baseline, all")
    """The family of comparisons: each method with its baseline, or all pairs."""
