"""Moments without momentum: their vectors, identities, and chance."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nested_lookahead import theory

ONE, TWO = [(5, 0.5)], [(5, 0.5), (5, 0.5)]
LAYERS = st.lists(st.tuples(st.integers(1, 4), st.floats(0.1, 1.0)), max_size=3)


@pytest.mark.parametrize(
    ("lr", "layers", "curvature", "noise", "r", "q", "variance"),
    [
        (0.1, ONE, 1, 1, 0.795245000000, 0.00857002052500, 0.023314366563),
        (0.1, [(5, 0.8)], 1, 1, 0.672392000000, 0.02193925254400, 0.040043243450),
        (0.1, TWO, 1, 1, 0.659028418651, 0.00523897042581, 0.009261342334),
        (0.5, TWO, 1, 1, 0.518223837484, 0.02831285370331, 0.038708160301),
        (1.5, TWO, 1, 1, 0.513331487309, 0.24456285520515, 0.332065058345),
        (0.3, [(10, 0.3), (3, 0.7)], 0.5, 2, 0.606147235939, 0.01311697136541, 0.020735490740),
        (0.4, [(3, 0.5), (2, 0.6), (2, 0.4)], 1, 1, 0.754653300097, 0.00651820161253, 0.015141058975),
    ],
)
def test_cycles(lr, layers, curvature, noise, r, q, variance):
    outermost = theory.cycles(lr, layers, curvature, noise)[-1]
    assert 1 - outermost.gap == pytest.approx(r, abs=1e-12)
    assert outermost.noise == pytest.approx(q, abs=1e-14)
    assert theory.steady_variance(lr, layers, curvature, noise) == pytest.approx(variance, abs=1e-12)


def test_a_finite_horizon():
    mean, variance = theory.moments(0.1, TWO, steps=100)
    assert mean == pytest.approx(0.188632521734, abs=1e-12)
    assert variance == pytest.approx(0.00893180313756, abs=1e-14)


def test_identities():
    assert theory.steady_variance(0.1, [(5, 1.0), (5, 0.5)]) == pytest.approx(0.018363883307, abs=1e-12)
    assert theory.steady_variance(0.1, [(5, 1.0), (5, 0.5)]) == pytest.approx(
        theory.steady_variance(0.1, [(25, 0.5)]), rel=1e-13
    )
    assert theory.steady_variance(0.1, []) == pytest.approx(0.1 / 1.9, rel=1e-14)

    def share(x):
        return (1 - x) / (1 + x)

    layers = [(3, 0.5), (2, 0.6), (4, 0.3)]  # the product form, of which Proposition 2 is one layer
    stages = theory.cycles(0.4, layers, 0.7, 1.3)
    rates = [1 - stage.gap for stage in stages]
    product = 1.3 * share(rates[0])
    for (k, _), below, rate in zip(layers, rates[:-1], rates[1:], strict=True):
        product *= share(rate) / share(below**k)
    assert theory.steady_variance(0.4, layers, 0.7, 1.3) == pytest.approx(product, rel=1e-12)


@pytest.mark.parametrize("layers", [[], [(5, 0.4)], [(3, 0.5), (2, 0.6), (5, 0.4)]])
def test_scheduled_moments(layers):
    curvature, noise = theory.power_law(4)
    rates = 0.3 + 0.2 * np.sin(np.arange(60))
    now = theory.scheduled_moments(rates, layers, 1.5, 0.2, curvature, noise)
    *_, (mean, covariance) = theory.trajectory(rates, theory.lookahead_rule(layers), 1.5, 0.2, curvature, noise)
    np.testing.assert_allclose(now.mean, mean[:, 0], rtol=1e-10)
    np.testing.assert_allclose(now.variance, covariance[:, 0, 0], rtol=1e-10)
    if layers:
        with pytest.raises(ValueError, match="61 steps are no whole number of cycles of"):
            theory.scheduled_moments(np.ones(61), layers)


def test_slow_modes_keep_their_digits():
    """At a curvature of 1e-12, 1 − r² has no digits left in float64 unless it is kept as a gap."""
    # To first order in the curvature a cycle has the gap α k γ a and the noise α² k (γ a)² σ², layer by layer.
    variance = theory.steady_variance(0.1, [(5, 0.5), (5, 0.4)], 1e-12, 1.0)
    assert variance == pytest.approx(0.5 * 0.4 * 0.1 * 1e-12 / 2, rel=1e-9, abs=0)


def kept_share(layers, lr):
    """What a cycle leaves of x, exactly: 1 − gap has no digits left where the gap is nearly 1."""
    r = 1 - Fraction(lr)
    for k, alpha in layers:
        r = 1 - Fraction(alpha) + Fraction(alpha) * r**k
    return r


@settings(max_examples=200, deadline=None)
@given(LAYERS.filter(len), st.floats(0.05, 1.9))
@example(layers=[(2, 1.0), (4, 1.0)], lr=0.9609375)
def test_one_eigenvalue_no_depth_beats_sgd(layers, lr):
    """SGD that keeps q per step has the variance (1 − q) / (1 + q); here q^steps = |r|. No roots are taken."""
    variance = Fraction(float(theory.cycles(lr, layers)[-1].steady_variance())) / Fraction(1 - 1e-12)
    steps = math.prod(k for k, _ in layers)
    assert variance >= 1 or abs(kept_share(layers, lr)) >= ((1 - variance) / (1 + variance)) ** steps


def test_monte_carlo():
    """100,000 chains of explicit Lookahead; |z| of mean and variance below 4, which chance exceeds once in 8,000."""
    rng = np.random.default_rng(0)
    n, lr, k, s, alpha, h = 100_000, 0.4, 3, 2, 0.5, 0.7
    x = rng.normal(1.0, 0.5, n)
    slow, outer = x.copy(), x.copy()
    for step in range(1, 16):
        x = x - lr * 0.8 * (x - rng.normal(0, 1.3, n))
        if step % k == 0:
            slow = slow + alpha * (x - slow)
            x = slow
        if step % (k * s) == 0:
            outer = outer + h * (slow - outer)
            x = slow = outer
    mean, variance = theory.moments(lr, [(k, alpha), (s, h)], 15, 1.0, 0.25, 0.8, 1.69)
    assert abs(x.mean() - mean) / np.sqrt(variance / n) < 4
    assert abs(x.var() - variance) / (variance * np.sqrt(2 / n)) < 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.steady_variance(2.0, ONE), r"unstable: lr must be in \(0, 2 / curvature\)"),
        (lambda: theory.steady_variance(0.1, ONE, [1.0, 0.0]), "unstable"),
        (lambda: theory.transitions(5.0, ONE, momentum=0.5)[-1].steady_covariance(), "unstable: no steady state"),
        (lambda: theory.cycles(-0.1, ONE), "lr must be finite and >= 0, got -0.1"),
        (lambda: theory.cycles(0.1, ONE, []), "curvature must not be empty"),
        (lambda: theory.cycles(0.1, ONE, 1.0, np.nan), "noise must be finite and >= 0"),
        (lambda: theory.cycles(0.1, [(5, 0.0)]), r"alpha must be in \(0, 1\], got 0.0"),
        (lambda: theory.cycles(0.1, [(0, 0.5)]), "k must be an integer >= 1, got 0"),
        (lambda: theory.cycles(0.1, [(2.5, 0.5)]), "k must be an integer >= 1, got 2.5"),
        (lambda: theory.transitions(0.1, ONE, momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: theory.transitions(0.1, ONE, pullback="reset_inner"), "pullback must be one of none, reset, pullback"),
        (lambda: theory.transitions(0.1, ONE, pullback=("none", "none")), r"or one for each of 1 layer\(s\)"),
        (lambda: theory.moments(0.1, ONE, -1), "steps must be >= 0, got -1"),
        (lambda: theory.moments(0.1, ONE, 1, weights=2), r"weights must name one of 1 layer\(s\)"),
        (lambda: theory.power_law(0), "coordinates must be >= 1, got 0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
