"""The theory's figures, in the house style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nested_lookahead.drawing import SMALL, STYLE, grid, new_figure
from nested_lookahead.methods import METHODS
from nested_lookahead.theory.findings import BY_DEPTH, FLOOR, STANDARD, Watch, least_variance, rate_for, unwatched
from nested_lookahead.theory.moments import cycles, moments, steady_variance
from nested_lookahead.theory.tuning import Problem, Tuned, tune

COLORS = dict(
    zip(
        BY_DEPTH,
        (METHODS[name].color for name in ("sgd", "lookahead", "nested_lookahead", "multilayer_lookahead")),
        strict=True,
    )
)


RIVAL_LOOKS: dict[str, dict[str, Any]] = {
    "one Nesterov layer (SNOO)": {"color": COLORS["best Lookahead"], "ls": "--"},
    "nested, outer Nesterov": {"color": COLORS["best nested"], "ls": "--"},
    "EMA of the iterates": {"color": "#595959", "ls": "--"},
    "Polyak average, rate γ ((t + 1) / T)^p": {"color": "#595959", "ls": "-."},
    FLOOR: {"color": "#595959", "ls": ":"},  # last, so that its name is below that of the average that comes near it
}
"""Those that are drawn beside the methods by depth; a tail average lies between the two others."""


def risk_against_horizon(chosen: dict[Any, Tuned], rivals: dict[tuple[str, int], float]) -> Figure:
    """Left the risk of each tuned method, right as a share of SGD's; of rivals, too, where there are some."""
    risks = {cell: tuned.risk for cell, tuned in chosen.items()} | rivals
    looks = {name: {"color": color} for name, color in COLORS.items()} | RIVAL_LOOKS
    with mpl.rc_context(STYLE):
        figure, (left, right) = new_figure(1, 2, 3.4 if rivals else 2.8)
        for method, look in looks.items():
            horizons = sorted(steps for name, steps in risks if name == method)
            if not horizons:
                continue
            values = np.array([risks[method, steps] for steps in horizons])
            of_sgd = 100 * values / [risks["SGD", steps] for steps in horizons]
            left.loglog(horizons, values, marker="o", markersize=3, **look)
            right.semilogx(horizons, of_sgd, marker="o", markersize=3, **look)
            beside = horizons[-1] == max(steps for _, steps in risks)
            name = method.removeprefix("best ").removeprefix("of ").split(", rate")[0]
            right.annotate(
                name,
                (horizons[-1], of_sgd[-1]),
                (6, -9 if method == FLOOR else 0) if beside else (-2, -9),
                textcoords="offset points",
                color=look["color"],
                va="center",
                ha="left" if beside else "right",
                fontsize=SMALL,
                annotation_clip=False,
            )
        left.set_ylabel("excess risk")
        right.set_ylabel("% of SGD's")
        for ax in (left, right):
            ax.set_xlabel("horizon (steps)")
            _plain_numbers(ax)
            grid(ax)
        right.margins(y=0.1)
        figure.suptitle("Everything tuned for each horizon: excess risk at its end", x=0.01, ha="left")
    return figure


def _plain_numbers(ax: Axes) -> None:
    """1000 rather than a power of ten, at decades or, on a short axis, in between."""
    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def frontier() -> Figure:
    """One eigenvalue: variance against progress per step, of many settings; SGD is the frontier."""
    with mpl.rc_context(STYLE):
        figure, (ax,) = new_figure(1, 1, 3.2, width=5.0)
        lrs = np.geomspace(0.01, 0.95, 12)
        for method, depth in (("best nested", 2), ("best Lookahead", 1)):
            progress, variance = [], []
            for k in (2, 5, 10, 20):
                for alpha in (0.3, 0.5, 0.8):
                    layers = [(k, alpha)] * depth
                    outer = cycles(lrs, layers)[-1]
                    progress += list(1 - (1 - outer.gap) ** (1 / k**depth))
                    variance += list(outer.steady_variance())
            name = f"{method.removeprefix('best ')}, k and α in a grid"
            ax.loglog(progress, variance, "o", markersize=2.5, alpha=0.7, color=COLORS[method], label=name)
        gap = np.geomspace(7e-4, 0.95, 400)
        ax.loglog(gap, gap / (2 - gap), color=COLORS["SGD"], label="SGD: no other setting lies below")
        ax.set_xlabel("progress: share of the distance that one step takes away")
        ax.set_ylabel("steady variance / σ²")
        ax.legend(loc="lower right", fontsize=SMALL)
        _plain_numbers(ax)
        grid(ax)
        figure.suptitle("One eigenvalue: no depth beats SGD at its own learning rate", x=0.01, ha="left")
    return figure


def two_scales_bound() -> Figure:
    """Least variance of the fast mode against progress on the slow one, by depth, and settings that come near."""
    slow = 1e-3
    with mpl.rc_context(STYLE):
        figure, (ax,) = new_figure(1, 1, 3.2, width=5.0)
        speed = np.geomspace(1e-3, 0.9, 200)
        for depth, color in enumerate(COLORS.values()):
            bound = np.array([least_variance(v, depth) for v in speed])
            name = ("SGD", "one layer", "two layers", "three layers")[depth]
            ax.loglog(speed, bound, color=color, label=f"least with {name}" if depth else "SGD")
        for method, marker, tried in (
            ("best Lookahead", "o", [[(k, alpha)] for k in (5, 20, 50) for alpha in (0.1, 0.3, 0.5, 0.8)]),
            ("best nested", "s", [[(k, a), (k, a)] for k in (5, 20) for a in (0.3, 0.5, 0.8)]),
        ):
            points = []
            for layers in tried:
                for rate in (0.02, 0.05, 0.1, 0.2, 0.4):
                    try:
                        lr = rate_for(layers, rate * slow, slow)
                        points.append((rate, float(steady_variance(lr, layers))))
                    except ValueError:
                        continue
            xs, ys = zip(*points, strict=True)
            label = f"{method.removeprefix('best ')}, k and α in a grid"
            ax.plot(xs, ys, marker, color=COLORS[method], markersize=3, alpha=0.7, label=label)
        ax.set_xlabel("progress on the slow mode per step, in units of its curvature")
        ax.set_ylabel("steady variance of the fast mode / σ²")
        ax.legend(loc="upper left", fontsize=SMALL)
        _plain_numbers(ax)
        grid(ax)
        figure.suptitle("Two time scales: each layer lowers what noise must remain", x=0.01, ha="left")
    return figure


def read_out() -> Figure:
    """Fed back, an average lowers the fast mode's variance by so much; read out beside the run, it sends it to 0."""
    speed = np.geomspace(1e-3, 0.9, 200)
    with mpl.rc_context(STYLE):
        figure, (ax,) = new_figure(1, 1, 3.2, width=5.0)
        for depth, color in enumerate(COLORS.values()):
            name = ("SGD", "one layer", "two layers", "three layers")[depth]
            ax.loglog(speed, [least_variance(v, depth) for v in speed], color=color, label=name)
        for decay, style in ((0.9, ":"), (0.99, "--"), (0.999, "-.")):
            rate = 1 - speed
            variance = speed / (2 - speed) * (1 - decay) / (1 + decay) * (1 + rate * decay) / (1 - rate * decay)
            ax.loglog(speed, variance, color="#595959", ls=style, label=f"SGD, its EMA {decay:g} read out")
        ax.set_xlabel("progress on the slow mode per step, in units of its curvature")
        ax.set_ylabel("least steady variance of the fast mode / σ²")
        ax.legend(loc="upper left", fontsize=SMALL)
        _plain_numbers(ax)
        grid(ax)
        figure.suptitle("Fed back, each layer halves it at most; read out, it goes to 0", x=0.01, ha="left")
    return figure


def along_the_cycle(lr: float = 0.1) -> Figure:
    """Variance of fast, slow and outer weights at each step of a cycle of Nested Lookahead, in the steady state."""
    (k, _), (s, _) = layers = STANDARD
    at_sync = steady_variance(lr, layers)
    steps = np.arange(2 * k * s + 1)
    with mpl.rc_context(STYLE):
        figure, (ax,) = new_figure(1, 1, 2.9, width=5.6)
        names = ("fast weights", "inner slow weights", "outer slow weights")
        colors = (COLORS["SGD"], COLORS["best Lookahead"], COLORS["best nested"])
        for weights, (name, color) in enumerate(zip(names, colors, strict=True)):
            values = [float(moments(lr, layers, int(step), 0.0, at_sync, weights=weights).variance) for step in steps]
            ax.step(steps, values, where="post", color=color, lw=1.4)
            _name_beside(ax, name, steps[-1], values[k * s - 1], color)
        sgd = float(steady_variance(lr, ()))
        ax.axhline(sgd, color="#595959", lw=0.8, ls=":")
        _name_beside(ax, "SGD", steps[-1], sgd, "#595959")
        ax.set_xlabel(f"fast steps (two cycles of k = {k}, s = {s})")
        ax.set_ylabel("variance / σ²")
        ax.set_ylim(0)
        ax.set_xlim(0, steps[-1])
        grid(ax)
        figure.suptitle(f"What is evaluated, and when: steady variance at γ = {lr:g}", x=0.01, ha="left")
    return figure


def _name_beside(ax: Axes, name: str, x: float, y: float, color: str) -> None:
    place: Any = {"xytext": (5, 0), "textcoords": "offset points", "annotation_clip": False}
    ax.annotate(name, (x, y), color=color, va="center", fontsize=SMALL, **place)


def nested_over_lookahead(problem: Problem, steps: int, lookahead: Tuned, watch: Watch = unwatched) -> Figure:
    """Risk of nested as a share of the best Lookahead's: over (k, s) with the rest tuned, and over (α, h) there."""
    periods = [k for k in (2, 4, 5, 10, 20, 25, 50) if steps % k == 0]
    alphas = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    pairs = [(k, s) for k in periods for s in periods if steps % (k * s) == 0]
    tuned = {pair: tune(problem, steps, pair) for pair in watch(pairs, "map over k and s")}
    best = min(tuned, key=lambda pair: tuned[pair].risk)
    cells = [(alpha, h) for alpha in alphas for h in alphas]
    fixed = {cell: tune(problem, steps, best, alphas=cell) for cell in watch(cells, "map over α and h")}
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(1, 2, 3.1)
        for ax, found, names, across in (
            (axes[0], tuned, ("k", "s"), periods),
            (axes[1], fixed, ("α", "h"), alphas),
        ):
            _map(figure, ax, found, names, across, lookahead)
        axes[0].set_title("α, h and γ tuned in each cell", loc="left")
        axes[1].set_title(f"k = {best[0]}, s = {best[1]}, γ tuned in each cell", loc="left")
        figure.suptitle(
            f"Nested over best Lookahead, T = {steps}: excess risk in % (below 100: nested is better)",
            x=0.01,
            ha="left",
        )
    return figure


def _map(
    figure: Figure, ax: Any, found: dict[Any, Tuned], names: tuple[str, str], across: Sequence[float], lookahead: Tuned
) -> None:
    values = np.full((len(across), len(across)), np.nan)
    for (x, y), tuned in found.items():
        values[across.index(y), across.index(x)] = 100 * tuned.risk / lookahead.risk
    far = 6  # beyond that it is clear
    image = ax.imshow(
        values, origin="lower", cmap="PuOr_r", norm=TwoSlopeNorm(100, 100 - far, 100 + far), aspect="auto"
    )
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            shown = f"{value:.1f}" if value < 200 else f"{value:.0f}"
            dark = abs(value - 100) > 0.6 * far
            ax.text(column, row, shown, ha="center", va="center", fontsize=5.5, color="white" if dark else "black")
    ax.set_xticks(range(len(across)), [f"{value:g}" for value in across])
    ax.set_yticks(range(len(across)), [f"{value:g}" for value in across])
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    figure.colorbar(image, ax=ax, shrink=0.8, extend="max")


def risk_against_communication(risks: dict[tuple[str, int, int], float], steps: int) -> Figure:
    """A panel for each way in which workers differ: tuned risk against how often all of them communicate."""
    names = list(dict.fromkeys(name for name, _, _ in risks))
    looks = {
        "one layer over all": (None, {"color": COLORS["best Lookahead"], "marker": "o"}),
        "nested, means in groups every 10 steps": (10, {"color": COLORS["best nested"], "marker": "s", "ls": "--"}),
        "nested, means in groups every step": (1, {"color": COLORS["best nested"], "marker": "o"}),
    }
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(1, len(names), 2.8, sharey=True)
        for ax, name in zip(axes, names, strict=True):
            for label, (inner, look) in looks.items():
                cells = {K: risk for (of, K, k), risk in risks.items() if of == name and k == (inner or K)}
                order = sorted(cells)
                ax.semilogx([steps / K for K in order], [cells[K] for K in order], markersize=3, label=label, **look)
            ax.set_title(f"workers of a group: {name}", fontsize=SMALL)
            ax.set_xlabel(f"means over all workers in {steps} steps")
            grid(ax, "both")
        axes[0].set_ylim(bottom=0)
        axes[0].set_ylabel("excess risk, tuned")
        axes[0].legend(fontsize=SMALL, frameon=False)
    return figure
