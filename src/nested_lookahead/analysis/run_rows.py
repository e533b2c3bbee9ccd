"""One run as a row: what its configuration and its summary say of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nested_lookahead.metric import ACCURACY, Metric
from nested_lookahead.runs import files
from nested_lookahead.runs.identity import ADDED, BOOKKEEPING, RULE, computed, identity
from nested_lookahead.runs.identity import OWN as OURS
from nested_lookahead.signatures import signature_of

if TYPE_CHECKING:
    import pandas as pd

TASK = ("dataset", "model", "epochs", "batch_size", "evaluation")
"""Parts of a configuration that must be equal where runs are compared."""

OWN, REFERENCE = "run", "reference"
"""Sources of a run: a directory of ours, or a table of published numbers."""

RUN_COLUMNS = (
    *("path", "source", "task", "task_key", "group", "method", "inner", "pullback", "seed", "status"),
    *("planned_steps", "seconds", "device_name", "precision", "threads", "processes", "commit", "dirty", "versions"),
    *("diverged_step", "diverged_cause", "score_least", "score_most", "metric"),
)
"""Columns that every table of runs has; after them come the settings, as ``config.<key>``."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError)
"""What is raised on the way to a row by files that are torn, or foreign."""


class LeftOut(Exception):
    """A run that cannot be used; its message says why."""


def read(path: Path) -> tuple[dict[str, Any], bytes, list[str]]:
    """The run's row, the bytes of its metrics, and what a reader should know of it.

    Raises:
        LeftOut: it is not finished, torn, or not one of ours.
    """
    try:
        summary = files.read_summary(path)
        if summary is None:
            raise LeftOut(f"not finished (status {files.read_status(path)['status']})")
        config, curve = files.read_config(path), files.read_bytes(path / files.METRICS)
        if not curve.endswith(b"\n"):
            raise LeftOut(f"{files.METRICS} is torn in its last line")
        if not files.is_intact(path, summary):
            raise LeftOut("its summary and metrics are not as they were written")
        if not _belongs(summary, config):
            raise LeftOut("its configuration is not the one that it was recorded with")
        return _row(path, config, summary), curve, _newer(summary)
    except UNREADABLE as error:
        raise LeftOut(f"unreadable: {type(error).__name__}: {error}") from None


def _belongs(summary: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a summary is of this configuration, as far as today's rule can tell."""
    name = summary.get("run")
    if not isinstance(name, dict) or name.get("rule") != RULE:
        return True
    return (name.get("id"), name.get("seed")) == (identity(config), config.get("seed"))


def _newer(summary: Mapping[str, Any]) -> list[str]:
    version = int(str(summary.get("version", 1)).partition(".")[0])
    if version <= files.VERSION:
        return []
    return [f"format {version} of the run directory is newer than {files.VERSION}, and is read as far as it is known"]


def _row(path: Path, config: dict[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Only what tells what was run, and how it ended, must be there; all else has a value that stands for unknown."""
    if summary["status"] not in (files.COMPLETED, files.DIVERGED):
        raise LeftOut(f"status {summary['status']}")
    optimizer, steps = config["optimizer"], summary.get("planned_steps")
    inner = optimizer.get("inner") or {}
    for node in (optimizer, inner, config["dataset"], config["model"]):
        _check_name(_name(node) if node else "")
    metric = Metric.read(summary.get("metric"))
    _check_name(metric.name + metric.unit)
    row = {
        "path": str(path),
        "source": OWN,
        "task": ", ".join(str(_name(config[key])) for key in TASK[:2])
        + f", {_whole('epochs', config['epochs'])} epochs, batch {_whole('batch_size', config['batch_size'])}",
        "task_key": task_key(config) + ("" if metric == ACCURACY else json.dumps(metric.plain())),
        "group": identity(config),
        "method": str(optimizer["name"]),
        "inner": str(inner.get("name", "")),
        "pullback": _pullback_name(optimizer.get("pullback", "none")),
        "seed": _whole("seed", (summary.get("run") or config).get("seed", config.get("seed", 0))),
        "status": summary["status"],
        "planned_steps": math.nan if steps is None else _whole("planned_steps", steps),
        "seconds": float(summary.get("seconds") or math.nan),
        "score_least": _bound(summary, "least", 0.0),
        "score_most": _bound(summary, "most", 1.0),
        "metric": json.dumps(metric.plain()),
    }
    settings = flatten(config)
    settings |= {key: value for key, value in added(config).items() if key not in settings}
    return row | _where(summary) | {f"config.{key}": value for key, value in settings.items()}


def added(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run did whose configuration is older than a key, as `ADDED` has it, so that it can be told from what newer
    runs did."""
    return {key: value for key, value in ADDED.items() if _has(config, key)}


MODULES = {"dataset": "nested_lookahead.tasks.datasets", "optimizer": "nested_lookahead.replica"}
"""Where what takes an added key lies now, wherever it lay then."""


def _has(config: Mapping[str, Any], key: str) -> bool:
    """Whether a run of today with this configuration has the key: a group's are those that its target takes."""
    group, _, name = key.rpartition(".")
    if not group:
        return True
    node = config.get(group)
    if not isinstance(node, dict):
        return False
    if group not in MODULES:  # settings of our own
        return True
    target = str(node.get("_target_", ""))
    taken = signature_of(f"{MODULES[group]}.{target.rpartition('.')[2]}") if target.startswith(OURS) else None
    return taken is not None and name in taken.settings


def metric_of(runs: pd.DataFrame) -> Metric:
    """That of the first run of ours; published runs have accuracies."""
    known = list(runs["metric"].dropna()[:1]) if "metric" in runs else []
    return Metric.read(json.loads(known[0])) if known else ACCURACY


LONGEST = 100
"""Characters of a name."""


def _check_name(name: Any) -> None:
    """Raises:
    LeftOut: it is no text that a line of a table can hold.
    """
    if not isinstance(name, str) or len(name) > LONGEST or not name.isprintable():
        raise LeftOut("an optimizer, data set or model is called by what is no name")


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise LeftOut(f"{key} is no integer >= 0: {str(value)[:30]}")
    return value


def _bound(summary: Mapping[str, Any], end: str, usual: float) -> float:
    """Least or most that the run's score can be; null is no bound."""
    bounds = summary.get("score") or {}
    value = bounds.get(end, usual)
    return (-math.inf if end == "least" else math.inf) if value is None else float(value)


def _where(summary: Mapping[str, Any]) -> dict[str, Any]:
    """With what a run was made, and where it diverged."""
    hardware, git = summary.get("hardware") or {}, summary.get("git") or {}
    diverged = summary.get("diverged") or {}
    return {
        "device_name": str(hardware.get("name", "")),
        "precision": str(hardware.get("precision", "")),
        "threads": hardware.get("threads"),
        "processes": hardware.get("processes", 1),
        "commit": str(git.get("commit", ""))[:10],
        "dirty": git.get("dirty"),
        "versions": ", ".join(f"{name} {version}" for name, version in (summary.get("versions") or {}).items()),
        "diverged_step": float(diverged.get("step", math.nan)),
        "diverged_cause": str(diverged.get("cause", "")),
    }


def task_key(config: Mapping[str, Any]) -> str:
    """Equal for runs that may be compared: what a configuration computes on, wherever the data and the code lie."""
    kept = computed(config)
    return json.dumps([kept.get(key) for key in TASK], sort_keys=True, default=str)


def tell_tasks_apart(runs: list[dict[str, Any]]) -> None:
    """Add to the names of tasks that would be called the same what they differ in."""
    for name in {run["task"] for run in runs}:
        alike = [run for run in runs if run["task"] == name]
        if len({run["task_key"] for run in alike}) > 1:
            keys = {key.removeprefix("config.") for run in alike for key in run if key.startswith("config.")}
            own = {key for key in keys if key.startswith(tuple(f"{part}." for part in TASK))}
            own = {key for key in own if key not in BOOKKEEPING and not key.endswith("_target_")}
            varying = sorted(key for key in own if len({str(run.get(f"config.{key}")) for run in alike}) > 1)
            for run in alike:
                run["task"] += "".join(f", {key}={run.get(f'config.{key}')}" for key in varying)


def _name(value: Any) -> Any:
    return value["name"] if isinstance(value, dict) else value


def _pullback_name(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; lists become text."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value) if isinstance(value, list) else value
    return flat
