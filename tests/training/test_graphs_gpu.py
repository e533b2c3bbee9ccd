"""Training steps from CUDA graphs are those that are launched kernel by kernel."""

import functools

import pytest
import torch
from states import assert_same_state
from test_stack import NETWORKS, make_run
from test_stacked_optimizer import nested, sgd
from torch import nn

from nested_lookahead.tasks import augment, models
from nested_lookahead.training.graphs import Replayed
from nested_lookahead.training.hardware import Hardware

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PUBLISHED = functools.partial(
    augment.published, padding=2, contrast=(0.7, 1.0), saturation=(0.7, 1.0), hue=(0.0, 0.1), degrees=45.0
)


@pytest.fixture(autouse=True)
def same_kernels(monkeypatch):
    """That add up in the same order every time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def run(graphs, steps=20, seed=1, network="cnn", optimizer=None, precision="fp32", compile=False, **recipe):
    """Of 100 samples in batches of 32: the last of each epoch has four."""
    hardware = Hardware.choose("cuda", precision, None, None, compile)
    optimizer = optimizer or nested(sgd(0.05), 3, 2)
    trainer = make_run(seed, optimizer, network, epochs=9, hardware=hardware, **recipe)
    if not graphs:
        trainer._graphs = None
    losses = advance(trainer, steps)
    return trainer, losses


def advance(trainer, steps):
    losses = []
    trainer.model.train()
    while len(losses) < steps:
        for images, labels in trainer.batches:
            losses.append(trainer.train_step(images, labels).clone())
            trainer.step += 1
            if len(losses) == steps:
                break
    return torch.tensor([float(loss) for loss in losses])


CASES = {
    "mlp": {"network": "mlp"},
    "batch norm": {},
    "cnn1d": {"network": "cnn1d"},
    "augmented": {"augment": PUBLISHED},
    "dropout": {"network": "mlp", "dropout": 0.5},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "clipped": {"grad_clip": 0.1, "label_smoothing": 0.1},
    "adam": {"optimizer": lambda params: torch.optim.Adam(params, lr=0.003, fused=True)},
    "foreach": {"optimizer": nested(sgd(0.05, foreach=True), 2, 2, pullback="pullback")},
    "capturable": {"optimizer": lambda params: torch.optim.AdamW(params, lr=0.003, capturable=True)},
}


@pytest.mark.parametrize("name", CASES)
def test_a_replayed_step_is_the_step(name):
    ours, theirs = run(True, **CASES[name]), run(False, **CASES[name])
    assert ours[0]._graphs.failure is None
    assert len(ours[0]._graphs._recorded) == 2  # whole batches, and the last of an epoch
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-5)
    one, other = ours[0].state_dict(), theirs[0].state_dict()
    assert torch.equal(one["random"]["augment"], other["random"]["augment"])
    assert torch.equal(one["random"]["cuda"], other["random"]["cuda"])
    for key, value in one["model"].items():
        torch.testing.assert_close(value, other["model"][key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["augmented", "dropout", "adam"])
def test_a_run_goes_on_from_its_checkpoint(name):
    whole, losses = run(True, 30, **CASES[name])
    first, before = run(True, 17, **CASES[name])
    saved = first.state_dict()
    second, _ = run(True, 0, **CASES[name])  # which sets the seed of PyTorch's own generator anew
    second.load_state_dict(saved)
    after = advance(second, 13)
    torch.testing.assert_close(torch.cat([before, after]), losses, rtol=1e-4, atol=1e-5)
    if name == "adam":
        assert_same_state(second.state_dict()["optimizer"], whole.state_dict()["optimizer"])


def test_compiled_augmentation_and_network_too():
    options = {"augment": PUBLISHED, "precision": "fp32"}
    ours, losses = run(True, compile=True, **options)
    assert ours._graphs.failure is None
    torch.testing.assert_close(losses, run(False, **options)[1], rtol=0.05, atol=0.02)


def test_a_network_of_a_users_own_is_not_replayed():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls, self.one = 0, models.mlp((1, 8, 8), 10, [4])

        def forward(self, x):
            self.calls += 1
            return self.one(x)

    NETWORKS["own"] = (Own, (1, 8, 8))
    try:
        trainer, _ = run(True, network="own")
    finally:
        del NETWORKS["own"]
    assert trainer._graphs is None
    assert trainer.model[0].calls == 20


def test_what_cannot_be_recorded_is_computed_as_it_is():
    weight = nn.Parameter(torch.ones(3, device="cuda"))

    def function(samples, labels):
        loss = (weight * samples).sum()
        loss.backward()
        return loss.detach() * float(labels.sum().item())  # waits for the device

    replayed = Replayed([weight], [])
    for number in range(1, 8):
        samples, labels = torch.full((3,), float(number), device="cuda"), torch.ones(2, device="cuda")
        weight.grad = None
        assert float(replayed(function, samples, labels)) == 6.0 * number
        assert torch.equal(weight.grad, samples)
    assert replayed.failure is not None
