"""Averages that are not fed back, Schedule-Free SGD and the floor, against the same written out step by step."""

import numpy as np
import pytest
import torch

from nested_lookahead import theory

CURVATURE, NOISE, START = np.array([1.0, 0.3, 0.01]), np.array([1.0, 2.0, 0.5]), 1.5
STEPS, LR = 23, 0.3


def iterates(curvature, momentum=0.0, lrs=(LR,) * STEPS):
    """x after each step (steps, 1 + steps): from x = 1 without noise, then with a unit of noise at each step alone."""
    x, v = np.zeros(STEPS + 1), np.zeros(STEPS + 1)
    x[0] = 1
    for step, lr in enumerate(lrs, start=1):
        gradient = curvature * (x - (np.arange(STEPS + 1) == step))
        v = momentum * v + gradient
        x = x - lr * v
        yield x.copy()


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_ema_and_tail(momentum):
    for curvature, noise in zip(CURVATURE, NOISE, strict=True):
        xs = np.array([*iterates(curvature, momentum)])
        e = np.eye(STEPS + 1)[0]
        for x in xs:
            e = 0.9 * e + 0.1 * x
        for found, wanted in (
            (theory.ema_moments(LR, 0.9, STEPS, START, curvature, noise, momentum), e),
            (theory.tail_moments(LR, 0, STEPS, START, curvature, noise, momentum), xs.mean(axis=0)),
            (theory.tail_moments(LR, 15, STEPS, START, curvature, noise, momentum), xs[15:].mean(axis=0)),
        ):
            np.testing.assert_allclose(found, (START * wanted[0], noise * wanted[1:] @ wanted[1:]), rtol=1e-12)


def test_polyak_with_a_schedule():
    lrs = 0.5 * (np.arange(1, STEPS + 1) / STEPS) ** 0.3
    for curvature, noise in zip(CURVATURE, NOISE, strict=True):
        mean = np.array([*iterates(curvature, lrs=lrs)]).mean(axis=0)
        found = theory.polyak_moments(lrs, START, curvature, noise)
        np.testing.assert_allclose(found, (START * mean[0], noise * mean[1:] @ mean[1:]), rtol=1e-12)
    constant = theory.polyak_moments([LR] * STEPS, START, CURVATURE, NOISE)
    np.testing.assert_allclose(constant, theory.tail_moments(LR, 0, STEPS, START, CURVATURE, NOISE), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_schedule_free_is_what_its_package_computes(beta):
    schedulefree = pytest.importorskip("schedulefree")
    x = torch.zeros(STEPS + 1, dtype=torch.float64)
    x[0] = START
    optimizer = schedulefree.SGDScheduleFree([x], lr=LR, momentum=beta)
    optimizer.train()
    for step in range(1, STEPS + 1):
        c = torch.zeros_like(x)
        c[step] = 1
        x.grad = x - c
        optimizer.step()
    optimizer.eval()
    found = theory.schedule_free_moments(LR, beta, STEPS, START)
    np.testing.assert_allclose(found, (x[0].item(), x[1:].square().sum().item()), rtol=1e-12)


def test_no_method_is_below_the_floor_and_the_best_weights_reach_it():
    curvature, noise = theory.power_law(1000)
    assert theory.floor(100, 1.0, curvature, noise) == pytest.approx(1.19668, abs=5e-6)
    assert theory.floor(100, 1.0, curvature, noise) == pytest.approx(0.5 * sum(1 / (100 + i) for i in range(1, 1001)))
    for moments in (
        theory.ema_moments(1.17, 0.9767, 100, 1.0, curvature, noise),
        theory.tail_moments(2.0 * 0.9, 0, 100, 1.0, curvature, noise),
        theory.polyak_moments(2.0 * np.arange(1, 101) ** 0.26 / 100**0.26, 1.0, curvature, noise),
    ):
        assert theory.excess_risk(moments, curvature) > theory.floor(100, 1.0, curvature, noise)
    m = 1 / (STEPS + 1)  # one coordinate, a = σ² = x₀ = 1
    assert theory.floor(STEPS) == pytest.approx(0.5 * (m**2 + (1 - m) ** 2 / STEPS), rel=1e-14)


def test_an_average_read_out_beside_the_run_goes_to_zero_where_one_fed_back_does_not():
    """At one learning rate: EMA's variance falls with its decay, while SGD at equal progress keeps its own."""
    variance = [float(theory.ema_moments(0.1, decay, 100_000).variance) for decay in (0.9, 0.99, 0.999)]
    assert variance[0] > 5 * variance[1] > 25 * variance[2]
