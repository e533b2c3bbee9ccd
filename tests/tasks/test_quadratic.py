"""The noisy quadratic model as a training task, against the exact theory."""

import itertools
import json

import numpy as np
import pytest
import torch
from conftest import metrics_less_seconds, runs_below

from nested_lookahead import Lookahead, NestedLookahead, theory
from nested_lookahead.settings import Evaluation, Split
from nested_lookahead.tasks.data import split_source
from nested_lookahead.tasks.quadratic import noisy_quadratic, point
from nested_lookahead.training.batches import Batches
from nested_lookahead.training.fit import fit
from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.trainer import Recipe, Trainer

EVALUATION = Evaluation(every=1, batch_size=10, train_samples=1, bn_batches=1, weights="fast", augment=False)
OPTIMIZERS = {
    "sgd": ((), lambda sgd: sgd),
    "lookahead": (((5, 0.5),), lambda sgd: Lookahead(sgd, 5, 0.5)),
    "nested": (((5, 0.5), (3, 0.7)), lambda sgd: NestedLookahead(sgd, 5, 3, 0.5, 0.7)),
}


def make_trainer(seed, wrap, samples=60, batch_size=1):
    data = split_source(noisy_quadratic(4, 1.0, 1.0, samples), Split(0.0, None, None), 0)
    model = point(data.shape, data.num_classes)
    optimizer = wrap(torch.optim.SGD(model.parameters(), lr=0.4))
    batches = Batches(data.train, batch_size, torch.Generator().manual_seed(seed))
    cpu = Hardware(torch.device("cpu"), "fp32", channels_last=False)
    return Trainer(model, optimizer, data, batches, Recipe(epochs=1), cpu)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_measured_risk_is_the_exact_one(name):
    """200 seeds of the real training loop: |z| ≤ 3 for the mean risk, of fast and slow weights."""
    layers, wrap = OPTIMIZERS[name]
    losses = {}
    for seed in range(200):
        (rows,) = fit(make_trainer(seed, wrap), EVALUATION)
        for row in rows:
            if row["split"] == "test":
                losses.setdefault(row["weights"], []).append(row["loss"])
                assert row["accuracy"] == pytest.approx(
                    1 - row["loss"] / (0.5 * sum(1 / i for i in range(1, 5))), abs=1e-6
                )
    curvature, noise = theory.power_law(4)
    for weights, values in losses.items():
        which = -1 if weights == "slow" else 0
        moments = theory.moments(0.4, layers, 60, 1.0, 0.0, curvature, noise, which)
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert abs(np.mean(values) - theory.excess_risk(moments, curvature)) <= 3 * error


def test_samples_are_fresh_in_each_epoch_the_same_for_a_seed_and_of_the_stated_variance():
    def epochs(seed):
        trainer = make_trainer(seed, lambda sgd: sgd, samples=2000, batch_size=50)
        return [torch.cat([samples for samples, _ in trainer.batches]) for _ in range(2)]

    first, second = epochs(0)
    assert not torch.isin(first, second).any()
    assert torch.equal(torch.stack(epochs(0)), torch.stack((first, second)))
    assert torch.equal(first, epochs(0)[0])
    assert not torch.equal(first, epochs(1)[0])
    assert first.var(dim=0).tolist() == pytest.approx([1, 2, 3, 4], rel=0.1)
    assert first.mean(dim=0).abs().max() < 0.15


def test_a_run_resumes_within_an_epoch():
    whole, cut = (make_trainer(3, OPTIMIZERS["nested"][1]) for _ in range(2))
    whole.train_epoch()
    for images, labels in itertools.islice(cut.batches, 17):
        cut.train_step(images, labels)
        cut.step += 1
    resumed = make_trainer(3, OPTIMIZERS["nested"][1])
    resumed.load_state_dict(cut.state_dict())
    resumed.train_epoch()
    assert torch.equal(resumed.model.x, whole.model.x)


@pytest.mark.slow
def test_from_training_to_report(command):
    settings = ["experiment=noisy_quadratic", "seed=0,1,2", "dataset.samples=50", "epochs=2"]
    assert command("train.py", *settings)[0] == 0
    runs = runs_below("outputs")
    assert len(runs) == 18
    summary = json.loads((runs[0] / "summary.json").read_text())
    assert summary["final"]["fast"]["test"]["accuracy"] > 0
    assert len(metrics_less_seconds(runs[0])) == 14  # two evaluations: fast, slow, EMA; the tail once
    status, out, err = command("analyze.py")
    assert (status, err) == (0, "")
    assert "nested_lookahead" in out or "Nested Lookahead" in out
    assert command("train.py", "dataset=noisy_quadratic", "model=mlp")[1:][1].startswith(
        "error: dataset=noisy_quadratic goes with model=point"
    )
    assert "point goes with dataset=noisy_quadratic alone" in command("train.py", "model=point")[2]


def test_the_published_reference_trains_and_resumes(command):
    settings = ["optimizer=nested_lookahead_replica", "pullback=reset", "epochs=2", "model=mlp"]
    assert command("train.py", *settings)[0] == 0
    (run,) = runs_below("outputs")
    assert {row["weights"] for row in metrics_less_seconds(run)} == {"fast"}
    assert "s must be an integer >= 1" in command("train.py", *settings, "optimizer.s=0")[2]
    assert "pullback must be none, reset or pullback" in command("train.py", *settings, "pullback=reset_inner")[2]
