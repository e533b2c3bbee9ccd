"""Gather run directories into two tidy tables: one row per run, and the metrics of all runs."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nested_lookahead import records
from nested_lookahead.errors import UserError

TASK = ("dataset", "model", "epochs", "batch_size", "evaluation")
"""Parts of a configuration that must be equal where runs are compared."""

OWN, PUBLISHED = "run", "published"

RUN_COLUMNS = (
    *("path", "source", "task", "task_key", "group", "method", "inner", "pullback", "seed", "status"),
    *("planned_steps", "seconds", "device_name", "precision", "threads", "processes", "commit", "dirty", "versions"),
    *("diverged_step", "diverged_cause"),
)
"""Columns that every table of runs has; after them come the settings, as ``config.<key>``."""

CACHE_VERSION = 1
WHOLE, NAMES = ("step", "epoch"), ("split", "weights")
REAL = tuple(column for column in records.COLUMNS if column not in (*WHOLE, *NAMES))


@dataclass(frozen=True)
class Study:
    """What was found below some folders.

    ``runs``: one row per finished run: path, source (``run`` or ``published``), task, group (configuration less
    seed), method, inner, pullback, seed, status, seconds, where and with what it was made, and one column per setting
    of the flattened configuration, under ``config.<key>``.
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


@dataclass
class _Found:
    """One run: how its files looked when it was read, its row, and the columns of its metrics."""

    stamp: list[list[int]]
    row: dict[str, Any]
    curve: dict[str, Any]


class _LeftOut(Exception):
    pass


def collect(folders: Iterable[Path], cache: Path | None = None, references: Sequence[Path] = ()) -> Study:
    """Read every run at or below the folders; a run that cannot be used is listed, with the reason.

    Args:
        cache: a file that keeps what was read, by path, size and time of each run's files; made anew where it is none.
        references: CSV files of published runs, see `read_reference`.

    Raises:
        UserError: a folder does not exist, not one finished run is found, or one is found twice with other results.
    """
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    known = _read_cache(cache)
    found: dict[str, _Found] = {}
    left_out: list[dict[str, str]] = []
    fresh: dict[str, bytes] = {}
    for path in dict.fromkeys(path for folder in folders for path in records.find_runs(folder)):
        name = str(path)
        try:
            stamp = _stamp(path)
            if name in known and known[name].stamp == stamp:
                found[name] = known[name]
            else:
                row, fresh[name] = _read(path)
                found[name] = _Found(stamp, row, {})
        except _LeftOut as reason:
            left_out.append({"path": name, "reason": str(reason)})
    for name, curve in _parse(fresh).items():
        try:
            found[name].curve = _checked(curve, found[name].row)
        except _LeftOut as reason:
            del found[name]
            left_out.append({"path": name, "reason": str(reason)})
    if cache is not None and (fresh or len(found) < len(known)):
        with suppress(OSError):  # a folder that cannot be written, or a full disk: then without
            _write_cache(cache, found)
    _leave_out_copies(found, left_out)
    published = [read_reference(path) for path in references]
    if not found and not published:
        where = ", ".join(str(folder) for folder in folders)
        unfinished = f" ({len(left_out)} left out: {left_out[0]['reason']})" if left_out else ""
        raise UserError(f"{where}: no finished run here{unfinished}")
    rows = [run.row.copy() for run in found.values()]
    _tell_tasks_apart(rows)
    runs = [pd.DataFrame(rows), *(runs for runs, _ in published)]
    metrics = [_metrics(found), *(metrics for _, metrics in published)]
    gathered = pd.concat([table for table in runs if len(table)], ignore_index=True)
    return Study(
        gathered.reindex(columns=list(dict.fromkeys([*RUN_COLUMNS, *gathered.columns]))),
        _concat([table for table in metrics if len(table)]),
        pd.DataFrame(left_out, columns=["path", "reason"]),
    )


# --- one run --------------------------------------------------------------------------------------------------------


def _stamp(path: Path) -> list[list[int]]:
    """Size and time of the files that a row is made of."""
    try:
        stats = [os.stat(path / name) for name in (records.CONFIG, records.METRICS, records.SUMMARY)]
    except OSError:
        status = records.read_status(path)["status"]
        raise _LeftOut(f"not finished (status {status})") from None
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Its row, and the bytes of its metrics."""
    try:
        summary = records.read_summary(path)
        if summary is None:
            raise _LeftOut(f"not finished (status {records.read_status(path)['status']})")
        config, curve = records.read_config(path), (path / records.METRICS).read_bytes()
        if not curve.endswith(b"\n"):
            raise _LeftOut(f"{records.METRICS} is torn in its last line")
        if not records.is_intact(path, summary):
            raise _LeftOut("its summary and metrics are not as they were written")
        return _row(path, config, summary), curve
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # torn, or foreign
        raise _LeftOut(f"unreadable: {type(error).__name__}: {error}") from None


def _row(path: Path, config: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    if summary["status"] not in (records.COMPLETED, records.DIVERGED):
        raise _LeftOut(f"status {summary['status']}")
    optimizer, hardware = config["optimizer"], summary.get("hardware", {})
    diverged, git = summary.get("diverged") or {}, summary.get("git") or {}
    row = {
        "path": str(path),
        "source": OWN,
        "task": ", ".join(str(_name(config[key])) for key in TASK[:2])
        + f", {config['epochs']} epochs, batch {config['batch_size']}",
        "task_key": repr([config[key] for key in TASK]),
        "group": str(summary["run"]["id"]),
        "method": str(optimizer["name"]),
        "inner": str(optimizer["inner"]["name"]) if "inner" in optimizer else "",
        "pullback": _pullback_name(optimizer.get("pullback", "none")),
        "seed": int(summary["run"]["seed"]),
        "status": summary["status"],
        "planned_steps": int(summary["planned_steps"]),
        "seconds": float(summary.get("seconds") or math.nan),
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
    return row | {f"config.{key}": value for key, value in flatten(config).items()}


def _checked(curve: dict[str, Any] | None, row: dict[str, Any]) -> dict[str, Any]:
    if curve is None:
        raise _LeftOut(f"{records.METRICS} has a line that is not one of ours")
    reached = int(curve["step"].max()) if len(curve["step"]) else 0
    if row["status"] == records.COMPLETED and reached != row["planned_steps"]:
        raise _LeftOut(f"completed, but its metrics end at step {reached} of {row['planned_steps']}")
    return curve


def _leave_out_copies(found: dict[str, _Found], left_out: list[dict[str, str]]) -> None:
    """Raises:
    UserError: a configuration and seed occur twice, with different results.
    """
    seen: dict[tuple[str, int], str] = {}
    for name, run in list(found.items()):
        first = seen.setdefault((run.row["group"], run.row["seed"]), name)
        if first == name:
            continue
        if not all(np.array_equal(run.curve[key], found[first].curve[key], equal_nan=True) for key in REAL[:2]):
            raise UserError(f"the same configuration and seed twice: {first} and {name}; which one is meant?")
        del found[name]
        left_out.append({"path": name, "reason": f"a copy of {first}"})


# --- many curves ----------------------------------------------------------------------------------------------------


def _parse(contents: dict[str, bytes]) -> dict[str, dict[str, Any] | None]:
    """The columns of each file; None of one that is not ours. All are parsed at once, as one long file: much faster."""
    header = ",".join(records.COLUMNS).encode() + b"\n"
    result: dict[str, dict[str, Any] | None] = {}
    bodies = {}
    for name, content in contents.items():
        head, _, body = content.partition(b"\n")
        bodies[name] = body if head.rstrip(b"\r") + b"\n" == header else None
    good = {name: body for name, body in bodies.items() if body is not None}
    result |= dict.fromkeys(bodies.keys() - good.keys())
    try:
        return result | _split(
            _columns(b"".join(good.values())), {name: body.count(b"\n") for name, body in good.items()}
        )
    except ValueError:  # one of them is damaged: find out which
        for name, body in good.items():
            try:
                result |= _split(_columns(body), {name: body.count(b"\n")})
            except ValueError:
                result[name] = None
        return result


def _columns(body: bytes) -> dict[str, Any]:
    """Raises:
    ValueError: a line has too few or too many fields, or one that is no number, or is of an unknown kind.
    """
    if not body:
        return {column: np.array([], dtype=_dtype(column)) for column in records.COLUMNS}
    types: Any = dict.fromkeys(WHOLE, "int64") | dict.fromkeys(NAMES, "category") | dict.fromkeys(REAL, "float64")
    table = pd.read_csv(
        io.BytesIO(body), header=None, names=list(records.COLUMNS), index_col=False, dtype=types, skip_blank_lines=False
    )
    if table["seconds"].isna().any() or len(table) != body.count(b"\n"):
        raise ValueError("a line with too few fields")
    columns: dict[str, Any] = {column: table[column].to_numpy(_dtype(column)) for column in (*WHOLE, *REAL)}
    for column, kinds in KINDS.items():
        named = table[column].cat
        if not set(named.categories) <= set(kinds) or (named.codes < 0).any():
            raise ValueError(f"an unknown {column}")
        columns[column] = np.array([kinds.index(name) for name in named.categories], dtype=np.int8)[named.codes]
    return columns


KINDS = {"split": ["train", "validation", "test"], "weights": ["fast", "slow"]}


def _dtype(column: str) -> Any:
    return np.int8 if column in NAMES else np.int64 if column in WHOLE else np.float64


def _split(columns: dict[str, Any], counts: dict[str, int]) -> dict[str, dict[str, Any] | None]:
    ends = np.cumsum(list(counts.values()), dtype=int)
    return {
        name: {column: values[end - count : end] for column, values in columns.items()}
        for (name, count), end in zip(counts.items(), ends, strict=True)
    }


def _metrics(found: dict[str, _Found]) -> pd.DataFrame:
    if not found:
        return pd.DataFrame()
    columns = {c: np.concatenate([run.curve[c] for run in found.values()]) for c in records.COLUMNS}
    counts = [len(run.curve["step"]) for run in found.values()]
    paths = pd.Categorical.from_codes(np.repeat(np.arange(len(found)), counts), list(found))  # type: ignore[call-overload]
    kinds = {c: pd.Categorical.from_codes(columns[c], kinds) for c, kinds in KINDS.items()}  # type: ignore[call-overload]
    return pd.DataFrame({"path": paths, **{c: kinds.get(c, columns[c]) for c in records.COLUMNS}}, copy=False)


def _concat(tables: list[pd.DataFrame]) -> pd.DataFrame:
    if len(tables) == 1:
        return tables[0]
    texts = ["path", *NAMES]
    joined = pd.concat([table.astype(dict.fromkeys(texts, object)) for table in tables], ignore_index=True)
    return joined.astype(dict.fromkeys(texts, "category"))


# --- the cache ------------------------------------------------------------------------------------------------------


def _read_cache(path: Path | None) -> dict[str, _Found]:
    """What was read before; nothing from a file that is not ours: plain arrays and JSON, nothing that could run."""
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            index = json.loads(stored["index"].tobytes())
            if index["version"] != [CACHE_VERSION, list(records.COLUMNS)]:
                return {}
            columns = {column: stored[column] for column in records.COLUMNS}
        curves = _split(columns, {entry["path"]: entry["count"] for entry in index["runs"]})
        return {
            entry["path"]: _Found(entry["stamp"], entry["row"], curve)
            for entry in index["runs"]
            if (curve := curves[entry["path"]]) is not None
        }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return {}


def _write_cache(path: Path, found: dict[str, _Found]) -> None:
    runs = [
        {"path": name, "stamp": run.stamp, "count": len(run.curve["step"]), "row": run.row}
        for name, run in found.items()
    ]
    index = json.dumps({"version": [CACHE_VERSION, list(records.COLUMNS)], "runs": runs}).encode()
    columns = {c: np.concatenate([run.curve[c] for run in found.values()]) for c in records.COLUMNS} if found else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **{"index": np.frombuffer(index, dtype=np.uint8), **columns})  # type: ignore[arg-type]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# --- published numbers ----------------------------------------------------------------------------------------------

REFERENCE_COLUMNS = ("study", "method", "tag", "run", "epoch", "test_accuracy")


def read_reference(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Published runs and their test accuracy (0 to 1) by epoch, as rows of `Study`.

    The file has one line per run and epoch, with the columns of `REFERENCE_COLUMNS`. A method is called as here, or as
    ``NestedLookahead_Adam``; a tag is ``default``, a pullback mode, or the name of a variant.

    Raises:
        UserError: there is no such file, or it is another.
    """
    try:
        table = pd.read_csv(path, dtype={"study": str, "method": str, "tag": str, "run": int, "epoch": int})
    except OSError:
        raise UserError(f"--reference {path}: no such file") from None
    except ValueError as error:
        raise UserError(f"--reference {path}: {' '.join(str(error).split())}") from None
    if missing := set(REFERENCE_COLUMNS) - set(table.columns):
        raise UserError(f"--reference {path}: no column {', '.join(sorted(missing))}")
    runs, metrics = [], []
    for (study, method, tag, run), part in table.groupby(["study", "method", "tag", "run"], sort=False):
        name = f"{path}#{study}/{method}/{tag}/{run}"
        outer, _, inner = str(method).partition("_")
        kind = outer.lower().replace("nestedlookahead", "nested_lookahead")
        modes = ("none", "pullback", "reset")
        runs.append(
            {
                "path": name,
                "source": PUBLISHED,
                "task": f"published: {study}",
                "task_key": f"published: {study}",
                "group": f"{PUBLISHED}/{study}/{method}/{tag}",
                "method": kind,
                "inner": inner.lower(),
                "pullback": tag if tag in modes else "none",
                "seed": int(str(run)),
                "status": records.COMPLETED,
                "planned_steps": int(part["epoch"].max()),
                "seconds": math.nan,
                "config.optimizer.pullback": (tag if tag in modes else "none") if inner else None,
                "config.variant": None if tag in ("default", *modes) else tag,
            }
        )
        metrics.append(
            pd.DataFrame(
                {
                    "path": name,
                    "step": part["epoch"],
                    "epoch": part["epoch"],
                    "split": "test",
                    "weights": "fast",
                    "loss": math.nan,
                    "accuracy": part["test_accuracy"],
                    "lr": math.nan,
                    "seconds": math.nan,
                }
            )
        )
    return pd.DataFrame(runs), pd.concat(metrics, ignore_index=True)


# --- names ----------------------------------------------------------------------------------------------------------


def _tell_tasks_apart(runs: list[dict[str, Any]]) -> None:
    """Add to the names of tasks that would be called the same what they differ in."""
    for name in {run["task"] for run in runs}:
        alike = [run for run in runs if run["task"] == name]
        if len({run["task_key"] for run in alike}) > 1:
            keys = {key for run in alike for key in run if key.startswith(tuple(f"config.{part}." for part in TASK))}
            varying = sorted(key for key in keys if len({str(run.get(key)) for run in alike}) > 1)
            for run in alike:
                run["task"] += "".join(f", {key.removeprefix('config.')}={run.get(key)}" for key in varying)


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
