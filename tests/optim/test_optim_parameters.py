"""Parameters of all kinds: groups, frozen ones, dtypes, devices, layouts."""

import pytest
import torch
from made_optimizers import INNER, WRAPPERS, make_model, train
from torch import nn

from nested_lookahead import Lookahead, NestedLookahead


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
