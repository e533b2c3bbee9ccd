"""Gather run directories into two tidy tables: one row per run, and the metrics of all runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nested_lookahead import records
from nested_lookahead.errors import UserError

TASK = ("dataset", "model", "epochs", "batch_size", "evaluation")
"""Parts of a configuration that must be equal where runs are compared."""


@dataclass(frozen=True)
class Study:
    """What was found below some folders.

    ``runs``: one row per finished run: path, task, group (configuration less seed), method, inner, pullback, seed,
    status, and one column per setting of the flattened configuration, under ``config.<key>``.
    ``metrics``: the rows of each run's metrics.csv, with its path.
    ``left_out``: path and reason.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    left_out: pd.DataFrame


def newest_study(output_dir: Path) -> Path:
    """The folder of ``output_dir`` with the latest finished run.

    Raises:
        UserError: there is none.
    """
    summaries = list(output_dir.glob(f"*/**/{records.SUMMARY}"))
    if not summaries:
        raise UserError(f"{output_dir}: no finished run here; make one with: python train.py")
    latest = max(summaries, key=lambda path: path.stat().st_mtime)
    return output_dir / latest.relative_to(output_dir).parts[0]


def collect(folders: Iterable[Path]) -> Study:
    """Read every run at or below the folders; a run that cannot be used is listed, with the reason.

    Raises:
        UserError: a folder does not exist, not one finished run is found, or one is found twice.
    """
    runs: list[dict[str, Any]] = []
    metrics: list[pd.DataFrame] = []
    left_out: list[dict[str, str]] = []
    seen: dict[tuple[str, int], Path] = {}
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    for path in dict.fromkeys(path for folder in folders for path in records.find_runs(folder)):
        try:
            run, curve = _read(path)
        except _LeftOut as reason:
            left_out.append({"path": str(path), "reason": str(reason)})
            continue
        first = seen.setdefault((run["group"], run["seed"]), path)
        if first != path:
            raise UserError(f"the same configuration and seed twice: {first} and {path}; which one is meant?")
        runs.append(run)
        metrics.append(curve.assign(path=str(path)))
    if not runs:
        where = ", ".join(str(folder) for folder in folders)
        unfinished = f" ({len(left_out)} left out: {left_out[0]['reason']})" if left_out else ""
        raise UserError(f"{where}: no finished run here{unfinished}")
    _tell_tasks_apart(runs)
    return Study(
        pd.DataFrame(runs), pd.concat(metrics, ignore_index=True), pd.DataFrame(left_out, columns=["path", "reason"])
    )


def _tell_tasks_apart(runs: list[dict[str, Any]]) -> None:
    """Add to the names of tasks that would be called the same what they differ in."""
    for name in {run["task"] for run in runs}:
        alike = [run for run in runs if run["task"] == name]
        if len({run["task_key"] for run in alike}) > 1:
            keys = {key for run in alike for key in run if key.startswith(tuple(f"config.{part}." for part in TASK))}
            varying = sorted(key for key in keys if len({str(run.get(key)) for run in alike}) > 1)
            for run in alike:
                run["task"] += "".join(f", {key.removeprefix('config.')}={run.get(key)}" for key in varying)


class _LeftOut(Exception):
    pass


def _read(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    try:
        summary = records.read_summary(path)
        if summary is None:
            raise _LeftOut(f"not finished (status {records.read_status(path)['status']})")
        config, curve = records.read_config(path), records.read_metrics(path)
        reached = curve["step"].max() if len(curve) else 0
        if summary["status"] == records.COMPLETED and reached != summary["planned_steps"]:
            raise _LeftOut(f"completed, but its metrics end at step {reached} of {summary['planned_steps']}")
        optimizer = config["optimizer"]
        run = {
            "path": str(path),
            "task": ", ".join(str(_name(config[key])) for key in TASK[:2])
            + f", {config['epochs']} epochs, batch {config['batch_size']}",
            "task_key": repr([config[key] for key in TASK]),
            "group": summary["run"]["id"],
            "method": optimizer["name"],
            "inner": optimizer["inner"]["name"] if "inner" in optimizer else "",
            "pullback": _pullback_name(optimizer.get("pullback", "none")),
            "seed": summary["run"]["seed"],
            "status": summary["status"],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # torn, truncated, or somebody else's
        raise _LeftOut(f"unreadable: {type(error).__name__}: {error}") from None
    return run | {f"config.{key}": value for key, value in flatten(config).items()}, curve


def _name(value: Any) -> Any:
    return value["name"] if isinstance(value, dict) else value


def _pullback_name(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; lists become text."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value) if isinstance(value, list) else value
    return flat
