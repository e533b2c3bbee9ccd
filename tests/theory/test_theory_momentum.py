"""Moments with momentum and pullback: their vectors, and slow weights and caches written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nested_lookahead import theory
from nested_lookahead.optim import PULLBACK_MODES
from nested_lookahead.theory.momentum import BUFFER_SHARES

ONE, TWO = [(5, 0.5)], [(5, 0.5), (5, 0.5)]
LAYERS = st.lists(st.tuples(st.integers(1, 4), st.floats(0.1, 1.0)), max_size=3)
MODE = st.sampled_from(["none", "reset", "pullback"])

HEAVY_BALL = [
    ([], "none", False, (0.513513513514, -0.270270270270, 5.405405405405), None),
    (
        ONE,
        "pullback",
        False,
        (0.101180524265, -0.092368671758, 0.719542030419),
        (0.007566500956, 0.101172661455),
    ),
    (TWO, "none", False, (0.043643483860, -0.019822211517, 2.850222034387), (0.259384072815, 0.040716392568)),
    (TWO, "reset", False, (0.025505776729, 0, 0), (0.263657517546, 0.023732735351)),
    (TWO, "pullback", False, (0.031540392026, -0.029175239629, 0.226461184502), (0.207433303047, 0.030212303227)),
    (
        TWO,
        ("pullback", "none"),
        False,
        (0.031494358964, -0.045155959445, 0.719796839312),
        (0.207348385874, 0.030158551038),
    ),
    (TWO, "none", True, (0.035738794402, -0.065094385162, 2.145875315437), (0.245630339390, 0.033618626981)),
]


@pytest.mark.parametrize(("layers", "pullback", "nesterov", "steady", "after_50"), HEAVY_BALL)
def test_momentum(layers, pullback, nesterov, steady, after_50):
    stages = theory.transitions(0.1, layers, momentum=0.9, nesterov=nesterov, pullback=pullback)
    covariance = stages[-1].steady_covariance()
    assert (covariance[0, 0], covariance[0, 1], covariance[1, 1]) == pytest.approx(steady, abs=1e-12)
    if after_50:
        state = theory.momentum_moments(stages, layers, 50, theory.State(np.array([1.0, 0.0]), np.zeros((2, 2))))
        assert (state.mean[0], state.covariance[0, 0]) == pytest.approx(after_50, abs=1e-12)


def test_there_is_a_rule_for_each_pullback_mode():
    assert tuple(BUFFER_SHARES) == PULLBACK_MODES


@settings(max_examples=60, deadline=None)
@given(LAYERS, st.floats(0.01, 1.9), st.integers(0, 60), st.floats(0, 0.95), MODE, st.booleans())
def test_closed_forms_equal_explicit_slow_weights_and_caches(layers, lr, steps, momentum, pullback, nesterov):
    """At any step of a cycle, for several coordinates and starts at once."""
    curvature, noise, start, spread = np.array([1.0, 0.3, 0.01]), np.array([1.0, 2.0, 0.0]), 1.5, 0.2
    stages = theory.transitions(lr, layers, curvature, noise, momentum, nesterov, pullback)
    at_first = theory.State(
        np.tile([start, 0.0], (3, 1)), np.broadcast_to(np.diag([spread, 0.0]), (3, 2, 2)).astype(float)
    )
    state = theory.momentum_moments(stages, layers, steps, at_first)
    rule = theory.lookahead_rule(layers, pullback)
    mean, covariance = at_first.mean, at_first.covariance
    for mean, covariance in theory.trajectory(  # noqa: B007
        [lr] * steps, rule, start, spread, curvature, noise, momentum, nesterov
    ):
        pass
    scale = max(1.0, np.abs(covariance[:, :2, :2]).max(), np.abs(mean[:, :2]).max())
    np.testing.assert_allclose(state.mean, mean[:, :2], rtol=1e-10, atol=1e-10 * scale)
    np.testing.assert_allclose(state.covariance, covariance[:, :2, :2], rtol=1e-10, atol=1e-10 * scale)
    if momentum == 0 and pullback == "none":
        for weights in range(len(layers) + 1):
            x = theory.moments(lr, layers, steps, start, spread, curvature, noise, weights)
            if steps:
                np.testing.assert_allclose(x.mean, mean[:, 2 * weights], rtol=1e-10, atol=1e-12)
                np.testing.assert_allclose(x.variance, covariance[:, 2 * weights, 2 * weights], rtol=1e-10, atol=1e-12)
