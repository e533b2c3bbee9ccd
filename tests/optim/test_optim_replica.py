"""The published rule: whole, with each of its faults alone, and with none."""

import copy
import itertools

import numpy as np
import pytest
import torch
import twin
from made_optimizers import INNER, make_model, train, weights

from nested_lookahead import NestedLookahead, NestedLookaheadReplica
from nested_lookahead.optim import Layer
from nested_lookahead.replica import FAULTS

NONE = dict.fromkeys(FAULTS, False)
PULLBACKS = ("none", "reset", "pullback")
PERIODS = [(5, 5), (1, 2), (3, 1), (2, 3)]


class AsItWas(NestedLookahead):
    """The rule before its faults could be told apart, from the weights alone: in the order of its operations."""

    def __init__(self, opt, k, s, alpha, h, pullback):
        super().__init__(opt, k, s, alpha, h)
        self.mode = pullback

    def step(self, closure=None):
        self._start_layers()
        self.opt.step()
        self.fast_steps += 1
        (k, alpha), (s, h) = [(layer.k, layer.alpha) for layer in self.layers]
        syncs, since = divmod(self.fast_steps - 1, k)
        with torch.no_grad():
            for param in self._synced():
                slow, outermost = self.state[param]["slow_1"], self.state[param]["slow_2"]
                if since == 0:
                    if self.fast_steps == 1:
                        slow.copy_(param)
                    param.copy_(slow.lerp_(param, alpha))
                    if self.mode == "reset" and "momentum_buffer" in self.opt.state[param]:
                        self.opt.state[param]["momentum_buffer"].zero_()
                elif (syncs + 1) % s == 0:
                    if self.fast_steps == (s - 1) * k + 2:
                        outermost.copy_(slow)
                    param.copy_(outermost.lerp_(slow, h))


def trained(build, inner, steps=40):
    """Weights after every step."""
    model = make_model()
    optimizer = build(INNER[inner](model.parameters()))
    seen = []
    for step in range(steps):
        train(model, optimizer, 1, start=step)
        seen.append(weights(model))
    return torch.stack(seen)


@pytest.mark.parametrize("inner", ["sgd", "adam"])
@pytest.mark.parametrize("pullback", PULLBACKS)
@pytest.mark.parametrize(("k", "s"), PERIODS)
def test_with_all_faults_it_is_what_it_was(inner, pullback, k, s):
    settings = (k, s, 0.6, 0.3, pullback)
    ours = trained(lambda opt: NestedLookaheadReplica(opt, *settings), inner)
    assert ours.equal(trained(lambda opt: AsItWas(opt, *settings), inner))


@pytest.mark.parametrize("inner", ["sgd", "adam"])
@pytest.mark.parametrize("pullback", PULLBACKS)
@pytest.mark.parametrize(("k", "s"), PERIODS)
def test_without_faults_it_is_nested_lookahead(inner, pullback, k, s):
    settings = (k, s, 0.6, 0.3, pullback)
    ours = trained(lambda opt: NestedLookaheadReplica(opt, *settings, **NONE), inner)
    assert ours.equal(trained(lambda opt: NestedLookahead(opt, *settings), inner))


@pytest.mark.parametrize(
    ("inner", "pullback", "meant"),
    [
        ("sgd", "none", "none"),
        ("sgd", "pullback", "none"),
        ("sgd", "reset", "reset"),
        ("adam", "none", "none"),
        ("adam", "pullback", "none"),
        ("adam", "reset", "none"),
    ],
)
def test_an_inert_pullback_alone_is_another_pullback(inner, pullback, meant):
    """The arms of experiment=answer/published_rule that have the runs of another one rest on this."""
    faults = NONE | {"pullback_inert": True}
    ours = trained(lambda opt: NestedLookaheadReplica(opt, 5, 5, 0.5, 0.5, pullback, **faults), inner)
    assert ours.equal(trained(lambda opt: NestedLookahead(opt, 5, 5, 0.5, 0.5, meant), inner))
    if meant != pullback:
        assert not ours.equal(trained(lambda opt: NestedLookahead(opt, 5, 5, 0.5, 0.5, pullback), inner))


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        # α = h = ½, k = s = 2, and each fast step adds 1; where layers sync, what they sync to.
        ({}, [1, 1, 2, 1, 2, 2, 3, 2]),
        ({"outer_misfires": True}, [1, 1, 2, 2, 2, 2.5, 3.5, 3.5, 2.75]),
        ({"off_by_one": True}, [1, 2, 1.5, 2.5, 2.5, 3.5, 2.5]),
        ({"outer_misfires": True, "off_by_one": True}, [1, 2, 2, 2, 2.5, 3.5, 3.5, 2.75]),
    ],
)
def test_faults_by_hand(faults, expected):
    x = torch.zeros(1, requires_grad=True)
    optimizer = NestedLookaheadReplica(torch.optim.SGD([x], lr=1.0), 2, 2, 0.5, 0.5, **NONE | faults)
    seen = []
    for _ in expected:
        x.grad = -torch.ones(1)
        optimizer.step()
        seen.append(x.item())
    assert seen == expected


class Faulty(twin.TwinLookahead):
    """The right rule's twin: it counts from k − 1 if it is off by one, and has no outer layer if that misfires."""

    def __init__(self, x, inner, layers, outer_misfires, off_by_one):
        super().__init__(x, inner, layers[:1] if outer_misfires else layers)
        self.outer, self.misfires, self.anchored, self.omega = layers[1], outer_misfires, not off_by_one, None
        self.t = layers[0].k - 1 if off_by_one else 0

    def step(self, g):
        if not self.anchored:
            first = copy.deepcopy(self.inner).step(self.x, g)
            self.slow, self.anchored = [first.copy() for _ in self.slow], True
        super().step(g)
        syncs, since = divmod(self.t, self.layers[0].k)
        if self.misfires and since and syncs and syncs % self.outer.k == 0:
            start = self.slow[0] if self.omega is None else self.omega
            self.omega = (1 - self.outer.alpha) * start + self.outer.alpha * self.slow[0]
            self.x = self.omega.copy()


INNERS = {
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), lambda: twin.SGD(lr=0.05, momentum=0.9)),
    "adam": (
        lambda p: torch.optim.Adam(p, lr=0.03, weight_decay=0.01),
        lambda: twin.Adam(lr=0.03, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize("pullback", PULLBACKS)
@pytest.mark.parametrize(("outer_misfires", "off_by_one"), [*itertools.product([False, True], repeat=2)])
@pytest.mark.parametrize(("k", "s"), PERIODS)
def test_each_fault_equals_its_twin(inner, pullback, outer_misfires, off_by_one, k, s):
    make_torch, make_twin = INNERS[inner]
    rng = np.random.default_rng(k + s)
    start, curvature = rng.normal(size=4), rng.uniform(0.2, 1.5, size=4)
    param = torch.tensor(start)
    optimizer = NestedLookaheadReplica(make_torch([param]), k, s, 0.6, 0.3, pullback, outer_misfires, off_by_one, False)
    layers = [Layer(k, 0.6, pullback), Layer(s, 0.3, pullback)]
    reference = Faulty(start, make_twin(), layers, outer_misfires, off_by_one)
    for noise in rng.normal(size=(50, 4)):
        param.grad = torch.tensor(curvature * param.numpy() + noise)
        optimizer.step()
        reference.step(curvature * reference.x + noise)
        np.testing.assert_allclose(param.numpy(), reference.x, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("faults", [{}, {"off_by_one": False}, {"outer_misfires": False, "pullback_inert": False}])
@pytest.mark.parametrize("stop", [1, 4, 7, 13])
def test_it_goes_on_from_a_state_and_as_a_copy(faults, stop):
    def build(opt):
        return NestedLookaheadReplica(opt, 3, 2, 0.6, 0.3, "reset", **faults)

    whole, model = make_model(), make_model()
    train(whole, build(INNER["sgd"](whole.parameters())), 20)
    optimizer = build(INNER["sgd"](model.parameters()))
    train(model, optimizer, stop)
    other, (copied, copied_optimizer) = make_model(), copy.deepcopy((model, optimizer))
    other.load_state_dict(model.state_dict())
    resumed = build(INNER["sgd"](other.parameters()))
    resumed.load_state_dict(optimizer.state_dict())
    for made, its_optimizer in ((other, resumed), (copied, copied_optimizer)):
        train(made, its_optimizer, 20 - stop, start=stop)
        assert weights(made).equal(weights(whole))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"s": 0}, "s must be an integer >= 1, got 0"),
        ({"pullback": "reset_inner"}, "pullback must be none, reset or pullback, got 'reset_inner'"),
        ({"off_by_one": 1}, "off_by_one must be True or False, got 1"),
    ],
)
def test_what_it_is_not_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        NestedLookaheadReplica(torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9), **settings)
