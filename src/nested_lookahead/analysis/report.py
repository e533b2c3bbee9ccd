"""Put a study's tables and figures into a folder, and say what was done."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from nested_lookahead.analysis import figures, tables
from nested_lookahead.analysis.collect import Study
from nested_lookahead.analysis.labels import method_name


def write(study: Study, out: Path, weights: str, split: str) -> str:
    """Write tables and figures, one set per task (runs on different tasks are never compared); return the text."""
    out.mkdir(parents=True, exist_ok=True)
    text: list[str] = []
    written: list[Path] = []
    tasks = list(study.runs.groupby("task_key", sort=False))
    for number, (_, runs) in enumerate(tasks, start=1):
        suffix = f"-{number}" if len(tasks) > 1 else ""
        metrics = study.metrics[study.metrics["path"].isin(runs["path"])]
        table = tables.results(runs, metrics, split)
        shown = tables.readable(table, split)
        text += [f"{runs['task'].iloc[0]}: {len(runs)} run(s)", "", tables.to_text(shown), ""]
        (out / f"results{suffix}.md").write_text(tables.to_markdown(shown) + "\n", encoding="utf-8")
        values = [column for column in table.columns if column.endswith("_values")]
        table.drop(columns=values).to_csv(out / f"results{suffix}.csv", index=False)
        written += [out / f"results{suffix}.csv", out / f"results{suffix}.md"]
        curves = figures.learning_curves(runs, metrics, weights, split)
        written += figures.save(curves, out / f"learning_curves{suffix}")
        measured = metrics.loc[metrics["weights"] == weights, "path"]
        if without := sorted({method_name(*row) for row in _methods(runs[~runs["path"].isin(measured)])}):
            text += [f"without {weights} weights, and so not in the figure: {', '.join(without)}", ""]
    text.append("mean ± half-width of the 95% t interval over seeds, at the last epoch")
    if len(study.left_out):
        text.append(f"left out: {len(study.left_out)}")
        text += [f"  {row.path}: {row.reason}" for row in study.left_out.itertuples()]
    text += ["", "written:", *(f"  {os.path.relpath(path)}" for path in written)]
    return "\n".join(text)


def _methods(runs: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(runs["method"], runs["inner"], strict=True))
