"""The methods: what each is called, and its colour and marker, in every table and figure. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from typing import Any

from nested_lookahead.signatures import defaults_of

Marker = str | tuple[int, int]
"""As matplotlib has them."""


@dataclass(frozen=True)
class Method:
    """An optimizer by the ``name`` that its configuration has.

    ``shown``: what people read; ``color``: of all that shows it; ``marker``: of the lines of a method that has it as
    its inner optimizer; ``factory``: the class whose defaults are the method's own settings.
    """

    name: str
    shown: str
    color: str
    marker: Marker
    factory: str = ""


PLAIN: Marker = "o"
"""The marker of a method without an inner optimizer."""

_OPTIM = "nested_lookahead.optim"

# Colours of the first eight differ by ΔE ≥ 10 (CIEDE2000), pairwise, as anyone sees them: simulated with protanopia,
# deuteranopia and tritanopia (Machado et al. 2009), and without. So do the spare ones; those of the other methods keep
# a distance of 8 from the first eight, and those that studies compare with one another one of 11 (29 between Lookahead
# and SNOO). All have a contrast of 3:1 on white. The first four are from Okabe and Ito's
# palette, in which the others would be too pale for lines; the rest was found by a search.
METHODS = {
    method.name: method
    for method in (
        Method("sgd", "SGD", "#000000", "s"),
        Method("adam", "Adam", "#009E73", "^"),
        Method("lookahead", "Lookahead", "#0072B2", PLAIN, f"{_OPTIM}.Lookahead"),
        Method("nested_lookahead", "Nested Lookahead", "#D55E00", PLAIN, f"{_OPTIM}.NestedLookahead"),
        Method("nesterov", "Nesterov", "#5A2D87", "P"),
        Method("adamw", "AdamW", "#0F5A3C", "v"),
        Method("multilayer_lookahead", "Multilayer Lookahead", "#C378A5", PLAIN, f"{_OPTIM}.MultilayerLookahead"),
        Method("rmsprop", "RMSprop", "#694B00", "X"),
        Method("nadam", "NAdam", "#785A87", "<"),
        Method("radam", "RAdam", "#87964B", ">"),
        Method("adagrad", "Adagrad", "#A51E3C", "p"),
        Method("muon", "Muon with AdamW", "#6E2921", (4, 1)),
        Method("snoo", "SNOO", "#000B42", PLAIN),
        Method("slowmo", "SlowMo", "#8B52FA", PLAIN),
        Method("nested_momentum", "Nested Lookahead, outer momentum", "#2C00DC", PLAIN),
        Method("schedule_free", "Schedule-Free SGD", "#5D2B58", PLAIN),
        Method("nested_lookahead_replica", "Nested Lookahead replica", "#A55A2D", PLAIN),
    )
}
"""In the order in which they are shown."""

SPARE_COLORS = ("#A578FF", "#78784B", "#4B0F00", "#0F0069", "#697878", "#5A5A69", "#2D3C3C", "#2D0F2D")
SPARE_MARKERS: tuple[Marker, ...] = ("D", "*", "h", "8", "d", "H", (5, 1))
"""For methods that the table does not know. The numbers of both have no common factor, so that pairs repeat late."""


def assign(names: Iterable[str]) -> dict[str, Method]:
    """The method of each name. Those that `METHODS` has not get the spare colours and markers, in alphabetical order.

    With more unknown names than spare colours, colours repeat: nothing refuses to be drawn.
    """
    wanted = sorted(set(names))
    unknown = [name for name in wanted if name not in METHODS]
    spare = zip(unknown, cycle(SPARE_COLORS), cycle(SPARE_MARKERS), strict=False)
    return {name: METHODS[name] for name in wanted if name in METHODS} | {
        name: Method(name, name, color, marker) for name, color, marker in spare
    }


def method(name: str) -> Method:
    """The method of one name, where no other unknown one is beside it."""
    return assign([name])[name]


@cache
def default_settings() -> Mapping[str, Any]:
    """The papers' settings, as the optimizers' signatures have them; None, which leaves a setting alone, is none."""
    found = [defaults_of(method.factory) for method in METHODS.values() if method.factory]
    return {key: value for one in found for key, value in one.items() if value is not None}
