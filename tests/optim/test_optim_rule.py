"""What a Lookahead computes in plain cases and in degenerate settings."""

import itertools

import pytest
import torch
from made_optimizers import INNER, WRAPPERS, make_model, train, weights

from nested_lookahead import Lookahead, NestedLookahead
from nested_lookahead.optim import PULLBACK_MODES, PULLBACK_SCOPES, Layer


def test_hand_computed_trajectory():
    """Gradient 1 throughout, lr 1: from 3, two steps and a pull half-way back; the outer layer after two of those."""
    x = torch.tensor([3.0])
    optimizer = NestedLookahead(torch.optim.SGD([x], lr=1.0), k=2, s=2, alpha=0.5, h=0.5)
    seen = []
    for _ in range(8):
        x.grad = torch.ones(1)
        optimizer.step()
        seen.append(x.item())
    # φ: 3 → 2 → 1, and there ω: 3 → 2, which sets φ and θ; then φ: 2 → 1 → 0 and ω: 2 → 1.
    assert seen == [2.0, 2.0, 1.0, 2.0, 1.0, 1.0, 0.0, 1.0]


def test_the_call_as_published():
    model = make_model()
    optimizer = NestedLookahead(opt=torch.optim.Adam(model.parameters()), lr=0.001, k=5, s=5, pullback="pullback")
    assert optimizer.layers == (Layer(5, 0.5, "pullback"), Layer(5, 0.5, "pullback"))
    train(model, optimizer, 30)


def trained_weights(make_optimizer, inner="sgd", steps=30):
    model = make_model()
    train(model, make_optimizer(INNER[inner](model.parameters())), steps)
    return weights(model)


@pytest.mark.parametrize("inner", INNER)
def test_full_steps_equal_the_inner_optimizer(inner):
    bare = trained_weights(lambda opt: opt, inner)
    assert torch.equal(trained_weights(lambda opt: Lookahead(opt, 3, alpha=1.0), inner), bare)
    assert torch.equal(trained_weights(lambda opt: NestedLookahead(opt, 3, 2, alpha=1.0, h=1.0), inner), bare)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("mode", PULLBACK_MODES)
def test_outer_layer_turned_off_equals_lookahead(inner, mode):
    plain = trained_weights(lambda opt: Lookahead(opt, 3, 0.5, mode), inner)
    assert torch.equal(trained_weights(lambda opt: NestedLookahead(opt, 3, 0, 0.5, 0.3, mode), inner), plain)
    for outer in ("none", "pullback"):
        nested = trained_weights(lambda opt, outer=outer: NestedLookahead(opt, 3, 2, 0.5, 1.0, (mode, outer)), inner)
        assert torch.equal(nested, plain)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("mode", ["none", "pullback"])
def test_inner_step_size_one_equals_a_longer_period(inner, mode):
    plain = trained_weights(lambda opt: Lookahead(opt, 6, 0.3, mode), inner)
    for inner_mode in ("none", "pullback"):
        nested = trained_weights(
            lambda opt, inner_mode=inner_mode: NestedLookahead(opt, 3, 2, 1.0, 0.3, (inner_mode, mode)), inner
        )
        assert torch.equal(nested, plain)


@pytest.mark.parametrize("inner", INNER)
def test_inner_reset_makes_the_outer_mode_irrelevant(inner):
    results = [
        trained_weights(lambda opt, mode=mode: NestedLookahead(opt, 3, 2, 0.5, 0.4, ("reset", mode)), inner)
        for mode in PULLBACK_MODES
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("inner", INNER)
def test_pullback_modes_differ(inner):
    """No mode is a silent no-op, over Adam no more than over SGD."""
    results = {mode: trained_weights(lambda opt, m=mode: WRAPPERS["nested"](opt, m), inner) for mode in PULLBACK_SCOPES}
    for first, second in itertools.combinations(PULLBACK_SCOPES, 2):
        same = {first, second} == {"reset", "reset_inner"}
        assert torch.equal(results[first], results[second]) == same, (first, second)


def test_pullback_cache_is_a_copy():
    model = make_model()
    optimizer = Lookahead(INNER["sgd"](model.parameters()), 2, 0.5, "pullback")
    train(model, optimizer, 2)
    before = {p: s["momentum_cache_1"].clone() for p, s in optimizer.state.items()}
    train(model, optimizer, 1, start=2)
    for param, cache in before.items():
        assert torch.equal(optimizer.state[param]["momentum_cache_1"], cache)
        assert not torch.equal(optimizer.opt.state[param]["momentum_buffer"], cache)


def test_second_moments_and_step_counts_stay():
    model, bare = make_model(), make_model()
    optimizer = Lookahead(INNER["adam"](model.parameters()), 1, 1.0, "reset")
    plain = INNER["adam"](bare.parameters())
    train(model, optimizer, 1)
    train(bare, plain, 1)
    for ours, theirs in zip(model.parameters(), bare.parameters(), strict=True):
        assert torch.equal(optimizer.opt.state[ours]["exp_avg_sq"], plain.state[theirs]["exp_avg_sq"])
        assert optimizer.opt.state[ours]["step"] == 1
        assert not optimizer.opt.state[ours]["exp_avg"].any()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_slow_weights_come_and_go(wrapper):
    model = make_model()
    optimizer = WRAPPERS[wrapper](INNER["adam"](model.parameters()))
    start = weights(model)
    train(model, optimizer, 1)
    fast = weights(model)
    assert not torch.equal(fast, start)
    with optimizer.slow_weights():
        assert torch.equal(weights(model), start)
        with optimizer.slow_weights(layer=0):
            assert torch.equal(weights(model), start)
        with pytest.raises(RuntimeError, match="inside slow_weights"):
            optimizer.step()
    assert torch.equal(weights(model), fast)
    with pytest.raises(ZeroDivisionError), optimizer.slow_weights():
        raise ZeroDivisionError
    assert torch.equal(weights(model), fast)
    with optimizer.slow_weights(), pytest.raises(RuntimeError, match=r"step\(\) inside slow_weights\(\)"):
        optimizer.step()
    train(model, optimizer, 1, start=1)


def test_slow_weights_of_each_layer():
    model = make_model()
    optimizer = NestedLookahead(INNER["sgd"](model.parameters()), 2, 5)
    start = weights(model)
    train(model, optimizer, 2)
    with optimizer.slow_weights(layer=0):
        assert not torch.equal(weights(model), start)
    with optimizer.slow_weights(layer=1):
        assert torch.equal(weights(model), start)
    with pytest.raises(IndexError), optimizer.slow_weights(layer=2):
        pass


def test_slow_weights_in_the_middle_do_not_disturb_training():
    def run(peek):
        model = make_model()
        optimizer = WRAPPERS["nested"](INNER["adam"](model.parameters()), "pullback")
        for step in range(20):
            train(model, optimizer, 1, start=step)
            if peek:
                with optimizer.slow_weights():
                    weights(model)
        return weights(model)

    assert torch.equal(run(peek=True), run(peek=False))
