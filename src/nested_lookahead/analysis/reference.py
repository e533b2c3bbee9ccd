"""Published numbers, read from a table, as runs to stand beside our own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.errors import UserError, one_line
from nested_lookahead.inputs import opened
from nested_lookahead.runs import files
from nested_lookahead.signatures import constant

LARGEST = 2**26
"""Bytes of such a file, by far."""
COLUMNS = ("study", "method", "tag", "run", "epoch", "test_accuracy")


def read_reference(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Published runs and their test accuracy (0 to 1) by epoch, as rows of `collect.Study`.

    The file has one line per run and epoch, with the columns of `COLUMNS`. A method is called as here, or as
    ``NestedLookahead_Adam``; a tag is ``default``, a pullback mode, or the name of a variant.

    Raises:
        UserError: there is no such file, or it is another.
    """
    parts = list(_read(path).groupby(["study", "method", "tag", "run"], sort=False))
    runs = [_row(path, [str(name) for name in key], part) for key, part in parts]
    metrics = [_curve(str(run["path"]), part) for run, (_, part) in zip(runs, parts, strict=True)]
    return pd.DataFrame(runs), pd.concat(metrics, ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    types = {"study": str, "method": str, "tag": str, "run": int, "epoch": int, "test_accuracy": float}
    try:
        with opened(path, LARGEST) as file:
            table = pd.read_csv(file, dtype=types)
    except OSError as error:
        raise UserError(f"--reference {path}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, OverflowError) as error:
        raise UserError(f"--reference {path}: {one_line(str(error), 200)}") from None
    if missing := set(COLUMNS) - set(table.columns):
        raise UserError(f"--reference {path}: no column {', '.join(sorted(missing))}")
    if table.empty:
        raise UserError(f"--reference {path}: no runs, only a header")
    if table[list(COLUMNS[:3])].isna().any(axis=None) or not table["test_accuracy"].between(0, 1).all():
        raise UserError(f"--reference {path}: a study, method or tag is missing, or an accuracy is not in [0, 1]")
    if (table[["run", "epoch"]] < 0).any(axis=None):
        raise UserError(f"--reference {path}: a run or an epoch is negative")
    return table


def _row(path: Path, key: list[str], part: pd.DataFrame) -> dict[str, Any]:
    study, method, tag, run = key
    outer, _, inner = method.partition("_")
    modes = constant("nested_lookahead.optim", "PULLBACK_MODES")
    pullback = tag if tag in modes else "none"
    return {
        "path": f"{path}#{study}/{method}/{tag}/{run}",
        "source": REFERENCE,
        "task": f"published: {study}",
        "task_key": f"published: {study}",
        "group": f"{REFERENCE}/{study}/{method}/{tag}",
        "method": outer.lower().replace("nestedlookahead", "nested_lookahead"),
        "inner": inner.lower(),
        "pullback": pullback,
        "seed": int(run),
        "status": files.COMPLETED,
        "planned_steps": int(part["epoch"].max()),
        "seconds": math.nan,
        "config.optimizer.pullback": pullback if inner else None,
        "config.variant": None if tag in ("default", *modes) else tag,
    }


def _curve(name: str, part: pd.DataFrame) -> pd.DataFrame:
    columns = {
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
    return pd.DataFrame(columns)
