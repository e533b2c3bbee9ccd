"""Rules step by step: the optimizers are what they say, to rounding."""

import numpy as np
import pytest
import torch

from nested_lookahead import MultilayerLookahead, NestedLookaheadReplica, theory

EXACT = {"rel": 1e-10, "abs": 1e-12}


def impulses(build, steps, lr, momentum=0.0, nesterov=False):
    """Mean factor and variance of the optimizer itself, after each step, by its answer to one unit of noise at a time.

    On coordinate 0 there is a start and no noise; on coordinate j there is noise at step j alone.
    """
    x = torch.zeros(steps + 1, dtype=torch.float64)
    x[0] = 1
    x.requires_grad_()
    optimizer = build(torch.optim.SGD([x], lr=lr, momentum=momentum, nesterov=nesterov))
    for step in range(1, steps + 1):
        c = torch.zeros_like(x)
        c[step] = 1
        x.grad = x.detach() - c
        optimizer.step()
        values = x.detach()
        yield values[0].item(), values[1:].square().sum().item()


@pytest.mark.parametrize(
    ("layers", "momentum", "pullback", "nesterov"),
    [
        ([(5, 0.5)], 0.0, "none", False),
        ([(3, 0.5), (2, 0.6), (2, 0.4)], 0.0, "none", False),
        ([(5, 0.5), (3, 0.8)], 0.9, "pullback", False),
        ([(5, 0.5), (3, 0.8)], 0.9, ("pullback", "none"), True),
        ([(2, 0.3), (2, 0.6), (3, 0.9)], 0.8, ("none", "reset", "pullback"), False),
        ([(2, 0.3), (2, 0.6), (3, 0.9)], 0.8, "reset", True),
    ],
)
def test_the_optimizers_are_what_the_theory_says(layers, momentum, pullback, nesterov):
    seen = impulses(lambda sgd: MultilayerLookahead(sgd, layers, pullback), 40, 0.3, momentum, nesterov)
    rule = theory.lookahead_rule(layers, pullback)
    expected = theory.trajectory([0.3] * 40, rule, momentum=momentum, nesterov=nesterov)
    for (mean, variance), (means, covariance) in zip(seen, expected, strict=True):
        assert (mean, variance) == pytest.approx((means[0], covariance[0, 0]), **EXACT)


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
@pytest.mark.parametrize(("k", "s"), [(5, 5), (1, 2), (3, 1), (2, 4)])
def test_the_replica_is_what_its_theory_says(k, s, pullback):
    def build(sgd):
        return NestedLookaheadReplica(sgd, k, s, 0.6, 0.3, pullback)

    expected = theory.trajectory([0.2] * 40, theory.replica_rule(k, s, 0.6, 0.3, pullback), momentum=0.9)
    for (mean, variance), (means, covariance) in zip(impulses(build, 40, 0.2, 0.9), expected, strict=True):
        assert (mean, variance) == pytest.approx((means[0], covariance[0, 0]), **EXACT)


def test_what_the_published_script_computed():
    *_, (mean, covariance) = theory.trajectory([0.1] * 50, theory.replica_rule(5, 5, 0.5, 0.5))
    assert (mean[0], covariance[0, 0]) == pytest.approx((0.1507, 0.0213), abs=5e-5)
    *_, (mean, covariance) = theory.trajectory([0.1] * 50, theory.lookahead_rule([(5, 0.5), (5, 0.5)]))
    assert (mean[0], covariance[0, 0]) == pytest.approx((0.4343, 0.0075), abs=5e-5)


def test_a_schedule_is_the_product_of_its_steps():
    rates = np.linspace(0.5, 0.0, 30)
    *_, (mean, covariance) = theory.trajectory(rates, theory.lookahead_rule([]), curvature=0.7)
    assert mean[0] == pytest.approx(np.prod(1 - 0.7 * rates), rel=1e-12)
    after = [np.prod(1 - 0.7 * rates[t + 1 :]) * 0.7 * rates[t] for t in range(30)]
    assert covariance[0, 0] == pytest.approx(np.sum(np.square(after)), rel=1e-12)
