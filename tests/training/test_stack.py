"""Several runs as one trainer: each is the run that it would be by itself."""

import contextlib
import copy
import dataclasses
import functools
import itertools

import pytest
import torch
from states import assert_same_state
from test_stacked_optimizer import nested, sgd
from test_training import EVALUATION, random_split
from torch import nn

from nested_lookahead import Lookahead
from nested_lookahead.tasks import augment, models
from nested_lookahead.tasks.data import Dataset, TensorSamples
from nested_lookahead.tasks.objectives import Regression
from nested_lookahead.training import schedules
from nested_lookahead.training.batches import Batches
from nested_lookahead.training.fit import fit
from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.stack import Stack, why_not
from nested_lookahead.training.trainer import Diverged, Recipe, Trainer

CPU = Hardware(torch.device("cpu"), "fp32", channels_last=False)
SIGNALS = (1, 40)
NETWORKS = {
    "mlp": (lambda: models.mlp((1, 8, 8), 10, [12]), (1, 8, 8)),
    "cnn": (lambda: models.cnn((1, 8, 8), 10, 4), (1, 8, 8)),  # with batch norm
    "cnn1d": (lambda: models.cnn1d(SIGNALS, 10, 6), SIGNALS),
}


def make_run(seed, optimizer, network="cnn", epochs=2, hardware=CPU, dropout=0.0, **recipe):
    """A trainer with its own initial weights, training and validation data, and data order."""
    make, shape = NETWORKS[network]
    torch.manual_seed(seed)
    model = nn.Sequential(make(), nn.Dropout(dropout)).to(hardware.device)
    model = model.to(memory_format=torch.channels_last) if hardware.channels_last else model
    sizes = ((100, 10 * seed), (30, 10 * seed + 1), (70, 2))
    data = Dataset.from_splits(*(random_split(n, s, shape) for n, s in sizes), 10).to(hardware.device)
    batches = Batches(data.train, 32, torch.Generator().manual_seed(seed))
    return Trainer(model, optimizer(model.parameters()), data, batches, Recipe(epochs, **recipe), hardware)


def make_runs(makes, **options):
    return [make_run(seed, make, **options) for seed, make in enumerate(makes)]


def rows_of(trainer):
    return list(fit(trainer, EVALUATION))


def rows_of_stack(stacked):
    """Of each run, what `rows_of` returns."""
    found = [[] for _ in stacked.runs]
    while stacked.evaluated < stacked.total_steps:
        stacked.train_epoch()
        stacked.evaluated = stacked.step
        for own, rows in zip(found, stacked.evaluate(EVALUATION), strict=True):
            own.append(rows)
    return found


def assert_same_rows(ours, theirs, tolerance=2e-4):
    assert len(ours) == len(theirs)
    for one, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        for key in ("step", "epoch", "split", "weights", "lr"):
            assert one[key] == other[key], key
        assert one["loss"] == pytest.approx(other["loss"], rel=tolerance)
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.034)  # one sample of 30 may be on the edge


def adam(lr=0.003, **settings):
    return lambda params: torch.optim.Adam(params, lr=lr, fused=True, **settings)


ALIKE = {
    "sgd": [sgd(0.05, 0.0), sgd(0.02, 0.0, weight_decay=0.01)],
    "adam": [adam(), adam(0.01, betas=(0.8, 0.99))],
    "lookahead": [
        lambda p: Lookahead(sgd(0.05)(p), 5, 0.5, "pullback"),
        lambda p: Lookahead(sgd(0.02, 0.5)(p), 3, 0.8, "pullback"),
    ],
    "nested": [nested(sgd(0.05), 3, 2), nested(sgd(0.02), 2, 2, 0.3, 0.8), nested(sgd(0.05), 3, 2, 0.8)],
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ALIKE)
def test_each_run_is_what_it_would_be_by_itself(name, network):
    singles, stacked = make_runs(ALIKE[name], network=network), Stack(make_runs(ALIKE[name], network=network))
    expected = [rows_of(single) for single in singles]
    for number, (ours, theirs) in enumerate(zip(rows_of_stack(stacked), expected, strict=True)):
        assert_same_rows(ours, theirs)
        assert_same_state(stacked.settle(number).state_dict(), singles[number].state_dict())


@pytest.mark.parametrize(
    "recipe",
    [
        {"schedule": lambda progress: schedules.cosine(progress, 0.1), "warmup": 0.3},
        {"grad_clip": 0.3, "label_smoothing": 0.2},
        {"ema": (0.5, 0.9), "tail": 0.4},
    ],
    ids=["schedule", "loss", "averages"],
)
def test_what_else_a_recipe_has(recipe):
    singles, stacked = make_runs(ALIKE["nested"], **recipe), Stack(make_runs(ALIKE["nested"], **recipe))
    expected = [rows_of(single) for single in singles]
    for number, (ours, theirs) in enumerate(zip(rows_of_stack(stacked), expected, strict=True)):
        assert_same_rows(ours, theirs)
        assert_same_state(stacked.settle(number).state_dict(), singles[number].state_dict())


def test_runs_whose_weights_lie_channels_last():
    hardware = Hardware(torch.device("cpu"), "fp32", channels_last=True)
    (single,), stacked = (
        make_runs(ALIKE["nested"][:1], hardware=hardware),
        Stack(make_runs(ALIKE["nested"][:1], hardware=hardware)),
    )
    expected = rows_of(single)
    assert_same_rows(rows_of_stack(stacked)[0], expected)
    assert_same_state(stacked.settle(0).state_dict(), single.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_stack_goes_on_by_itself_and_as_single_runs(name, stop):
    """And single runs go on as a stack: from the middle of an epoch, its end, and the next one."""
    options = {"ema": (0.9,), "tail": 0.3, "schedule": lambda progress: 1 - progress}
    undisturbed = make_runs(ALIKE[name], **options)
    expected = [rows_of(run)[-1] for run in undisturbed]

    def stop_at(trainer):
        if trainer.step == stop:
            raise Stopped

    first = Stack(make_runs(ALIKE[name], **options))
    while first.step < stop:
        with contextlib.suppress(Stopped):
            first.train_epoch(stop_at)
    saved = [copy.deepcopy(first.settle(number).state_dict()) for number in range(len(first.runs))]
    singles, again = make_runs(ALIKE[name], **options), make_runs(ALIKE[name], **options)
    for run, state in (*zip(singles, saved, strict=True), *zip(again, saved, strict=True)):
        run.load_state_dict(state)
    second = Stack(again)
    assert second.step == stop
    for ours, theirs in zip(rows_of_stack(second), expected, strict=True):
        assert_same_rows(ours[-1:], [theirs])
    for number, (single, theirs) in enumerate(zip(singles, expected, strict=True)):
        assert_same_rows(rows_of(single)[-1:], [theirs])
        assert_same_state(second.settle(number).state_dict(), undisturbed[number].state_dict())
        assert_same_state(single.state_dict(), undisturbed[number].state_dict())


class Stopped(Exception):
    pass


def diverges_at_once(params):
    return torch.optim.SGD(params, lr=1e8, momentum=0.9)


def test_a_run_that_diverges_ends_and_the_others_do_not_notice():
    makes = [sgd(0.05), diverges_at_once, sgd(0.02)]
    singles, stacked = (
        make_runs(makes, network="cnn1d", ema=(0.9,)),
        Stack(make_runs(makes, network="cnn1d", ema=(0.9,))),
    )
    found = rows_of_stack(stacked)
    for number in (0, 2):
        assert_same_rows(found[number], rows_of(singles[number]))
        assert_same_state(stacked.settle(number).state_dict(), singles[number].state_dict())
    with pytest.raises(Diverged) as alone:
        rows_of(singles[1])
    assert (stacked.diverged[1].step, stacked.diverged[1].cause) == (alone.value.step, alone.value.cause)
    assert set(stacked.diverged) == {1}
    tensors = [*stacked.model.parameters(), *stacked.model.buffers(), *stacked.averages["ema"].kept]
    assert not any(tensor[1].any() for tensor in tensors)


def test_a_stack_whose_runs_have_all_diverged_stops():
    stacked = Stack(make_runs([diverges_at_once, diverges_at_once], network="mlp"))
    with pytest.raises(Diverged):
        stacked.train_epoch()
    assert set(stacked.diverged) == {0, 1}
    assert stacked.step == max(why.step for why in stacked.diverged.values()) < stacked.total_steps


def test_the_step_of_a_divergence_that_is_noticed_later():
    """As on a GPU, where the losses are looked at every 100 steps."""
    stacked = Stack(make_runs([sgd(0.05), diverges_at_once], network="mlp"))
    stacked.check_every = 3
    single = make_run(1, diverges_at_once, network="mlp")
    with pytest.raises(Diverged) as alone:
        rows_of(single)
    rows_of_stack(stacked)
    assert stacked.diverged[1].step == alone.value.step


def test_a_run_can_be_ended_after_an_evaluation():
    stacked = Stack(make_runs(ALIKE["sgd"], network="mlp"))
    stacked.train_epoch()
    stacked.end(0, Diverged(stacked.step, "test loss is not finite"))
    single = make_runs(ALIKE["sgd"], network="mlp")[1]
    stacked.train_epoch()
    assert_same_rows([stacked.evaluate(EVALUATION)[1]], rows_of(single)[1:])


def test_regression_and_runs_that_share_their_data():
    generator = torch.Generator().manual_seed(0)
    splits = [torch.randn(n, 5, generator=generator) for n in (90, 20, 30)]
    goal = Regression(torch.randn(30, generator=generator))
    parts = [TensorSamples(x, x.sum(1) + 0.1 * torch.randn(len(x), generator=generator)) for x in splits]
    data = Dataset.from_splits(*parts, 1, goal)

    def runs():
        made = []
        for seed in range(3):
            torch.manual_seed(seed)
            model = models.mlp((5,), 1, [8])
            optimizer = nested(sgd(0.02), 2 + seed, 2)(model.parameters())
            batches = Batches(data.train, 20, torch.Generator().manual_seed(seed))
            made.append(Trainer(model, optimizer, data, batches, Recipe(2), CPU))
        return made

    stacked = Stack(runs())
    assert stacked.data.train.images.data_ptr() == data.train.images.data_ptr()  # once for all
    for ours, single in zip(rows_of_stack(stacked), runs(), strict=True):
        theirs = rows_of(single)
        assert_same_rows(ours, theirs)
        assert ours[-1][0]["accuracy"] == pytest.approx(theirs[-1][0]["accuracy"], abs=1e-4)


def test_times_are_an_equal_share_and_samples_are_counted_for_all():
    stacked = Stack(make_runs(ALIKE["sgd"], network="mlp"))
    stacked.runs[1].seconds = stacked._before[1] = 5.0
    stacked.train_epoch()
    rows = stacked.evaluate(EVALUATION)
    assert rows[0][0]["seconds"] == pytest.approx(stacked.seconds / 2)
    assert rows[1][0]["seconds"] == pytest.approx(5 + stacked.seconds / 2)
    assert stacked.speed()[0] == pytest.approx(2 * 100 / stacked.seconds)


def test_an_evaluation_leaves_no_trace():
    stacked = Stack(make_runs(ALIKE["nested"], ema=(0.9,)))
    stacked.train_epoch()
    tensors = [*stacked.model.parameters(), *stacked.model.buffers(), *stacked.averages["ema"].kept]
    before = [tensor.detach().clone() for tensor in tensors]
    stacked.evaluate(EVALUATION)
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))
    assert {norm.momentum for norm in stacked.model.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


class Tied(nn.Module):
    """One matrix in two places."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(self.second(self.first(x.flatten(1)).relu()))


def test_shared_weights_stay_shared(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tied", (Tied, (1, 8, 8)))
    singles, stacked = make_runs(ALIKE["sgd"], network="tied"), Stack(make_runs(ALIKE["sgd"], network="tied"))
    for ours, single in zip(rows_of_stack(stacked), singles, strict=True):
        assert_same_rows(ours, rows_of(single))
    assert stacked.model.one[0].second.weight is stacked.model.one[0].first.weight


class Noisy(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, self.training)


def test_a_network_that_draws_random_numbers_in_secret_is_refused_at_the_first_step(monkeypatch):
    monkeypatch.setitem(NETWORKS, "noisy", (lambda: nn.Sequential(NETWORKS["mlp"][0](), Noisy()), (1, 8, 8)))
    stacked = Stack(make_runs(ALIKE["sgd"], network="noisy"))
    before = stacked.rows.weights.detach().clone()
    with pytest.raises(RuntimeError, match="random"):
        stacked.train_epoch()
    assert torch.equal(stacked.rows.weights, before)


def test_what_cannot_be_stacked_says_why():
    def of(hardware=CPU, **options):
        return why_not(make_run(0, options.pop("optimizer", sgd()), hardware=hardware, **options))

    assert of() is None
    assert of(augment=augment.none) is None
    assert of(augment=functools.partial(augment.none)) is None
    assert "augment" in of(augment=functools.partial(augment.standard, padding=2))
    assert "dropout" in of(dropout=0.1)
    assert "precision=bf16" in of(dataclasses.replace(CPU, precision="bf16"))
    assert "RMSprop" in of(optimizer=torch.optim.RMSprop)
    compiled = make_run(0, sgd())
    compiled.hardware = dataclasses.replace(CPU, compile=True)
    assert "compile" in why_not(compiled)
    frozen = make_run(0, sgd())
    next(frozen.model.parameters()).requires_grad_(False)
    assert "frozen" in why_not(frozen)
    run = make_run(0, sgd())
    run.data = dataclasses.replace(run.data, test=object())
    assert "dataset" in why_not(run)
