"""A new kind of layer: what a subclass gets from saying no more than its settings, its buffers and its update."""

import copy
import io
import pickle
from dataclasses import dataclass

import pytest
import torch
from made_optimizers import INNER, make_model, train, weights

from nested_lookahead import MultilayerLookahead
from nested_lookahead.optim import Layer, apply_


@dataclass(frozen=True)
class Averaging(Layer):
    """Lookahead that also keeps an average of its slow weights, with a decay."""

    decay: float = 0.9

    def buffers(self):
        return {"average": torch.clone}

    def update_(self, below, own):
        super().update_(below, own)
        apply_("lerp_", own["average"], own["slow"], 1 - self.decay)


LAYERS = (Averaging(2, 0.5, "pullback", decay=0.8), Layer(2, 0.4, "pullback"))


def make(dtype=torch.float64, layers=LAYERS):
    model = make_model(dtype)
    return model, MultilayerLookahead(INNER["sgd"](model.parameters()), layers)


def averages(model, optimizer):
    return torch.cat([optimizer.state[p]["average_1"].flatten() for p in model.parameters()])


def test_its_buffer_follows_its_update():
    model, optimizer = make(layers=[Averaging(2, 0.5, decay=0.75)])
    average = weights(model)
    for step in range(8):
        train(model, optimizer, 1, start=step)
        if step % 2:
            average += 0.25 * (weights(model) - average)
        torch.testing.assert_close(averages(model, optimizer), average, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("steps", [0, 1, 3, 8])
def test_it_is_saved_and_restored(steps):
    model, optimizer = make()
    train(model, optimizer, steps)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    saved_model, saved = torch.load(file, weights_only=True)
    assert saved["param_groups"][0]["lookahead"]["layers"][0]["decay"] == 0.8
    fresh_model, fresh = make(layers=[Averaging(5, 0.1, decay=0.1), Layer(5, 0.1)])
    fresh_model.load_state_dict(saved_model)
    fresh.load_state_dict(saved)
    for pair in ((model, optimizer), (fresh_model, fresh)):
        train(*pair, 9, start=steps)
    assert torch.equal(weights(model), weights(fresh_model))
    assert torch.equal(averages(model, optimizer), averages(fresh_model, fresh))
    assert fresh.layers == optimizer.layers
    assert not any("average_1" in state for state in fresh.opt.state.values())


def test_a_state_of_another_kind_is_refused():
    _, optimizer = make()
    _, plain = make(layers=[Layer(2, 0.5), Layer(2, 0.4)])
    with pytest.raises(ValueError, match="unexpected keyword argument 'decay'"):
        plain.load_state_dict(optimizer.state_dict())


def test_a_state_that_lacks_its_buffer_is_refused():
    model, plain = make(layers=[Layer(2, 0.5), Layer(2, 0.4)])
    train(model, plain, 1)
    _, optimizer = make()
    with pytest.raises(ValueError, match="lacks average_1"):
        optimizer.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_it_is_copied(duplicate):
    model, optimizer = make()
    train(model, optimizer, 5)
    twin_model, twin = duplicate((model, optimizer))
    train(model, optimizer, 6, start=5)
    train(twin_model, twin, 6, start=5)
    assert torch.equal(averages(model, optimizer), averages(twin_model, twin))
    assert twin.layers == optimizer.layers


def test_it_is_printed():
    assert "\n  layer 1: k=2 alpha=0.5 pullback=pullback decay=0.8\n  layer 2: k=2" in repr(make()[1])


def test_it_follows_its_parameters_to_another_dtype_and_device():
    model, optimizer = make(torch.float32)
    train(model, optimizer, 1)
    for state in optimizer.opt.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].double()
    model.to(torch.float64)
    train(model, optimizer, 7, start=1)
    assert averages(model, optimizer).dtype == torch.float64
    there = torch.nn.Parameter(torch.ones(3, device="meta"))
    optimizer.add_param_group({"params": [there]})
    there.grad = torch.ones_like(there)
    train(model, optimizer, 4, start=8)
    assert optimizer.state[there]["average_1"].device.type == "meta"


def test_a_param_group_added_later_has_it_too():
    model, optimizer = make()
    train(model, optimizer, 3)
    late = torch.nn.Parameter(torch.full((2,), 3.0, dtype=torch.float64))
    optimizer.add_param_group({"params": [late]})
    train(model, optimizer, 1, start=3)
    assert torch.equal(optimizer.state[late]["average_1"], late)


def test_its_update_is_compiled():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model, optimizer = make()
    compiled_model, compiled = make()
    compiled.compile(backend=counter)
    train(model, optimizer, 12)
    train(compiled_model, compiled, 12)
    torch.testing.assert_close(averages(compiled_model, compiled), averages(model, optimizer))
    assert counter.frame_count == 2  # one for each depth


def test_pairs_and_layers_mix_and_a_pullback_given_beside_them_wins():
    opt = INNER["sgd"](make_model().parameters())
    optimizer = MultilayerLookahead(opt, [(3, 0.5), Averaging(2, 0.5, "reset")])
    assert optimizer.layers == (Layer(3, 0.5), Averaging(2, 0.5, "reset"))
    optimizer = MultilayerLookahead(opt, optimizer.layers, pullback="pullback_inner")
    assert optimizer.layers == (Layer(3, 0.5, "pullback"), Averaging(2, 0.5, "none"))
