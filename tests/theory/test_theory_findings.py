"""What the theory finds: tuned settings, bounds, and what is evaluated."""

import numpy as np
import pytest

from nested_lookahead import theory
from nested_lookahead.theory import findings
from nested_lookahead.theory.rivals import RIVALS, WITH_MOMENTUM, risk_at, risk_by_impulses
from nested_lookahead.theory.slow_momentum import SlowLayer
from nested_lookahead.theory.tuning import Problem, tune


def test_the_standard_setting_is_the_papers():
    assert findings.STANDARD == ((5, 0.5), (5, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "depth", "risk"),
    [
        (100, 0, 1.5558486002),
        (1000, 0, 0.6964038772),
        (10000, 0, 0.1879234956),
        (100, 1, 1.5087440634),
        (1000, 1, 0.6320798644),
        (100, 2, 1.4938250327),
    ],
)
def test_tuned_risks(steps, depth, risk):
    assert findings.best(Problem.power_law(), steps, depth).risk == pytest.approx(risk, abs=1e-10)


def test_the_settings_of_the_best_nested_at_a_thousand_steps():
    tuned = tune(Problem.power_law(), 1000, (25, 5))
    assert tuned.risk == pytest.approx(0.6077954473, abs=1e-10)
    for change in (0.9, 1.1):  # it is a minimum
        layers = [(k, alpha * change) for k, alpha in tuned.layers]
        assert Problem.power_law().risk(tuned.lr, layers, 1000) > tuned.risk
        assert Problem.power_law().risk(tuned.lr * change, tuned.layers, 1000) > tuned.risk


@pytest.mark.parametrize("steps", [100, 1000])
def test_without_noise_to_average_away_tuning_returns_sgd(steps):
    """x₀² = 1/a: the way to the optimum dominates."""
    problem = Problem.power_law(start_power=1.0)
    assert findings.best(problem, steps, 1).risk == pytest.approx(tune(problem, steps).risk, rel=1e-9)


@pytest.mark.slow
def test_two_time_scales():
    table = {row[0]: float(row[2]) for row in findings.two_time_scales().rows}
    assert table["SGD"] == pytest.approx(0.0526315789, abs=1e-10)
    assert table["Lookahead (5, 0.5)"] == pytest.approx(0.0443393972, abs=1e-10)
    assert table["nested (5, 0.5), (5, 0.5)"] == pytest.approx(0.0301033560, abs=1e-10)
    (best,) = (value for name, value in table.items() if "best of a grid" in name)
    assert best == pytest.approx(0.0353729147, rel=1e-4)
    bounds = [findings.least_variance(0.1, depth) for depth in range(3)]
    assert bounds == pytest.approx([0.0526315789, 0.0352722621, 0.0276033079], abs=1e-10)
    # and nothing gets below it, however close
    slow = 1e-9
    for depth, alphas in ((1, np.sqrt(0.1)), (2, np.cbrt(0.1))):
        layers = [(60, float(alphas))] * depth
        variance = float(theory.steady_variance(findings.rate_for(layers, 0.1 * slow, slow), layers))
        assert findings.least_variance(0.1, depth) < variance < 1.01 * findings.least_variance(0.1, depth)


def test_what_is_evaluated():
    values = [float(value) for _, value in findings.evaluated().rows]
    assert values == pytest.approx([0.0092613, 0.0218928, 0.0278198, 0.0325340, 0.0416255, 0.0526316], abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "risk"),
    [
        ("one Nesterov layer (SNOO)", 10, 2.447675563),
        ("EMA of the iterates", 100, 1.262340025),
        ("Schedule-Free SGD", 100, 1.268953558),
        ("Polyak average, rate γ ((t + 1) / T)^p", 100, 1.243455599),
        ("Polyak average, rate γ ((t + 1) / T)^p", 1000, 0.363811569),
    ],
)
def test_rivals(name, steps, risk):
    found = RIVALS[name](Problem.power_law(), steps)
    assert found.risk == pytest.approx(risk, rel=1e-7)
    assert found.certified


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "momentum", "risk"),
    [
        ("SGD, linear decay", 0.9, 1.447016),
        ("Lookahead", None, 1.276169),
        ("nested", 0.9, 1.288283),
        ("EMA of the iterates", 0.9, 1.308179),
        ("tail average", None, 1.268954),
    ],
)
def test_rivals_with_momentum(name, momentum, risk):
    found = WITH_MOMENTUM[name](Problem.power_law(), 100, momentum)
    assert found.risk == pytest.approx(risk, abs=1e-6)
    assert found.certified


@pytest.mark.parametrize("coordinates", [1, 2, 8, 9, 31, 100, 1000])
@pytest.mark.parametrize("start_power", [0.0, 1.0])
def test_a_thinned_spectrum_has_the_same_risks(coordinates, start_power):
    """Where the search goes: from a lone step to the steady state, and up to the bounds of stability."""
    problem = Problem.power_law(coordinates, start_power=start_power)
    thinned = problem.thinned()
    assert len(thinned.curvature) <= min(coordinates, 8 * coordinates.bit_length())
    for lr, layers, momentum in (
        (0.5, [SlowLayer(5, 0.5), SlowLayer(2, 0.5, 0.5)], 0.0),
        (1.9, [SlowLayer(2, 0.9, 0.9)], 0.0),
        (1.3, [SlowLayer(5, 0.05)], 0.9),
        (0.3, [SlowLayer(5, 0.006)], 0.997),
    ):
        for steps in (1, 10, 137, 10_000):
            whole = risk_at(problem, steps, lr, layers, momentum)
            assert risk_at(thinned, steps, lr, layers, momentum) == pytest.approx(whole, rel=1e-7)


def test_a_tuned_risk_is_what_the_impulses_give():
    problem = Problem.power_law(100)
    layers = [SlowLayer(5, 0.71), SlowLayer(2, 0.26, 0.68)]
    assert risk_by_impulses(problem, 100, 0.67, layers) == pytest.approx(risk_at(problem, 100, 0.67, layers), rel=1e-11)


@pytest.mark.slow
def test_minima_that_a_coarser_search_had_missed():
    problem = Problem.power_law()
    assert tune(problem, 1000, (10, 5, 4)).risk == pytest.approx(0.5983146025, abs=1e-9)
    assert tune(problem.thinned(), 1000, (50,), decay="linear").risk == pytest.approx(0.4465176826, abs=1e-9)
    assert tune(problem, 10, (10,), decay="linear").risk == pytest.approx(2.39574978, abs=1e-7)
