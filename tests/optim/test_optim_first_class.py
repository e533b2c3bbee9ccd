"""A Lookahead is at home wherever a torch optimizer is: schedulers, hooks, scalers, closures, compilation."""

import copy
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from made_optimizers import HALVES, INNER, WRAPPERS, halves, make_model, train, weights
from torch import nn
from torch.optim import lr_scheduler

from nested_lookahead import Lookahead, NestedLookahead, optim


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


@pytest.mark.parametrize("made", HALVES)
@pytest.mark.parametrize("name", make_schedulers())
def test_schedulers(name, made):
    """Each moves lr (and momentum) just as it does over the bare inner optimizer, and warns of nothing."""

    def run(wrap, made):
        model = make_model()
        optimizer = wrap(HALVES[made](model.parameters()))
        scheduler = make_schedulers()[name](optimizer)
        seen = []
        for step in range(12):
            train(model, optimizer, 1, start=step)
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            groups = getattr(optimizer, "opt", optimizer).param_groups
            seen.append([(group["lr"], group["momentum"]) for group in groups])
        return seen

    with warnings.catch_warnings(record=True) as bare_warnings:
        warnings.simplefilter("always")
        expected = run(lambda opt: opt, "one")
    with warnings.catch_warnings(record=True) as our_warnings:
        warnings.simplefilter("always")
        assert run(WRAPPERS["nested"], made) == expected
    assert [str(w.message) for w in our_warnings] == [str(w.message) for w in bare_warnings]
    assert any(one != expected[0] for one in expected)


@pytest.mark.parametrize("made", HALVES)
def test_swa_and_ema_averaging(made):
    model = make_model()
    optimizer = WRAPPERS["nested"](HALVES[made](model.parameters()))
    scheduler = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for step in range(4):
        train(model, optimizer, 1, start=step)
        averaged.update_parameters(model)
        scheduler.step()
    assert [group["lr"] for group in optimizer.opt.param_groups] == [0.05, 0.05]


@pytest.mark.parametrize("made", HALVES)
def test_grad_scaler_skips_a_step_without_counting_it(made):
    """Of a list, too, where one gradient of one optimizer alone is infinite: none of them steps."""
    x, y = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([3.0]))
    optimizer = Lookahead(halves(lambda p: torch.optim.SGD(p, lr=1.0))[made]([y, x]), k=2, alpha=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def step(factor):
        optimizer.zero_grad()
        scaler.scale((x * factor + y).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        return x.item(), y.item()

    assert step(1.0) == (2.0, 2.0)
    assert step(float("inf")) == (2.0, 2.0)
    assert optimizer.fast_steps == 1
    assert step(1.0) == (2.0, 2.0)  # 2 → 1, and half-way back to 3
    assert optimizer.fast_steps == 2


@pytest.mark.parametrize("made", HALVES)
def test_hooks_of_both_optimizers_run(made):
    model = make_model()
    optimizer = Lookahead(HALVES[made](model.parameters()), k=1)
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


@pytest.mark.parametrize("made", HALVES)
def test_state_dict_hooks_see_and_change_the_whole_state(made):
    model = make_model()
    optimizer = Lookahead(halves(INNER["adam"])[made](model.parameters()), k=5)
    train(model, optimizer, 2)
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": sorted(state["state"][0])})

    def set_lr(_, state):
        assert all("exp_avg" in state["state"][i] for i in range(4))
        state["param_groups"] = [{**group, "lr": 0.125} for group in state["param_groups"]]

    optimizer.register_load_state_dict_pre_hook(set_lr)
    saved = optimizer.state_dict()
    assert saved["note"] == ["exp_avg", "exp_avg_sq", "slow_1", "step"]
    optimizer.load_state_dict(saved)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


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


@pytest.mark.slow
@pytest.mark.parametrize("made", HALVES)
def test_compiled_training_step(made):
    """Whole step under torch.compile, against the eager one; recompiles stay few although the sync is periodic."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()

    def run(compiled):
        model = make_model()
        optimizer = WRAPPERS["nested"](HALVES[made](model.parameters()), "pullback")

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


@pytest.mark.slow
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


def test_repr_shows_layers_and_inner_optimizer():
    text = repr(NestedLookahead(INNER["sgd"](make_model().parameters()), pullback="reset_outer"))
    assert text.startswith("NestedLookahead (\n  layer 1: k=5 alpha=0.5 pullback=none\n  layer 2:")
    assert "opt: SGD (" in text


@pytest.mark.slow
def test_the_file_can_be_copied_alone(tmp_path):
    shutil.copy(optim.__file__, tmp_path / "borrowed.py")
    script = "import torch, borrowed; x = torch.tensor([3.0]); x.grad = torch.ones(1)\n"
    script += "opt = borrowed.NestedLookahead(torch.optim.SGD([x], lr=1.0), k=2, s=1); opt.step(); opt.step()\n"
    script += "assert x.item() == 2.5, x; import sys; assert 'nested_lookahead' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


@pytest.mark.slow
def test_the_optimizers_need_torch_alone():
    script = "import sys; before = set(sys.modules); import torch; torch_modules = set(sys.modules)\n"
    script += "import nested_lookahead.optim; new = set(sys.modules) - torch_modules\n"
    script += "assert new == {'nested_lookahead', 'nested_lookahead.optim'}, new"
    subprocess.run([sys.executable, "-c", script], check=True)
