"""Momentum on slow weights: vectors, closed forms, bounds, and the rule written out; the optimizer itself."""

import math

import numpy as np
import pytest
import torch
from vectors import NAMES, VECTORS, numbers

from nested_lookahead import MultilayerLookahead, theory
from nested_lookahead.optim import SlowMomentum
from nested_lookahead.theory import SlowLayer


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_vectors(vector):
    mean, variance, _, covariance = numbers(vector["expect"])
    layers = [SlowLayer(**layer) for layer in vector["layers"]]
    given = {key: vector[key] for key in ("curvature", "noise", "momentum", "nesterov")}
    if vector["steps"]:
        found = theory.slow_moments(
            vector["lr"], layers, vector["steps"], vector["start"], **given, weights=vector["weights"]
        )
        np.testing.assert_allclose(found, (mean, variance), atol=1e-13, rtol=1e-12)
        return
    kept = np.array([True, vector["momentum"] > 0, *(layer.momentum > 0 for layer in layers)])
    found = theory.slow_transitions(vector["lr"], layers, **given)[-1].steady_covariance()
    np.testing.assert_allclose(found, covariance[kept][:, kept], rtol=1e-11, atol=1e-13)


def random_setting(rng):
    """Layers of any depth, kind and mode that do not drive the weights beyond all bounds."""
    layers = []
    for _ in range(rng.integers(1, 4)):
        mode = str(rng.choice(["none", "reset", "pullback"]))
        alpha = rng.uniform(0.05, 1.0 if mode == "pullback" else 1.3)
        mu = float(rng.choice([0.0, rng.uniform(0.05, 0.9)]))
        layers.append(SlowLayer(int(rng.integers(1, 5)), float(alpha), mu, bool(rng.integers(2)), mode))
    momentum = float(rng.choice([0.0, rng.uniform(0.05, 0.9)]))
    return layers, rng.uniform(0.05, 0.5), momentum, bool(rng.integers(2)), int(rng.integers(1, 60))


def worst_error(settings):
    """Of closed recursion against the impulses, relative to the size of what is compared."""
    rng, worst = np.random.default_rng(0), 0.0
    curvature, noise = np.array([1.0, 0.3, 0.01]), np.array([1.0, 2.0, 0.5])
    for _ in range(settings):
        layers, lr, momentum, nesterov, steps = random_setting(rng)
        nesterov = nesterov and momentum > 0
        rule = theory.slow_rule(layers)
        for weights in range(len(layers) + 1):
            found = theory.slow_moments(lr, layers, steps, 1.5, curvature, noise, momentum, nesterov, weights)
            entry = weights and 1 + weights
            wanted = theory.impulse_moments([lr] * steps, rule, 1.5, curvature, noise, momentum, nesterov, entry)
            scale = max(1.0, np.abs(wanted.mean).max(), wanted.variance.max())
            worst = max(worst, *(np.abs(x - y).max() / scale for x, y in zip(found, wanted, strict=True)))
    return worst


def test_random_settings_equal_the_rule_written_out():
    assert worst_error(40) < 1e-12


@pytest.mark.slow
def test_five_hundred_random_settings_equal_the_rule_written_out():
    assert worst_error(500) < 1e-12


@pytest.mark.parametrize("seed", range(25))
def test_the_optimizer_is_what_the_theory_says(seed):
    layers, lr, momentum, nesterov, steps = random_setting(np.random.default_rng(100 + seed))
    nesterov, momentum = nesterov, momentum or 0.3  # a pullback needs some
    x = torch.zeros(steps + 1, dtype=torch.float64)
    x[0] = 1
    inner = torch.optim.SGD([x], lr=lr, momentum=momentum, nesterov=nesterov)
    optimizer = MultilayerLookahead(
        inner, [SlowMomentum(x.k, x.alpha, x.pullback, momentum=x.momentum, nesterov=x.nesterov) for x in layers]
    )
    for step in range(1, steps + 1):
        c = torch.zeros_like(x)
        c[step] = 1
        x.grad = x - c
        optimizer.step()
    found = theory.slow_moments(lr, layers, steps, momentum=momentum, nesterov=nesterov)
    np.testing.assert_allclose(found, (x[0].item(), x[1:].square().sum().item()), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("nesterov", [True, False])
def test_closed_forms_and_the_bounds_of_stability(nesterov):
    for mu in (0.0, 0.3, 0.9):
        for k, lr in ((1, 0.3), (7, 0.1), (5, 1.9)):
            gap = 1 - (1 - lr) ** k
            cycle = theory.cycles(lr, [(k, 1.0)])[-1]
            for share, stable in ((0.2, True), (0.999, True), (1.001, False)):
                alpha = share * theory.largest_step(SlowLayer(k, 1.0, mu, nesterov)) / gap
                layer = SlowLayer(k, alpha, mu, nesterov)
                last = theory.slow_transitions(lr, [layer])[-1]
                if stable:
                    wanted = theory.steady_variance_over(layer, cycle.gap, cycle.noise)
                    assert last.steady_covariance()[0, 0] == pytest.approx(float(wanted), rel=1e-9)
                    continue
                with pytest.raises(ValueError, match="unstable"):
                    last.steady_covariance()
                with pytest.raises(ValueError, match="unstable: alpha · gap must be in"):
                    theory.steady_variance_over(layer, cycle.gap, cycle.noise)


def test_without_momentum_it_is_what_there_was():
    pairs = [(3, 0.5), (2, 0.6), (4, 0.4)]
    layers = [SlowLayer(k, alpha) for k, alpha in pairs]
    curvature = np.geomspace(1e-3, 1, 7)
    for steps in (1, 23, 100):
        for weights in range(4):
            found = theory.slow_moments(0.3, layers, steps, 1.0, curvature, weights=weights)
            wanted = theory.moments(0.3, pairs, steps, 1.0, 0.0, curvature, weights=weights)
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


def test_two_time_scales_with_momentum():
    """k → ∞: one layer multiplies the variance below it by e (1 + μ) / (2 (1 + μ) − e (1 − μ)), e = α / (1 − μ)."""
    mu, e, below = 0.6, 0.8, 0.05
    found = theory.steady_variance_over(SlowLayer(1, e * (1 - mu), mu, False), 1.0, below)
    assert float(found) == pytest.approx(below * e * (1 + mu) / (2 * (1 + mu) - e * (1 - mu)), rel=1e-14)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (SlowLayer(0, 0.5), "k must be an integer >= 1, got 0"),
        (SlowLayer(5, 0.0), "alpha must be > 0"),
        (SlowLayer(5, 0.5, 1.0), r"momentum in \[0, 1\)"),
        (SlowLayer(5, 0.5, 0.5, True, "pull"), "pullback must be one of none, reset, pullback, got 'pull'"),
    ],
)
def test_what_it_refuses(layer, message):
    with pytest.raises(ValueError, match=message):
        theory.slow_transitions(0.1, [layer])


def test_no_variance_is_negative_however_far_the_transient_went():
    """It reaches 1e39 on the way; the impulses' sum of squares is what the variance is."""
    rates = [2.8442006 * (1 - t / 1000) for t in range(1000)]
    rule = theory.lookahead_rule([(2, 0.0260174876)])
    *_, (mean, covariance) = theory.trajectory(rates, rule, momentum=0.9)
    wanted = theory.impulse_moments(rates, rule, momentum=0.9)
    assert float(wanted.variance) == pytest.approx(0.009203, abs=5e-7)
    assert covariance[0, 0] >= 0
    assert covariance[0, 0] == pytest.approx(float(wanted.variance), rel=0.01)
    assert math.isfinite(mean[0])
