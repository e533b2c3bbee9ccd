"""Saving, loading and copying an optimizer, at any point of a cycle."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from made_optimizers import INNER, WRAPPERS, make_model, train, weights
from torch.optim import lr_scheduler

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead
from nested_lookahead.optim import PULLBACK_MODES, Layer, SlowMomentum


@pytest.mark.parametrize("steps", [0, 1, 5, 7, 12])
@pytest.mark.parametrize("pullback", PULLBACK_MODES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("inner", INNER)
def test_state_dict_continues_bit_for_bit(inner, wrapper, pullback, steps):
    def make():
        model = make_model()
        return model, WRAPPERS[wrapper](INNER[inner](model.parameters()), pullback)

    model, optimizer = make()
    train(model, optimizer, steps)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, 12, start=steps)  # past a sync of the outermost layer: at most 8 steps lie between two

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh_model, fresh = make()
    fresh_model.load_state_dict(saved["model"])
    fresh.load_state_dict(saved["optimizer"])
    train(fresh_model, fresh, 12, start=steps)
    assert torch.equal(weights(fresh_model), weights(model))
    assert fresh.fast_steps == optimizer.fast_steps == steps + 12


def test_state_dict_is_complete_and_keyed_by_index():
    model = make_model()
    optimizer = NestedLookahead(INNER["adam"](model.parameters()), 2, 2, pullback="pullback")
    train(model, optimizer, 5)
    saved = optimizer.state_dict()
    ours = {"slow_1", "slow_2", "momentum_cache_1", "momentum_cache_2"}
    assert list(saved["state"]) == [0, 1, 2, 3]
    assert all(set(state) == ours | {"step", "exp_avg", "exp_avg_sq"} for state in saved["state"].values())
    layers = [{"k": 2, "alpha": 0.5, "pullback": "pullback"}] * 2
    assert saved["param_groups"][0]["lookahead"] == {"fast_steps": 5, "layers": layers}


def test_loading_shares_no_memory_with_the_source():
    first, second = make_model(), make_model()
    source = WRAPPERS["nested"](INNER["sgd"](first.parameters()), "pullback")
    target = WRAPPERS["nested"](INNER["sgd"](second.parameters()), "pullback")
    train(first, source, 7)
    second.load_state_dict(first.state_dict())
    target.load_state_dict(source.state_dict())
    train(first, source, 6, start=7)
    train(second, target, 6, start=7)
    assert torch.equal(weights(first), weights(second))


def test_loading_restores_hyperparameters_as_torch_does():
    model = make_model()
    saved = Lookahead(INNER["sgd"](model.parameters()), k=7, alpha=0.3, pullback="reset", lr=0.25).state_dict()
    other = Lookahead(INNER["sgd"](make_model().parameters()), k=5, alpha=0.5)
    other.load_state_dict(saved)
    assert other.layers == (Layer(7, 0.3, "reset"),)
    assert other.param_groups[0]["lr"] == 0.25


def test_layers_load_from_lists_and_without_fields_they_did_not_have_yet():
    saved = Lookahead(INNER["sgd"](make_model().parameters()), k=7, alpha=0.3).state_dict()
    for layer in ([7, 0.3, "none"], {"k": 7, "alpha": 0.3}):
        saved["param_groups"][0]["lookahead"]["layers"] = [layer]
        other = Lookahead(INNER["sgd"](make_model().parameters()), pullback="reset")
        other.load_state_dict(saved)
        assert other.layers == (Layer(7, 0.3, "none"),)


def test_loading_what_does_not_fit_changes_nothing():
    model = make_model()
    optimizer = Lookahead(INNER["sgd"](model.parameters()))
    train(model, optimizer, 3)
    before = copy.deepcopy(optimizer.state_dict())
    nested = NestedLookahead(INNER["sgd"](make_model().parameters())).state_dict()
    two_groups = copy.deepcopy(before)
    two_groups["param_groups"].append(two_groups["param_groups"][0])
    unknown = copy.deepcopy(before)
    unknown["param_groups"][0]["lookahead"]["layers"][0]["friction"] = 0.5
    for bad, message in (
        (INNER["sgd"](make_model().parameters()).state_dict(), "not a Lookahead's"),
        (nested, "2 layer"),
        (two_groups, "different number of parameter groups"),
        (unknown, "unexpected keyword argument 'friction'"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(bad)
    assert optimizer.fast_steps == 3
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
@pytest.mark.parametrize("inner", INNER)
def test_copies_are_whole_and_independent(duplicate, inner):
    model = make_model()
    optimizer = WRAPPERS["nested"](INNER[inner](model.parameters()), "pullback")
    scheduler = lr_scheduler.StepLR(optimizer, 4)  # patches optimizer.step, which must not keep it from being copied
    train(model, optimizer, 7)
    twin_model, twin = duplicate((model, optimizer))
    assert all(own is inner for own, inner in zip(twin.param_groups, twin.opt.param_groups, strict=True))
    assert twin.opt is not optimizer.opt
    train(model, optimizer, 9, start=7)
    train(twin_model, twin, 9, start=7)
    assert torch.equal(weights(model), weights(twin_model))
    twin.opt.load_state_dict(twin.opt.state_dict())
    assert all(own is inner for own, inner in zip(twin.param_groups, twin.opt.param_groups, strict=True))
    scheduler.step()


def test_loading_the_inner_optimizer_keeps_param_groups_shared():
    model = make_model()
    optimizer = Lookahead(INNER["sgd"](model.parameters()))
    saved = copy.deepcopy(optimizer.opt.state_dict())
    saved["param_groups"][0]["lr"] = 0.5
    optimizer.opt.load_state_dict(saved)
    assert optimizer.param_groups is optimizer.opt.param_groups
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("wrap", [Lookahead, NestedLookahead])
def test_memory_is_free_once_nobody_holds_the_optimizer(wrap):
    # Two that held each other would wait for a garbage collection, with all their tensors.
    gc.collect()
    gc.disable()
    try:
        p = torch.zeros(10, requires_grad=True)
        p.grad = torch.ones(10)
        opt = wrap(torch.optim.SGD([p], lr=0.1, momentum=0.9))
        opt.step()
        opt.load_state_dict(opt.state_dict())
        with opt.slow_weights():
            pass
        held = [weakref.ref(thing) for thing in (opt, opt.opt, p, opt.state[p]["slow_1"])]
        assert all(reference() is not None for reference in held)
        del opt, p
        assert all(reference() is None for reference in held)
    finally:
        gc.enable()


@pytest.mark.parametrize("inner", ["adam", "list"])
def test_distributed_checkpoint_by_parameter_name(inner):
    """torch.distributed.checkpoint rewrites the state by parameter name; nothing of ours may be lost on the way."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    def make():
        model = make_model()
        return model, WRAPPERS["nested"](INNER[inner](model.parameters()), "pullback")

    model, optimizer = make()
    train(model, optimizer, 7)
    fresh_model, fresh = make()
    fresh_model.load_state_dict(model.state_dict())
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    assert "slow_2" in saved["state"]["0.weight"]
    set_optimizer_state_dict(fresh_model, fresh, saved)
    train(model, optimizer, 9, start=7)
    train(fresh_model, fresh, 9, start=7)
    assert torch.equal(weights(fresh_model), weights(model))


MOMENTUM = [SlowMomentum(3, 0.8, momentum=0.6), SlowMomentum(2, 1.1, momentum=0.4, nesterov=False, pullback="reset")]


@pytest.mark.parametrize("inner", ["sgd", "adam", *sorted({"list", "muon"} & set(INNER))])
@pytest.mark.parametrize(
    "wrap",
    [lambda opt: WRAPPERS["nested"](opt, "pullback"), lambda opt: MultilayerLookahead(opt, MOMENTUM)],
    ids=["pullback", "slow momentum"],
)
def test_distributed_checkpoint_into_a_fresh_optimizer(inner, wrap, tmp_path):
    """The recipe of torch's tutorial: the fresh optimizer's state dict is the template of what is read."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def make():
        model = make_model()
        return model, wrap(INNER[inner](model.parameters()))

    model, optimizer = make()
    train(model, optimizer, 7)
    weights_and_state = get_state_dict(model, optimizer)
    checkpoint.save(dict(zip(("model", "optimizer"), weights_and_state, strict=True)), checkpoint_id=tmp_path)
    fresh_model, fresh = make()
    template = dict(zip(("model", "optimizer"), get_state_dict(fresh_model, fresh), strict=True))
    checkpoint.load(template, checkpoint_id=tmp_path)
    set_state_dict(fresh_model, fresh, model_state_dict=template["model"], optim_state_dict=template["optimizer"])
    assert fresh.fast_steps == 7
    for param, own in zip(model.parameters(), fresh_model.parameters(), strict=True):
        assert optimizer.state[param].keys() == fresh.state[own].keys()
        for key, buffer in optimizer.state[param].items():
            assert torch.equal(fresh.state[own][key], buffer), key
    train(model, optimizer, 9, start=7)
    train(fresh_model, fresh, 9, start=7)
    assert torch.equal(weights(fresh_model), weights(model))


def test_an_inner_optimizer_may_have_a_slow_buffer_of_its_own():
    class Ranger(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            for param in self.param_groups[0]["params"]:
                self.state[param]["slow_buffer"] = param.detach().clone()

    model = make_model()
    optimizer = Lookahead(Ranger(model.parameters(), lr=0.1), k=2)
    train(model, optimizer, 3)
    fresh = Lookahead(Ranger(make_model().parameters(), lr=0.1), k=2)
    fresh.load_state_dict(optimizer.state_dict())
    assert all("slow_buffer" in state for state in fresh.opt.state.values())


def test_our_buffers_stay_out_of_the_inner_state():
    model = make_model()
    optimizer = WRAPPERS["nested"](INNER["adam"](model.parameters()), "pullback")
    assert not any(optimizer.opt.state.values())  # Adam initialises a parameter whose state is empty
    train(model, optimizer, 8)
    assert all(set(state) == {"step", "exp_avg", "exp_avg_sq"} for state in optimizer.opt.state.values())
