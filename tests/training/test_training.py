"""Data, batches, schedules and evaluation."""

import contextlib
import copy
import dataclasses
import functools
import itertools
import math
import os
import platform
import subprocess
import sys
import types
import warnings

import pytest
import torch
from torch import nn

from nested_lookahead import NestedLookahead
from nested_lookahead.runs.build import build_optimizer
from nested_lookahead.runs.schema import Choice, OptimizerChoice
from nested_lookahead.settings import Evaluation, Split
from nested_lookahead.tasks import models
from nested_lookahead.tasks.augment import standard
from nested_lookahead.tasks.data import Dataset, TensorSamples, split_source
from nested_lookahead.tasks.datasets import digits
from nested_lookahead.tasks.models import cnn, mlp, resnet18, resnet18_cifar
from nested_lookahead.training import hardware, schedules
from nested_lookahead.training.batches import Batches
from nested_lookahead.training.fit import evaluate, fit, measure, weights_in
from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.trainer import Diverged, Recipe, Trainer, seed_of

CPU = Hardware(torch.device("cpu"), "fp32", channels_last=False)
EVALUATION = Evaluation(every=1, batch_size=64, train_samples=100, bn_batches=3, weights="fast", augment=False)


def random_split(n, seed=0, shape=(1, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, *shape), dtype=torch.uint8, generator=generator)
    return TensorSamples(images, torch.randint(10, (n,), generator=generator))


def make_trainer(train=130, lr=0.1, dropout=0.0, epochs=2, optimizer=None, schedule=schedules.constant, **recipe):
    torch.manual_seed(0)
    data = Dataset.from_splits(random_split(train), random_split(30, 1), random_split(70, 2), 10)
    model = nn.Sequential(cnn(data.shape, 10, width=4), nn.Dropout(dropout))
    optimizer = optimizer or (lambda p: NestedLookahead(torch.optim.SGD(p, lr=lr, momentum=0.9), 2, 2))
    batches = Batches(data.train, 32, torch.Generator().manual_seed(0))
    recipe = Recipe(epochs, schedule, **recipe)
    return Trainer(model, optimizer(model.parameters()), data, batches, recipe, CPU)


# --- data -----------------------------------------------------------------------------------------------------------


def test_digits_are_whole_stratified_and_always_the_same():
    from sklearn.datasets import load_digits

    data = split_source(digits(), Split(0.125, None, None), seed=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (1257, 180, 360)
    assert data.shape == (1, 8, 8)
    splits = (data.train, data.validation, data.test)
    images = torch.cat([split.images for split in splits]).flatten(1)
    labels = torch.cat([split.labels for split in splits])
    pixels, targets = load_digits(return_X_y=True)
    # All 1,797 scans once each, with their labels, recovered from 8-bit grey levels.
    ours = sorted(
        [*image, label]
        for image, label in zip((images / 255 * 16).round().int().tolist(), labels.tolist(), strict=True)
    )
    theirs = sorted([*image, label] for image, label in zip(pixels.astype(int).tolist(), targets.tolist(), strict=True))
    assert ours == theirs
    for split in splits:
        shares = torch.bincount(split.labels) / len(split) - torch.bincount(labels) / len(labels)
        assert shares.abs().max() < 0.01
    assert torch.equal(digits().test.images, data.test.images)


def test_normalized_training_images_have_zero_mean_and_unit_variance():
    data = Dataset.from_splits(random_split(50, shape=(3, 5, 6)), random_split(5), random_split(5), 10)
    x = data.normalize(data.train.images)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3))
    assert data.normalize(data.train.images, channels_last=True).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(data.normalize(data.train.images, channels_last=True), x)


@pytest.mark.parametrize(("n", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (9, [4, 4]), (3, [3]), (1, [1])])
def test_an_epoch_shows_every_sample_once_but_never_a_lone_last_one(n, sizes):
    batches = Batches(TensorSamples(torch.arange(n), torch.arange(n)), 4, torch.Generator().manual_seed(0))
    assert len(batches) == len(sizes)
    epochs = [[labels for _, labels in batches] for _ in range(3)]
    for epoch in epochs:
        assert [len(labels) for labels in epoch] == sizes
        assert len(set(torch.cat(epoch).tolist())) == sum(sizes)
    if n == 10:
        assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))


@pytest.mark.parametrize("stop", range(8))
def test_batches_go_on_from_a_saved_position(stop):
    def make():
        return Batches(TensorSamples(torch.arange(10), torch.arange(10)), 4, torch.Generator().manual_seed(5))

    def endless(batches):
        while True:
            yield from batches

    first, second = make(), make()
    stream = endless(first)
    for _ in range(stop):
        next(stream)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed = endless(second)
    for _ in range(9):
        assert torch.equal(next(stream)[1], next(resumed)[1])


# --- models, schedules, seeds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize(
    "build",
    [lambda s, c: mlp(s, c, [16]), lambda s, c: cnn(s, c, 4), resnet18, resnet18_cifar],
    ids=["mlp", "cnn", "resnet18", "resnet18_cifar"],
)
def test_models_have_one_output_per_class(build, shape):
    model = build(shape, 7)
    assert model(torch.randn(2, *shape)).shape == (2, 7)


def test_resnet18_is_torchvisions_and_the_cifar_form_keeps_the_resolution():
    from torchvision.models import resnet18 as theirs

    torch.manual_seed(0)
    ours = resnet18((3, 32, 32), 10)
    torch.manual_seed(0)
    expected = theirs(num_classes=10)
    for name, value in expected.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    sizes = []
    small = resnet18_cifar((3, 32, 32), 10)
    small.layer1.register_forward_hook(lambda *args: sizes.append(args[2].shape[-1]))
    small(torch.randn(2, 3, 32, 32))
    assert sizes == [32]
    assert small.conv1.kernel_size == (3, 3)


def test_schedules():
    assert [schedules.constant(x) for x in (0, 0.5, 1)] == [1, 1, 1]
    assert [schedules.cosine(x, final=0.0) for x in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [schedules.cosine(x, final=0.2) for x in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])


def test_the_recorded_lr_is_that_of_the_step():
    trainer = make_trainer(epochs=2, lr=0.4, schedule=lambda progress: 1 - progress)
    rows = [row for rows in fit(trainer, EVALUATION) for row in rows]
    assert trainer.total_steps == 10
    assert {row["epoch"]: row["lr"] for row in rows} == pytest.approx({1: 0.4 * 0.6, 2: 0.4 * 0.1})


def test_streams_of_a_seed_differ():
    seeds = {seed_of(seed, stream) for seed in range(50) for stream in ("weights", "order", "training")}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)


# --- evaluation -----------------------------------------------------------------------------------------------------


def test_measure_is_the_mean_over_the_split_whatever_the_batch_size():
    trainer = make_trainer(dropout=0.5)
    split = trainer.data.test
    model = copy.deepcopy(trainer.model).eval()
    logits = model(trainer.data.normalize(split.images))
    loss = nn.functional.cross_entropy(logits, split.labels).item()
    accuracy = (logits.argmax(1) == split.labels).double().mean().item()
    for batch_size in (1, 13, 70, 1000):
        assert measure(trainer, split, batch_size) == (pytest.approx(loss, rel=1e-5), accuracy)


def test_rows_of_an_evaluation():
    trainer = make_trainer()
    trainer.train_epoch()
    rows = evaluate(trainer, EVALUATION)
    assert [(row["weights"], row["split"]) for row in rows] == [
        (weights, split) for weights in ("fast", "slow") for split in ("train", "validation", "test")
    ]
    assert all((row["step"], row["epoch"]) == (5, 1) for row in rows)
    first_100 = TensorSamples(trainer.data.train.images[:100], trainer.data.train.labels[:100])
    assert (rows[0]["loss"], rows[0]["accuracy"]) == measure(trainer, first_100, 64)
    plain = make_trainer(optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    assert {row["weights"] for row in evaluate(plain, EVALUATION)} == {"fast"}


def test_slow_weights_are_measured_with_batch_norm_statistics_of_their_own():
    trainer = make_trainer()
    trainer.train_epoch()
    # By hand: a copy of the model with the outer slow weights, its statistics averaged over the first three batches.
    model = copy.deepcopy(trainer.model)
    with torch.no_grad():
        for ours, theirs in zip(model.parameters(), trainer.model.parameters(), strict=True):
            ours.copy_(trainer.optimizer.state[theirs]["slow_2"])
    batches = [trainer.data.normalize(trainer.data.train.images[i : i + 32]) for i in (0, 32, 64)]
    torch.optim.swa_utils.update_bn(batches, model)
    model.eval()
    split = trainer.data.test
    expected = nn.functional.cross_entropy(model(trainer.data.normalize(split.images)), split.labels).item()
    slow = {row["split"]: row for row in evaluate(trainer, EVALUATION) if row["weights"] == "slow"}
    assert slow["test"]["loss"] == pytest.approx(expected, rel=1e-5)


def test_evaluation_leaves_no_trace():
    trainer = make_trainer(dropout=0.5)
    trainer.train_epoch()
    before = copy.deepcopy(trainer.state_dict())
    evaluate(trainer, EVALUATION)
    with pytest.raises(ZeroDivisionError), weights_in(trainer, EVALUATION, "slow"):
        raise ZeroDivisionError
    after = trainer.state_dict()
    assert all(torch.equal(after["model"][name], value) for name, value in before["model"].items())
    assert torch.equal(after["random"]["cpu"], before["random"]["cpu"])
    assert [m.momentum for m in trainer.model.modules() if isinstance(m, nn.BatchNorm2d)] == [0.1, 0.1]


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_evaluations_come_every_so_often_and_at_the_end(every, epochs):
    trainer = make_trainer(epochs=5)
    evaluation = Evaluation(every=every, batch_size=64, train_samples=10, bn_batches=1, weights="fast", augment=False)
    assert [rows[0]["epoch"] for rows in fit(trainer, evaluation)] == epochs


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("stop", range(1, 15))
def test_a_run_stopped_after_any_step_yields_the_rows_it_would_have(every, stop):
    """Also between the last step of an epoch and its evaluation; with dropout, which draws from the global stream."""

    class Stop(Exception):
        pass

    def stop_there(trainer):
        if trainer.step == stop:
            raise Stop

    def make():
        trainer = make_trainer(epochs=3, dropout=0.5)
        torch.manual_seed(1)
        return trainer

    def rows_of(trainer, on_step=lambda trainer: None):
        rows = []
        with contextlib.suppress(Stop):
            for evaluation_rows in fit(trainer, Evaluation(every, 64, 20, 1, "fast", False), on_step):
                rows += [{key: value for key, value in row.items() if key != "seconds"} for row in evaluation_rows]
        return rows

    expected = rows_of(make())
    first = make()
    rows = rows_of(first, stop_there)
    saved = copy.deepcopy(first.state_dict())
    second = make()
    torch.manual_seed(99)
    second.load_state_dict(saved)
    assert rows + rows_of(second) == expected


def test_without_a_validation_split_there_are_no_rows_for_it():
    trainer = make_trainer()
    trainer.data = Dataset.from_splits(trainer.data.train, random_split(0), trainer.data.test, 10)
    assert {row["split"] for row in evaluate(trainer, EVALUATION)} == {"train", "test"}


@pytest.mark.parametrize("check_every", [1, 100])
def test_divergence_names_the_step_whenever_it_is_noticed(check_every):
    trainer = make_trainer()
    trainer.check_every = check_every
    step = trainer.train_step
    trainer.train_step = lambda x, y: step(x, y) * (math.inf if trainer.step == 7 else 1)
    trainer.train_epoch()
    with pytest.raises(Diverged) as error:
        trainer.train_epoch()
    assert error.value.step == 8


def test_a_loss_that_is_not_finite_in_an_evaluation_is_a_divergence_too():
    trainer = make_trainer(epochs=1)

    def on_step(trainer):
        if trainer.step == trainer.total_steps:
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(math.nan)

    evaluations = fit(trainer, EVALUATION, on_step)
    rows = next(evaluations)  # is recorded all the same
    assert math.isnan(rows[0]["loss"])
    with pytest.raises(Diverged, match="train loss is not finite at step 5"):
        next(evaluations)


# --- what a step does besides the optimizer's work ------------------------------------------------------------------


def one_step_gradients(**recipe):
    """Gradient norm that the optimizer saw, and the loss, of the first step."""
    trainer = make_trainer(**recipe)
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm().item())
    )
    images, labels = next(iter(trainer.batches))
    return seen, trainer.train_step(images, labels).item()


def test_gradient_clipping_bounds_the_norm_of_the_whole_gradient():
    (free,), _ = one_step_gradients()
    assert free > 0.1
    assert one_step_gradients(grad_clip=0.05)[0] == [pytest.approx(0.05, rel=1e-4)]
    assert one_step_gradients(grad_clip=1e6)[0] == [pytest.approx(free)]


def test_label_smoothing_is_in_the_training_loss_and_not_in_the_evaluation():
    plain, smooth = make_trainer(), make_trainer(label_smoothing=0.2)
    images, labels = next(iter(plain.batches))
    model = copy.deepcopy(plain.model).train()
    logits = model(plain.data.normalize(images))
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=0.2).item()
    assert smooth.train_step(images, labels).item() == pytest.approx(expected)
    fresh = make_trainer(label_smoothing=0.2)
    assert measure(fresh, fresh.data.test, 100) == measure(make_trainer(), fresh.data.test, 100)


def test_augmentation_is_in_training_and_not_in_the_evaluation():
    calls = []

    def spy(images, generator):
        calls.append(len(images))
        return images

    trainer = make_trainer(augment=spy)
    trainer.train_epoch()
    assert sum(calls) == 130
    calls.clear()
    measure(trainer, trainer.data.test, 50)
    assert calls == []
    evaluate(trainer, EVALUATION)  # batch norm of the slow weights sees what training sees
    assert calls == [32, 32, 32]


def test_an_evaluation_may_be_of_augmented_samples_as_well():
    evaluation = dataclasses.replace(EVALUATION, augment=True)
    trainer = make_trainer(augment=functools.partial(standard, padding=2))
    trainer.train_epoch()
    before, clean = copy.deepcopy(trainer.state_dict()), evaluate(trainer, EVALUATION)
    rows = evaluate(trainer, evaluation)
    assert rows[: len(clean)] == clean
    augmented = {row["split"]: row for row in rows[len(clean) :]}
    assert [row["weights"] for row in augmented.values()] == ["augmented"] * 3
    assert evaluate(trainer, evaluation) == rows, "other images the second time"
    assert str(trainer.state_dict()) == str(before)

    parts = torch.split(trainer.data.test.images, 64), range(2)
    images = torch.cat([standard(x, torch.Generator().manual_seed(i), 2) for x, i in zip(*parts, strict=True)])
    by_hand = dataclasses.replace(trainer.data, test=TensorSamples(images, trainer.data.test.labels))
    assert not images.equal(trainer.data.test.images)
    trainer.data = by_hand
    expected = next(row for row in evaluate(trainer, EVALUATION) if row["split"] == "test")
    assert (augmented["test"]["loss"], augmented["test"]["accuracy"]) == (expected["loss"], expected["accuracy"])


def test_augmented_samples_are_the_same_whoever_measures_them():
    """Of several processes each takes its own batches."""
    trainer = make_trainer(augment=functools.partial(standard, padding=2))
    whole = measure(trainer, trainer.data.test, 32, augmented=True)
    parts = []
    for rank in range(2):
        trainer.processes = types.SimpleNamespace(every=slice(rank, None, 2), sum=lambda *sums: parts.append(sums))
        measure(trainer, trainer.data.test, 32, augmented=True)
    loss, score, count = (sum(one) for one in zip(*parts, strict=True))
    assert (loss / count, score / count) == pytest.approx(whole, rel=1e-6)


def test_the_augmentation_stream_is_saved_and_its_own():
    from functools import partial

    from nested_lookahead.tasks import augment

    def losses(trainer):
        trainer.train_epoch()
        return trainer.losses.clone()

    crop = partial(augment.standard, padding=2)
    first, second = make_trainer(augment=crop), make_trainer(augment=crop)
    torch.manual_seed(1)
    reference = losses(first)
    torch.manual_seed(2)
    torch.rand(5)
    assert torch.equal(losses(second), reference)
    saved = copy.deepcopy(first.state_dict())
    expected = losses(first)
    resumed = make_trainer(augment=crop)
    resumed.load_state_dict(saved)
    assert torch.equal(losses(resumed), expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_resumes(precision):
    def make():
        trainer = make_trainer()
        trainer.hardware = Hardware(torch.device("cpu"), precision, channels_last=False)
        trainer.scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16", init_scale=2.0**40)
        return trainer

    trainer = make()
    with warnings.catch_warnings():
        # A skipped first step leads torch to say that the schedule is ahead of the optimizer.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        trainer.train_epoch()
    assert torch.isfinite(trainer.losses).all()
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    if precision == "fp16":
        assert trainer.optimizer.fast_steps < 5  # steps with overflow are skipped and not counted
        assert trainer.scaler.get_scale() < 2.0**40
    resumed = make()
    resumed.load_state_dict(copy.deepcopy(trainer.state_dict()))
    trainer.train_epoch()
    resumed.train_epoch()
    assert torch.equal(resumed.losses, trainer.losses)


def test_linear_and_multistep_schedules():
    assert [schedules.linear(x, final=0.1) for x in (0, 0.5, 1)] == pytest.approx([1, 0.55, 0.1])
    steps = [schedules.multistep(x, milestones=[0.75, 0.5], gamma=0.1) for x in (0, 0.49, 0.5, 0.74, 0.75, 1)]
    assert steps == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_rises_in_equal_parts_and_the_schedule_fills_the_rest():
    factor = schedules.over_steps(lambda progress: 1 - progress, total_steps=10, warmup=0.3)
    assert [factor(step) for step in range(11)] == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7, 0]
    )
    plain = schedules.over_steps(schedules.constant, 10, 0.0)
    assert [plain(step) for step in range(10)] == [1] * 10


# --- the larger models ----------------------------------------------------------------------------------------------


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_model_sizes_are_the_papers():
    assert parameters(models.resnet50((3, 64, 64), 1000)) == 25_557_032  # torchvision's
    assert parameters(models.wide_resnet((3, 32, 32), 10, 16, 4)) == pytest.approx(2.7e6, rel=0.03)  # WRN-16-4
    assert parameters(models.wide_resnet((3, 32, 32), 10, 28, 10)) == pytest.approx(36.5e6, rel=0.01)  # WRN-28-10
    assert parameters(models.cnn1d((1, 40), 10, 25)) == 5_210  # MNIST-1D's ConvBase
    vit = models.vit_tiny((3, 224, 224), 1000, patch_size=16, layers=12, heads=3, hidden=192)
    assert parameters(vit) == 5_717_416  # DeiT-Ti


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda s: models.cnn1d(s, 7, 25), (1, 40)),
        (lambda s: models.mlp(s, 7, [16]), (1, 40)),
        (lambda s: models.wide_resnet(s, 7, 16, 2), (1, 28, 28)),
        (lambda s: models.vit_tiny(s, 7, 4, 2, 3, 48), (1, 28, 28)),
        (lambda s: models.vit_tiny(s, 7, 4, 2, 3, 48), (3, 32, 32)),
        (lambda s: models.resnet50(s, 7), (1, 32, 32)),
    ],
)
def test_larger_models_have_one_output_per_class(build, shape):
    assert build(shape)(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_a_trimmed_convolution_is_the_same_convolution(kernel):
    layouts = (torch.contiguous_format, torch.channels_last)
    cases = itertools.product((1, 2, 3), range(kernel // 2 + 1), range(1, 7), range(1, 7), layouts)
    for stride, padding, height, width, layout in cases:
        if min(height, width) + 2 * padding < kernel:
            continue
        conv = nn.Conv2d(2, 4, kernel, stride, padding, dtype=torch.float64).to(memory_format=layout)
        trimmed = models.TrimmedConv2d(2, 4, kernel, stride, padding, dtype=torch.float64).to(memory_format=layout)
        trimmed.load_state_dict(conv.state_dict())
        x = torch.randn(3, 2, height, width, dtype=torch.float64)
        cotangent = torch.randn_like(conv(x))
        for module in (conv, trimmed):
            module(x).backward(cotangent)
        torch.testing.assert_close(trimmed(x), conv(x))
        torch.testing.assert_close(trimmed.weight.grad, conv.weight.grad)
        assert trimmed.weight.grad.stride() == trimmed.weight.stride()


def test_resnet18_is_torchvisions_with_less_work_on_small_images():
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models import resnet18 as torchvision_resnet18

    theirs = torchvision_resnet18(num_classes=10)
    ours = models.resnet18((3, 32, 32), 10)
    ours.load_state_dict(theirs.state_dict())
    work = {}
    for size in (32, 224):
        x = torch.randn(2, 3, size, size)
        outputs = []
        for model in (theirs, ours):
            with FlopCounterMode(display=False) as counter:
                outputs.append(model(x))
            work[model is ours, size] = counter.get_total_flops()
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    assert work[True, 224] == work[False, 224]
    # On 32 × 32 the three 512-channel convolutions of the last stage see one pixel, the 256-channel one before it four.
    saved = 2 * 2 * (3 * 8 * 512 * 512 + 5 * 256 * 512)
    assert work[False, 32] - work[True, 32] == saved


# --- precision, layout, kernels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "native", "compile", "expected"),
    [
        ("cpu", True, True, "fp32"),
        ("cuda", True, True, "bf16"),
        ("cuda", False, True, "fp32"),  # a GPU that would emulate it
        ("cuda", True, False, "fp32"),
    ],
)
def test_precision_auto(monkeypatch, device, native, compile, expected):
    monkeypatch.setattr(hardware, "_find_device", lambda name: torch.device(device))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    chosen = Hardware.choose("auto", "auto", None, None, compile)
    assert (chosen.precision, chosen.channels_last, chosen.compile) == (expected, True, compile)
    assert Hardware.choose("auto", "fp16", False, None).precision == "fp16"


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_freed_memory_is_kept_for_the_next_tensor():
    # In a process of its own: what is set there stays set.
    script = """
import resource, torch
from nested_lookahead.training.hardware import Hardware

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(25_000_000)  # 100 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fresh = faults()
Hardware(torch.device("cpu"), "fp32", channels_last=True).keep_freed_memory()
faults()  # until the heap has grown to what they need, which depends on what lies in it
print(fresh, faults())
"""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=plain)
    fresh, kept = map(int, printed.stdout.split())
    assert fresh > 100  # per tensor 24,414 pages of 4 KiB, or 48 of 2 MiB
    assert kept < fresh / 10


@pytest.mark.parametrize("target", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_optimizers_are_fused_where_that_is_faster(target):
    settings = target.lower(), f"torch.optim.{target}", {"lr": 0.1}
    alone = OptimizerChoice(*settings, None)
    inside = OptimizerChoice("lookahead", "nested_lookahead.Lookahead", {}, Choice(*settings))

    def fused(layout):
        model = nn.Conv2d(3, 4, 3).to(memory_format=layout)
        plain = build_optimizer(alone, model).param_groups[0].get("fused")
        assert build_optimizer(inside, model).param_groups[0].get("fused") == plain
        return plain

    assert fused(torch.contiguous_format) is (True if target != "RMSprop" else None)
    assert fused(torch.channels_last) is (True if target.startswith("Adam") else None)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: models.cnn((1, 40), 10, 4),
            r"cnn takes 2-D samples, these are 1-D, \(1, 40\); try model=cnn1d or mlp",
        ),
        (lambda: models.resnet18((1, 40), 10), "resnet18 takes 2-D samples"),
        (lambda: models.cnn1d((1, 8, 8), 10, 4), "cnn1d takes 1-D samples, these are 2-D"),
        (lambda: models.vit_tiny((3, 30, 30), 10, 4, 2, 3, 48), "a multiple of patch_size=4 wide"),
        (lambda: models.wide_resnet((3, 32, 32), 10, 15, 4), r"depth must be 6n \+ 4"),
    ],
)
def test_models_refuse_samples_of_another_kind(build, message):
    with pytest.raises(ValueError, match=message):
        build()
