"""Momentum on slow weights, and step sizes on a schedule: exact moments, witnesses, degenerate settings."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from made_optimizers import INNER, make_model, train, weights
from vectors import NAMES, VECTORS, numbers

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead
from nested_lookahead.optim import SCHEDULES, Layer, SlowMomentum, sync_


def impulse_answers(vector, steps):
    """x, v, b₁ … b_L and the slow weights, each (1 + steps,), after a start at coordinate 0 and an impulse on each."""
    x = torch.zeros(1 + steps, dtype=torch.float64)
    x[0] = vector["start"]
    sgd = torch.optim.SGD([x], lr=vector["lr"], momentum=vector["momentum"], nesterov=vector["nesterov"])
    optimizer = MultilayerLookahead(sgd, [SlowMomentum(**layer) for layer in vector["layers"]])
    for step in range(1, steps + 1):
        centre = torch.zeros_like(x)
        centre[step] = math.sqrt(vector["noise"])
        x.grad = vector["curvature"] * (x - centre)
        optimizer.step()
    zero, depths = torch.zeros_like(x), range(1, len(vector["layers"]) + 1)
    state = [x, sgd.state[x].get("momentum_buffer", zero)]
    state += [optimizer.state[x].get(f"momentum_{depth}", zero) for depth in depths]
    return torch.stack(state).numpy(), [optimizer.state[x][f"slow_{depth}"].numpy() for depth in depths]


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_vectors(vector):
    mean, variance, means, covariance = numbers(vector["expect"])
    period = math.prod(layer["k"] for layer in vector["layers"])
    long = 8000 if max(layer["momentum"] for layer in vector["layers"]) > 0.8 else 1500
    steps = vector["steps"] or period * math.ceil(long / period)  # then what is left of the start is below 1e-14
    state, slow = impulse_answers(vector, steps)
    answer = slow[vector["weights"] - 1] if vector["weights"] else state[0]
    if vector["steps"]:
        assert answer[0] == pytest.approx(mean, abs=1e-12)
    assert answer[1:] @ answer[1:] == pytest.approx(variance, abs=1e-12)
    if vector["weights"] == 0:  # of a buffer with momentum 0 the vectors have its last input; here there is none
        kept = np.array([True, vector["momentum"] > 0, *(layer["momentum"] > 0 for layer in vector["layers"])])
        state = state[kept]
        np.testing.assert_allclose(state[:, 1:] @ state[:, 1:].T, covariance[kept][:, kept], atol=1e-12, rtol=1e-12)
        if vector["steps"]:
            np.testing.assert_allclose(state[:, 0], means[kept], atol=1e-12)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("alpha", [0.68, 1.4])
def test_torchs_sgd_on_the_displacement_does_the_same(nesterov, alpha):
    generator = torch.Generator().manual_seed(0)
    slow = torch.nn.Parameter(torch.randn(7, dtype=torch.float64, generator=generator))
    witness = torch.optim.SGD([slow], lr=alpha, momentum=0.37, nesterov=nesterov)
    own = {"slow": [slow.detach().clone()], "momentum": [torch.zeros(7, dtype=torch.float64)]}
    layer = SlowMomentum(3, alpha, momentum=0.37, nesterov=nesterov)
    for _ in range(20):
        fast = torch.randn(7, dtype=torch.float64, generator=generator)
        slow.grad = slow.detach() - fast
        witness.step()
        sync_([layer], [fast], [own])
        torch.testing.assert_close(own["slow"][0], slow.detach(), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(own["momentum"][0], witness.state[slow]["momentum_buffer"], rtol=1e-13, atol=1e-13)
        assert torch.equal(fast, own["slow"][0])


def test_every_step_of_heavy_ball_is_sgd_with_momentum():
    model, bare = make_model(), make_model()
    optimizer = Lookahead(torch.optim.SGD(model.parameters(), lr=0.1), 1, 1.0, slow_momentum=0.9, nesterov=False)
    train(model, optimizer, 30)
    train(bare, torch.optim.SGD(bare.parameters(), lr=0.1, momentum=0.9), 30)
    torch.testing.assert_close(weights(model), weights(bare), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
def test_without_momentum_nothing_changes_and_nothing_is_kept(inner, pullback):
    ours, plain = make_model(), make_model()
    layers = [SlowMomentum(3, 0.5, momentum=0.0), SlowMomentum(2, 0.4, momentum=0.0)]
    optimizer = MultilayerLookahead(INNER[inner](ours.parameters()), layers, pullback)
    train(ours, optimizer, 20)
    nested = NestedLookahead(INNER[inner](plain.parameters()), 3, 2, 0.5, 0.4, pullback)
    train(plain, nested, 20)
    assert torch.equal(weights(ours), weights(plain))
    keys = [[*optimizer.state[param]] for param in ours.parameters()]
    assert keys == [[*nested.state[param]] for param in plain.parameters()]
    assert Lookahead(INNER[inner](ours.parameters()), slow_momentum=0.0).layers == (Layer(5, 0.5),)


LAYERS = (
    SlowMomentum(2, 0.7, "pullback", momentum=0.5),
    SlowMomentum(2, 0.4, "pullback", "cubic", 40, momentum=0.3, nesterov=False),
)


def make(layers=LAYERS, dtype=torch.float64):
    model = make_model(dtype)
    return model, MultilayerLookahead(INNER["sgd"](model.parameters()), layers)


@pytest.mark.parametrize("steps", [0, 1, 3, 8, 11])
@pytest.mark.parametrize("how", ["state dict", "deepcopy"])
def test_it_goes_on_bit_for_bit_in_the_middle_of_a_cycle(steps, how):
    model, optimizer = make()
    train(model, optimizer, steps)
    if how == "deepcopy":
        other_model, other = copy.deepcopy((model, optimizer))
    else:
        file = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), file)
        file.seek(0)
        other_model, other = make([SlowMomentum(7, 0.1), SlowMomentum(9, 0.1)])
        saved_model, saved = torch.load(file, weights_only=True)
        other_model.load_state_dict(saved_model)
        other.load_state_dict(saved)
    for pair in ((model, optimizer), (other_model, other)):
        train(*pair, 13, start=steps)
    assert torch.equal(weights(model), weights(other_model))
    assert other.layers == optimizer.layers == LAYERS
    keys = {"slow_1", "momentum_1", "momentum_cache_1", "slow_2", "momentum_2", "momentum_cache_2"}
    for param in other_model.parameters():
        assert {*other.state[param]} == keys | {"momentum_1_cache_2"}


def test_many_tensors_at_once_are_as_one_by_one(monkeypatch):
    """What an accelerator does."""
    model, optimizer = make()
    together_model, together = make()
    train(model, optimizer, 12)
    monkeypatch.setattr("nested_lookahead.optim._buckets", lambda tensors, owners, one_by_one=True: [(tensors, owners)])
    train(together_model, together, 12)
    assert torch.equal(weights(model), weights(together_model))


def test_compiled_it_is_the_same_to_rounding():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    layers = [SlowMomentum(2, 0.7, momentum=0.5), SlowMomentum(2, 0.4, momentum=0.3, nesterov=False)]
    (model, optimizer), (compiled_model, compiled) = make(layers), make(layers)
    compiled.compile(backend=counter)
    train(model, optimizer, 12)
    train(compiled_model, compiled, 12)
    torch.testing.assert_close(weights(compiled_model), weights(model))
    assert counter.frame_count == 2


def test_a_layer_above_may_pull_back_where_only_a_layer_below_has_momentum():
    model = make_model()
    layers = [SlowMomentum(2, 0.5, momentum=0.6), Layer(2, 0.5, "reset")]
    optimizer = MultilayerLookahead(torch.optim.SGD(model.parameters(), lr=0.1), layers)
    train(model, optimizer, 2)
    assert all(state["momentum_1"].any() for state in optimizer.state.values())
    train(model, optimizer, 2, start=2)
    assert not any(state["momentum_1"].any() for state in optimizer.state.values())
    with pytest.raises(ValueError, match="keeps no momentum"):
        MultilayerLookahead(torch.optim.SGD(model.parameters(), lr=0.1), layers[::-1])


@pytest.mark.parametrize(
    ("name", "step_sizes"),
    [
        ("constant", [0.226, 0.226, 0.226, 0.226, 0.226]),
        ("linear", [0.226, 0.4195, 0.613, 0.8065, 1.0]),
        ("cubic", [1.0, 1 - 0.774 / 64, 1 - 0.774 / 8, 1 - 0.774 * 27 / 64, 0.226]),
    ],
)
def test_schedules(name, step_sizes):
    layer = Layer(5, 0.226, schedule=name, horizon=100)
    assert [layer.at(step).alpha for step in (0, 25, 50, 75, 100)] == pytest.approx(step_sizes, abs=1e-15)
    assert layer.at(200).alpha == layer.at(100).alpha


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_sync_uses_the_step_size_that_the_schedule_has_reached(name):
    x = torch.zeros(1, dtype=torch.float64)
    optimizer = Lookahead(torch.optim.SGD([x], lr=1.0), 2, 0.5, schedule=name)
    optimizer.set_horizon(8)
    slow = 0.0
    for step in range(1, 9):
        x.grad = -torch.ones_like(x)
        optimizer.step()
        if step % 2 == 0:
            slow += 2 * SCHEDULES[name](0.5, step / 8)
            assert x.item() == pytest.approx(slow, abs=1e-14)


def test_a_schedule_without_its_length_says_what_it_needs():
    x = torch.zeros(1)
    optimizer = Lookahead(torch.optim.SGD([x], lr=1.0), schedule="linear")
    with pytest.raises(RuntimeError, match=r"call set_horizon\(steps\) first"):
        optimizer.step()


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: SlowMomentum(5, 0.5, momentum=1.0), r"momentum of a layer must be in \[0, 1\), got 1.0"),
        (lambda: SlowMomentum(5, 0.5, momentum=True), "momentum of a layer must be"),
        (lambda: SlowMomentum(5, 0.5, momentum=0.5, nesterov=1), "nesterov must be True or False, got 1"),
        (lambda: SlowMomentum(5, math.inf, momentum=0.5), "alpha must be a finite number > 0, got inf"),
        (lambda: SlowMomentum(5, 1.2, "pullback", momentum=0.5), r"alpha must be in \(0, 1\] where pullback"),
        (lambda: Layer(5, 0.5, schedule="square"), "schedule of a layer must be one of constant, linear, cubic"),
        (lambda: Layer(5, 0.5, horizon=-1), "horizon must be an integer >= 0, got -1"),
        (lambda: Lookahead(INNER["sgd"](make_model().parameters()), alpha=1.2), r"alpha must be in \(0, 1\], got 1.2"),
        (lambda: NestedLookahead(INNER["sgd"](make_model().parameters()), h=1.2), r"h must be in \(0, 1\], got 1.2"),
    ],
)
def test_errors_name_argument_value_and_range(make_layer, message):
    with pytest.raises(ValueError, match=message):
        make_layer()


def test_the_faces_make_the_layers():
    params = make_model().parameters()
    optimizer = NestedLookahead(INNER["sgd"](params), 5, 4, 0.5, 1.2, outer_momentum=0.6, outer_schedule="linear")
    assert optimizer.layers == (Layer(5, 0.5), SlowMomentum(4, 1.2, schedule="linear", momentum=0.6))
    assert "layer 2: k=4 alpha=1.2 pullback=none schedule=linear momentum=0.6\n" in repr(optimizer)
    optimizer.set_horizon(10)
    assert [layer.horizon for layer in optimizer.layers] == [0, 10]


def test_a_momentum_of_another_type_is_a_float_in_a_checkpoint():
    """As numpy's numbers, which `torch.load(weights_only=True)` refuses, come out of a search."""
    kept = SlowMomentum(3, 0.5, momentum=np.float32(0.25)).settings()["momentum"]
    assert type(kept) is float
    assert kept == 0.25
