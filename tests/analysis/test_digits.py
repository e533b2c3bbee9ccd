"""How finely figures write the metric's numbers: as its own digits, and the difference that matters, ask."""

import re

import pandas as pd
import pytest
from test_figures import GRID, TUNING, WRAPPED, make_task

from nested_lookahead.analysis import figures, page
from nested_lookahead.metric import ACCURACY, Metric

GAIN = Metric("gain", "u", digits=4, delta=0.005)
"""The same recorded values as accuracies have, shown as they are: a hundredth, so that two more digits say as much."""
STUDY = [*TUNING, *GRID, ("lookahead", "sgd", {"k": 5, "alpha": 0.5, "pullback": "none"}), *WRAPPED[3:6]]
NUMBER = re.compile(r"(?<![\w.])[+−-]?\d+(?:\.\d+)?")
OF_DIFFERENCES = {"forest", "tuned", "pooled"}
WITHOUT_VALUES = {"anova", "divergences", "speed"}
"""Figures of shares, counts and ratios, in which the metric's values are in titles alone, if at all."""
OF_ONE_STUDY = [name for name in figures.FIGURES if name not in ("tuning", "cells", "cells_more")]
"""All but those of fair studies: tests/analysis/test_cells.py."""


def drawn(metric, delta=None):
    task = make_task(STUDY, seeds=6, metric=metric, delta=delta, diverged={(len(STUDY) - 1, 5)})
    return task, {name: figure for name in figures.FIGURES if (figure := figures.draw(name, task))}


def said(made):
    """All that a figure says but for the ticks of its axes, line by line."""
    ticks = {id(text) for ax in made.figure.axes for axis in (ax.xaxis, ax.yaxis) for text in axis.get_ticklabels()}
    texts = [t for t in made.figure.findobj(lambda artist: hasattr(artist, "get_text")) if id(t) not in ticks]
    words = [text.get_text() for text in texts if text.get_visible()]
    return [re.sub(r"\s+", " ", text).strip() for text in (*words, made.title, made.caption, made.alt)]


def decimals(number):
    return len(number.partition(".")[2])


def value_of(number):
    return float(number.replace("−", "-"))


@pytest.fixture(scope="module")
def accuracies():
    return drawn(ACCURACY)[1]


@pytest.fixture(scope="module")
def gains():
    return drawn(GAIN)[1]


@pytest.mark.slow
def test_every_figure_is_looked_at(accuracies, gains):
    assert set(accuracies) == set(gains) == {*OF_ONE_STUDY}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ONE_STUDY)
def test_a_hundredth_of_the_scale_has_two_more_digits(accuracies, gains, name):
    """Each number is the same in both, as a setting's is, or a hundredth of the other and as finely rounded."""
    scaled = 0
    for one, other in zip(said(accuracies[name]), said(gains[name]), strict=True):
        pairs = list(zip(NUMBER.findall(one), NUMBER.findall(other), strict=True))
        for a, b in pairs:
            if a == b:
                continue
            unit = 10 ** -decimals(a)
            assert abs(value_of(a) - 100 * value_of(b)) < 1.01 * unit, (one, other)
            assert decimals(b) >= decimals(a) + 2 or value_of(b) * 100 == value_of(a), (one, other)
            scaled += 1
    assert scaled or name in WITHOUT_VALUES


@pytest.mark.slow
def test_a_tiny_difference_that_matters_asks_for_more_digits_everywhere():
    task, made = drawn(ACCURACY, delta=0.0144)
    assert (task.delta, task.metric.digits) == (0.0144, 3)
    assert set(made) == {*OF_ONE_STUDY}
    seen = 0
    for name, figure in made.items():
        for text in said(figure) if name not in WITHOUT_VALUES else ():
            text = re.sub(r"intervals of [\d.% to]+|[\d.]+% CI", "", text)
            found = [n for n in NUMBER.findall(text) if decimals(n)]
            values = [n for n in found if 50 < abs(value_of(n)) < 100 or (name in OF_DIFFERENCES and decimals(n) == 2)]
            coarse = [n for n in values if decimals(n) < 3]
            assert not coarse, (name, text)
            seen += len(values)
    assert seen > 100


def test_digits_have_one_owner():
    assert [ACCURACY.telling(delta).digits for delta in (5, 0.5, 0.3, 0.1, 0.0144, 1e-30, 0)] == [2, 2, 2, 2, 3, 10, 2]
    assert GAIN.telling(0.5) == GAIN
    assert ACCURACY.telling(0.0144).number(97.2) == "97.200"
    assert ACCURACY.text(0.972) == "97.20%"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(97.21564, 2, "97.22"), (97.21564, 3, "97.216"), (1.88123, 4, "1.8812"), (12345.678, 2, "12345.68"),
     (0.01234567, 2, "0.01235"), (-123.45678, 0, "−123.5"), (1230.4, 0, "1230"), (1.5e-7, 2, "1.5e-07"),
     (99.99999, 2, "100"), (3.0, 4, "3")],
)  # fmt: skip
def test_tables_behind_figures_have_four_figures_or_the_metrics_digits(value, digits, text):
    (row,) = page._table(pd.DataFrame({"x": [value]}), digits=digits).rows
    assert row.cells == [text]
