"""What only a GPU can show of the training loop."""

import pytest
import torch
from test_training import random_split

from nested_lookahead import NestedLookahead
from nested_lookahead.runs.build import build_optimizer
from nested_lookahead.runs.schema import OptimizerChoice
from nested_lookahead.settings import Evaluation
from nested_lookahead.tasks import augment, models
from nested_lookahead.tasks.data import Dataset
from nested_lookahead.training.batches import Batches
from nested_lookahead.training.fit import evaluate
from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.trainer import Recipe, Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def published(images, generator):
    return augment.published(images, generator, 4, (0.7, 1.0), (0.7, 1.0), (0.0, 0.1), 45.0)


def make_trainer(compile=False, precision="fp32", samples=64 * 8):
    torch.manual_seed(0)
    hardware = Hardware.choose("cuda", precision, None, None, compile)
    splits = (random_split(samples, seed, shape=(3, 32, 32)) for seed in range(3))
    data = Dataset.from_splits(*splits, 10).to(hardware.device)
    model = models.resnet18((3, 32, 32), 10).to(hardware.device, memory_format=torch.channels_last)
    inner = OptimizerChoice("sgd", "torch.optim.SGD", {"lr": 0.01, "momentum": 0.9}, None)
    optimizer = NestedLookahead(build_optimizer(inner, model), 2, 2)
    batches = Batches(data.train, 64, torch.Generator().manual_seed(0))
    return Trainer(model, optimizer, data, batches, Recipe(epochs=4, augment=published), hardware)


@pytest.mark.parametrize("compile", [False, True])
def test_a_training_step_never_waits_for_the_device(compile):
    trainer = make_trainer(compile)
    trainer.train_epoch()  # compiles, records graphs, chooses algorithms
    trainer.train_epoch()
    batches = list(trainer.batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, labels in batches:
            trainer.train_step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_compiled_training_computes_the_same(precision):
    """Also after evaluations, which use the same parameters outside the graphs, with the slow weights in them."""
    evaluation = Evaluation(every=1, batch_size=128, train_samples=128, bn_batches=2, weights="fast", augment=False)
    results = []
    for compile in (False, True):
        trainer = make_trainer(compile, precision)
        for _ in range(3):
            trainer.train_epoch()
            rows = evaluate(trainer, evaluation)
        results.append([row["loss"] for row in rows])
    assert results[1] == pytest.approx(results[0], rel=0.05 if precision == "fp32" else 0.2)
    assert trainer.compile_seconds > 0
