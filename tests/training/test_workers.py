"""Workers that train apart: held against their loop written out, shared out, saved, resumed."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import resolved
from states import assert_same_state
from torch import nn

from nested_lookahead.errors import UserError
from nested_lookahead.runs.build import build
from nested_lookahead.training.fit import evaluate, fit
from nested_lookahead.training.processes import Processes
from nested_lookahead.training.workers import Workers, WorkersBatches, WorkersTrainer, skewed_parts

SHORT = (
    "model=mlp",
    "epochs=2",
    "dataset.split.train_size=330",
    "dataset.split.seed=0",
    "evaluation.train_samples=200",
)
FOUR = ("workers=local", "workers.count=4", "workers.group_size=2", "optimizer.k=3", "optimizer.s=2")


def states(trainer):
    return [replica.state_dict() for replica in trainer.replicas]


def plain_rows(trainer, config):
    return [
        {k: v for k, v in row.items() if k != "seconds"} for rows in fit(trainer, config.evaluation) for row in rows
    ]


def written_out(trainer, config, alpha, h, k, s, group_size):
    """The weights of each worker at the end: every worker a model and an SGD of its own, and means by hand."""
    workers, lr, momentum = config.workers.count, config.lr or 0.1, 0.9
    models = [copy.deepcopy(trainer.model) for _ in range(workers)]
    params = [[*model.parameters()] for model in models]
    inner = [[p.detach().clone() for p in own] for own in params]
    outer = [[p.detach().clone() for p in own] for own in params]
    buffers = [[torch.zeros_like(p) for p in own] for own in params]
    batches = copy.deepcopy(trainer.batches)
    step = 0
    for _ in range(config.epochs):
        for images, labels in batches:
            factor = trainer.scheduler.lr_lambdas[0](step)
            size = len(labels) // workers
            for w, model in enumerate(models):
                own = slice(w * size, (w + 1) * size)
                loss = nn.functional.cross_entropy(model(trainer.data.normalize(images[own])), labels[own])
                grads = torch.autograd.grad(loss, params[w])
                with torch.no_grad():
                    for p, b, grad in zip(params[w], buffers[w], grads, strict=True):
                        b.mul_(momentum).add_(grad)
                        p.sub_(lr * factor * b)
            step += 1
            with torch.no_grad():
                for i in range(len(params[0])):
                    if step % k == 0:
                        for first in range(0, workers, group_size):
                            members = range(first, first + group_size)
                            mean = sum(params[w][i] for w in members) / group_size
                            for w in members:
                                inner[w][i] += alpha * (mean - inner[w][i])
                                params[w][i].copy_(inner[w][i])
                    if step % (k * s) == 0:
                        mean = sum(inner[w][i] for w in range(workers)) / workers
                        for w in range(workers):
                            outer[w][i] += h * (mean - outer[w][i])
                            inner[w][i].copy_(outer[w][i])
                            params[w][i].copy_(outer[w][i])
    return params


@pytest.mark.parametrize("skew", [(), ("workers.skew=0.5",)])
def test_it_is_the_loop_written_out(skew):
    config = resolved(*SHORT, *FOUR, "optimizer.alpha=0.8", "optimizer.h=0.7", *skew)
    trainer = build(config)
    expected = written_out(trainer, config, 0.8, 0.7, 3, 2, 2)
    plain_rows(trainer, config)
    for replica, params in zip(trainer.replicas, expected, strict=True):
        torch.testing.assert_close([*replica.parameters()], params, rtol=1e-4, atol=1e-6)


def test_one_worker_is_a_run_as_ever_to_the_bit():
    typed = (*SHORT, "model=cnn", "pullback=pullback")
    configs = resolved(*typed), resolved(*typed, "workers=local", "workers.count=1")
    trainers = [build(config) for config in configs]
    assert plain_rows(trainers[0], configs[0]) == plain_rows(trainers[1], configs[1])
    assert_same_state(trainers[0].model.state_dict(), trainers[1].model.state_dict())


def test_a_period_of_one_without_momentum_is_one_model_on_whole_batches():
    """Workers that meet at every step, with means alone, have the gradient of the whole batch."""
    typed = (*SHORT, "optimizer=lookahead", "optimizer.k=1", "optimizer.alpha=1", "optimizer.inner.momentum=0")
    whole = (*typed, "batch_size=66")  # 330 samples: five batches
    configs = resolved(*whole), resolved(*whole, "workers=local", "workers.count=3")
    trainers = [build(config) for config in configs]
    for trainer in trainers:
        trainer.train_epoch()
    torch.testing.assert_close([*trainers[1].model.parameters()], [*trainers[0].model.parameters()])


@pytest.mark.parametrize(
    "more", [("model=cnn", "augment=standard"), ("optimizer/inner=adamw", "workers.skew=1", "decay=matrices")]
)
def test_a_run_goes_on_where_it_was(more):
    config = resolved(*SHORT, *FOUR, *more)
    first = build(config)
    stopped = []

    def stop(trainer):
        if trainer.step == 4 and not stopped:
            stopped.append(copy.deepcopy(trainer.state_dict()))

    for _ in fit(first, config.evaluation, stop):
        pass
    second = build(config)
    torch.manual_seed(123)
    second.load_state_dict(stopped[0])
    for _ in fit(second, config.evaluation):
        pass
    assert_same_state(states(first), states(second))
    assert_same_state(first.optimizer.state_dict(), second.optimizer.state_dict())


def test_what_is_measured_is_the_mean_and_nothing_is_changed_by_it():
    config = resolved(*SHORT, *FOUR, "model=cnn", "optimizer.k=50", "workers.skew=0.3")
    trainer = build(config)
    trainer.train_epoch()
    before = copy.deepcopy(states(trainer))
    with trainer.fast_weights():
        for name, value in trainer.model.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, torch.stack([state[name] for state in before]).mean(0))
    evaluate(trainer, config.evaluation)
    assert_same_state(states(trainer), before)
    assert any(not torch.equal(before[0][name], before[1][name]) for name in before[0])


def test_batch_norms_statistics_are_averaged_where_all_meet():
    config = resolved(*SHORT, *FOUR, "model=cnn")
    trainer = build(config)
    together = []

    def look(trainer):
        means = [value for name, value in trainer.model.state_dict().items() if name.endswith("running_mean")]
        others = [value for name, value in trainer.replicas[3].state_dict().items() if name.endswith("running_mean")]
        together.append(all(torch.equal(a, b) for a, b in zip(means, others, strict=True)))

    trainer.train_epoch(look)
    assert together == [(step + 1) % 6 == 0 for step in range(len(together))]
    assert len(together) > 5


def test_a_checkpoint_gives_the_first_workers_weights_to_who_asks(tmp_path):
    from nested_lookahead import checkpoint
    from nested_lookahead.runs import checkpoints

    trainer = build(resolved(*SHORT, *FOUR))
    trainer.train_epoch()
    with open(tmp_path / "checkpoint.pt", "wb") as file:
        checkpoints.write(trainer.state_dict(), file)
    found = checkpoint.weights(tmp_path, "slow")
    with trainer.optimizer.slow_weights():
        assert_same_state(found, trainer.model.state_dict())


# --- who trains what ------------------------------------------------------------------------------------------------


class Rank(Processes):
    """One of several processes, with nobody to talk to."""

    def group(self, size):
        return None


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_each_worker_is_trained_by_one_process(processes):
    batch = torch.arange(24)
    shared = [Workers(4, 2, Rank(rank, processes, rank)).share(batch) for rank in range(processes)]
    assert torch.equal(torch.cat(shared), batch)
    assert [w for rank in range(processes) for w in range(4)[Workers(4, 2, Rank(rank, processes, rank)).own]] == [
        *range(4)
    ]


@pytest.mark.parametrize(
    ("count", "size", "processes", "said"),
    [
        (4, 2, 3, "cannot be shared out evenly among 3 processes"),
        (12, 3, 6, "each of the 6 processes trains 2 workers"),
        (12, 3, 2, None),
        (12, 4, 4, "whole groups, or parts of one"),
        (12, 6, 4, None),
    ],
)
def test_workers_that_processes_cannot_share_have_a_line(count, size, processes, said):
    if said is None:
        Workers(count, size, Rank(0, processes, 0))
    else:
        with pytest.raises(UserError, match=said):
            Workers(count, size, Rank(0, processes, 0))


@pytest.mark.parametrize(("samples", "batch", "workers"), [(100, 12, 3), (97, 12, 4), (10, 40, 4), (24, 12, 1)])
@pytest.mark.parametrize("skew", [None, 0.5])
def test_batches_hold_as_much_of_each_worker(samples, batch, workers, skew):
    labels = torch.arange(samples) % 5
    parts = None if skew is None else skewed_parts(labels, workers, skew, seed=3)

    class Numbers:
        def __len__(self):
            return samples

    made = WorkersBatches(Numbers(), batch, torch.Generator().manual_seed(0), workers, parts)
    chunks, _ = made.rest()
    assert [len(chunk) for chunk in chunks] == [made.size(i) for i in range(len(made))]
    assert all(len(chunk) % workers == 0 and len(chunk) for chunk in chunks)
    seen = torch.cat(chunks).tolist()
    assert len(set(seen)) == len(seen) > samples - batch
    for chunk in chunks if parts is not None else ():
        for part, own in zip(parts, chunk.view(workers, -1), strict=True):
            assert set(own.tolist()) <= set(part.tolist())


def shares(parts, labels):
    return np.array([np.bincount(labels[part], minlength=5) / len(part) for part in parts])


def test_skewed_parts_are_as_large_and_as_unlike_as_was_asked():
    labels = torch.arange(2000) % 5
    spread = {}
    for skew in (0.1, 1.0, 1000.0):
        parts = skewed_parts(labels, 8, skew, seed=1)
        assert [len(part) for part in parts] == [250] * 8
        assert len(set(torch.cat(parts).tolist())) == 2000
        spread[skew] = shares(parts, labels.numpy()).std()
    assert spread[0.1] > 0.2 > spread[1.0] > 0.08 > spread[1000.0]


def test_parts_are_the_same_for_the_same_seed_and_others_for_another():
    labels = torch.arange(200) % 5
    one, same, other = (skewed_parts(labels, 4, 0.5, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_worker_draws_its_shares_around_those_of_the_whole():
    """A hundred workers with a moderate skew: their mean is the whole's, which is not uniform."""
    labels = torch.cat([torch.zeros(6000), torch.ones(2000)]).long()
    parts = skewed_parts(labels, 100, 2.0, seed=0)
    found = np.array([float((labels[part] == 0).float().mean()) for part in parts])
    # Beta(2 · 2 · ¾, 2 · 2 · ¼): mean .75, standard deviation .194, but for what was left at the end
    assert found.mean() == pytest.approx(0.75, abs=1e-9)
    assert found.std() == pytest.approx(0.194, abs=0.06)


# --- what goes together ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["optimizer=adam"], "has no layers in which workers meet"),
        (["workers.group_size=3"], "must divide workers.count=4"),
        (["batch_size=30"], "must be a multiple of workers.count=4"),
        (["ema=0.9"], "are kept of one model"),
        (["tail=0.5"], "are kept of one model"),
        (["workers.skew=0"], "workers.skew=0.0: must be > 0, or null"),
        (["workers.count=null"], "workers.count: Incompatible value 'None'"),
    ],
)
def test_a_mistake_has_a_line(typed, line):
    with pytest.raises(UserError) as caught:
        resolved("workers=local", *typed)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["optimizer=nested_lookahead_replica"], "cannot average over workers"),
        (["optimizer=lookahead", "workers.group_size=2"], "has one layer, which averages over all workers"),
        (["batch_size=64", "workers.count=64", "dataset.split.train_size=50"], "too few for so many"),
        (
            ["dataset=markov", "dataset.length=4000", "dataset.samples=40", "model=gpt", "workers.skew=1"],
            "has no classes",
        ),
    ],
)
def test_a_mistake_that_data_or_optimizer_show_has_a_line(typed, line):
    with pytest.raises(UserError) as caught:
        build(resolved("workers=local", *typed))
    assert line in str(caught.value)


def test_runs_of_workers_are_runs_of_their_own():
    from nested_lookahead.runs.identity import identity

    typed = [(), ("workers=local",), ("workers=local", "workers.skew=1"), ("workers=local", "workers.group_size=2")]
    assert len({identity(resolved(*one).plain()) for one in typed}) == 4
    assert dataclasses.asdict(resolved("workers=local").workers)["count"] == 4


def test_nothing_is_sent_between_syncs_to_look_for_signals():
    """With several processes each look is a message: one per outer sync, then."""
    config = resolved(*SHORT, *FOUR)
    trainer = build(config)
    assert trainer.check_every == 1
    workers = dataclasses.replace(trainer.workers, processes=Rank(0, 2, 0))
    parts = (trainer.data, trainer.batches, trainer.recipe, trainer.hardware, 0, workers)
    assert WorkersTrainer(trainer.replicas[:2], trainer.optimizer, *parts).check_every == 6
