"""What a comparison leaves out: pairs that nobody compared, and a baseline's better settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from nested_lookahead.analysis import arms
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.analysis.task import Task

WITHOUT = {"wd0": "weight decay", "mom0": "momentum"}
"""What a published variant goes without, by the part of its tag that says so."""


def stronger_baselines(tasks: Sequence[Task]) -> list[str]:
    """Leads over a baseline that has another setting, here or in a task on the same data, that does better than the
    method: a lead over an untuned baseline is a lead over its settings. One text for all settings of a method. Fair
    studies, which tune their baselines, have no such leads."""
    texts = []
    tasks = [task for task in tasks if arms.PAIRS not in task.groups]
    for task in tasks:
        alike = [each for each in tasks if data(each) == data(task) and each.metric == task.metric]
        others = pd.concat([other for each in alike for other in _settings(each)])
        means = dict(task.metric.sign * task.final.groupby("group")["value"].mean())
        rows = task.comparisons
        for (label, other), part in rows.groupby(["label", "baseline_label"], sort=False) if len(rows) else ():
            theirs = task.groups.loc[str(part["baseline"].iloc[0])]
            same = others[(others["method"] == theirs["method"]) & (others["inner"] == theirs["inner"])]
            leads, over = _weak(part, means, same["mean"].max())
            if label != other and leads:
                best = same[same["mean"] > leads[-1]].sort_values(["n", "mean"]).iloc[-1]
                texts.append(_said(str(label), leads, str(other), over, best, task))
    return texts


def _weak(rows: pd.DataFrame, means: Mapping[Any, float], most: float) -> tuple[list[float], list[float]]:
    """What leads over baselines over which no group has the ``most`` that the baseline's method reaches, and what those
    baselines have; both in order."""
    leads: list[float] = []
    over = []
    for baseline, part in rows.groupby("baseline"):
        own = [means[group] for group in part["group"] if means[group] > means[baseline]]
        if own and max(own) < most:
            leads += own
            over.append(means[baseline])
    return sorted(leads), sorted(over)


def _said(label: str, leads: list[float], baseline: str, over: list[float], best: Any, task: Task) -> str:
    def text(values: Sequence[float]) -> str:
        return " to ".join(dict.fromkeys(task.metric.number(task.metric.sign * value) for value in values))

    where = ", ".join(
        filter(None, [best["task"] if best["task"] != task.name else "", best["of"], f"n = {best['n']:.0f}"])
    )
    own = f"{baseline} with {best['lacks']}" if best["lacks"] else baseline
    own = f"{len(over)} settings of {own}" if len(over) > 1 else own
    other = f"{baseline} without {best['lacks']}" if best["lacks"] else f"{baseline} [{best['shown']}]"
    ends = text([over[0], over[-1]])
    compared = f"is over {own}, {ends}, and not over {other}, {text([best['mean']])} ({where})"
    return f"the lead of {label}, {text([leads[0], leads[-1]])}, {compared}"


def _settings(task: Task) -> Iterator[pd.DataFrame]:
    """Of each group, and of published variants that go without the same: method, inner, what it is called, and the
    mean of its n runs that finished, of which more is better."""
    final = task.final.dropna(subset=["value"]).merge(
        task.groups.assign(variant=task.groups.get("config.variant", "")), left_on="group", right_index=True
    )
    final["variant"] = final["variant"].fillna("").astype(str)
    keys = ["method", "inner", "label"]
    named = final.assign(shown=final["shown"].where(final["shown"] != "", "default"), lacks="", of="")
    yield _means(named, [*keys, "group", "shown", "lacks", "of"], task)
    for token, what in WITHOUT.items():
        part = final[[token in variant.split("_") for variant in final["variant"]]]
        of = part.groupby(keys)["variant"].transform(lambda names: " and ".join(dict.fromkeys(names)))
        if len(part):
            yield _means(part.assign(lacks=what, shown="", of=of), [*keys, "shown", "lacks", "of"], task)


def _means(final: pd.DataFrame, keys: list[str], task: Task) -> pd.DataFrame:
    found = final.groupby(keys)["value"].agg(["mean", "count"]).reset_index()
    return found.rename(columns={"count": "n"}).assign(task=task.name, mean=task.metric.sign * found["mean"])


def data(task: Task) -> str:
    """The data set of a task, as far as its name tells: ``cifar`` of ``published: cifar_variation``."""
    return re.split(r"[^a-z0-9]", task.name.lower().removeprefix("published: "))[0]


def not_compared(task: Task) -> list[str]:
    """Comparisons that a reader may look for in vain, and how to have them. A fair study has asked its own."""
    if arms.PAIRS in task.groups:
        return []
    ours = task.groups[task.groups["source"] != REFERENCE]
    pairs = {frozenset((row.group, row.baseline)) for row in task.comparisons.itertuples()}
    texts = []
    plain = list(dict.fromkeys(ours.loc[ours["inner"] == "", "label"]))
    if len(plain) > 1 and not any(
        set(task.groups.loc[list(pair), "label"]) <= set(plain) and len(set(task.groups.loc[list(pair), "label"])) > 1
        for pair in pairs
    ):
        texts.append(f"not compared with each other: {', '.join(plain)}; --baseline with one of them does")
    compared = {group for pair in pairs for group in pair}
    alone = [f"{row['label']} {row['shown']}".strip() for group, row in ours.iterrows() if group not in compared]
    if alone and len(ours) > 1:
        more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
        texts.append(f"compared with nothing: {', '.join(alone[:5])}{more}; --baseline names what with")
    for column in ("precision", "device_name"):
        kinds = task.runs.groupby("group")[column].first().reindex(ours.index).dropna().astype(str)
        if len(set(kinds)) > 1 and not any(len(set(kinds.reindex([*pair]))) > 1 for pair in pairs):
            what = "precisions" if column == "precision" else "devices"
            texts.append(f"no two {what} are compared with each other: {', '.join(sorted(set(kinds)))}")
    return texts
