"""The optimizers in lockstep with their twin, in float64, over random settings."""

import itertools

import numpy as np
import pytest
import torch
import twin
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead
from nested_lookahead.optim import PULLBACK_MODES, SCHEDULES, Layer, SlowMomentum, resolve_pullback

INNER = {
    "sgd": (
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
        lambda: twin.SGD(lr=0.1, weight_decay=0.01),
    ),
    "momentum": (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        lambda: twin.SGD(lr=0.05, momentum=0.9),
    ),
    "nesterov": (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
        lambda: twin.SGD(lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
    ),
    "adam": (
        lambda p: torch.optim.Adam(p, lr=0.03, weight_decay=0.01),
        lambda: twin.Adam(lr=0.03, weight_decay=0.01),
    ),
    "adamw": (
        lambda p: torch.optim.AdamW(p, lr=0.03, weight_decay=0.1),
        lambda: twin.Adam(lr=0.03, weight_decay=0.1, decoupled=True),
    ),
    "rmsprop": (
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.7),
        lambda: twin.RMSprop(lr=0.01, momentum=0.7),
    ),
    "list": (
        lambda p: [torch.optim.SGD(p[:1], lr=0.05, momentum=0.9), torch.optim.AdamW(p[1:], lr=0.03, weight_decay=0.1)],
        lambda: twin.Parts(
            (2, twin.SGD(lr=0.05, momentum=0.9)), (4, twin.Adam(lr=0.03, weight_decay=0.1, decoupled=True))
        ),
    ),
}

PROBLEM = np.random.default_rng(0)
HESSIAN = np.diag(PROBLEM.uniform(0.1, 1.5, size=6)) + 0.05
START = PROBLEM.normal(size=6)


def run_in_lockstep(inner, make_optimizer, steps, seed, layers):
    """Step both on the same noisy gradients; compare weights, slow weights and momentum after every step."""
    noise = np.random.default_rng(seed).normal(size=(steps, START.size))
    make_torch, make_twin = INNER[inner]
    # Two tensors, one of them a matrix, so that an error in how parameters are told apart would show.
    params = [torch.tensor(START[:2]), torch.tensor(START[2:].reshape(2, 2))]
    optimizer = make_optimizer(make_torch(params))
    assert list(optimizer.layers) == layers
    reference = twin.TwinLookahead(START, make_twin(), optimizer.layers)

    def flat(tensors):
        return torch.cat([t.flatten() for t in tensors]).numpy()

    for step in range(steps):
        gradient = HESSIAN @ flat(params) + noise[step]
        params[0].grad = torch.tensor(gradient[:2])
        params[1].grad = torch.tensor(gradient[2:].reshape(2, 2))
        optimizer.step()
        reference.step(HESSIAN @ reference.x + noise[step])
        np.testing.assert_allclose(flat(params), reference.x, rtol=1e-9, atol=1e-11)
        for depth, slow in enumerate(reference.slow, start=1):
            ours = flat([optimizer.state[p][f"slow_{depth}"] for p in params])
            np.testing.assert_allclose(ours, slow, rtol=1e-9, atol=1e-11)
            if f"momentum_{depth}" in optimizer.state[params[0]]:
                ours = flat([optimizer.state[p][f"momentum_{depth}"] for p in params])
                np.testing.assert_allclose(ours, reference.b[depth - 1], rtol=1e-9, atol=1e-11)
        if reference.inner.m is not None:
            states = [optimizer.opt.state[p] for p in params]
            momentum = flat([state["exp_avg" if "exp_avg" in state else "momentum_buffer"] for state in states])
            np.testing.assert_allclose(momentum, reference.inner.m, rtol=1e-9, atol=1e-11)


step_sizes = st.floats(0.05, 1.0)
modes = st.sampled_from(PULLBACK_MODES)


@st.composite
def multilayer(draw):
    inner = draw(st.sampled_from(sorted(INNER)))
    mode = st.just("none") if inner == "sgd" else modes
    layers = draw(st.lists(st.builds(Layer, st.integers(1, 5), step_sizes, mode), min_size=1, max_size=3))
    return inner, layers


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(setting=multilayer(), steps=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
@example(
    setting=("momentum", [Layer(1, 0.5, "pullback"), Layer(1, 0.5, "pullback"), Layer(2, 0.5, "reset")]),
    steps=9,
    seed=0,
)
def test_multilayer_equals_its_twin(setting, steps, seed):
    inner, layers = setting
    pairs, pullback = [(layer.k, layer.alpha) for layer in layers], [layer.pullback for layer in layers]
    run_in_lockstep(inner, lambda opt: MultilayerLookahead(opt, pairs, pullback), steps, seed, layers)


@st.composite
def with_momentum(draw):
    """Layers that do not drive the weights beyond all bounds; alpha above 1 where nothing is pulled back."""
    inner = draw(st.sampled_from(sorted(INNER)))
    layers = []
    for depth in range(draw(st.integers(1, 3))):
        free = inner != "sgd" or any(getattr(layer, "momentum", 0) for layer in layers[:depth])
        mode = draw(modes) if free else "none"
        alpha = draw(st.floats(0.05, 1.0 if mode == "pullback" else 1.3))
        schedule = draw(st.sampled_from(sorted(SCHEDULES))) if alpha <= 1 else "constant"
        layers.append(
            SlowMomentum(
                draw(st.integers(1, 4)), alpha, mode, schedule, 60, draw(st.floats(0.0, 0.9)), draw(st.booleans())
            )
        )
    return inner, layers


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(setting=with_momentum(), steps=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
def test_slow_momentum_equals_its_twin(setting, steps, seed):
    inner, layers = setting
    run_in_lockstep(inner, lambda opt: MultilayerLookahead(opt, layers), steps, seed, layers)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    inner=st.sampled_from(sorted(set(INNER) - {"sgd"})),
    k=st.integers(1, 6),
    s=st.integers(0, 4),
    alpha=step_sizes,
    h=step_sizes,
    pullback=st.one_of(
        st.tuples(modes, modes),
        st.sampled_from(["none", "reset", "pullback"]),
        st.sampled_from(["reset_inner", "reset_outer", "pullback_inner", "pullback_outer"]),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_nested_equals_its_twin(inner, k, s, alpha, h, pullback, seed):
    inner_mode, outer_mode = resolve_pullback(pullback, 2)
    layers = [Layer(k, alpha, inner_mode)] + ([Layer(s, h, outer_mode)] if s else [])
    run_in_lockstep(inner, lambda opt: NestedLookahead(opt, k, s, alpha, h, pullback), 50, seed, layers)


@pytest.mark.parametrize(
    ("inner", "mode"),
    [("sgd", "none"), *itertools.product(sorted(set(INNER) - {"sgd"}), PULLBACK_MODES)],
)
def test_lookahead_equals_its_twin(inner, mode):
    run_in_lockstep(inner, lambda opt: Lookahead(opt, 5, 0.5, mode), 40, 1, [Layer(5, 0.5, mode)])
