"""What methods and settings are called in tables and figures."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nested_lookahead.analysis.arms import choices
from nested_lookahead.analysis.run_rows import REFERENCE
from nested_lookahead.methods import METHODS, method
from nested_lookahead.runs.identity import BOOKKEEPING, FEEDERS

SYMBOLS = {"alpha": "α"}
"""Settings that the papers write otherwise; any other is called by its key."""

LEARNING_RATES = ("optimizer.lr", "optimizer.inner.lr")
PULLBACK = "optimizer.pullback"
FIRST = (*LEARNING_RATES, *(f"optimizer.{key}" for key in ("k", "alpha", "s", "h", "layers")))
"""In this order; a method's further settings follow."""

SAID_ELSEWHERE = ("optimizer.name", "optimizer.inner.name", "dataset.name", "model.name", "seed", *FEEDERS)
"""Keys whose values the method's or the task's name already has, or that a group does not share."""


def method_name(name: str, inner: str, source: str = "") -> str:
    """Such as ``Nested Lookahead (Adam)``; published numbers are said to be so."""
    full = method(name).shown + (f" ({method(inner).shown})" if inner else "")
    return f"published {full}" if source == REFERENCE else full


def method_names(groups: pd.DataFrame) -> list[str]:
    """Of each group (row); an arm of a fair study has the name that the study gave it."""
    if choices(groups):
        return [*map(str, groups.index)]
    return [method_name(*row) for row in zip(groups["method"], groups["inner"], groups["source"], strict=True)]


def in_order(groups: pd.DataFrame) -> pd.DataFrame:
    """Groups by method, plain optimizers first, each in the order of `METHODS`; then by pullback and by the values of
    their settings."""
    others = sorted({*groups["method"], *groups["inner"]} - {*METHODS, ""})
    order = {name: rank for rank, name in enumerate(["", *METHODS, *others])}
    ranked = groups.assign(
        wrapped=groups["inner"] != "", method=groups["method"].map(order), inner=groups["inner"].map(order)
    )
    keys = ["wrapped", "method", "inner", "pullback", *(f"config.{key}" for key in setting_keys(groups))]
    return groups.loc[ranked.sort_values(keys, key=_comparable).index]


def _comparable(column: Any) -> Any:
    return column if pd.api.types.is_numeric_dtype(column) else column.astype(str)


def setting_keys(groups: pd.DataFrame) -> list[str]:
    """Keys of the flattened configuration that set something, the optimizers' own first."""
    keys = [str(c).removeprefix("config.") for c in groups.columns if str(c).startswith("config.")]
    keys = [key for key in keys if key not in (*SAID_ELSEWHERE, *BOOKKEEPING) and not key.endswith("_target_")]
    main = main_keys(groups)
    return main + [key for key in keys if key not in main]


def main_keys(groups: pd.DataFrame) -> list[str]:
    """Learning rates, and the settings of what is wrapped around an inner optimizer: periods, step sizes, pullback.

    They are read off the configurations: a method's new setting is one of them by itself.
    """
    wrapped = groups.loc[groups["inner"] != ""]
    own = [str(column).removeprefix("config.") for column in groups.columns if _is_of_wrapper(wrapped, str(column))]
    last = [key for key in own if key == PULLBACK]
    first = [key for key in FIRST if key in own or (key in LEARNING_RATES and f"config.{key}" in groups)]
    return first + [key for key in own if key not in (*first, *last)] + last


def _is_of_wrapper(wrapped: pd.DataFrame, column: str) -> bool:
    key = column.removeprefix("config.optimizer.")
    if key == column or key.startswith("inner.") or key.endswith("_target_") or key == "name":
        return False
    return bool(wrapped[column].notna().any())


def settings(groups: pd.DataFrame, always: bool) -> pd.Series[str]:
    """The settings of each group (row), as ``k=5 α=0.5``: those that tell groups of a method, or methods, apart.

    With ``always``, the periods, step sizes and pullback too where they are the same in all. Arms of a fair study are
    told apart by their names; with ``always``, what was chosen of their spaces.
    """
    if chosen := choices(groups):
        told_of = {
            arm: " ".join(setting(*pair) for pair in choice["settings"].items()) for arm, choice in chosen.items()
        }
        return pd.Series([told_of.get(str(arm), "") if always else "" for arm in groups.index], groups.index, dtype=str)
    texts = pd.Series("", index=groups.index)
    main = main_keys(groups)
    for key in setting_keys(groups):
        column = groups[f"config.{key}"]
        texts_of = column.astype(str)
        if key.startswith("optimizer."):
            varies = texts_of.groupby([groups["method"], groups["inner"]]).transform("nunique") > 1
        else:  # what is not the method's own must not differ between methods unseen
            # A published run tells little of its settings; one of ours was without what it has no value for, or null.
            without = groups["source"] != REFERENCE
            known = texts_of.where(column.notna(), "")[column.notna() | without]
            varies = pd.Series(
                [known.ne(known.iloc[0]).any() if len(known) else False] * len(groups), index=groups.index
            )
        if always and key in main:
            varies = varies | (groups["inner"] != "") | (key in LEARNING_RATES)
        shown = column.notna() & varies
        told = column[shown].map(lambda value, key=key: f" {setting(key, value)}")
        texts[shown] += told.astype(str)  # of no rows, it is of numbers, which pyarrow does not add to text
    return texts.str.strip()


def symbol(key: str) -> str:
    """What a setting is called."""
    name = key.removeprefix("optimizer.").removeprefix("inner.").removesuffix(".name")
    return SYMBOLS.get(name, name)


def setting(key: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{symbol(key)}={text or 'not set'}"
