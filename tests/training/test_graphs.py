"""What goes into CUDA graphs, as far as it shows without a GPU: see test_graphs_gpu.py for the rest."""

import contextlib
import functools

import pytest
import torch
from test_stack import NETWORKS, make_run
from test_stacked_optimizer import sgd
from torch import nn

from nested_lookahead.tasks import augment, models
from nested_lookahead.tasks.objectives import CLASSIFICATION, Classification
from nested_lookahead.training.graphs import WARM_UP, Replayed, replayable


class Own(nn.Module):
    """Of a user, whose Python code may do otherwise at every call."""


class OwnObjective(Classification): ...


def own_augmentation(images, generator):
    return images


@pytest.mark.parametrize(
    ("part", "known"),
    [
        (models.cnn1d((1, 40), 10, 4), True),
        (models.resnet18((3, 32, 32), 10), True),
        (functools.partial(augment.standard, padding=2), True),
        (CLASSIFICATION, True),
        (nn.Sequential(nn.Linear(2, 2), Own()), False),
        (own_augmentation, False),
        (functools.partial(own_augmentation), False),
        (OwnObjective(), False),
        (lambda images, generator: images, False),
    ],
)
def test_only_what_is_known_to_be_the_same_at_every_step_is_replayed(part, known):
    assert replayable(part.modules() if isinstance(part, nn.Module) else [part]) is known


def test_a_cpu_replays_nothing():
    trainer = make_run(0, sgd(0.05), network=next(iter(NETWORKS)))
    assert trainer._graphs is None


class Tape:
    """Stands for a CUDA graph: what is done while it records is not done, but at every replay."""

    def __init__(self):
        self.function = None

    def pool(self):
        return None

    def replay(self):
        self.function()


@pytest.fixture
def tapes(monkeypatch):
    """`torch.cuda` with tapes instead of graphs; the list of those that were recorded."""
    made = []

    @contextlib.contextmanager
    def recording(graph, pool=None, stream=None):
        made.append(graph)
        yield

    class Stream:
        def __init__(self, device):
            pass

        def wait_stream(self, other):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    return made


def test_each_shape_is_recorded_once_and_its_inputs_are_copied(tapes):
    weight = nn.Parameter(torch.zeros(2))
    calls = []

    def function(samples, labels):
        calls.append(samples.shape)

        def compute():
            output.copy_(samples.sum() + labels.sum())
            gradient.copy_(samples.mean(0))

        output, gradient = torch.zeros(()), torch.zeros(2)
        if len(tapes) < len(recorded()) + 1:
            compute()
        else:
            tapes[-1].function = compute
        weight.grad = gradient
        return output

    def recorded():
        return replayed._recorded

    replayed = Replayed([weight], [])
    for number in range(12):
        samples = torch.full((3 if number % 2 else 4, 2), float(number))
        weight.grad = None
        found = replayed(function, samples, torch.ones(len(samples)))
        assert float(found) == 2 * number * len(samples) + len(samples)
        assert torch.equal(weight.grad, samples[0])
    assert len(tapes) == 2
    assert len(calls) == 2 * (WARM_UP + 1)


def test_what_cannot_be_recorded_is_computed_as_it_is(tapes, monkeypatch, caplog):
    def refuses(graph, pool=None, stream=None):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuses)
    weight = nn.Parameter(torch.zeros(()))

    def function(samples, labels):
        assert weight.grad is None
        weight.grad = samples.sum()
        return labels.sum()

    replayed = Replayed([weight], [])
    with caplog.at_level("INFO"):
        for number in range(WARM_UP + 3):
            weight.grad = None
            assert float(replayed(function, torch.tensor([float(number)]), torch.ones(2))) == 2
            assert float(weight.grad) == number
    assert caplog.messages == ["not replayed as a CUDA graph: operation not permitted when stream is capturing"]
