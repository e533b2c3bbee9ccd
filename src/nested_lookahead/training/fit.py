"""Train to the end, and measure on the way: `fit` yields what there is to record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from nested_lookahead.settings import Evaluation
from nested_lookahead.tasks.data import Samples, in_order
from nested_lookahead.training.averages import has_modes, own_average
from nested_lookahead.training.trainer import Diverged, Trainer

AUGMENTED = "augmented"
"""In the place of a kind of weights: the fast ones, on samples that are augmented as in training."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Row(TypedDict):
    """One line of the metrics: what was measured on one split with one kind of weights.

    Its keys are the columns of metrics.csv, and this is the one place that names them.
    """

    step: int
    epoch: int
    split: str
    weights: str
    loss: float
    accuracy: float
    """The task's metric, whichever it is: the name is that of the first."""
    lr: float
    seconds: float


COLUMNS = tuple(Row.__annotations__)


def fit(
    trainer: Trainer, evaluation: Evaluation, on_step: Callable[[Trainer], None] = lambda trainer: None
) -> Iterator[list[Row]]:
    """Train to the last epoch; yield the rows of each evaluation.

    Raises:
        Diverged: a training loss, or an evaluated loss of the fast weights, is not finite.
    """

    for _ in evaluations(trainer, evaluation.every, on_step):
        rows = evaluate(trainer, evaluation)
        yield rows
        if (cause := divergence(rows)) is not None:
            raise Diverged(trainer.step, cause)


def evaluations(trainer: Trainer, every: int, on_step: Callable[[Trainer], None]) -> Iterator[None]:
    """Train to the last epoch, and pause wherever an evaluation is due."""

    def due() -> bool:
        """At the end of an epoch that is to be evaluated, and has not been."""
        at_an_end = trainer.step > trainer.evaluated and trainer.step % len(trainer.batches) == 0
        return at_an_end and (trainer.epoch % every == 0 or trainer.epoch == trainer.epochs)

    while trainer.evaluated < trainer.total_steps:
        if not due():  # it is, where a run was cut off between an epoch and its evaluation
            trainer.train_epoch(on_step)
        if due():
            trainer.evaluated = trainer.step
            yield


def divergence(rows: list[Row]) -> str | None:
    """Why an evaluation shows that the run has diverged; None if it does not."""
    bad = [row["split"] for row in rows if row["weights"] == "fast" and not math.isfinite(row["loss"])]
    return f"{bad[0]} loss is not finite" if bad else None


def evaluate(trainer: Trainer, evaluation: Evaluation) -> list[Row]:
    """One row per split and kind of weights: the fast ones, a Lookahead's outermost slow ones, and averages.

    The fast ones also as `AUGMENTED`, where that is asked for.
    """
    rows: list[Row] = []

    def visit(weights: str, name: str, split: Samples) -> None:
        rows.append(row(trainer, name, weights, *measure(trainer, split, evaluation.batch_size, weights == AUGMENTED)))

    each_split(trainer, evaluation, visit)
    return rows


def row(trainer: Trainer, split: str, weights: str, loss: float, accuracy: float) -> Row:
    """What was measured at the step that the trainer is at."""
    return Row(
        step=trainer.step,
        epoch=trainer.epoch,
        split=split,
        weights=weights,
        loss=loss,
        accuracy=accuracy,
        lr=trainer.lr,
        seconds=trainer.seconds,
    )


def each_split(trainer: Trainer, evaluation: Evaluation, visit: Callable[[str, str, Samples], None]) -> None:
    """Visit every split that has samples with every kind of weights, by their names: these are in the model then."""
    trainer.agree()
    data, size = trainer.data, evaluation.train_samples
    splits = {
        "train": trainer.train_part(size),
        "validation": data.validation,
        "test": data.test,
    }
    kinds = ["fast", *(["slow"] if hasattr(trainer.optimizer, "slow_weights") else [])]
    kinds += [name for name, average in trainer.averages.items() if average.ready]
    for kind in [*kinds, *([AUGMENTED] if evaluation.augment else [])]:
        weights = "fast" if kind == AUGMENTED else kind
        others = weights != "fast" or has_modes(trainer.optimizer)
        with weights_in(trainer, evaluation, weights) if others else trainer.fast_weights():
            for name, split in splits.items():
                if len(split):
                    visit(kind, name, split)


def measure(trainer: Trainer, split: Samples, batch_size: int, augmented: bool = False) -> tuple[float, float]:
    """Mean loss and score over a split: of a classification, cross-entropy in nats and the share of correct answers."""
    loss, score, count = totals(trainer, split, batch_size, augmented)
    return loss.item() / count.item(), score.item() / count.item()


@torch.no_grad()
def totals(trainer: Trainer, split: Samples, batch_size: int, augmented: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and score summed over a split, and what they are to be divided by.

    Augmented samples are the same ones every time and in every run: those of batch i are drawn with the seed i.
    """
    trainer.model.eval()
    device, objective = trainer.hardware.device, trainer.data.objective
    loss, score = torch.zeros((), device=device), torch.zeros((), device=device)
    count = torch.zeros((), dtype=torch.int64, device=device)
    every = trainer.processes.every
    batches = in_order(split, batch_size, every, seed=0 if augmented else None)
    for i, (images, labels) in zip(range(len(split))[every], batches, strict=False):
        if augmented:
            images = trainer.recipe.augment(images, torch.Generator(device).manual_seed(i))
        with trainer.hardware.autocast():
            logits = trainer.model(trainer.data.normalize(images, trainer.hardware.channels_last))
        loss = loss + objective.loss(logits.float(), labels, reduction="sum")
        score = score + objective.score(logits, labels)
        count = count + objective.count(labels)
    trainer.processes.sum(loss, score, count)
    return loss, score, count


@contextmanager
def weights_in(trainer: Trainer, evaluation: Evaluation, kind: str) -> Iterator[None]:
    """The outermost slow weights or an average in the model, with batch-norm statistics of their own, in a block.

    The running statistics belong to the fast weights. As for weight averages (Izmailov et al. 2018, Section 3.2),
    those of the others are averaged over a fixed set of training batches, and the others restored afterwards.
    """
    model = trainer.model
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    saved = [({name: buffer.clone() for name, buffer in norm.named_buffers()}, norm.momentum) for norm in norms]
    with _swapped(trainer, kind):
        try:
            _estimate_batch_norm(trainer, norms, evaluation.bn_batches)
            yield
        finally:
            with torch.no_grad():
                for norm, (buffers, momentum) in zip(norms, saved, strict=True):
                    norm.momentum = momentum
                    for name, buffer in norm.named_buffers():
                        buffer.copy_(buffers[name])


def _swapped(trainer: Trainer, kind: str) -> Any:
    """A block with these weights in the model; the fast ones are, of a Schedule-Free optimizer, its own average."""
    optimizer: Any = trainer.optimizer
    if kind == "fast":
        return own_average(optimizer)
    return optimizer.slow_weights() if kind == "slow" else trainer.averages[kind].weights()


@torch.no_grad()
def _estimate_batch_norm(trainer: Trainer, norms: list[Any], batches: int) -> None:
    if not norms:
        return
    trainer.model.eval()  # no dropout: it would draw from the training's random numbers
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    # As the running statistics of the fast weights are: from augmented batches, here always the same ones.
    generator = torch.Generator(trainer.hardware.device).manual_seed(0)
    size, train = trainer.batches.batch_size, trainer.data.train
    chunks = torch.split(torch.arange(len(train)), size)[:batches]
    fetched = train.fetch([chunk for chunk in chunks if len(chunk) > 1], seed=0)  # one has no variance
    for number, (images, _) in enumerate(fetched, start=1):
        for norm in norms:
            norm.momentum = 1 / number  # a plain average over the batches
        with trainer.hardware.autocast():
            inputs = trainer.recipe.augment(images, generator)
            trainer.model(trainer.data.normalize(inputs, trainer.hardware.channels_last))
