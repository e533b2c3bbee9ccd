"""Several runs as one trainer: networks that are alike but for their numbers are one batched network.

On a GPU a small network leaves most of the device idle, and what takes time is to launch its operations; a stack
launches each once for all runs. Every run has a trainer of its own besides, in whose terms it is measured and saved.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from nested_lookahead.settings import Evaluation
from nested_lookahead.tasks import augment
from nested_lookahead.tasks.data import Samples, TensorSamples
from nested_lookahead.training import stacked_optimizer
from nested_lookahead.training.fit import Row, each_split, row, totals
from nested_lookahead.training.stacked_data import StackedBatches, StackedDataset
from nested_lookahead.training.stacked_optimizer import StackedOptimizer, inner_of
from nested_lookahead.training.trainer import Diverged, Trainer
from nested_lookahead.training.windows import windowed

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class StackedModel(nn.Module):
    """Networks of one kind as one: its parameters and buffers have the runs first, and so have inputs and outputs.

    ``weights`` (runs, weights) are all parameters of each run, one after another, in the same memory.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        params, buffers = stack_module_state([*models])
        self.weights = torch.cat([param.detach().flatten(1) for param in params.values()], dim=1)
        parts = torch.split(self.weights, [param[0].numel() for param in params.values()], dim=1)
        pairs = zip(params.items(), parts, strict=True)
        self.tensors = {name: nn.Parameter(part.view(param.shape)) for (name, param), part in pairs} | buffers
        self.one = copy.deepcopy(models[0])  # whose layers have the stacked tensors: batch norms are found, and reset
        own = {id(t): self.tensors[name] for name, t in (*self.one.named_parameters(), *self.one.named_buffers())}
        for module in self.one.modules():
            named = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            for name, tensor in named:
                setattr(module, name, own[id(tensor)])
        if self.weights.is_cuda:
            windowed(self.one)

    def forward(self, inputs: Tensor) -> Tensor:
        def one(tensors: dict[str, Tensor], inputs: Tensor) -> Any:
            return functional_call(self.one, tensors, (inputs,))

        outputs: Tensor = torch.vmap(one)(self.tensors, inputs)
        return outputs


def why_not(run: Trainer) -> str | None:
    """Why a run cannot be part of a stack; None if it can."""
    if type(run) is not Trainer:
        return "workers=local: its models meet in layers of their own"
    if run.hardware.compile:
        return "compile=true"
    if run.hardware.precision != "fp32":
        return f"precision={run.hardware.precision}: a stack computes in fp32"
    if getattr(run.recipe.augment, "func", run.recipe.augment) is not augment.none:
        return "augment: each run draws its own"
    if not all(isinstance(split, TensorSamples) for split in (run.data.train, run.data.validation, run.data.test)):
        return "dataset: its samples are not in memory as tensors"
    if any(isinstance(module, DROPOUTS) and module.p for module in run.model.modules()):
        return "model: dropout draws random numbers, each run its own"
    if not all(param.requires_grad for param in run.model.parameters()):
        return "model: it has frozen parameters"
    reason = stacked_optimizer.why_not(run.optimizer)
    return f"optimizer: {reason}" if reason else None


class Stack(Trainer):
    """The trainers of several runs as one, from the step at which all of them are.

    They must be alike but for seeds and numbers (`StackedOptimizer` has those that can differ), and `why_not` must have
    nothing against them. A run that diverges is set to zero and stands still; the others go on.

    Raises, at the first step:
        RuntimeError: the network does what cannot be batched, such as to draw random numbers.
    """

    def __init__(self, runs: Sequence[Trainer]) -> None:
        first = runs[0]
        model = StackedModel([run.model for run in runs])
        optimizers = [run.optimizer for run in runs]
        self.tensors = model.tensors
        self.rows = StackedOptimizer(nn.Parameter(model.weights), [*model.parameters()], optimizers, first.step)
        data = StackedDataset.of([run.data for run in runs])
        batches: Any = StackedBatches(data.train, [run.batches for run in runs])  # type: ignore[arg-type]
        super().__init__(model, self.rows, data, batches, first.recipe, first.hardware)
        self._in_graphs = first._in_graphs  # its objective is theirs, in a class of ours
        self._graphs = self._recorder([self.rows.weights])
        self.runs = runs
        self.diverged: dict[int, Diverged] = {}
        """The runs that have, by their number."""
        self._before = [run.seconds for run in runs]
        self._rates = [float(inner_of(optimizer).param_groups[0]["initial_lr"]) for optimizer in optimizers]
        self._take_over()

    @torch.no_grad()
    def _take_over(self) -> None:
        """Go on from where the runs are, but for their weights, which the model has."""
        first = self.runs[0]
        self.step, self.evaluated = first.step, first.evaluated
        self.losses = torch.stack([run.losses for run in self.runs], dim=1)
        for number, run in enumerate(self.runs):
            self.rows.load(number, run.optimizer)
        for name, average in self.averages.items():
            average.count = first.averages[name].count
            for kept, *own in zip(average.kept, *(run.averages[name].kept for run in self.runs), strict=True):
                kept.copy_(torch.stack(own))
        self.scheduler.load_state_dict(first.scheduler.state_dict() | {"base_lrs": self.scheduler.base_lrs})
        factor = self.scheduler.lr_lambdas[0]
        self.rows.param_groups[0]["lr"], self.lr = factor(self.step), factor(max(0, self.step - 1))

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of every run on samples (runs, batch, …); returns the losses (runs,) before it."""
        losses = self._gradient(images, labels)
        self.lr = float(self.rows.param_groups[0]["lr"])
        self.rows.step()
        self.scheduler.step()
        self.rows.zero_grad()
        return losses

    def _compute_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        losses = self._loss(images, labels)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.rows.gather(self.recipe.grad_clip)
        return losses.detach()

    def _check_losses(self) -> None:
        """Raises:
        Diverged: the last of the runs has.
        """
        done = (self.step - 1) % len(self.batches) + 1
        first = max(0, done - self.check_every)
        bad = ~torch.isfinite(self.losses[first:done])
        for number in torch.nonzero(bad.any(dim=0)).flatten().tolist():
            if number not in self.diverged:
                step = self.step - done + first + int(torch.nonzero(bad[:, number])[0]) + 1
                self.end(number, Diverged(step, "training loss is not finite"))
        if len(self.diverged) == len(self.runs):
            raise next(reversed(self.diverged.values()))

    @torch.no_grad()
    def end(self, number: int, why: Diverged) -> None:
        """Let a run that has diverged stand still."""
        self.diverged[number] = why
        self.rows.freeze(number)
        kept = [tensor for average in self.averages.values() for tensor in average.kept]
        for tensor in (*self.model.buffers(), *kept):
            tensor[number].zero_()

    def evaluate(self, evaluation: Evaluation) -> list[list[Row]]:
        """Of each run, what `fit.evaluate` returns. The batches are smaller, the more runs there are."""
        runs = [self.counted(number) for number in range(len(self.runs))]
        found: list[list[Row]] = [[] for _ in runs]
        size = max(self.batches.batch_size, evaluation.batch_size // len(runs))

        def visit(weights: str, name: str, split: Samples) -> None:
            sums = [total.tolist() for total in totals(self, split, size)]
            for rows, run, loss, score, count in zip(found, runs, *sums, strict=True):
                rows.append(row(run, name, weights, loss / count, score / count))

        each_split(self, evaluation, visit)
        return found

    def counted(self, number: int) -> Trainer:
        """A run's trainer with its counts as they are now, and the time that it took: an equal share of the stack's."""
        run = self.runs[number]
        run.step, run.evaluated, run.lr = self.step, self.evaluated, self._rates[number] * self.lr
        run.seconds = self._before[number] + self.seconds / len(self.runs)
        return run

    @torch.no_grad()
    def settle(self, number: int) -> Trainer:
        """A run's trainer, brought to where the stack is: as if it had trained by itself, but for the random numbers.

        Those that other runs were built with since have changed what `torch.get_rng_state` returns; a stack draws none.
        """
        run = self.counted(number)
        self.rows.store(number, run.optimizer)
        for name, buffer in run.model.named_buffers():
            buffer.copy_(self.tensors[name][number])
        for name, average in self.averages.items():
            run.averages[name].count = average.count
            for own, kept in zip(run.averages[name].kept, average.kept, strict=True):
                own.copy_(kept[number])
        run.losses.copy_(self.losses[:, number])
        lr = self._rates[number] * float(self.rows.param_groups[0]["lr"])
        run.optimizer.param_groups[0]["lr"] = lr
        of_run = {"base_lrs": run.scheduler.base_lrs, "_last_lr": [lr]}
        run.scheduler.load_state_dict(self.scheduler.state_dict() | of_run)
        return run

    def _samples(self) -> int:
        return super()._samples() * len(self.runs)
