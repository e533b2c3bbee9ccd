"""A run's whole state: what trains, how far it is, and the means to save and restore both."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nested_lookahead.tasks import augment
from nested_lookahead.tasks.data import Dataset, Samples
from nested_lookahead.training import schedules
from nested_lookahead.training.averages import averages_of, has_modes
from nested_lookahead.training.batches import Batches
from nested_lookahead.training.graphs import Replayed, replayable
from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.processes import ALONE, Processes

PROGRESS = ("step", "evaluated", "seconds", "compile_seconds", "lr")
"""A trainer's numbers that a checkpoint keeps."""


class Diverged(Exception):
    """The loss is no longer finite."""

    def __init__(self, step: int, cause: str) -> None:
        super().__init__(f"{cause} at step {step}")
        self.step, self.cause = step, cause


def seed_of(seed: int, stream: str) -> int:
    """A seed for one stream of random numbers: streams of one run are independent, and the same for every method."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Recipe:
    """What a training step does besides the optimizer's work."""

    epochs: int
    schedule: Callable[[float], float] = schedules.constant
    """Share of training done → factor on the learning rate."""
    warmup: float = 0.0
    """Share of training in which the learning rate rises."""
    augment: Callable[[Tensor, torch.Generator], Tensor] = augment.none
    label_smoothing: float = 0.0
    grad_clip: float | None = None
    """Largest L2 norm of the whole gradient."""
    ema: tuple[float, ...] = ()
    """Decays of the averages of the weights that are kept beside the run."""
    tail: float | None = None
    """Share of training after which the mean of the weights begins; None keeps none."""


class Trainer:
    """A run's whole state: what trains, how far it is, and the means to save and restore both."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        data: Dataset,
        batches: Batches,
        recipe: Recipe,
        hardware: Hardware,
        augment_seed: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.optimizer, self.data, self.batches = model, optimizer, data, batches
        self.recipe, self.hardware, self.processes = recipe, hardware, processes
        self._in_graphs = self._can_be_graphs()
        self._wrapped, self._compiling = hardware.compiled(self._parallel(model), self._in_graphs)
        compile_all = hardware.compile and self._in_graphs  # else what a compiler makes in pieces only costs
        self._augment = torch.compile(recipe.augment, dynamic=False) if compile_all else recipe.augment
        if hardware.compile and hardware.device.type == "cpu" and hasattr(optimizer, "compile"):
            optimizer.compile()
        self.epochs, self.total_steps = recipe.epochs, recipe.epochs * len(batches)
        if hasattr(optimizer, "set_horizon"):
            optimizer.set_horizon(self.total_steps)
        self.scheduler = LambdaLR(optimizer, schedules.over_steps(recipe.schedule, self.total_steps, recipe.warmup))
        self.averages = averages_of([*model.parameters()], recipe.ema, recipe.tail, self.total_steps)
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.precision == "fp16")
        self.augment_generator = torch.Generator(hardware.device).manual_seed(augment_seed)
        self._graphs = self._recorder([*model.parameters()])
        self._parts: dict[int, Samples] = {}
        self.step = 0
        self.evaluated = 0
        """Step of the last evaluation."""
        self.seconds = 0.0
        """Time spent on training steps alone, without compiling."""
        self.compile_seconds = 0.0
        self.lr = float(optimizer.param_groups[0]["lr"])
        """Learning rate of the last step, of the first param group."""
        self.losses = torch.full((len(batches),), math.nan, device=hardware.device)
        """Training loss of each step of the present epoch, kept on the device: reading it would wait for the step."""
        self.check_every = 1 if hardware.device.type == "cpu" else 100

    def _can_be_graphs(self) -> bool:
        on_one_gpu = self.hardware.device.type == "cuda" and self.processes.count == 1
        return on_one_gpu and replayable((*self.model.modules(), self.recipe.augment, self.data.objective))

    def _parallel(self, model: nn.Module) -> nn.Module:
        """What a step calls: the model, with what processes that share it have to do."""
        return self.processes.wrap(model, self.hardware.device)

    def models(self) -> Sequence[nn.Module]:
        """All that this process trains."""
        return [self.model]

    def agree(self) -> None:
        """Before anything is measured: each process has seen other batches."""
        self.processes.copy_from_first(*self.model.buffers())

    def fast_weights(self) -> AbstractContextManager[None]:
        """What is trained, in `model`, for a block."""
        return nullcontext()

    def _recorder(self, params: Sequence[Tensor]) -> Replayed | None:
        """What replays the computation of these parameters' gradients; None where it is made as it is."""
        return Replayed(params, [self.augment_generator]) if self._in_graphs else None

    def _gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        if self._graphs is None:
            return self._compute_gradient(images, labels)
        return self._graphs(self._compute_gradient, images, labels)

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.step // len(self.batches)

    def train_part(self, size: int) -> Samples:
        """The first ``size`` training samples, or all: made once, as it can be a copy."""
        if size >= len(self.data.train):
            return self.data.train
        if size not in self._parts:
            self._parts = {size: self.data.train.take(np.arange(size))}
        return self._parts[size]

    def train_epoch(self, on_step: Callable[[Trainer], None] = lambda trainer: None) -> None:
        """Finish the present epoch.

        Raises:
            Diverged: at the first step with a loss that is not finite (noticed there on a CPU, up to 100 steps
                later on other devices, where asking means waiting).
        """
        self.model.train()
        if has_modes(self.optimizer):
            self.optimizer.train()  # type: ignore[attr-defined]
        count = self._clock()
        for images, labels in self.batches:
            self.losses[self.step % len(self.batches)] = self.train_step(images, labels)
            self.step += 1
            for average in self.averages.values():
                average.update(self.step)
            if self.step % self.check_every == 0:
                self._check_losses()
                count()
            on_step(self)
        self.hardware.synchronize()
        count()
        self._check_losses()

    def _clock(self) -> Callable[[], None]:
        """Begin to count time; each call of what is returned brings `seconds` and `compile_seconds` up to date."""
        start, seconds = time.perf_counter(), self.seconds
        compiled, compile_seconds = self._compiling.seconds, self.compile_seconds

        def count() -> None:
            compiling = self._compiling.seconds - compiled
            self.seconds = seconds + time.perf_counter() - start - compiling
            self.compile_seconds = compile_seconds + compiling

        return count

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step on uint8 images; returns the mean loss over the batch, before the step; until the next one.

        Of several processes each returns its part's loss, weighted so that their mean is the batch's.
        """
        loss = self._gradient(images, labels)
        if self.recipe.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            for model in self.models():
                nn.utils.clip_grad_norm_(model.parameters(), self.recipe.grad_clip)
        self.lr = float(self.optimizer.param_groups[0]["lr"])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return loss

    def _compute_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = self._loss(images, labels)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        batch_size = self.batches.size(self.step % len(self.batches))
        if self.hardware.compile and not self._in_graphs:  # else it would import the compiler, for seconds
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        inputs, labels = self._prepared(images, labels)
        loss = self._loss_of(self._wrapped, inputs, labels)
        if self.processes.count > 1:
            loss = loss * self.processes.weight(batch_size)
        return loss

    def _prepared(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What this process trains on, as a model takes it."""
        images = self._augment(images, self.augment_generator)
        if len(labels) == self.batches.size(self.step % len(self.batches)):
            # A whole batch, augmented as if one process were to train on it.
            images, labels = self._share(images), self._share(labels)
        return self.data.normalize(images, self.hardware.channels_last), labels

    def _share(self, samples: Tensor) -> Tensor:
        """This process's part of a batch."""
        return self.processes.share(samples)

    def _loss_of(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        with self.hardware.autocast():
            logits = model(inputs)
        return self.data.objective.loss(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)

    def _check_losses(self) -> None:
        """Look at the losses since the last check."""
        done = (self.step - 1) % len(self.batches) + 1
        first = max(0, done - self.check_every)
        if self.processes.count > 1:
            self.processes.sum(self.losses[first:done])
            self.losses[first:done] /= self.processes.count
        bad = torch.nonzero(~torch.isfinite(self.losses[first:done])).flatten().tolist()
        if bad:
            raise Diverged(self.step - done + first + bad[0] + 1, "training loss is not finite")

    def speed(self) -> tuple[float, str]:
        """Samples or tokens per second of training, and which."""
        objective = self.data.objective
        return self._samples() * objective.units(self.data.shape) / max(self.seconds, 1e-9), objective.unit

    def _samples(self) -> int:
        return self.epoch * len(self.data.train) + self.step % len(self.batches) * self.batches.batch_size

    def usage(self) -> dict[str, Any]:
        """What the run took so far."""
        images, (speed, unit) = self._samples(), self.speed()
        return {
            "steps": self.step,
            "planned_steps": self.total_steps,
            "epochs": self.epoch,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "images_per_second": images / self.seconds if self.seconds else None,
            **({} if unit == "samples" or not self.seconds else {f"{unit}_per_second": speed}),
            "hardware": {
                "device": self.hardware.device.type,
                "name": self.hardware.device_name(),
                "precision": self.hardware.precision,
                "threads": torch.get_num_threads(),
                "processes": self.processes.count,
                "peak_memory_bytes": self.hardware.peak_memory(),
            },
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything a later process needs to go on as if there had been no break; plain types and tensors."""
        on_cuda = self.hardware.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "parameters": [name for name, _ in self.model.named_parameters()],
            "optimizer_parameters": self._names_in_optimizer(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "batches": self.batches.state_dict(),
            "scaler": self.scaler.state_dict(),
            "losses": self.losses,
            "random": {
                "augment": self.augment_generator.get_state(),
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.hardware.device) if on_cuda else None,
            },
            "progress": {name: getattr(self, name) for name in PROGRESS},
        }

    def _names_in_optimizer(self) -> list[str]:
        """In its order, which is by param groups."""
        names = {param: name for name, param in self.model.named_parameters()}
        return [names[param] for group in self.optimizer.param_groups for param in group["params"]]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises:
        LookupError, TypeError, ValueError or RuntimeError: it is that of another trainer, or of another version.
        """
        progress = state_dict["progress"]
        if not 0 <= progress["evaluated"] <= progress["step"] <= self.total_steps:
            raise ValueError(f"it is after step {progress['step']} of {self.total_steps}")
        self.model.load_state_dict(state_dict["model"])
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.scheduler.load_state_dict(state_dict["scheduler"])
        for name, average in self.averages.items():
            average.load_state_dict(state_dict["averages"][name])
        self.batches.load_state_dict(state_dict["batches"])
        self.scaler.load_state_dict(state_dict["scaler"])
        self.augment_generator.set_state(state_dict["random"]["augment"])
        self.losses.copy_(state_dict["losses"])
        torch.set_rng_state(state_dict["random"]["cpu"])
        if state_dict["random"]["cuda"] is not None and self.hardware.device.type == "cuda":
            torch.cuda.set_rng_state(state_dict["random"]["cuda"], self.hardware.device)
        for name in PROGRESS:
            setattr(self, name, progress.get(name, getattr(self, name)))
