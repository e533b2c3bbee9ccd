"""What a Lookahead computes in plain cases, and that it is at home wherever a torch optimizer is."""

import copy
import gc
import io
import itertools
import pickle
import subprocess
import sys
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead
from nested_lookahead.optim import MOMENTUM_BUFFERS, PULLBACK_MODES, PULLBACK_SCOPES, Layer

INNER = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
}
WRAPPERS = {
    "lookahead": lambda opt, pullback="none": Lookahead(opt, 3, 0.5, pullback),
    "nested": lambda opt, pullback="none": NestedLookahead(opt, 3, 2, 0.5, 0.4, pullback),
    "multilayer": lambda opt, pullback="none": MultilayerLookahead(opt, [(2, 0.5), (2, 0.8), (2, 0.3)], pullback),
}


def make_model(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def train(model, optimizer, steps, start=0):
    """Steps on batches that depend on the step's number alone."""
    dtype = next(model.parameters()).dtype
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 4, generator=generator).to(dtype)
        y = torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


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


# --- degenerate settings, exact -------------------------------------------------------------------------------------


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


# --- slow weights ---------------------------------------------------------------------------------------------------


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


# --- saving, loading, copying ---------------------------------------------------------------------------------------


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
    train(model, optimizer, 20, start=steps)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh_model, fresh = make()
    fresh_model.load_state_dict(saved["model"])
    fresh.load_state_dict(saved["optimizer"])
    train(fresh_model, fresh, 20, start=steps)
    assert torch.equal(weights(fresh_model), weights(model))
    assert fresh.fast_steps == optimizer.fast_steps == steps + 20


def test_state_dict_is_complete_and_keyed_by_index():
    model = make_model()
    optimizer = NestedLookahead(INNER["adam"](model.parameters()), 2, 2, pullback="pullback")
    train(model, optimizer, 5)
    saved = optimizer.state_dict()
    ours = {"slow_1", "slow_2", "momentum_cache_1", "momentum_cache_2"}
    assert list(saved["state"]) == [0, 1, 2, 3]
    assert all(set(state) == ours | {"step", "exp_avg", "exp_avg_sq"} for state in saved["state"].values())
    layers = [[2, 0.5, "pullback"], [2, 0.5, "pullback"]]
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


def test_loading_what_does_not_fit_changes_nothing():
    model = make_model()
    optimizer = Lookahead(INNER["sgd"](model.parameters()))
    train(model, optimizer, 3)
    before = copy.deepcopy(optimizer.state_dict())
    nested = NestedLookahead(INNER["sgd"](make_model().parameters())).state_dict()
    two_groups = copy.deepcopy(before)
    two_groups["param_groups"].append(two_groups["param_groups"][0])
    for bad, message in (
        (INNER["sgd"](make_model().parameters()).state_dict(), "not a Lookahead's"),
        (nested, "2 layer"),
        (two_groups, "different number of parameter groups"),
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
    assert twin.param_groups is twin.opt.param_groups
    assert twin.opt is not optimizer.opt
    train(model, optimizer, 9, start=7)
    train(twin_model, twin, 9, start=7)
    assert torch.equal(weights(model), weights(twin_model))
    twin.opt.load_state_dict(twin.opt.state_dict())
    assert twin.param_groups is twin.opt.param_groups
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


def test_distributed_checkpoint_by_parameter_name():
    """torch.distributed.checkpoint rewrites the state by parameter name; nothing of ours may be lost on the way."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    def make():
        model = make_model()
        return model, WRAPPERS["nested"](INNER["adam"](model.parameters()), "pullback")

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


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_distributed_checkpoint_into_a_fresh_optimizer(inner, tmp_path):
    """The recipe of torch's tutorial: the fresh optimizer's state dict is the template of what is read."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def make():
        model = make_model()
        return model, WRAPPERS["nested"](INNER[inner](model.parameters()), "pullback")

    model, optimizer = make()
    train(model, optimizer, 7)
    weights_and_state = get_state_dict(model, optimizer)
    checkpoint.save(dict(zip(("model", "optimizer"), weights_and_state, strict=True)), checkpoint_id=tmp_path)
    fresh_model, fresh = make()
    template = dict(zip(("model", "optimizer"), get_state_dict(fresh_model, fresh), strict=True))
    checkpoint.load(template, checkpoint_id=tmp_path)
    set_state_dict(fresh_model, fresh, model_state_dict=template["model"], optim_state_dict=template["optimizer"])
    assert fresh.fast_steps == 7
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


def test_the_optimizers_need_torch_alone():
    script = "import sys; before = set(sys.modules); import torch; torch_modules = set(sys.modules)\n"
    script += "import nested_lookahead.optim; new = set(sys.modules) - torch_modules\n"
    script += "assert new == {'nested_lookahead', 'nested_lookahead.optim'}, new"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_our_buffers_stay_out_of_the_inner_state():
    model = make_model()
    optimizer = WRAPPERS["nested"](INNER["adam"](model.parameters()), "pullback")
    assert not any(optimizer.opt.state.values())  # Adam initialises a parameter whose state is empty
    train(model, optimizer, 8)
    assert all(set(state) == {"step", "exp_avg", "exp_avg_sq"} for state in optimizer.opt.state.values())


def test_repr_shows_layers_and_inner_optimizer():
    text = repr(NestedLookahead(INNER["sgd"](make_model().parameters()), pullback="reset_outer"))
    assert text.startswith("NestedLookahead (\n  layer 1: k=5 alpha=0.5 pullback=none\n  layer 2:")
    assert "opt: SGD (" in text


# --- parameters of all kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none):
    model = make_model()
    optimizer = Lookahead(INNER["sgd"](model.parameters()))
    model(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
    optimizer.zero_grad(set_to_none=set_to_none)
    for param in model.parameters():
        assert param.grad is None if set_to_none else not param.grad.any()


def test_adding_a_param_group_in_the_middle_of_a_cycle():
    x, y = torch.tensor([3.0]), torch.tensor([10.0])
    optimizer = NestedLookahead(torch.optim.SGD([x], lr=1.0), k=2, s=2)
    for _ in range(3):
        x.grad = torch.ones(1)
        optimizer.step()
    optimizer.add_param_group({"params": [y], "lr": 2.0})
    assert optimizer.param_groups is optimizer.opt.param_groups
    x.grad = y.grad = torch.ones(1)
    optimizer.step()  # step 4: both layers sync; y went from 10 to 8, half-way back to 9, and half-way again
    assert (x.item(), y.item()) == (2.0, 9.5)
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [y]})
    restored = NestedLookahead(torch.optim.SGD([{"params": [x]}, {"params": [y], "lr": 2.0}], lr=1.0), k=2, s=2)
    restored.load_state_dict(optimizer.state_dict())
    assert restored.state[y]["slow_2"].item() == 9.5


def test_adding_a_param_group_to_the_inner_optimizer_alone_is_an_error():
    x, y = torch.ones(1), torch.ones(1)
    optimizer = Lookahead(torch.optim.SGD([x], lr=1.0), k=1)
    optimizer.opt.add_param_group({"params": [y]})
    x.grad = torch.ones(1)
    with pytest.raises(RuntimeError, match="add_param_group"):
        optimizer.step()


def test_several_groups_frozen_and_gradless_parameters():
    frozen = nn.Parameter(torch.tensor([1.0]), requires_grad=False)
    unused = nn.Parameter(torch.tensor([2.0]))
    late = nn.Parameter(torch.tensor([3.0]))
    used = nn.Parameter(torch.tensor([4.0]))
    inner = torch.optim.SGD([{"params": [frozen, unused]}, {"params": [late, used], "lr": 2.0}], lr=1.0, momentum=0.5)
    optimizer = Lookahead(inner, k=2, alpha=0.5, pullback="pullback")
    for step in range(4):
        used.grad = torch.ones(1)
        late.grad = torch.ones(1) if step >= 2 else None
        optimizer.step()
    assert (frozen.item(), unused.item()) == (1.0, 2.0)
    # late, lr 2, momentum .5 from step 2 on: 3 → 1 → −2; synced to 3 + (−2 − 3)/2; momentum 1.5/2
    assert late.item() == 0.5
    assert inner.state[late]["momentum_buffer"].item() == 0.75
    # used: 4 → 2 → −1 | 1.5, m = .75 | m: 1.375, 1.6875: → −1.25 → −4.625 | 1.5 + (−4.625 − 1.5)/2
    assert used.item() == -1.5625
    assert inner.state[used]["momentum_buffer"].item() == (1.6875 + 0.75) / 2


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_what_is_frozen_is_left_alone_until_it_is_unfrozen(alpha):
    mask = nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False)
    late = nn.Parameter(torch.tensor([3.0]), requires_grad=False)
    used = nn.Parameter(torch.tensor([3.0]))
    optimizer = NestedLookahead(torch.optim.SGD([mask, late, used], lr=1.0), k=2, s=1, alpha=alpha, h=1.0)
    for step in range(4):
        if step == 2:
            late.requires_grad_(True)
            assert not optimizer.state.get(late)
        used.grad = torch.ones(1)
        late.grad = torch.ones(1) if step >= 2 else None
        optimizer.step()
    assert mask.tolist() == [0.0, -torch.inf]
    assert not optimizer.state.get(mask)
    assert late.item() == 3 - 2 * alpha
    other = NestedLookahead(torch.optim.SGD([mask, late, used], lr=1.0), k=2, s=1, alpha=alpha, h=1.0)
    other.load_state_dict(optimizer.state_dict())
    assert not other.state.get(mask)
    assert torch.equal(other.state[late]["slow_2"], optimizer.state[late]["slow_2"])


@pytest.mark.parametrize("inner", ["sgd", "adam", "rmsprop"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_dtypes(dtype, inner):
    x = nn.Parameter(torch.linspace(-1, 1, 5).to(dtype))
    y = nn.Parameter(torch.ones(3, dtype=torch.float32))
    optimizer = WRAPPERS["nested"](INNER[inner]([x, y]), "pullback")
    for _ in range(12):
        x.grad, y.grad = torch.full_like(x, 0.5), torch.full_like(y, 0.5)
        optimizer.step()
    for param, start in ((x, torch.linspace(-1, 1, 5).to(dtype)), (y, torch.ones(3))):
        assert torch.isfinite(param.abs()).all()
        assert (param - start).abs().min() > 0.01
        for key, value in optimizer.state[param].items():
            assert value.dtype == param.dtype, key
    reference = nn.Parameter(torch.ones(3))
    alone = WRAPPERS["nested"](INNER[inner]([reference]), "pullback")
    for _ in range(12):
        reference.grad = torch.full_like(reference, 0.5)
        alone.step()
    assert torch.equal(y, reference)


def test_parameters_on_several_devices():
    """The meta device stands in for a second one: an operation across the two raises, as between real ones."""
    here, there = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, device="meta"))
    optimizer = WRAPPERS["nested"](INNER["sgd"]([here, there]), "pullback")
    alone_param = nn.Parameter(torch.ones(3))
    alone = WRAPPERS["nested"](INNER["sgd"]([alone_param]), "pullback")
    for _ in range(12):
        for param in (here, there, alone_param):
            param.grad = torch.ones_like(param)
        optimizer.step()
        alone.step()
    with optimizer.slow_weights():
        pass
    assert torch.equal(here, alone_param)
    assert optimizer.state[there]["momentum_cache_2"].device.type == "meta"


def test_model_moved_after_construction():
    model = make_model(torch.float32)
    optimizer = WRAPPERS["nested"](INNER["sgd"](model.parameters()), "pullback")
    model.to(torch.float64)
    train(model, optimizer, 12)
    assert all(state["slow_1"].dtype == torch.float64 for state in optimizer.state.values())
    for param, state in optimizer.opt.state.items():  # and back, with what the inner optimizer keeps
        param.grad, state["momentum_buffer"] = None, state["momentum_buffer"].float()
    model.to(torch.float32)
    train(model, optimizer, 12, start=12)
    for state in optimizer.state.values():
        assert {buffer.dtype for buffer in state.values()} == {torch.float32}


def test_channels_last_parameters_keep_their_layout():
    conv = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    optimizer = Lookahead(INNER["sgd"](conv.parameters()))
    optimizer.state_dict()
    assert optimizer.state[conv.weight]["slow_1"].is_contiguous(memory_format=torch.channels_last)


# --- in other people's training loops -------------------------------------------------------------------------------


def make_schedulers():
    plateau = lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=0)  # noqa: E731
    return {
        "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda step: 0.9**step),
        "MultiplicativeLR": lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda step: 0.9),
        "StepLR": lambda opt: lr_scheduler.StepLR(opt, 3),
        "MultiStepLR": lambda opt: lr_scheduler.MultiStepLR(opt, [2, 5]),
        "ConstantLR": lambda opt: lr_scheduler.ConstantLR(opt, 0.5, 3),
        "LinearLR": lambda opt: lr_scheduler.LinearLR(opt, 0.1, total_iters=5),
        "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
        "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 8),
        "PolynomialLR": lambda opt: lr_scheduler.PolynomialLR(opt, 8),
        "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 4),
        "CyclicLR": lambda opt: lr_scheduler.CyclicLR(opt, 0.01, 0.1, 3),  # cycles the momentum, too
        "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, 12),
        "ReduceLROnPlateau": plateau,
        "ChainedScheduler": lambda opt: lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(opt, 0.5, 3), lr_scheduler.ExponentialLR(opt, 0.9)]
        ),
        "SequentialLR": lambda opt: lr_scheduler.SequentialLR(
            opt, [lr_scheduler.LinearLR(opt, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(opt, 6)], [3]
        ),
    }


def test_every_scheduler_of_torch_is_tried():
    known = set(make_schedulers()) | {"LRScheduler"}
    assert set(lr_scheduler.__all__) <= known, "torch has a scheduler that test_schedulers does not try"


@pytest.mark.parametrize("name", make_schedulers())
def test_schedulers(name):
    """Each moves lr (and momentum) just as it does over the bare inner optimizer, and warns of nothing."""

    def run(wrap):
        model = make_model()
        optimizer = wrap(INNER["sgd"](model.parameters()))
        scheduler = make_schedulers()[name](optimizer)
        seen = []
        for step in range(12):
            train(model, optimizer, 1, start=step)
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            group = getattr(optimizer, "opt", optimizer).param_groups[0]
            seen.append((group["lr"], group["momentum"]))
        return seen

    with warnings.catch_warnings(record=True) as bare_warnings:
        warnings.simplefilter("always")
        expected = run(lambda opt: opt)
    with warnings.catch_warnings(record=True) as our_warnings:
        warnings.simplefilter("always")
        assert run(WRAPPERS["nested"]) == expected
    assert [str(w.message) for w in our_warnings] == [str(w.message) for w in bare_warnings]
    assert len(set(expected)) > 1


def test_swa_and_ema_averaging():
    model = make_model()
    optimizer = WRAPPERS["nested"](INNER["sgd"](model.parameters()))
    scheduler = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for step in range(4):
        train(model, optimizer, 1, start=step)
        averaged.update_parameters(model)
        scheduler.step()
    assert optimizer.opt.param_groups[0]["lr"] == 0.05


def test_grad_scaler_skips_a_step_without_counting_it():
    x = nn.Parameter(torch.tensor([3.0]))
    optimizer = Lookahead(torch.optim.SGD([x], lr=1.0), k=2, alpha=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def step(factor):
        optimizer.zero_grad()
        scaler.scale((x * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        return x.item()

    assert step(1.0) == 2.0
    assert step(float("inf")) == 2.0
    assert optimizer.fast_steps == 1
    assert step(1.0) == 2.0  # 2 → 1, and half-way back to 3
    assert optimizer.fast_steps == 2


def test_hooks_of_both_optimizers_run():
    model = make_model()
    optimizer = Lookahead(INNER["sgd"](model.parameters()), k=1)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("outer pre"))
    optimizer.opt.register_step_pre_hook(lambda *_: calls.append("inner pre"))
    optimizer.opt.register_step_post_hook(lambda *_: calls.append("inner post"))
    optimizer.register_step_post_hook(lambda *_: calls.append("outer post"))
    optimizer.register_state_dict_pre_hook(lambda *_: calls.append("save"))
    optimizer.register_load_state_dict_post_hook(lambda *_: calls.append("load"))
    train(model, optimizer, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["outer pre", "inner pre", "inner post", "outer post", "save", "load"]


def test_state_dict_hooks_see_and_change_the_whole_state():
    model = make_model()
    optimizer = Lookahead(INNER["adam"](model.parameters()), k=5)
    train(model, optimizer, 2)
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": sorted(state["state"][0])})

    def set_lr(_, state):
        assert "exp_avg" in state["state"][0]
        state["param_groups"] = [{**group, "lr": 0.125} for group in state["param_groups"]]

    optimizer.register_load_state_dict_pre_hook(set_lr)
    saved = optimizer.state_dict()
    assert saved["note"] == ["exp_avg", "exp_avg_sq", "slow_1", "step"]
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_the_profiler_names_the_step():
    model = make_model()
    optimizer = NestedLookahead(INNER["sgd"](model.parameters()))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train(model, optimizer, 1)
    names = {event.key for event in profile.key_averages()}
    assert {"Optimizer.step#NestedLookahead.step", "Optimizer.step#SGD.step"} <= names


def test_closure_with_lbfgs():
    def run(wrap):
        model = make_model()
        optimizer = wrap(torch.optim.LBFGS(model.parameters(), max_iter=3))
        x, y = torch.ones(6, 4, dtype=torch.float64), torch.arange(6) % 3

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        return [optimizer.step(closure).item() for _ in range(6)]

    assert run(lambda opt: Lookahead(opt, 3, 1.0)) == run(lambda opt: opt)
    losses = run(lambda opt: Lookahead(opt, 3, 0.5))
    assert losses[-1] < losses[0]


def test_compiled_training_step():
    """Whole step under torch.compile, against the eager one; recompiles stay few although the sync is periodic."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()

    def run(compiled):
        model = make_model()
        optimizer = WRAPPERS["nested"](INNER["sgd"](model.parameters()), "pullback")

        def step(x, y):
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        counter, frames = CompileCounterWithBackend("aot_eager"), []
        if compiled:
            step = torch.compile(step, backend=counter)
        for number in range(24):
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
            step(x, torch.randint(3, (8,), generator=generator))
            frames.append(counter.frame_count)
        return weights(model), frames

    eager, _ = run(compiled=False)
    compiled, frames = run(compiled=True)
    torch.testing.assert_close(compiled, eager, rtol=1e-12, atol=1e-12)
    assert 0 < frames[-1] == frames[7]  # nothing is compiled anew after the first cycle


@pytest.mark.parametrize("pullback", ["none", "pullback"])
def test_compiled_sync(pullback):
    """One call for all tensors of a dtype, compiled once per depth, and the same result."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def run(compiled):
        model = make_model()
        model[0].float()
        optimizer = WRAPPERS["nested"](INNER["sgd"](model.parameters()), pullback)
        if compiled:
            optimizer.compile(backend=counter)
        for number in range(24):
            generator = torch.Generator().manual_seed(number)
            for param in model.parameters():
                param.grad = torch.randn(param.shape, generator=generator, dtype=param.dtype)
            optimizer.step()
        return weights(model), optimizer

    eager, _ = run(compiled=False)
    compiled, optimizer = run(compiled=True)
    torch.testing.assert_close(compiled, eager)
    assert counter.frame_count == 4  # two depths, two dtypes
    assert copy.deepcopy(optimizer)._compiled is None


# --- clear errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: Lookahead(o, k=0), "k must be an integer >= 1, got 0"),
        (lambda o: Lookahead(o, k=2.0), "k must be an integer >= 1, got 2.0"),
        (lambda o: Lookahead(o, k=True), "k must be an integer >= 1, got True"),
        (lambda o: Lookahead(o, alpha=0), r"alpha must be in \(0, 1\], got 0"),
        (lambda o: Lookahead(o, alpha=1.5), r"alpha must be in \(0, 1\], got 1.5"),
        (lambda o: Lookahead(o, alpha=float("nan")), r"alpha must be in \(0, 1\], got nan"),
        (lambda o: Lookahead(o, alpha="0.5"), r"alpha must be in \(0, 1\], got '0.5'"),
        (lambda o: NestedLookahead(o, s=-1), "s must be an integer >= 0, got -1"),
        (lambda o: NestedLookahead(o, h=0.0), r"h must be in \(0, 1\], got 0.0"),
        (lambda o: Lookahead(o, pullback="reste"), "pullback must be one of none, reset, pullback, .*, got 'reste'"),
        (lambda o: Lookahead(o, pullback="reset_outer"), "pullback='reset_outer' tells two layers apart"),
        (lambda o: NestedLookahead(o, pullback=("none", "off")), "must be one of none, reset, pullback, got 'off'"),
        (lambda o: NestedLookahead(o, pullback=["none"]), r"2 mode\(s\), one per layer, got 1"),
        (lambda o: MultilayerLookahead(o, layers=[]), "layers must hold at least one"),
        (lambda o: MultilayerLookahead(o, layers=[5, 0.5]), r"must be a \(k, alpha\) pair, got 5"),
        (lambda o: MultilayerLookahead(o, layers=[(5, 0.5), (0, 0.5)]), "k must be an integer >= 1, got 0"),
        (lambda o: Lookahead(o, lr=-1.0), "lr must be a finite number >= 0, got -1.0"),
    ],
)
def test_values_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make(INNER["sgd"](make_model().parameters()))


def test_wrong_kind_of_inner_optimizer():
    model = make_model()
    for wrong, message in (
        (torch.optim.SGD, "opt must be a torch.optim.Optimizer, got type"),
        (model.parameters(), "opt must be a torch.optim.Optimizer, got generator"),
        (Lookahead(INNER["sgd"](model.parameters())), "already a Lookahead"),
    ):
        with pytest.raises(TypeError, match=message):
            NestedLookahead(wrong)


@pytest.mark.parametrize(
    "make_inner",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.RMSprop(p),
        lambda p: torch.optim.Adagrad(p),
        lambda p: torch.optim.LBFGS(p),
    ],
)
@pytest.mark.parametrize("pullback", ["reset", "pullback", "reset_outer"])
def test_pullback_without_momentum(make_inner, pullback):
    with pytest.raises(ValueError, match="keeps no momentum to reset or pull back"):
        NestedLookahead(make_inner(make_model().parameters()), pullback=pullback)


def test_momentum_of_an_unknown_optimizer_is_looked_for_at_the_first_sync():
    class Plain(torch.optim.Optimizer):
        def __init__(self, params, buffer):
            super().__init__(params, {"lr": 0.1})
            self.buffer = buffer

        def step(self, closure=None):
            for param in self.param_groups[0]["params"]:
                self.state[param][self.buffer] = param.grad.clone()

    def two_steps(buffer):
        model = make_model()
        optimizer = Lookahead(Plain(model.parameters(), buffer), k=2, pullback="reset")
        train(model, optimizer, 2)
        return optimizer

    assert all(not s["exp_avg"].any() for s in two_steps(MOMENTUM_BUFFERS[1]).opt.state.values())
    with pytest.raises(ValueError, match="Plain keeps no momentum"):
        two_steps("velocity")


def test_a_pullback_over_an_optimizer_without_any_state_is_an_error_too():
    class SignSGD(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

        @torch.no_grad()
        def step(self, closure=None):
            for param in self.param_groups[0]["params"]:
                param -= 0.1 * param.grad.sign()

    model = make_model()
    with pytest.raises(ValueError, match="SignSGD keeps no momentum"):
        train(model, Lookahead(SignSGD(model.parameters()), k=2, pullback="reset"), 2)


def test_lr_and_weight_decay_default_to_the_inner_optimizers_own():
    x, y = torch.ones(1), torch.ones(1)
    inner = torch.optim.SGD([{"params": [x], "lr": 0.3}, {"params": [y]}], lr=0.1, weight_decay=0.01)
    NestedLookahead(inner)
    assert [(g["lr"], g["weight_decay"]) for g in inner.param_groups] == [(0.3, 0.01), (0.1, 0.01)]
    optimizer = NestedLookahead(inner, lr=0.2, weight_decay=0.0)
    optimizer.add_param_group({"params": [torch.ones(1)]})
    assert [(g["lr"], g["weight_decay"]) for g in inner.param_groups] == [(0.2, 0.0)] * 3
    with pytest.raises(ValueError, match="weight_decay given, but Rprop has no weight_decay"):
        NestedLookahead(torch.optim.Rprop([x]), weight_decay=0.1)
