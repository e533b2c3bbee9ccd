"""The optimizers of several runs as one, in lockstep with the single ones, in float64, over random settings."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from states import assert_same_state
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead, OptimizerList
from nested_lookahead.optim import PULLBACK_MODES, SCHEDULES, Layer, SlowMomentum
from nested_lookahead.replica import NestedLookaheadReplica
from nested_lookahead.training.stacked_optimizer import StackedOptimizer, inner_of, why_not

SHAPES = ((2, 3), (4,))
HORIZON = 40


def factor(step):
    return 1 / (1 + 0.1 * step)


def make_params(seed):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in SHAPES]


def gradient_of(params, seed):
    """Of a quadratic, with noise: a difference in the weights comes back in the gradient."""
    generator = torch.Generator().manual_seed(seed)
    return [0.3 * p.detach() + torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in params]


class Single:
    """A run by itself, with torch's own optimizer and scheduler."""

    def __init__(self, seed, make):
        self.params = make_params(seed)
        self.optimizer = make(self.params)
        self.scheduler = LambdaLR(self.optimizer, factor)

    def step(self, seed, clip=None):
        for param, gradient in zip(self.params, gradient_of(self.params, seed), strict=True):
            param.grad = gradient
        if clip is not None:
            nn.utils.clip_grad_norm_(self.params, clip)
        self.optimizer.step()
        self.scheduler.step()


class Stacked:
    """The same runs as rows, from where these stand."""

    def __init__(self, singles, steps):
        flat = torch.stack([torch.cat([p.detach().flatten() for p in one.params]) for one in singles])
        self.weights = nn.Parameter(flat)
        sizes = [p.numel() for p in singles[0].params]
        parts = torch.split(self.weights.detach(), sizes, dim=1)
        self.tensors = [
            nn.Parameter(part.view(len(singles), *shape)) for part, shape in zip(parts, SHAPES, strict=True)
        ]
        self.optimizer = StackedOptimizer(self.weights, self.tensors, [one.optimizer for one in singles], steps)
        for row, one in enumerate(singles):
            self.optimizer.load(row, one.optimizer)
        self.scheduler = LambdaLR(self.optimizer, lambda step: factor(step + steps))

    def step(self, seeds, clip=None):
        rows = [gradient_of([tensor[i] for tensor in self.tensors], seed) for i, seed in enumerate(seeds)]
        for tensor, gradients in zip(self.tensors, zip(*rows, strict=True), strict=True):
            tensor.grad = torch.stack(gradients)
        self.optimizer.gather(clip)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()


def assert_same(ours, theirs):
    assert_same_state(ours, theirs, 1e-9, 1e-11)


def state_of(optimizer):
    """Less the learning rate, which the schedule sets, and not the stack."""
    state = optimizer.state_dict()
    return state | {"param_groups": [{k: v for k, v in g.items() if k != "lr"} for g in state["param_groups"]]}


def in_lockstep(makes, steps, stop=None, clip=None):
    """Runs by themselves and in a stack that is taken apart after ``stop`` steps, and made anew from its parts."""
    singles = [Single(seed, make) for seed, make in enumerate(makes)]
    parts = [Single(seed, make) for seed, make in enumerate(makes)]
    stacked = Stacked(parts, 0)
    for step in range(steps):
        if step == stop:
            for row, part in enumerate(parts):
                stacked.optimizer.store(row, part.optimizer)
            stacked = Stacked(parts, step)
        seeds = [1000 * row + step for row in range(len(makes))]
        stacked.step(seeds, clip)
        for single, seed in zip(singles, seeds, strict=True):
            single.step(seed, clip)
        for row, single in enumerate(singles):
            assert_same([tensor[row].detach() for tensor in stacked.tensors], [p.detach() for p in single.params])
    for row, (single, part) in enumerate(zip(singles, parts, strict=True)):
        stacked.optimizer.store(row, part.optimizer)
        assert_same([p.detach() for p in part.params], [p.detach() for p in single.params])
        assert_same(state_of(part.optimizer), state_of(single.optimizer))


rates = st.floats(0.001, 0.1)
betas = st.tuples(st.floats(0.0, 0.95), st.floats(0.5, 0.999))


@st.composite
def inner_optimizers(draw, count):
    """Functions that make optimizers of one kind, with numbers of their own, and whether they have momentum."""
    kind = draw(st.sampled_from(["sgd", "momentum", "nesterov", "adam", "adamw"]))
    makes = []
    for _ in range(count):
        settings = {"lr": draw(rates), "weight_decay": draw(st.sampled_from([0.0, 0.01, 0.3]))}
        if kind in ("adam", "adamw"):
            settings |= {"betas": draw(betas), "eps": draw(st.sampled_from([1e-8, 1e-3]))}
        elif kind != "sgd":
            settings |= {"momentum": draw(st.floats(0.1, 0.95)), "nesterov": kind == "nesterov"}
        of_torch = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(kind, torch.optim.SGD)
        makes.append(lambda params, of_torch=of_torch, settings=settings: of_torch(params, **settings))
    return makes, kind != "sgd"


@st.composite
def optimizers(draw):
    """Likewise, with up to three layers of slow weights whose kinds and modes are the same for all."""
    count = draw(st.integers(1, 4))
    inner, momentum = draw(inner_optimizers(count))
    depths = []
    for _ in range(draw(st.integers(0, 3))):
        mode = draw(st.sampled_from(PULLBACK_MODES)) if momentum else "none"
        slow = draw(st.booleans())
        schedule = draw(st.sampled_from(sorted(SCHEDULES)))
        nesterov = draw(st.booleans())
        layers = []
        for _ in range(count):
            numbers = (draw(st.integers(1, 4)), draw(st.floats(0.05, 1.0)), mode, schedule, HORIZON)
            own = {"momentum": draw(st.floats(0.1, 0.9)), "nesterov": nesterov}
            layers.append(SlowMomentum(*numbers, **own) if slow else Layer(*numbers))
        depths.append(layers)
        momentum = momentum or slow
    if not depths:
        return inner
    return [
        lambda params, make=make, own=own: MultilayerLookahead(make(params), own)
        for make, own in zip(inner, zip(*depths, strict=True), strict=True)
    ]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(makes=optimizers(), stop=st.integers(0, 29), clip=st.sampled_from([None, 0.5, 100.0]))
def test_a_stack_equals_the_single_optimizers(makes, stop, clip):
    in_lockstep(makes, 30, stop, clip)


def sgd(lr=0.05, momentum=0.9, **settings):
    return lambda params: torch.optim.SGD(params, lr=lr, momentum=momentum, **settings)


def adamw(lr=0.02, **settings):
    return lambda params: torch.optim.AdamW(params, lr=lr, **settings)


def nested(inner, *args, **kwargs):
    return lambda params: NestedLookahead(inner(params), *args, **kwargs)


ALIKE = {
    "sgd": [sgd(0.05, 0.0), sgd(0.1, 0.0, weight_decay=0.1)],
    "nesterov": [sgd(nesterov=True), sgd(0.1, 0.5, nesterov=True, weight_decay=0.1)],
    "adam-fused": [lambda p: torch.optim.Adam(p, lr=0.02, fused=True), lambda p: torch.optim.Adam(p, 0.01, fused=True)],
    "adamw": [adamw(), adamw(0.1, betas=(0.5, 0.9), weight_decay=0.5)],
    "periods": [nested(sgd(), 3, 2), nested(sgd(), 2, 3), nested(sgd(), 3, 2, 0.3, 0.8), nested(sgd(), 1, 1)],
    "pullback": [nested(adamw(), 2, 2, 0.5, 0.5, "pullback"), nested(adamw(), 3, 2, 0.8, 0.3, "pullback")],
    "slow momentum": [
        nested(sgd(), 2, 2, h=1.3, outer_momentum=0.5, pullback="reset"),
        nested(sgd(), 3, 1, h=0.7, outer_momentum=0.9, pullback="reset"),
    ],
    "one run": [nested(sgd(), 2, 2)],
}


@pytest.mark.parametrize("name", ALIKE)
def test_settings_of_every_kind(name):
    in_lockstep(ALIKE[name], 14, stop=5, clip=1.0)


def test_slow_weights_are_put_in_place_and_taken_out():
    singles = [Single(seed, make) for seed, make in enumerate(ALIKE["periods"])]
    stacked = Stacked([Single(seed, make) for seed, make in enumerate(ALIKE["periods"])], 0)
    for step in range(7):
        stacked.step([10 * row + step for row in range(4)])
        for row, single in enumerate(singles):
            single.step(10 * row + step)
    fast = stacked.weights.detach().clone()
    with pytest.raises(ZeroDivisionError), stacked.optimizer.slow_weights():
        for row, single in enumerate(singles):
            with single.optimizer.slow_weights():
                assert_same([t[row].detach() for t in stacked.tensors], [p.detach() for p in single.params])
        raise ZeroDivisionError
    assert torch.equal(stacked.weights, fast)
    assert not hasattr(Stacked([Single(0, sgd())], 0).optimizer, "slow_weights")


@pytest.mark.parametrize("name", ["nesterov", "pullback", "slow momentum"])
def test_a_frozen_run_stands_still_and_the_others_go_on(name):
    makes = [*ALIKE[name], ALIKE[name][0]]
    singles = [Single(seed, make) for seed, make in enumerate(makes)]
    stacked = Stacked([Single(seed, make) for seed, make in enumerate(makes)], 0)
    for step in range(12):
        if step == 4:
            stacked.weights.data[1] = float("nan")
            stacked.optimizer.freeze(1)
        stacked.step([10 * row + step for row in range(3)])
        for row in (0, 2):
            singles[row].step(10 * row + step)
            ours = [tensor[row].detach() for tensor in stacked.tensors]
            assert_same(ours, [p.detach() for p in singles[row].params])
        assert (not stacked.weights[1].any()) == (step >= 4)


def test_a_parameter_without_a_gradient_is_refused():
    stacked = Stacked([Single(0, sgd())], 0)
    stacked.tensors[0].grad = torch.ones_like(stacked.tensors[0])
    with pytest.raises(ValueError, match="no gradient"):
        stacked.optimizer.gather(None)


class Own(Layer):
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: torch.optim.RMSprop(p), "RMSprop is none of SGD, Adam, AdamW"),
        (lambda p: Lookahead(torch.optim.NAdam(p)), "NAdam is none of"),
        (lambda p: OptimizerList([torch.optim.SGD(p)]), "OptimizerList is none of"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "Adam has amsgrad"),
        (lambda p: torch.optim.SGD(p, momentum=0.9, dampening=0.1), "SGD has dampening"),
        (lambda p: torch.optim.SGD(p, maximize=True), "SGD has maximize"),
        (lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:]}]), "several param groups"),
        (lambda p: NestedLookaheadReplica(torch.optim.SGD(p)), "NestedLookaheadReplica has a rule of its own"),
        (lambda p: MultilayerLookahead(torch.optim.SGD(p), [Own(5, 0.5)]), "MultilayerLookahead has a rule of its own"),
    ],
)
def test_what_a_stack_cannot_do_is_refused(make, reason):
    assert reason in why_not(make(make_params(0)))


@pytest.mark.parametrize("name", ALIKE)
def test_what_it_can_is_not(name):
    for make in ALIKE[name]:
        assert why_not(make(make_params(0))) is None


def test_loading_leaves_a_run_as_it_was():
    single = Single(0, nested(sgd(), 2, 2))
    for step in range(3):
        single.step(step)
    before = copy.deepcopy(single.optimizer.state_dict())
    Stacked([single], 3).step([7])
    assert_same(single.optimizer.state_dict(), before)
    assert inner_of(single.optimizer) is single.optimizer.opt
