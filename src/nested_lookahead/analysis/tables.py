"""Tables: of results and of comparisons, as data, text, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from nested_lookahead.analysis.labels import in_order, method_names, settings
from nested_lookahead.analysis.run_rows import metric_of
from nested_lookahead.analysis.sentences import bound, p_value, seeds_text, signed, times
from nested_lookahead.analysis.statistics import t_half_width
from nested_lookahead.metric import ACCURACY, Metric
from nested_lookahead.runs.files import COMPLETED


def final_results(runs: pd.DataFrame, metrics: pd.DataFrame, split: str) -> pd.DataFrame:
    """One row per completed run, indexed by path: its metric (accuracy in %) at its last evaluation, of each
    kind of weights."""
    completed = runs.loc[runs["status"] == COMPLETED, "path"]
    rows = metrics[(metrics["split"] == split) & metrics["path"].isin(completed)]
    last = rows[rows["step"] == rows.groupby("path", observed=True)["step"].transform("max")]
    return metric_of(runs).scale * last.pivot_table(index="path", columns="weights", values="accuracy", observed=True)


def results(runs: pd.DataFrame, metrics: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """A row per group: method, settings, n, diverged, and mean and 95% half-width of the final metric (accuracy in %).

    Means are over completed runs; ``n`` counts all finished ones, diverged included.
    """
    final = final_results(runs, metrics, split)
    groups = in_order(runs.drop_duplicates("group").set_index("group"))
    shown = settings(groups, always=True)
    rows = []
    names = dict(zip(groups.index, method_names(groups), strict=True))
    finals = [(weights, final[weights].dropna().to_dict()) for weights in final.columns]
    by_group = dict(iter(runs[["group", "path", "status"]].groupby("group", sort=False)))
    for group in groups.index:
        members = by_group[group]
        row: dict[str, Any] = {
            "group": group,
            "method": names[group],
            "settings": shown[group],
            "n": len(members),
            "diverged": int((members["status"] != COMPLETED).sum()),
        }
        for weights, known in finals:
            values = [known[path] for path in members["path"] if path in known]
            row[f"{weights}_values"] = values
            row[f"{weights}_mean"] = sum(values) / len(values) if values else None
            row[f"{weights}_half_width"] = t_half_width(values)
        rows.append(row)
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame, split: str = "test", metric: Metric = ACCURACY) -> pd.DataFrame:
    """The table as people read it: ``97.2 ± 0.4``, the values themselves for n = 2, one value without an interval."""
    shown = table[["method", "settings", "n"]].astype({"n": str})
    diverged = table["diverged"] > 0
    shown.loc[diverged, "n"] += " (" + table.loc[diverged, "diverged"].astype(str) + " diverged)"
    for weights in [str(column).removesuffix("_mean") for column in table if str(column).endswith("_mean")]:
        values, half_widths = table[f"{weights}_values"], table[f"{weights}_half_width"]
        cells = [_cell(v, h, metric) for v, h in zip(values, half_widths, strict=True)]
        shown[f"{split} {metric.name} {metric.unit}".rstrip() + f", {weights} weights"] = cells
    return shown


def _cell(values: list[float], half_width: float | None, metric: Metric) -> str:
    if not values:
        return "–"
    if len(values) <= 2 or half_width is None:
        return ", ".join(map(metric.number, values))
    if half_width == 0:
        return f"{metric.number(values[0])} (all equal)"
    return f"{metric.number(sum(values) / len(values))} ± {metric.number(half_width)}"


def readable_comparisons(comparisons: pd.DataFrame, metric: Metric = ACCURACY) -> pd.DataFrame:
    """Each method against its baseline, as people read it; the interval is the one that decided, of ``level``."""
    if comparisons.empty:
        return pd.DataFrame()
    c, digits = comparisons, metric.digits
    return pd.DataFrame(
        {
            "method": c["label"],
            "settings": c["shown"],
            "against": [
                " ".join(filter(None, pair)) for pair in zip(c["baseline_label"], c["baseline_shown"], strict=True)
            ],
            "n": c["n"].astype(str) + c["paired"].map({True: "", False: " unpaired"}),
            f"difference ({metric.difference})": [
                _told(lambda value: signed(value, digits))(mean)
                + (f" [{bound(low, digits)}, {bound(high, digits)}]" if low == low else "")
                for mean, low, high in zip(c["difference"], c["low"], c["high"], strict=True)
            ],
            "level": [
                f"{100 * level:.4g}%" if low == low else "–" for level, low in zip(c["level"], c["low"], strict=True)
            ],
            "d_z": c["dz"].map(_told(signed)),
            "g": c["g"].map(_told(signed)),
            "P(improvement)": [
                f"{share:.2f} [{low:.2f}, {high:.2f}]" if share == share else "–"
                for share, low, high in zip(c["improvement"], c["improvement_low"], c["improvement_high"], strict=True)
            ],
            "p (Holm)": c["p_holm"].map(_told(lambda p: p_value(p).removeprefix("p ").removeprefix("= "))),
            "verdict": c["verdict"],
            "detectable": c["detectable"].map(_told(metric.number)),
            "seeds needed": [
                "–" if needed != needed else seeds_text(needed, low, high)
                for needed, low, high in zip(c["seeds_needed"], c["seeds_low"], c["seeds_high"], strict=True)
            ],
        }
    )


def readable_catching_up(table: pd.DataFrame) -> pd.DataFrame:
    """How soon each arm has the loss that the other one ends with, as people read it; empty of tasks without arms."""
    if table.empty:
        return table
    return pd.DataFrame(
        {
            "arm": table["arm"],
            "other": table["other"],
            "the other's final loss": table["target"].map("{:.4g}".format),
            "reached": [f"{a} : {b} of {n}" for a, b, n in table[["reached", "other_reached", "n"]].to_numpy()],
            "steps": [times(*row) for row in table[["steps", "steps_low", "steps_high"]].to_numpy()],
            "p (Holm)": table["p_holm"].map(_told(lambda p: p_value(p).removeprefix("p ").removeprefix("= "))),
        }
    )


def readable_budget(table: pd.DataFrame, metric: Metric = ACCURACY) -> pd.DataFrame:
    shown = table.copy()
    for column in ("default", "best", "best, other seeds"):
        shown[column] = shown[column].map(_told(metric.number))
    shown["settings tried"] = shown["settings tried"].map(lambda count: str(count) if count else "not tuned")
    shown["hours of training"] = shown["hours of training"].map(_told("{:.3g}".format))
    return shown


def _told(words: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: "–" if value != value else words(value)


def to_latex(shown: pd.DataFrame) -> str:
    """A booktabs table; Greek letters and signs as mathematics."""
    text = shown.to_latex(index=False, escape=True, column_format="l" * len(shown.columns))
    for sign, command in {"α": r"\alpha", "±": r"\pm", "–": "-", "×": r"\times"}.items():
        text = text.replace(sign, f"${command}$")
    return text


def to_text(shown: pd.DataFrame) -> str:
    """Columns padded to their width; a line under the header."""
    cells = [list(map(str, shown.columns)), *shown.astype(str).to_numpy().tolist()]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def to_markdown(shown: pd.DataFrame) -> str:
    """Names come from configurations, and are text: nothing in a cell ends it, or is markup."""
    cells = [list(map(str, shown.columns)), *shown.astype(str).to_numpy().tolist()]
    rows = [[_as_markdown(cell) for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def _as_markdown(cell: str) -> str:
    for sign, written in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "\\\\", "|": "\\|", "`": "\\`"}.items():
        cell = cell.replace(sign, written)
    return " ".join(cell.split())


def to_csv(table: pd.DataFrame, path: Path) -> None:
    """For spreadsheets, too, which would compute a text that begins as a formula does: it gets an apostrophe."""
    texts = {str(name): column.map(_as_text) for name, column in table.items() if column.dtype.kind not in "iufb"}
    table.assign(**texts).to_csv(path, index=False)


def _as_text(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
