"""What the theory says, as tables: each a deterministic computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from nested_lookahead.signatures import defaults_of
from nested_lookahead.theory.averages import floor
from nested_lookahead.theory.checks import Layers
from nested_lookahead.theory.moments import cycles, moments, steady_variance
from nested_lookahead.theory.replica import replica_rule
from nested_lookahead.theory.rivals import RIVALS, WITH_MOMENTUM, Minimum
from nested_lookahead.theory.rules import lookahead_rule, trajectory
from nested_lookahead.theory.tuning import Problem, Tuned, divisors, periods_of, tune
from nested_lookahead.theory.workers import Workers, communication

BY_DEPTH = ("SGD", "best Lookahead", "best nested", "best of three layers")
"""The methods, by number of layers."""

_NESTED = defaults_of("nested_lookahead.optim.NestedLookahead")

STANDARD: Layers = ((_NESTED["k"], _NESTED["alpha"]), (_NESTED["s"], _NESTED["h"]))
"""The papers' setting: k = s = 5, α = h = 0.5."""

Watch = Callable[[Sequence[Any], str], Iterable[Any]]
"""Goes through a list, and may show how far it is."""


def unwatched(items: Sequence[Any], what: str) -> Iterable[Any]:
    return items


@dataclass(frozen=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def text(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]

        def line(cells: tuple[str, ...]) -> str:
            first, *rest = (
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join([first, *rest]).rstrip()

        return "\n".join([self.title, *(f"  {line(cells)}" for cells in (self.header, *self.rows))])


def best(problem: Problem, steps: int, depth: int, watch: Watch = unwatched, decay: str = "constant") -> Tuned:
    """The best settings of so many layers, over all periods that fit a whole number of times into the horizon.

    Of fewer layers, too, where so many do not fit. The search takes a thinned spectrum, the risk is the whole one's.
    """
    every = periods_of(steps, depth) or periods_of(steps, depth - 1)
    thinned = problem.thinned()
    found = [tune(thinned, steps, periods, decay) for periods in watch(every, f"{BY_DEPTH[depth]}, T = {steps}")]
    one = min(found, key=lambda tuned: tuned.risk)
    return replace(one, risk=problem.risk(one.lr, one.layers, steps, decay))


def described(tuned: Tuned) -> str:
    layers = " ".join(f"({k}, {alpha:.2g})" for k, alpha in tuned.layers)
    return f"γ = {tuned.lr:.3g}{', ' if layers else ''}{layers}"


def horizon_table(
    problem: Problem, horizons: Sequence[int], watch: Watch = unwatched
) -> tuple[Table, dict[Any, Tuned]]:
    """Excess risk of each method, everything tuned for each horizon; and what was chosen, by (method, horizon)."""
    chosen: dict[Any, Tuned] = {}
    for steps in horizons:
        for depth, method in enumerate(BY_DEPTH):
            if depth < 3 or steps <= 1000:
                chosen[method, steps] = best(problem, steps, depth, watch)
        for depth, method in enumerate(("SGD, linear decay", "Lookahead, linear decay", "nested, linear decay")):
            if depth < 1 or steps <= 1000:
                chosen[method, steps] = best(problem, steps, depth, watch, "linear")
    methods = list(dict.fromkeys(method for method, _ in chosen))
    rows = []
    for method in methods:
        cells = [f"{chosen[method, steps].risk:.10f}" if (method, steps) in chosen else "" for steps in horizons]
        longest = max(steps for name, steps in chosen if name == method)
        rows.append((method, *cells, f"{described(chosen[method, longest])} (T = {longest})"))
    header = ("excess risk", *(f"T = {steps}" for steps in horizons), "settings at the longest")
    return Table("Everything tuned, for each horizon", header, rows), chosen


FLOOR = "floor of any linear method"


def rivals_table(
    problem: Problem, horizons: Sequence[int], watch: Watch = unwatched
) -> tuple[Table, dict[tuple[str, int], float]]:
    """Excess risk of what nesting competes with; ``≤`` where no second start came to the same. And the risks alone."""
    cells = [(name, steps) for name in RIVALS for steps in horizons]
    found = {cell: RIVALS[cell[0]](problem, cell[1]) for cell in watch(cells, "rivals")}
    rows = []
    for name in RIVALS:
        rows.append((name, *(_shown(found[name, steps]) for steps in horizons)))
    risks = {cell: one.risk for cell, one in found.items()}
    risks |= {(FLOOR, steps): floor(steps, problem.start, problem.curvature, problem.noise) for steps in horizons}
    rows.append((FLOOR, *(f"{risks[FLOOR, steps]:.6f}" for steps in horizons)))
    return Table("Rivals", ("excess risk", *(f"T = {steps}" for steps in horizons)), rows), risks


def least_variance(rate: float, depth: int) -> float:
    """The least steady variance of the fast mode (a = σ² = 1) at progress rate v on a slow one, over all settings.

    v / (2 − v^(1/(L+1)))^(L+1), approached as k → ∞ (docs/theory.md).
    """
    return float(rate / (2 - rate ** (1 / (depth + 1))) ** (depth + 1))


def rate_for(layers: Layers, slow_rate: float, curvature: float) -> float:
    """The learning rate at which the slow mode keeps 1 − slow_rate of its distance per fast step."""
    period = int(np.prod([k for k, _ in layers], dtype=int))

    def excess(lr: float) -> float:
        gap = float(cycles(lr, layers, curvature)[-1].gap)
        return float(-np.log1p(-gap) / period + np.log1p(-slow_rate))

    return float(brentq(excess, 1e-9, 1.999, xtol=1e-16, rtol=1e-14))


def two_time_scales(slow_rate: float = 1e-4, curvature: float = 0.001) -> Table:
    """Steady variance of the fast mode where all methods move the slow one equally fast."""
    tried = [((k, round(float(alpha), 2)),) for k in range(2, 51) for alpha in np.arange(0.05, 1.0, 0.01)]
    named: list[tuple[str, Layers]] = [("SGD", ()), (f"Lookahead {STANDARD[0]}", STANDARD[:1])]
    least = min(tried, key=lambda layers: _fast_variance(layers, slow_rate, curvature))
    named += [(f"Lookahead {least[0]}, best of a grid", least), (f"nested {', '.join(map(str, STANDARD))}", STANDARD)]
    rows = [
        (name, f"{rate_for(layers, slow_rate, curvature):.6f}", f"{_fast_variance(layers, slow_rate, curvature):.10f}")
        for name, layers in named
    ]
    return Table("Two time scales, equally fast on the slow one", ("", "γ", "variance of the fast mode"), rows)


def _fast_variance(layers: Layers, slow_rate: float, curvature: float) -> float:
    try:
        return float(steady_variance(rate_for(layers, slow_rate, curvature), layers))
    except ValueError:  # not that fast at any stable learning rate
        return float("inf")


def evaluated(lr: float = 0.1, layers: Layers = STANDARD) -> Table:
    """In the steady state of one coordinate, the variance of what one may choose to evaluate."""
    period = int(np.prod([k for k, _ in layers], dtype=int))
    at_sync = steady_variance(lr, layers)
    fast = [moments(lr, layers, step, 0.0, at_sync) for step in range(period)]
    moved = [cycles(lr, ())[0].applied(weights).variance for weights in fast]
    inner = moments(lr, layers, period - 1, 0.0, at_sync, weights=1)
    before = cycles(lr, layers)[1].applied(inner)  # φ as it is just before the outer sync
    rows = [
        ("outer slow weights, at their sync", at_sync),
        ("inner slow weights, just before it", before.variance),
        ("fast weights after each step and its syncs, mean over the cycle", np.mean([now.variance for now in fast])),
        ("fast weights after each step, before its syncs, mean over the cycle", np.mean(moved)),
        ("fast weights before the last inner sync", moved[-1]),
        ("SGD at the same learning rate", steady_variance(lr, ())),
    ]
    return Table(
        "What is evaluated", ("weights", "steady variance"), [(name, f"{float(value):.7f}") for name, value in rows]
    )


def momentum_table(problem: Problem, horizons: Sequence[int], watch: Watch = unwatched) -> Table:
    """Excess risk of the same with momentum in SGD, of 0.9 and tuned; ``≤`` as in `rivals_table`."""
    across = [(steps, momentum) for steps in horizons for momentum in (0.9, None)]
    cells = [(name, *column) for name in WITH_MOMENTUM for column in across]
    found = {cell: WITH_MOMENTUM[cell[0]](problem, cell[1], cell[2]) for cell in watch(cells, "momentum")}
    rows = [(name, *(_shown(found[name, *column]) for column in across)) for name in WITH_MOMENTUM]
    shown = [f"T = {steps}, μ {'tuned' if momentum is None else f'= {momentum}'}" for steps, momentum in across]
    return Table("With momentum in SGD", ("excess risk", *shown), rows)


def _shown(one: Minimum) -> str:
    return f"{'' if one.certified else '≤ '}{one.risk:.6f}"


def replica_table(lr: float = 0.1, steps: int = 50) -> Table:
    """One coordinate, a = σ² = x₀ = 1: what the published script computed, and what Nested Lookahead computes."""
    (k, alpha), (s, h) = STANDARD
    rows = []
    for name, rule in (
        ("the published rule", replica_rule(k, s, alpha, h)),
        ("Nested Lookahead", lookahead_rule(STANDARD)),
    ):
        *_, (mean, covariance) = trajectory([lr] * steps, rule)
        rows.append((name, f"{mean[0]:.4f}", f"{covariance[0, 0]:.4f}"))
    return Table(f"The published rule, after {steps} steps at γ = {lr}", ("", "mean", "variance"), rows)


GROUPS, MEMBERS = 4, 4
DIFFERENCES = {"alike": (0.0, 0.0), "curvatures ± 50%, optima ± 1": (0.5, 1.0)}
"""How workers of a group differ: the spread of their curvatures and the shift of their optima."""


def workers_risks(problem: Problem, steps: int, watch: Watch = unwatched) -> dict[tuple[str, int, int], float]:
    """Tuned risk by how workers differ, outer period K, and inner period k; one layer where k = K."""
    periods = [period for period in divisors(steps) if 10 <= period <= steps // 2]
    cells = [(name, period) for name in DIFFERENCES for period in periods]
    found = {}
    for name, period in watch(cells, "workers"):
        of = Workers.differing(problem.thinned(), GROUPS, MEMBERS, *DIFFERENCES[name])
        for (outer, inner), tuned in communication(of, steps, [period], (1, 10)).items():
            found[name, outer, inner] = tuned.risk
    return found


def workers_table(risks: dict[tuple[str, int, int], float], steps: int) -> Table:
    """Rows by outer period, columns by what there is below it."""
    outer = sorted({period for _, period, _ in risks})
    header = ["steps between means over all", "means over all"]
    rows = [[f"{period}", f"{steps // period}"] for period in outer]
    for name in DIFFERENCES:
        for what, inner in (("one layer", None), ("in groups every 10", 10), ("in groups every step", 1)):
            header.append(f"{name}: {what}")
            for row, period in zip(rows, outer, strict=True):
                risk = risks.get((name, period, period if inner is None else inner))
                row.append("–" if risk is None else f"{risk:.4f}")
    title = f"Excess risk of {GROUPS * MEMBERS} workers in {GROUPS} groups after {steps} steps, tuned"
    return Table(title, tuple(header), [tuple(row) for row in rows])
