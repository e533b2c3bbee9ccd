"""Several optimizers as one, alone and inside a Lookahead: the sum of its parts, and at home where one optimizer is."""

import copy
import io
import pickle

import pytest
import torch
from made_optimizers import HALVES, INNER, WRAPPERS, halves, make_model, sgd_and_adamw, train, weights
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import lr_scheduler

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead, OptimizerList

LISTS = sorted({"list", "muon"} & set(INNER))
SINGLE = sorted(set(INNER) - set(LISTS))


def assert_same_state(one, other):
    assert one["param_groups"] == other["param_groups"]
    torch.testing.assert_close(one["state"], other["state"], rtol=0, atol=0)


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", LISTS)
def test_it_is_its_parts_stepped_one_after_the_other(inner):
    model, apart = make_model(), make_model()
    parts = INNER[inner](apart.parameters()).opts
    train(model, INNER[inner](model.parameters()), 5)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 4, generator=generator).double()
        y = torch.randint(3, (8,), generator=generator)
        apart.zero_grad()
        nn.functional.cross_entropy(apart(x), y).backward()
        for part in parts:
            part.step()
    assert torch.equal(weights(model), weights(apart))


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("inner", SINGLE)
def test_a_list_of_one_is_that_one(inner, wrapper):
    model, listed_model = make_model(), make_model()
    optimizer = WRAPPERS[wrapper](INNER[inner](model.parameters()), "pullback")
    listed = WRAPPERS[wrapper]([INNER[inner](listed_model.parameters())], "pullback")
    train(model, optimizer, 13)
    train(listed_model, listed, 13)
    assert torch.equal(weights(model), weights(listed_model))
    assert_same_state(listed.state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("inner", SINGLE)
def test_two_of_a_kind_are_one_with_two_groups(inner, wrapper):
    """Also in what they save: each loads the other's in the middle of a cycle."""
    made = halves(INNER[inner])
    models = {name: make_model() for name in made}
    optimizers = {name: WRAPPERS[wrapper](made[name](models[name].parameters()), "pullback") for name in made}
    for name in made:
        train(models[name], optimizers[name], 7)
    assert torch.equal(weights(models["one"]), weights(models["list"]))
    saved = {name: copy.deepcopy(optimizer.state_dict()) for name, optimizer in optimizers.items()}
    assert_same_state(saved["one"], saved["list"])
    optimizers["one"].load_state_dict(saved["list"])
    optimizers["list"].load_state_dict(saved["one"])
    for name in made:
        train(models[name], optimizers[name], 7, start=7)
    assert torch.equal(weights(models["one"]), weights(models["list"]))


def test_each_face_takes_a_list():
    for wrap in WRAPPERS.values():
        optimizer = wrap(sgd_and_adamw(make_model().parameters()))
        assert [type(opt).__name__ for opt in optimizer.opt.opts] == ["SGD", "AdamW"]
        assert wrap(tuple(optimizer.opt.opts)).opt.opts == optimizer.opt.opts


def test_a_reset_acts_on_the_momentum_of_each():
    model = make_model()
    optimizer = Lookahead(sgd_and_adamw(model.parameters()), k=2, pullback="reset")
    train(model, optimizer, 1)
    momenta = [state.get("momentum_buffer", state.get("exp_avg")) for state in optimizer.opt.state.values()]
    assert len(momenta) == 4
    assert all(momentum.any() for momentum in momenta)
    train(model, optimizer, 1, start=1)
    assert not any(momentum.any() for momentum in momenta)


def test_the_closure_is_evaluated_once_before_the_first_steps():
    x, y = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(5.0))
    optimizer = Lookahead([torch.optim.SGD([x], lr=1.0), torch.optim.SGD([y], lr=1.0)], k=5)
    seen = []

    def closure():
        seen.append((x.item(), y.item()))
        optimizer.zero_grad()
        loss = x * y
        loss.backward()
        return loss

    with torch.no_grad():  # as in torch, the closure has gradients all the same
        assert optimizer.step(closure).item() == 15.0
    assert seen == [(3.0, 5.0)]
    assert (x.item(), y.item()) == (-2.0, 2.0)
    assert optimizer.step() is None


def test_they_are_stepped_in_order_with_their_hooks():
    model, calls = make_model(), []
    opts = sgd_and_adamw(model.parameters())
    for name, opt in zip(("first", "second"), opts, strict=True):
        opt.register_step_post_hook(lambda *_, name=name: calls.append(name))
        opt.register_state_dict_pre_hook(lambda *_, name=name: calls.append(f"{name} saved"))
        opt.register_load_state_dict_post_hook(lambda *_, name=name: calls.append(f"{name} loaded"))
    optimizer = NestedLookahead(opts)
    train(model, optimizer, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["first", "second", "first saved", "second saved", "first loaded", "second loaded"]


# --- at home where one optimizer is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", LISTS)
def test_alone_it_continues_bit_for_bit(inner):
    model, fresh_model = make_model(), make_model()
    optimizer, fresh = (INNER[inner](m.parameters()) for m in (model, fresh_model))
    train(model, optimizer, 4)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    train(model, optimizer, 4, start=4)
    file.seek(0)
    saved_model, saved = torch.load(file, weights_only=True)
    fresh_model.load_state_dict(saved_model)
    fresh.load_state_dict(saved)
    train(fresh_model, fresh, 4, start=4)
    assert torch.equal(weights(model), weights(fresh_model))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
@pytest.mark.parametrize("inner", LISTS)
def test_alone_it_is_copied_whole(duplicate, inner):
    model = make_model()
    optimizer = INNER[inner](model.parameters())
    train(model, optimizer, 4)
    twin_model, twin = duplicate((model, optimizer))
    train(model, optimizer, 4, start=4)
    assert not torch.equal(weights(model), weights(twin_model))
    train(twin_model, twin, 4, start=4)
    assert torch.equal(weights(model), weights(twin_model))


@pytest.mark.parametrize("inner", LISTS)
def test_alone_it_goes_through_a_distributed_checkpoint(inner):
    model, fresh_model = make_model(), make_model()
    optimizer, fresh = (INNER[inner](m.parameters()) for m in (model, fresh_model))
    train(model, optimizer, 4)
    fresh_model.load_state_dict(model.state_dict())
    set_optimizer_state_dict(fresh_model, fresh, copy.deepcopy(get_optimizer_state_dict(model, optimizer)))
    train(model, optimizer, 4, start=4)
    train(fresh_model, fresh, 4, start=4)
    assert torch.equal(weights(model), weights(fresh_model))


def test_its_own_hooks_see_the_whole_state():
    model = make_model()
    optimizer = OptimizerList(sgd_and_adamw(model.parameters()))
    train(model, optimizer, 1)
    optimizer.register_state_dict_post_hook(lambda _, saved: {**saved, "note": len(saved["state"])})
    optimizer.register_load_state_dict_pre_hook(lambda _, saved: calls.append(saved["note"]))
    optimizer.register_load_state_dict_post_hook(lambda _: calls.append("loaded"))
    optimizer.register_state_dict_pre_hook(lambda _: calls.append("saving"))
    calls = []
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["saving", 4, "loaded"]


def test_its_groups_and_its_state_are_theirs():
    model = make_model()
    optimizer = HALVES["list"](model.parameters())
    first, second = optimizer.opts
    train(model, optimizer, 1)
    assert optimizer.param_groups == first.param_groups + second.param_groups
    optimizer.param_groups[1]["lr"] = 0.5
    assert second.param_groups[0]["lr"] == 0.5
    optimizer.param_groups = [{**group, "lr": lr} for group, lr in zip(optimizer.param_groups, (0.1, 0.2), strict=True)]
    assert (first.param_groups[0]["lr"], second.param_groups[0]["lr"]) == (0.1, 0.2)
    params = [*model.parameters()]
    assert [optimizer.state[param] is opt.state[param] for param in params for opt in optimizer.opts].count(True) == 4
    assert optimizer.state[torch.ones(1)] == {}
    optimizer.state = {params[0]: {"step": 1}}
    assert (dict(first.state), dict(second.state)) == ({params[0]: {"step": 1}}, {})
    assert first.state[params[1]] == {}  # a defaultdict, as torch's optimizers need it


def test_learning_rate_and_weight_decay_given_apply_to_all():
    optimizer = NestedLookahead(sgd_and_adamw(make_model().parameters()), lr=0.3, weight_decay=0.2)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.3, 0.2)] * 2
    optimizer.add_param_group({"params": [torch.ones(1)]})
    assert (optimizer.param_groups[2]["lr"], optimizer.param_groups[2]["weight_decay"]) == (0.3, 0.2)


def test_a_param_group_goes_to_the_last():
    """So that it is the last of all, where schedulers look for it."""
    model = make_model()
    optimizer = NestedLookahead(sgd_and_adamw(model.parameters()), k=2, s=1)
    train(model, optimizer, 3)
    late = nn.Parameter(torch.tensor([3.0]))
    optimizer.add_param_group({"params": late, "lr": 0.5})
    assert optimizer.param_groups[-1] is optimizer.opt.opts[1].param_groups[-1]
    assert "betas" in optimizer.param_groups[-1]
    train(model, optimizer, 1, start=3)
    assert torch.equal(optimizer.state[late]["slow_2"], late)
    taken = next(model.parameters())
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [taken]})
    assert len(optimizer.param_groups) == 3


def test_momentum_is_cycled_where_all_have_the_same():
    """Torch's OneCycleLR looks for momentum or betas in the defaults."""
    two = halves(INNER["adamw-amsgrad"])["list"](make_model().parameters())
    lr_scheduler.OneCycleLR(two, 0.1, 12)
    assert [group["betas"][0] for group in two.param_groups] == [0.95, 0.95]
    with pytest.raises(ValueError, match="must support momentum or beta1"):
        lr_scheduler.OneCycleLR(OptimizerList(sgd_and_adamw(make_model().parameters())), 0.1, 12)


def test_it_is_printed():
    text = repr(NestedLookahead(sgd_and_adamw(make_model().parameters())))
    assert "\n  opt: OptimizerList (\n    opts[0]: SGD (" in text
    assert "\n    opts[1]: AdamW (" in text


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_is_no_list_of_optimizers_is_refused():
    model = make_model()
    sgd, (first, *_) = INNER["sgd"](model.parameters()), model.parameters()
    for wrap in (OptimizerList, NestedLookahead, lambda opts: MultilayerLookahead(opts, [(2, 0.5)])):
        with pytest.raises(ValueError, match="a list of optimizers must hold at least one, got none"):
            wrap([])
        with pytest.raises(TypeError, match=r"opts\[1\] must be a torch.optim.Optimizer, got Linear"):
            wrap([sgd, model[0]])
        with pytest.raises(ValueError, match=r"a parameter of shape \(5, 4\) is in opts\[0\] and opts\[1\]"):
            wrap([sgd, torch.optim.Adam([first])])
        with pytest.raises(TypeError, match=r"opts\[0\] is LBFGS, which evaluates its closure many times"):
            wrap([torch.optim.LBFGS(model.parameters())])
    with pytest.raises(TypeError, match="already a Lookahead"):
        NestedLookahead([Lookahead(sgd)])
    with pytest.raises(TypeError, match="already a Lookahead"):
        NestedLookahead([OptimizerList([Lookahead(sgd)])])


def test_a_pullback_needs_momentum_in_each():
    model = make_model()
    first, *others = model.parameters()
    plain, adam = torch.optim.SGD([first], lr=0.1), torch.optim.Adam(others)
    with pytest.raises(ValueError, match="SGD with momentum=0 keeps no momentum"):
        Lookahead([adam, plain], pullback="reset")

    class Unknown(torch.optim.Adagrad):
        __module__ = "somebodys"

    with pytest.raises(ValueError, match="Unknown keeps no momentum"):
        train(model, Lookahead([adam, Unknown([first])], k=2, pullback="reset"), 2)


def test_a_setting_that_one_of_them_lacks_is_refused():
    first, *others = make_model().parameters()
    with pytest.raises(ValueError, match="weight_decay given, but Rprop has no weight_decay"):
        Lookahead([torch.optim.Adam(others), torch.optim.Rprop([first])], weight_decay=0.1)


@pytest.mark.parametrize("wrap", [OptimizerList, Lookahead])
def test_loading_what_does_not_fit_changes_nothing(wrap):
    model = make_model()
    optimizer = wrap(sgd_and_adamw(model.parameters()))
    train(model, optimizer, 3)
    before = copy.deepcopy(optimizer.state_dict())
    shifted, lacking = copy.deepcopy(before), copy.deepcopy(before)
    shifted["param_groups"][0]["lr"] = lacking["param_groups"][0]["lr"] = 7.0
    shifted["param_groups"][1]["params"].pop()
    lacking["param_groups"].pop()
    for bad, message in ((shifted, "doesn't match the size"), (lacking, "different number of parameter groups")):
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(bad)
        assert_same_state(optimizer.state_dict(), before)
