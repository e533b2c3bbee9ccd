"""What methods and settings are called in tables and figures."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nested_lookahead.records import BOOKKEEPING, FEEDERS

NAMES = {
    "sgd": "SGD",
    "nesterov": "Nesterov",
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "lookahead": "Lookahead",
    "nested_lookahead": "Nested Lookahead",
    "multilayer_lookahead": "Multilayer Lookahead",
    "published_nested_lookahead": "Nested Lookahead as published",
}
SYMBOLS = {
    "optimizer.lr": "lr",
    "optimizer.inner.lr": "lr",
    "optimizer.k": "k",
    "optimizer.alpha": "α",
    "optimizer.s": "s",
    "optimizer.h": "h",
    "optimizer.layers": "layers",
    "optimizer.pullback": "pullback",
}
"""Settings that a table always shows, where a method has them."""

SAID_ELSEWHERE = ("optimizer.name", "optimizer.inner.name", "dataset.name", "model.name", "seed", *FEEDERS)
"""Keys whose values the method's or the task's name already has, or that a group does not share."""


def method_name(method: str, inner: str) -> str:
    """Such as ``Nested Lookahead (Adam)``."""
    name = NAMES.get(method, method)
    return f"{name} ({NAMES.get(inner, inner)})" if inner else name


def in_order(groups: pd.DataFrame) -> pd.DataFrame:
    """Groups by method, in the order of `NAMES`, then by pullback and by the values of their settings."""
    order = {name: rank for rank, name in enumerate(NAMES)}
    ranked = groups.assign(
        method=groups["method"].map(order).fillna(len(order)), inner=groups["inner"].map(order).fillna(-1)
    )
    keys = ["method", "inner", "pullback", *(f"config.{key}" for key in setting_keys(groups))]
    return groups.loc[ranked.sort_values(keys, key=_comparable).index]


def _comparable(column: Any) -> Any:
    return column if pd.api.types.is_numeric_dtype(column) else column.astype(str)


def setting_keys(groups: pd.DataFrame) -> list[str]:
    """Keys of the flattened configuration that set something, the optimizers' own first."""
    keys = [str(c).removeprefix("config.") for c in groups.columns if str(c).startswith("config.")]
    keys = [key for key in keys if key not in (*SAID_ELSEWHERE, *BOOKKEEPING) and not key.endswith("_target_")]
    return [key for key in SYMBOLS if key in keys] + [key for key in keys if key not in SYMBOLS]


def settings(groups: pd.DataFrame, always: bool) -> pd.Series[str]:
    """The settings of each group (row), as ``k=5 α=0.5``: those that tell groups of a method, or methods, apart.

    With ``always``, the periods, step sizes and pullback too where they are the same in all.
    """
    texts = pd.Series("", index=groups.index)
    for key in setting_keys(groups):
        column = groups[f"config.{key}"]
        texts_of = column.astype(str)
        if key.startswith("optimizer."):
            varies = texts_of.groupby([groups["method"], groups["inner"]]).transform("nunique") > 1
        else:  # what is not the method's own must not differ between methods unseen
            known = texts_of[column.notna()]  # a published run tells little of its settings
            varies = pd.Series(
                [known.ne(known.iloc[0]).any() if len(known) else False] * len(groups), index=groups.index
            )
        shown = column.notna() & (varies | (always and key in SYMBOLS))
        symbol = SYMBOLS.get(key) or key.removeprefix("optimizer.").removeprefix("inner.").removesuffix(".name")
        texts[shown] += column[shown].map(lambda value, symbol=symbol: f" {_setting(symbol, value)}")
    return texts.str.strip()


def _setting(symbol: str, value: object) -> str:
    return f"{symbol}={value:g}" if isinstance(value, float) else f"{symbol}={value}"
