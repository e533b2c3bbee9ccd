"""The optimizers against exact moments in the noisy quadratic model, without Monte Carlo.

Lookahead over SGD is linear in the gradient noise. On decoupled coordinates of ½a(x − c)², coordinate 0 starts at 1
with c = 0, and coordinate j starts at 0 and sees c = 1 at step j alone. After T steps coordinate 0 is the factor on
the mean, and the other coordinates are the responses to each step's noise: their squares sum to the variance.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead
from nested_lookahead.optim import PULLBACK_MODES


def impulse_responses(make_optimizer, a, steps):
    """Positions and momentum, each of shape (1 + steps,), after ``steps`` fast steps."""
    x = torch.zeros(1 + steps, dtype=torch.float64)
    x[0] = 1.0
    optimizer = make_optimizer([x])
    for step in range(1, steps + 1):
        centre = torch.zeros_like(x)
        centre[step] = 1.0
        x.grad = a * (x - centre)
        optimizer.step()
    momentum = optimizer.opt.state[x].get("momentum_buffer")
    return x.numpy(), None if momentum is None else momentum.numpy()


def sgd(lr, **kwargs):
    return lambda params: torch.optim.SGD(params, lr=lr, **kwargs)


def cycle_moments(lr, a, variance, layers):
    """Mean factor r and noise q of one cycle (Zhang et al. 2019, Proposition 2, applied layer by layer)."""
    r, q = 1 - lr * a, (lr * a) ** 2 * variance
    for k, alpha in layers:
        q *= alpha**2 * sum(r ** (2 * i) for i in range(k))
        r = 1 - alpha + alpha * r**k
    return r, q


VECTORS = [
    # lr, a, σ², layers, r, q, steady variance
    (0.1, 1, 1, [(5, 0.5)], 0.795245000000, 0.00857002052500, 0.023314366563),
    (0.1, 1, 1, [(5, 0.8)], 0.672392000000, 0.02193925254400, 0.040043243450),
    (0.1, 1, 1, [(5, 0.5), (5, 0.5)], 0.659028418651, 0.00523897042581, 0.009261342334),
    (0.5, 1, 1, [(5, 0.5), (5, 0.5)], 0.518223837484, 0.02831285370331, 0.038708160301),
    (1.5, 1, 1, [(5, 0.5), (5, 0.5)], 0.513331487309, 0.24456285520515, 0.332065058345),
    (0.3, 0.5, 2, [(10, 0.3), (3, 0.7)], 0.606147235939, 0.01311697136541, 0.020735490740),
    (0.4, 1, 1, [(3, 0.5), (2, 0.6), (2, 0.4)], 0.754653300097, 0.00651820161253, 0.015141058975),
]


@pytest.mark.parametrize(("lr", "a", "variance", "layers", "r", "q", "steady"), VECTORS)
def test_one_cycle_over_sgd(lr, a, variance, layers, r, q, steady):
    period = math.prod(k for k, _ in layers)
    x, _ = impulse_responses(lambda p: MultilayerLookahead(sgd(lr)(p), layers), a, period)
    measured_r, measured_q = x[0], variance * np.sum(x[1:] ** 2)
    np.testing.assert_allclose([measured_r, measured_q], [r, q], atol=1e-12)
    np.testing.assert_allclose(measured_q / (1 - measured_r**2), steady, atol=1e-12)


def test_a_layer_of_step_size_one_only_lengthens_the_period():
    x, _ = impulse_responses(lambda p: NestedLookahead(sgd(0.1)(p), k=5, s=5, alpha=1.0, h=0.5), 1.0, 25)
    same, _ = impulse_responses(lambda p: Lookahead(sgd(0.1)(p), k=25, alpha=0.5), 1.0, 25)
    np.testing.assert_array_equal(x, same)
    np.testing.assert_allclose(np.sum(x[1:] ** 2) / (1 - x[0] ** 2), 0.018363883307, atol=1e-12)


def test_four_nested_cycles():
    x, _ = impulse_responses(lambda p: NestedLookahead(sgd(0.1)(p)), 1.0, 4 * 25)
    np.testing.assert_allclose(x[0], 0.188632521734, atol=1e-12)
    np.testing.assert_allclose(np.sum(x[1:] ** 2), 0.00893180313756, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    lr=st.floats(0.01, 1.9),
    layers=st.lists(st.tuples(st.integers(1, 6), st.floats(0.05, 1.0)), min_size=1, max_size=3),
    cycles=st.integers(1, 3),
)
def test_any_depth_over_sgd(lr, layers, cycles):
    period = math.prod(k for k, _ in layers)
    x, _ = impulse_responses(lambda p: MultilayerLookahead(sgd(lr)(p), layers), 1.0, cycles * period)
    r, q = cycle_moments(lr, 1.0, 1.0, layers)
    np.testing.assert_allclose(x[0], r**cycles, atol=1e-12)
    np.testing.assert_allclose(np.sum(x[1:] ** 2), q * sum(r ** (2 * i) for i in range(cycles)), atol=1e-12)


@pytest.mark.parametrize(("inner_syncs", "fast_steps"), [(0, 1), (0, 4), (2, 0), (2, 3), (4, 4)])
def test_fast_weights_within_a_cycle(inner_syncs, fast_steps):
    """Variance of the fast weights ``inner_syncs`` syncs and ``fast_steps`` steps into the fourth cycle."""
    lr, k, s, alpha, h = 0.1, 5, 5, 0.5, 0.4
    steps = 3 * k * s + inner_syncs * k + fast_steps
    x, _ = impulse_responses(lambda p: NestedLookahead(sgd(lr)(p), k, s, alpha, h), 1.0, steps)
    r0, q0 = 1 - lr, lr**2
    rho, q1 = cycle_moments(lr, 1.0, 1.0, [(k, alpha)])
    r, q = cycle_moments(lr, 1.0, 1.0, [(k, alpha), (s, h)])
    outer = q * (1 - r**6) / (1 - r**2)
    inner = rho ** (2 * inner_syncs) * outer + q1 * (1 - rho ** (2 * inner_syncs)) / (1 - rho**2)
    expected = r0 ** (2 * fast_steps) * inner + q0 * (1 - r0 ** (2 * fast_steps)) / (1 - r0**2)
    np.testing.assert_allclose(np.sum(x[1:] ** 2), expected, atol=1e-12)


def nested(pullback, nesterov=False):
    inner = sgd(0.1, momentum=0.9, nesterov=nesterov)
    return lambda p: NestedLookahead(inner(p), pullback=pullback)


MOMENTUM_VECTORS = {
    # optimizer, then steady Var x, Cov(x, b), Var b, then mean and variance of x after 50 steps from x = 1
    "lookahead-pullback": (
        lambda p: Lookahead(sgd(0.1, momentum=0.9)(p), pullback="pullback"),
        (0.101180524265, -0.092368671758, 0.719542030419, 0.007566500956, 0.101172661455),
    ),
    "none": (nested("none"), (0.043643483860, -0.019822211517, 2.850222034387, 0.259384072815, 0.040716392568)),
    "reset": (nested("reset"), (0.025505776729, 0, 0, 0.263657517546, 0.023732735351)),
    "pullback": (
        nested("pullback"),
        (0.031540392026, -0.029175239629, 0.226461184502, 0.207433303047, 0.030212303227),
    ),
    "pullback_inner": (
        nested("pullback_inner"),
        (0.031494358964, -0.045155959445, 0.719796839312, 0.207348385874, 0.030158551038),
    ),
    "none-nesterov": (
        nested("none", nesterov=True),
        (0.035738794402, -0.065094385162, 2.145875315437, 0.245630339390, 0.033618626981),
    ),
}


@pytest.mark.parametrize("name", MOMENTUM_VECTORS)
def test_momentum_vectors(name):
    make_optimizer, (var_x, cov, var_b, mean_50, var_50) = MOMENTUM_VECTORS[name]
    x, b = impulse_responses(make_optimizer, 1.0, 25 * 48)  # what is left of the start is below 1e-14
    np.testing.assert_allclose([x[1:] @ x[1:], x[1:] @ b[1:], b[1:] @ b[1:]], [var_x, cov, var_b], atol=1e-12)
    x, _ = impulse_responses(make_optimizer, 1.0, 50)
    np.testing.assert_allclose([x[0], x[1:] @ x[1:]], [mean_50, var_50], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    layers=st.lists(
        st.tuples(st.integers(1, 5), st.floats(0.1, 1.0), st.sampled_from(PULLBACK_MODES)), min_size=1, max_size=3
    ),
    momentum=st.floats(0.1, 0.95),
    nesterov=st.booleans(),
    cycles=st.integers(1, 3),
)
def test_momentum_and_pullback_at_any_depth(layers, momentum, nesterov, cycles):
    """The matrix recursion on the state (x, b): a layer maps M, Q to K + P Mᵏ, P (Σ Mⁱ Q Mⁱᵀ) P."""
    lr = 0.1
    push, through = (lr * (1 + momentum), lr * momentum**2) if nesterov else (lr, lr * momentum)
    m = np.array([[1 - push, -through], [1, momentum]])
    q = np.outer([push, -1], [push, -1])
    for k, alpha, mode in layers:
        kept, taken = {"none": (0, 1), "reset": (0, 0), "pullback": (1 - alpha, alpha)}[mode]
        p = np.diag([alpha, taken])
        powers = [np.linalg.matrix_power(m, i) for i in range(k)]
        q = p @ sum(power @ q @ power.T for power in powers) @ p
        m = np.diag([1 - alpha, kept]) + p @ np.linalg.matrix_power(m, k)
    powers = [np.linalg.matrix_power(m, i) for i in range(cycles)]
    covariance = sum(power @ q @ power.T for power in powers)

    def make_optimizer(params):
        inner = torch.optim.SGD(params, lr=lr, momentum=momentum, nesterov=nesterov)
        return MultilayerLookahead(inner, [(k, a) for k, a, _ in layers], [mode for *_, mode in layers])

    x, b = impulse_responses(make_optimizer, 1.0, cycles * math.prod(k for k, *_ in layers))
    mean = np.linalg.matrix_power(m, cycles) @ [1, 0]
    np.testing.assert_allclose([x[0], b[0]], mean, atol=1e-12)
    np.testing.assert_allclose(np.stack([x[1:], b[1:]]) @ np.stack([x[1:], b[1:]]).T, covariance, atol=1e-12)
