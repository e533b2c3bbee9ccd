"""What is asked of a study: what it has fixed beforehand, unless a reader says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nested_lookahead.analysis.collect import Study

DEFAULTS: dict[str, Any] = {"delta": None, "target": None, "baseline": None, "compare": "baseline"}
SHOWN = {"delta": "δ", "target": "target", "baseline": "baseline", "compare": "family"}


@dataclass(frozen=True)
class Plan:
    """``delta`` in points, or in the metric; None: the metric's own. ``target`` in %, or in the metric;
    ``baseline`` and ``compare`` as in `opponents.pairs`.

    ``fixed``: what the study had said of it before its runs, in words; ``changed``: where the analysis departs from it.
    """

    delta: float | None
    target: float | None
    baseline: str | None
    compare: str
    fixed: str = ""
    changed: Sequence[str] = ()


def plan(study: Study, **asked: Any) -> Plan:
    """What a reader asks (None: nothing in particular), else what all runs of the study have recorded, else the usual.

    Where the runs have recorded different things, nothing was fixed, and that is said.
    """
    chosen, fixed, changed = {}, [], []
    for key, usual in DEFAULTS.items():
        column = study.runs.get(f"config.analysis.{key}")
        found = [] if column is None else list(dict.fromkeys(column.dropna()))
        name = SHOWN[key]
        if len(found) > 1:
            changed.append(f"the runs were made for different values of {name}: {', '.join(map(_text, found))}")
        elif found:
            fixed.append(f"{name} = {_text(found[0])}")
            usual = found[0]
        value = asked.get(key)
        if value is not None and len(found) == 1 and value != found[0]:
            changed.append(f"{name} = {_text(value)} is not what the study fixed beforehand, {_text(found[0])}")
        chosen[key] = usual if value is None else value
    said = f"fixed beforehand: {', '.join(fixed)}" if fixed else ""
    return Plan(**chosen, fixed=said, changed=tuple(changed))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
