"""Accelerate, whose wrapper is around the optimizer, trains as a plain loop does."""

import pytest
import torch
from plain_loop import OPTIMIZERS, PER_EPOCH, assert_same, halving, loader, loss, model, nested, slow_of, trained

accelerate = pytest.importorskip("accelerate")


def prepared(make, accumulate=1, schedule=None):
    net = model()
    optimizer = make(net.parameters())
    scheduler = schedule(optimizer) if schedule else None
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    return accelerator, *accelerator.prepare(net, optimizer, loader(), scheduler)


def train(accelerator, net, optimizer, batches, scheduler, epochs, clip=None):
    for _ in range(epochs):
        for batch in batches:
            with accelerator.accumulate(net):
                accelerator.backward(loss(net, batch))
                if clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(net.parameters(), clip)
                optimizer.step()
                if scheduler:
                    scheduler.step()
                optimizer.zero_grad()


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_it_trains_as_a_plain_loop(make):
    parts = prepared(make)
    train(*parts, epochs=2)
    net, optimizer = trained(make, 2)
    assert_same(parts[1], net)
    if hasattr(optimizer, "slow_weights"):
        ours, theirs = slow_of(parts[1], parts[2].optimizer), slow_of(net, optimizer)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_accumulated_and_clipped_gradients_and_a_schedule():
    parts = prepared(nested, accumulate=2, schedule=halving)
    train(*parts, epochs=3, clip=0.1)
    net, optimizer = trained(nested, 3, accumulate=2, clip=0.1, schedule=halving)
    assert_same(parts[1], net)
    assert parts[2].optimizer.fast_steps == optimizer.fast_steps == 3 * PER_EPOCH // 2
    assert parts[2].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.01 / 4


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_it_resumes_in_the_middle_of_a_cycle(make, tmp_path):
    parts = prepared(make, schedule=halving)
    train(*parts, epochs=1)
    parts[0].save_state(tmp_path / "state")
    again = prepared(make, schedule=halving)
    again[0].load_state(tmp_path / "state")
    train(*again, epochs=2)
    assert_same(again[1], trained(make, 3, schedule=halving)[0])
