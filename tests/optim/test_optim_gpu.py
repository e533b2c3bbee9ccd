"""What only a GPU can show: the same numbers, no synchronization with the host, few launches."""

import pytest
import torch
from torch import nn

from nested_lookahead import NestedLookahead

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def run(device, steps=25, pullback="pullback", fused=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double().to(device)
    inner = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    optimizer = NestedLookahead(inner, 3, 2, 0.5, 0.4, pullback)
    for step in range(steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64).to(device)
        optimizer.zero_grad()
        (model(x) - x[:, :3]).square().mean().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_the_gpu_computes_what_the_cpu_computes(fused):
    for ours, theirs in zip(run("cuda", fused=fused)[0].parameters(), run("cpu")[0].parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-9, atol=1e-11)


def test_a_sync_never_waits_for_the_device():
    _, optimizer = run("cuda", steps=6)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(6):
            optimizer.step()
        with optimizer.slow_weights():
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_sync_takes_two_launches_and_no_memory():
    _, optimizer = run("cuda", steps=6, pullback="none")
    optimizer.fast_steps = 3  # an inner sync and no outer one
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        optimizer._sync(1)
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert len(kernels) == 2
    assert torch.cuda.max_memory_allocated() == before


def test_parameters_on_the_cpu_and_the_gpu():
    here, there = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = NestedLookahead(torch.optim.SGD([here, there], lr=0.1, momentum=0.9), 2, 2, pullback="pullback")
    for _ in range(8):
        here.grad, there.grad = torch.ones(3), torch.ones(3, device="cuda")
        optimizer.step()
    torch.testing.assert_close(there.cpu(), here)


def test_grad_scaler_over_a_fused_inner_optimizer():
    x = nn.Parameter(torch.tensor([3.0], device="cuda"))
    optimizer = NestedLookahead(torch.optim.Adam([x], lr=0.1, fused=True), k=2, s=2)
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    for factor in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((x * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.fast_steps == 2
    assert torch.isfinite(x).all()
