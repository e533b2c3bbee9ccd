"""train.py as a user types it, in an empty folder."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, may_set_the_mode, metrics_less_seconds, resolved, runs_below, seen_in_a_terminal
from hydra.types import RunMode

from nested_lookahead.errors import JobError
from nested_lookahead.runs import checkpoints, files, job, versions
from nested_lookahead.tasks import models
from nested_lookahead.training import fit
from nested_lookahead.training import trainer as training


def choices(group):
    """As they are listed to a user."""
    return ", ".join(sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")))


QUICK = ("model=mlp", "epochs=2", "evaluation.train_samples=100")


@pytest.mark.slow
def test_the_first_command(command):
    status, out, err = command("train.py", "optimizer=nested_lookahead", "pullback=reset")
    assert (status, err) == (0, "")
    (run,) = runs_below("outputs")
    assert run.parent.parent == Path("outputs/digits")
    assert run.parent.name.startswith("nested_lookahead-sgd-k5-a0.5-s5-h0.5-reset-")
    assert run.name == "seed=0"
    files = {p.name for p in run.iterdir()}
    assert files == {"config.yaml", "metrics.csv", "checkpoint.pt", "summary.json", "status.json", "train.log"}

    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["steps"] == summary["planned_steps"] == 20 * 20
    for weights in ("fast", "slow"):
        assert summary["final"][weights]["test"]["accuracy"] >= 0.97
        assert summary["best"][weights]["validation"]["accuracy"] >= summary["final"][weights]["validation"]["accuracy"]
    assert summary["hardware"]["name"]
    assert summary["versions"]["torch"] == torch.__version__

    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["config"]["optimizer"]["pullback"] == "reset"
    assert config["choices"]["optimizer"] == "nested_lookahead"
    rows = metrics_less_seconds(run)
    assert len(rows) == 20 * 3 * 2
    assert {(r["split"], r["weights"]) for r in rows} == {
        (s, w) for s in ("train", "validation", "test") for w in ("fast", "slow")
    }
    assert "python analyze.py outputs/digits" in out
    assert "slow weights" in out
    assert out.count("\nepoch ") == 20
    assert "epoch 20/20" in (run / "train.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [([], None), (["optimizer=sgd", "seed=0,1", "hydra/launcher=list"], None), (["experiment=demo"], "MULTIRUN")],
)
def test_only_where_something_may_set_the_mode_hydra_need_be_asked(arguments, mode):
    """A test of the tests: `conftest.typed` leaves out what Hydra composes to find it."""
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    import train  # noqa: F401  # which sets Hydra up

    made = Hydra.create_main_hydra2("train", create_config_search_path(str(ROOT / "conf")))
    parsed = versions.newer(parsed_overrides=OverridesParser.create().parse_overrides(arguments))
    try:
        found = made.get_mode("config", arguments, **parsed)
        made.compose_config("config", arguments, RunMode.MULTIRUN)  # else None says that they make no configuration
    finally:
        GlobalHydra.instance().clear()
    assert (found and found.name) == mode
    assert may_set_the_mode(arguments) == (mode is not None)


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_metrics(command):
    for folder in ("first", "second"):
        assert command("train.py", "epochs=4", f"output_dir={folder}")[0] == 0
    (first,), (second,) = runs_below("first"), runs_below("second")
    assert metrics_less_seconds(first) == metrics_less_seconds(second)
    assert first.relative_to("first") == second.relative_to("second")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_runs_compute_the_same_and_count_compiling_apart(command):
    for folder in ("eager", "compiled"):
        settings = ["-m", "seed=0,1", f"compile={folder == 'compiled'}", f"output_dir={folder}"]
        assert command("train.py", *settings, *QUICK)[0] == 0
    for eager, compiled in zip(runs_below("eager"), runs_below("compiled"), strict=True):
        seconds = [json.loads((run / "summary.json").read_text())["compile_seconds"] for run in (eager, compiled)]
        assert seconds[0] == 0 < seconds[1]
        for row, same in zip(metrics_less_seconds(eager), metrics_less_seconds(compiled), strict=True):
            assert float(row["loss"]) == pytest.approx(float(same["loss"]), rel=1e-3)


@pytest.mark.slow
def test_a_sweep(command):
    status, _, err = command("train.py", "-m", "optimizer.k=3,5,10", *QUICK)
    assert (status, err) == (0, "")
    names = [run.parent.name.rpartition("-")[0] for run in runs_below("outputs")]
    assert names == [f"nested_lookahead-sgd-k{k}-a0.5-s5-h0.5-none" for k in (10, 3, 5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=sgd"],
        ["optimizer=adam"],
        ["optimizer=adamw"],
        ["optimizer=lookahead", "optimizer/inner=adam", "pullback=reset"],
        ["optimizer=multilayer_lookahead", "optimizer/inner=adamw", "pullback=pullback"],
        ["optimizer=multilayer_lookahead", "optimizer.layers=[[2,0.5],[3,0.9]]"],
        ["optimizer=sgd", "ema=0.9", "tail=0.5", "evaluation.weights=ema", "model=cnn", "model.width=4"],
        ["ema=[0.9,0.99]", "tail=0", "evaluation.weights=ema0.99"],
        ["optimizer=schedule_free", "scheduler=constant", "lr=0.5"],
        ["optimizer=schedule_free_adamw", "scheduler=constant"],
        ["optimizer=snoo", "optimizer.k=2", "+optimizer.schedule=linear"],
        ["optimizer=slowmo", "optimizer.k=2", "pullback=reset"],
        ["optimizer=nested_momentum", "optimizer.h=1.2", "+optimizer.schedule=cubic"],
        ["optimizer/inner=rmsprop", "optimizer.inner.momentum=0.5", "pullback=pullback_inner"],
        ["optimizer/inner=adam", "pullback=reset_outer"],
        ["optimizer.pullback=[pullback,none]"],
        ["optimizer.s=0", "scheduler=constant", "optimizer.inner.nesterov=true"],
        ["model=cnn", "model.width=4"],
        ["model=resnet18", "dataset.split.train_size=100", "epochs=1"],
        ["model=resnet18_cifar", "dataset.split.train_size=100", "epochs=1"],
        ["precision=bf16", "channels_last=true", "model=cnn", "model.width=4"],
        ["device=cpu", "threads=1", "evaluation.every=2", "evaluation.weights=slow"],
        ["optimizer/inner=nesterov", "scheduler=linear", "scheduler.warmup=0.2", "pullback=reset"],
        ["optimizer/inner=nadam", "scheduler=multistep", "label_smoothing=0.1"],
        ["optimizer/inner=radam", "grad_clip=1.0"],
        ["optimizer/inner=adagrad"],
        ["optimizer=adagrad", "lr=0.1"],
        ["optimizer/inner=custom", "optimizer.inner._target_=torch.optim.Adamax", "+optimizer.inner.kwargs.eps=1e-7"],
        [
            "optimizer/inner=custom",
            "optimizer.inner._target_=torch.optim.Rprop",
            "optimizer.inner.weight_decay=null",
            "batch_size=1257",
        ],
        ["precision=fp16", "model=cnn", "model.width=4"],
        ["method=nested_adam", "lr=0.003", "weight_decay=0.01"],
        ["augment=standard", "augment.padding=1"],
        ["augment=published", "model=cnn", "model.width=4"],
        ["model=vit_tiny", "model.layers=1", "model.hidden=24"],
        ["model=wide_resnet", "model.depth=10", "model.widen=1", "batch_size=256"],
        ["dataset=mnist1d", "dataset.train_samples=300", "dataset.test_samples=100", "model=cnn1d"],
        ["dataset.split.val_fraction=0", "dataset.split.train_size=100"],
    ],
    ids=" ".join,
)
def test_choices_train(command, overrides):
    status, out, err = command("train.py", *QUICK, *overrides)
    assert (status, err) == (0, "")
    assert "completed" in out


HEAVY_BALL = """
from dataclasses import dataclass

import torch
from nested_lookahead.optim import Layer, apply_


@dataclass(frozen=True)
class HeavyBall(Layer):
    mu: float = 0.5

    def buffers(self):
        return {"momentum": torch.zeros_like}

    def update_(self, below, own):
        for to, amount in ((below, 1.0), (own["slow"], -1.0)):
            apply_("add_", own["momentum"], to, alpha=amount * self.alpha)
        apply_("add_", own["slow"], own["momentum"])
        apply_("mul_", own["momentum"], self.mu)
"""


@pytest.mark.slow
def test_a_layer_with_a_rule_of_its_own_trains(command, monkeypatch, tmp_path):
    """Typed, or as a choice in somebody's own folder: the same run."""
    (tmp_path / "somebodys_layer.py").write_text(HEAVY_BALL)
    monkeypatch.syspath_prepend(tmp_path)
    layer = "{_target_: somebodys_layer.HeavyBall, k: 2, alpha: 0.5, mu: 0.9}"
    trust = "trust=[somebodys_layer]"
    typed = ("optimizer=multilayer_lookahead", f"optimizer.layers=[{layer}]")
    status, _, err = command("train.py", *QUICK, *typed)
    assert err.endswith(f"if you trust it, add {trust}\n")
    status, _, err = command("train.py", *QUICK, *typed, trust)
    assert (status, err) == (0, "")
    (run,) = runs_below("outputs")
    assert run.parent.name.startswith("multilayer_lookahead-sgd-heavyball-k2-a0.5-m0.9-none-")
    (tmp_path / "own/optimizer").mkdir(parents=True)
    (tmp_path / "own/optimizer/heavy.yaml").write_text(f"defaults: [multilayer_lookahead, _self_]\nlayers: [{layer}]\n")
    status, _, err = command("train.py", "--config-dir", "own", *QUICK, "optimizer=heavy", trust)
    assert (status, err) == (0, "")
    assert runs_below("outputs") == [run]


MISTAKES = [
    # what is typed, and what the one line must say: what, where, what is allowed
    (["optimizer.k=0"], ["k must be an integer >= 1, got 0"]),
    (["optimizer.kk=3"], ["optimizer.kk: no such key", "did you mean 'k'?", "alpha, h, inner, k"]),
    (["+optimizer.kk=3"], ["optimizer.kk: no such key", "did you mean 'k'?", "alpha, h, inner, k"]),
    (["optimizer=foo"], ["'optimizer/foo'", choices("optimizer")]),
    (["ema=1"], ["ema=1: must be an integer in (0, 1)"]),
    (["tail=1.0"], ["tail=1.0: must be in [0, 1)"]),
    (["optimizer.alpha=1.5"], ["alpha must be in (0, 1], got 1.5"]),
    (["optimizer.alpha=2"], ["alpha must be in (0, 1], got 2.0"]),
    (
        ["optimizer/inner=sgd", "optimizer.inner.momentum=0", "pullback=reset"],
        ["SGD with momentum=0", "pullback='none'"],
    ),
    (["optimizer=sgd", "pullback=reset"], ["pullback=reset", "optimizer=sgd has no slow weights"]),
    (["optimizer=lookahead", "pullback=reset_outer"], ["optimizer=lookahead", "there is one"]),
    (["optimizer.k=abc"], ["optimizer.k: Value 'abc'", "Integer"]),
    (["optimizer.inner=adam"], ["optimizer.inner", "optimizer/inner=adam"]),
    (["+optimizer.inner.beta=3"], ["optimizer.inner.beta: no such key"]),
    (["foo=3"], ["foo: no such key", "batch_size"]),
    (["+foo=3"], ["foo: no such key", "batch_size"]),
    (["~epochs"], ["epochs: missing"]),
    (["epochs=0"], ["epochs=0: must be an integer >= 1"]),
    (["seed=-1"], ["seed=-1: must be an integer >= 0"]),
    (["precision=fp8"], ["precision=fp8: must be one of auto, fp32, bf16"]),
    (["dataset=imagenot"], ["'dataset/imagenot'", "digits"]),
    (["device=cuda:77"], ["device=cuda:77", "device=auto"]),
    (["device=toaster"], ["device=toaster", "must be auto, cpu, cuda"]),
    (["pullback=all"], ["'pullback/all'", choices("pullback")]),
    (["optimizer=multilayer_lookahead", "optimizer.layers=[5,0.5]"], ["(k, alpha) pair"]),
    (
        [
            "optimizer=multilayer_lookahead",
            "optimizer.layers=[{_target_: nested_lookahead.optim.Layer, k: 0, alpha: 1}]",
        ],
        ["optimizer=multilayer_lookahead: k must be an integer >= 1, got 0"],
    ),
    (["optimizer=multilayer_lookahead", "optimizer.layers=[{k: 5, alpha: 1}]"], ["(k, alpha) pair, got {'k': 5"]),
    (["device=meta"], ["device=meta: must be auto, cpu, cuda, cuda:N or mps"]),
    (
        ["dataset=mnist1d", "dataset.train_samples=300"],
        ["model=cnn: cnn takes 2-D samples, these are 1-D, (1, 40); try model=cnn1d or mlp"],
    ),
    (["dataset=cifar10", "dataset.download=false"], ["dataset=cifar10: cifar-10-batches-py/data_batch_1 is missing"]),
    (["dataset=imagenet"], ["train/ is missing (looked in ", "set dataset.data_dir"]),
    (["dataset.split.val_fraction=1"], ["dataset.split.val_fraction=1.0: must be in [0, 1)"]),
    (["dataset.split.train_size=5"], ["dataset.split.train_size=5: must be in [10, 1257] here"]),
    (["model=mlp", "model.hidden=[0]"], ["model.hidden=[0]: must be an integer >= 1"]),
    (["model=vit_tiny", "model.patch_size=3"], ["model=vit_tiny", "a multiple of patch_size=3"]),
    (
        ["optimizer/inner=custom", "optimizer.inner._target_=torch.optim.Adamaxx"],
        ["optimizer/inner=adamaxx", "there is no torch.optim.Adamaxx"],
    ),
    (["scheduler.final=-3"], ["scheduler.final=-3.0: must be >= 0"]),
    (["scheduler.warmup=1.5"], ["warmup=1.5: must be in [0, 1)"]),
    (["grad_clip=0"], ["grad_clip=0.0: must be > 0, or null"]),
    (["label_smoothing=1"], ["label_smoothing=1.0: must be in [0, 1)"]),
    (["lr=nan"], ["lr=nan: must be a finite number"]),
    (["optimizer.inner.momentum=inf"], ["optimizer.inner.momentum=inf: must be a finite number"]),
    (["checkpoint_minutes=nan"], ["checkpoint_minutes=nan: must be a finite number"]),
    (["threads=2147483648"], ["threads=2147483648: must be an integer in [1, 4096], or null"]),
    (["seed=99999999999999999999"], ["must be at most 9,223,372,036,854,775,807"]),
    (["dataset.split.val_fraction=0.9999999"], ["leaves none of the 1,437 samples to train on"]),
    (["model.width=0"], ["model.width=0: must be an integer >= 1"]),
    (["augment=standard", "augment.padding=-1"], ["augment.padding=-1: must be an integer >= 0"]),
    (["augment=published", "augment.hue=[0.1,0.0]"], ["augment.hue=[0.1, 0.0]: must be ascending, in [-1, 1]"]),
    (["model=vit_tiny", "model.patch_size=0"], ["model.patch_size=0: must be an integer >= 1"]),
    (["model=vit_tiny", "model.heads=7"], ["hidden=192 that is a multiple of heads=7"]),
    (["dataset=noisy_quadratic", "model=point", "dataset.samples=0"], ["dataset.samples=0: must be an integer >= 1"]),
    (
        ["optimizer/inner=custom", "optimizer.inner._target_=torch.optim.LBFGS", "~optimizer.inner.weight_decay"],
        ["optimizer/inner=lbfgs: asks for a closure"],
    ),
    (
        ["optimizer/inner=custom", "optimizer.inner._target_=torch.optim.SparseAdam", "~optimizer.inner.weight_decay"],
        ["optimizer/inner=sparseadam: takes sparse gradients alone"],
    ),
    (
        ["optimizer/inner=custom", "optimizer.inner._target_=os.system"],
        ["optimizer.inner._target_=os.system: is code outside of nested_lookahead.optim, ", "add trust=[os]"],
    ),
    (
        ["optimizer/inner=custom", "optimizer.inner._target_=nested_lookahead.tasks.datasets.os.system"],
        ["optimizer.inner._target_=nested_lookahead.tasks.datasets.os.system: lies in posix"],
    ),
    (
        ["optimizer=multilayer_lookahead", "optimizer.layers=[[5,0.5],{_target_: os.system}]"],
        ["optimizer.layers[1]._target_=os.system: is code outside of"],
    ),
    (["+model._partial_=true"], ["model._partial_: no such key"]),
    (["study=../../x"], ["study=../../x: must be a folder below output_dir"]),
    (["study="], ["study=: must be a folder below output_dir"]),
    (["output_dir="], ["output_dir=: must name a folder"]),
    (["optimizer.name=../../../esc"], ["optimizer.name=../../../esc: is part of a folder's name"]),
    ([f"output_dir={'a' * 300}"], ["File name too long"]),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=lambda value: " ".join(value))
def test_a_mistake_ends_in_one_line_before_anything_is_trained(command, typed, said):
    status, out, err = command("train.py", *typed)
    assert status == 1
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in said:
        assert part in err
    assert not list(Path().rglob("seed=*"))


@pytest.mark.slow
def test_a_mistake_in_a_process_of_its_own(tmp_path):
    """Nothing else is printed by the interpreter, and HYDRA_FULL_ERROR=1 brings the traceback back."""
    script = [sys.executable, ROOT / "train.py", "optimizer.k=0"]
    plain = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == "error: optimizer=nested_lookahead: k must be an integer >= 1, got 0\n"
    full = subprocess.run(
        script, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "HYDRA_FULL_ERROR": "1"}
    )
    assert full.returncode == 1
    assert "Traceback" in full.stderr


def test_a_mistake_leaves_an_earlier_run_alone(command, monkeypatch):
    assert command("train.py", *QUICK)[0] == 0
    (run,) = runs_below("outputs")
    before = (run / "metrics.csv").read_bytes()
    assert command("train.py", *QUICK, "device=cuda:77", "overwrite=true")[0] == 1
    assert (run / "metrics.csv").read_bytes() == before
    assert files.read_summary(run)["status"] == "completed"


@pytest.mark.slow
def test_help_lists_groups_and_examples_without_torch(tmp_path):
    script = f"import sys; sys.argv=['train.py', '--help']; sys.path.insert(0, {str(ROOT)!r})\nimport train\n"
    script += "try:\n  train.main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    for group in ("optimizer", "optimizer/inner", "model"):
        assert f"\n{group}: {choices(group)}\n" in out.stdout
    assert "schema" not in out.stdout
    assert out.stdout.count("  python train.py ") >= 5


@pytest.mark.slow
def test_a_diverging_run_is_recorded_and_the_sweep_goes_on(command):
    status, out, err = command("train.py", "-m", *QUICK, "optimizer=sgd", "optimizer.lr=1e30,0.1", "scheduler=constant")
    assert (status, err) == (0, "")
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs_below("outputs")]
    by_status = {summary["status"]: summary for summary in summaries}
    assert set(by_status) == {"completed", "diverged"}
    assert by_status["diverged"]["diverged"]["cause"] == "training loss is not finite"
    assert 1 < by_status["diverged"]["diverged"]["step"] <= 4
    assert "diverged: training loss is not finite at step" in out


def test_a_failing_run_says_so_in_its_own_log(command, monkeypatch):
    monkeypatch.setattr(fit, "measure", lambda *_: 1 / 0)
    status, _, err = command("train.py", *QUICK)
    (run,) = runs_below("outputs")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: ZeroDivisionError: division by zero (traceback in ")
    assert "Traceback" in (run / "train.log").read_text()
    assert files.read_status(run)["status"] == "failed"
    assert files.read_status(run)["error"] == "ZeroDivisionError: division by zero"
    assert files.read_summary(run) is None


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_a_run_that_fails_before_its_first_step_says_so_too(command, monkeypatch, sweep):
    def broken(shape, num_classes, width):
        raise RuntimeError("no room")

    broken.__module__ = models.__name__
    monkeypatch.setattr(models, "cnn", broken)
    status, out, err = command("train.py", *sweep)
    (run,) = Path("outputs").glob("*/*/seed=0")
    assert status == 1
    last_lines = out.splitlines()[-2] if sweep else err.splitlines()[-1]
    assert last_lines.split(": ", 1)[1].startswith("RuntimeError: no room (traceback in ")
    assert "Traceback" in (run / "train.log").read_text()
    assert files.read_status(run)["status"] == "failed"
    assert files.read_status(run)["error"] == "RuntimeError: no room"


def test_an_interrupted_run_says_so(command, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "measure", interrupt)
    assert command("train.py", *QUICK)[0] == 130
    (run,) = runs_below("outputs")
    assert files.read_status(run)["status"] == "interrupted"


def test_a_bar_where_the_output_is_a_terminal(tmp_path):
    text = seen_in_a_terminal(["model=mlp", "epochs=15", "threads=1"], tmp_path)
    assert "epoch 15/15" in text
    assert "samples/s" in text
    assert "300" in text
    assert "loss" in text


# --- the same start for every method --------------------------------------------------------------------------------


@pytest.fixture
def build():
    from nested_lookahead.runs.build import build as build_trainer

    return lambda *overrides: build_trainer(resolved("device=cpu", "threads=1", *overrides))


METHODS = ["optimizer=sgd", "optimizer=adam", "optimizer=lookahead", "optimizer=nested_lookahead"]


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_a_seed_gives_every_method_the_same_start_and_order(build, model):
    trainers = [build(f"model={model}", method, "seed=3") for method in METHODS]
    other = build(f"model={model}", METHODS[0], "seed=4")

    def weights(trainer):
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    def order(trainer):
        return torch.cat([labels for _, labels in trainer.batches] + [labels for _, labels in trainer.batches])

    starts, orders = [weights(t) for t in trainers], [order(t) for t in trainers]
    for start, labels in zip(starts, orders, strict=True):
        assert torch.equal(start, starts[0])
        assert torch.equal(labels, orders[0])
    assert not torch.equal(weights(other), starts[0])
    assert not torch.equal(order(other), orders[0])


def test_global_random_numbers_after_the_build_do_not_depend_on_the_model(build):
    build("model=mlp")
    after_mlp = torch.rand(3)
    build("model=cnn")
    assert torch.equal(torch.rand(3), after_mlp)


@pytest.mark.parametrize("optimizer", ["optimizer=adam", "optimizer=nested_lookahead"])
def test_a_checkpoint_in_the_middle_of_an_epoch_continues_bit_for_bit(build, optimizer, tmp_path):
    overrides = [optimizer, "model.width=4", "epochs=3"]
    overrides += ["pullback=pullback"] if "nested" in optimizer else []

    class Stop(Exception):
        pass

    def stop_at(step):
        def on_step(trainer):
            if trainer.step == step:
                raise Stop

        return on_step

    undisturbed = build(*overrides)
    while undisturbed.epoch < 3:
        undisturbed.train_epoch()

    for step in (7, 20, 33):  # within the first epoch, at its end, within the second
        first = build(*overrides)
        with contextlib.suppress(Stop):
            while True:
                first.train_epoch(stop_at(step))
        torch.save(first.state_dict(), tmp_path / "checkpoint.pt")
        second = build(*overrides)
        second.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
        while second.epoch < 3:
            second.train_epoch()
        assert second.step == undisturbed.step
        for ours, theirs in zip(
            second.model.state_dict().values(), undisturbed.model.state_dict().values(), strict=True
        ):
            assert torch.equal(ours, theirs)


# --- typed again ----------------------------------------------------------------------------------------------------

SHORT = ("model=cnn", "model.width=4", "epochs=4", "dataset.split.train_size=200", "pullback=pullback")


def test_a_finished_run_is_skipped_and_its_result_returned(command, finished):
    before = (finished / "metrics.csv").read_bytes(), (finished / "summary.json").stat().st_mtime_ns
    status, out, _ = command("train.py", "epochs=4", *SHORT[:2], *SHORT[3:], "device=cpu", "threads=1")
    assert status == 0
    assert "completed already, skipped" in out
    assert ((finished / "metrics.csv").read_bytes(), (finished / "summary.json").stat().st_mtime_ns) == before
    assert "epoch 1/4" in command("train.py", *SHORT, "overwrite=true")[1]
    assert (finished / "summary.json").stat().st_mtime_ns != before[1]


def assert_same_end(run, reference):
    """Weights, buffers and optimizer state, to the last bit."""
    states = [torch.load(path / "checkpoint.pt", weights_only=True) for path in (run, reference)]
    torch.testing.assert_close(states[0]["model"], states[1]["model"], rtol=0, atol=0)
    torch.testing.assert_close(states[0]["optimizer"]["state"], states[1]["optimizer"]["state"], rtol=0, atol=0)


def cut_off(command, monkeypatch, step, settings=SHORT):
    """Train, and fail in the step after ``step``."""
    with monkeypatch.context() as patch:
        train_step = training.Trainer.train_step

        def fails(trainer, *args):
            if trainer.step == step:
                raise MemoryError
            return train_step(trainer, *args)

        patch.setattr(training.Trainer, "train_step", fails)
        assert command("train.py", *settings)[0] == 1


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """Runs of `SHORT` that many tests begin with: the first that needs one makes it."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def finished(command, shelf):
    """A finished run, in this test's ``outputs/``."""
    return from_the_shelf(shelf / "finished", lambda: command("train.py", *SHORT))


@pytest.fixture
def undisturbed(finished, shelf):
    """The same, out of the test's way."""
    shutil.rmtree("outputs")
    (run,) = runs_below(shelf / "finished")
    return run


@pytest.fixture
def half_done(command, monkeypatch, shelf):
    """Put a run into this test's ``outputs/`` that failed in the step after ``step``, and return its directory."""
    return lambda step=10: from_the_shelf(shelf / f"{step}", lambda: cut_off(command, monkeypatch, step))


def from_the_shelf(kept, make):
    if kept.exists():
        shutil.copytree(kept, "outputs")
    else:
        make()
        shutil.copytree("outputs", kept)
    (run,) = runs_below("outputs")
    return run


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4, 5, 8, 15])
def test_a_run_that_was_cut_off_resumes_to_the_same_metrics(command, undisturbed, half_done, step):
    run = half_done(step)
    status, out, _ = command("train.py", *SHORT)
    assert status == 0
    assert ("resumed after step" in out) == (step >= 4)
    assert metrics_less_seconds(run) == metrics_less_seconds(undisturbed)
    ours, theirs = files.read_summary(run), files.read_summary(undisturbed)
    assert [ours[key] for key in ("final", "best", "steps")] == [theirs[key] for key in ("final", "best", "steps")]
    assert_same_end(run, undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
def test_two_optimizers_inside_resume_in_the_middle_of_a_cycle(command, monkeypatch):
    settings = (*SHORT[2:], "model=mlp", "optimizer/inner=muon", "optimizer.k=3", "decay=matrices")
    assert command("train.py", *settings, "output_dir=undisturbed")[0] == 0
    cut_off(command, monkeypatch, 10, settings)
    (run,) = runs_below("outputs")
    assert "resumed after step 8" in command("train.py", *settings)[1]
    (reference,) = runs_below("undisturbed")
    assert metrics_less_seconds(run) == metrics_less_seconds(reference)
    assert_same_end(run, reference)


def half(content):
    return content[: len(content) // 2]


def nothing(content):
    return b""


def flip(where):
    """Change a bit at this share of the file's length."""

    def damage(content):
        position = int(where * len(content))
        return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]

    return damage


def another_digit(content):
    """A number of the first row that is another, but still a number."""
    head, _, rest = content.partition(b"0.")
    return head + b"0." + bytes([rest[0] ^ 1]) + rest[1:]


ANEW = "damaged; written anew from the checkpoint"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("checkpoint.pt", half, "checkpoint.pt is damaged"),
        ("checkpoint.pt", nothing, "checkpoint.pt is damaged"),
        *[("checkpoint.pt", flip(k / 10), "checkpoint.pt is damaged") for k in range(10)],
        ("metrics.csv", half, ANEW),
        ("metrics.csv", lambda content: content + b"9,9,te", "resumed after step 8"),
        ("metrics.csv", nothing, ANEW),
        ("metrics.csv", another_digit, ANEW),
        ("metrics.csv", lambda content: b"\xff" + content, "cannot be read; written anew from the checkpoint"),
        ("config.yaml", half, ""),
        ("config.yaml", flip(0.5), ""),
        ("status.json", nothing, "resumed after step 8"),
        ("status.json", half, "resumed after step 8"),
    ],
)
def test_damage_is_said_and_never_trained_upon(command, undisturbed, half_done, file, damage, said):
    run = half_done()
    path = run / file
    path.write_bytes(damage(path.read_bytes()))
    status, out, err = command("train.py", *SHORT)
    if file == "config.yaml" and status:
        assert "holds a run of another configuration" in err
        assert command("train.py", *SHORT, "overwrite=true")[0] == 0
    else:
        assert said in out
    assert metrics_less_seconds(run) == metrics_less_seconds(undisturbed)
    assert_same_end(run, undisturbed)
    assert files.read_config(run)["epochs"] == 4
    assert files.read_summary(run)["status"] == files.read_status(run)["status"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("metrics.csv", half, "not as they were written, and are made anew"),
        ("metrics.csv", another_digit, "not as they were written, and are made anew"),
        ("metrics.csv", Path.unlink, "resumed after step 16"),
        ("summary.json", another_digit, "not as they were written, and are made anew"),
        ("summary.json", half, "cannot be read"),
        ("summary.json", nothing, "cannot be read"),
        ("config.yaml", nothing, "cannot be read"),
        ("status.json", nothing, "completed already, skipped"),
        ("checkpoint.pt", nothing, "completed already, skipped"),
    ],
)
def test_a_finished_run_that_is_damaged_is_made_whole(command, finished, file, damage, said):
    """From its last checkpoint: nothing is trained."""
    rows, summary = metrics_less_seconds(finished), files.read_summary(finished)
    path = finished / file
    if damage is Path.unlink:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    status, out, _ = command("train.py", *SHORT)
    assert status == 0
    assert said in out
    assert "epoch" not in out.replace("epochs", "")
    assert metrics_less_seconds(finished) == rows
    again = files.read_summary(finished)
    assert files.is_intact(finished, again)
    for key in ("status", "final", "best", "steps"):
        assert again[key] == summary[key]


def test_a_directory_of_another_configuration_is_refused(command, finished):
    text = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(text.replace("epochs: 4", "epochs: 5"))
    status, _, err = command("train.py", *SHORT)
    assert (status, err.count("\n")) == (1, 1)
    assert "holds a run of another configuration; move it away, or set overwrite=true" in err


@pytest.mark.slow
def test_a_directory_of_another_seed_is_refused(command, finished):
    """As after mv seed=0 seed=1: what is in it is not what its name says."""
    moved = finished.rename(finished.with_name("seed=1"))
    before = {path.name: path.read_bytes() for path in moved.iterdir()}
    for sweep in ([], ["-m"]):
        status, out, err = command("train.py", *sweep, *SHORT, "seed=1")
        assert status == 1
        assert "holds a run of another configuration" in (out if sweep else err)
        assert "seed 0; this one is id" in (out if sweep else err)
    assert {path.name: path.read_bytes() for path in moved.iterdir() if path.name != "train.log"} == {
        name: content for name, content in before.items() if name != "train.log"
    }


def test_a_checkpoint_beyond_the_end_is_refused(command, half_done):
    run = half_done()
    state = checkpoints.read(run / "checkpoint.pt")
    state["progress"]["step"] = 10**9
    with open(run / "checkpoint.pt", "wb") as file:
        checkpoints.write(state, file)
    status, _, err = command("train.py", *SHORT)
    assert status == 1
    assert "its checkpoint does not fit this version's code (ValueError: it is after step 1000000000 of 16)" in err
    assert checkpoints.read(run / "checkpoint.pt")["progress"]["step"] == 10**9
    del state["model"]
    state["progress"]["step"] = 8
    with open(run / "checkpoint.pt", "wb") as file:
        checkpoints.write(state, file)
    assert "does not fit this version's code (KeyError: 'model')" in command("train.py", *SHORT)[2]


def test_a_torn_configuration_of_a_finished_run_is_mended_without_training(command, finished):
    before = files.read_config(finished), files.read_summary(finished)
    (finished / "checkpoint.pt").unlink()  # as people do to make room
    (finished / "config.yaml").write_text("config: {")
    status, out, _ = command("train.py", *SHORT)
    assert status == 0
    assert "completed already, skipped" in out
    assert (files.read_config(finished), files.read_summary(finished)) == before


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error"), RuntimeError("device busy")])
def test_an_error_while_a_run_is_prepared_deletes_nothing(command, monkeypatch, half_done, error):
    run = half_done()
    names = ("metrics.csv", "checkpoint.pt", "checkpoint.previous.pt", "config.yaml")
    before = {name: (run / name).read_bytes() for name in names}

    def fails(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(job, "build", fails)
        status, _, err = command("train.py", *SHORT)
    assert status == 1
    assert err.startswith(f"error: {type(error).__name__}")
    assert err.count("\n") == 1
    assert {name: (run / name).read_bytes() for name in names} == before
    assert files.read_status(run)["status"] == "failed"
    assert "resumed after step 8" in command("train.py", *SHORT)[1]


@pytest.mark.slow
def test_nobody_reading_along_ends_no_run(tmp_path):
    script = f"{sys.executable} {ROOT / 'train.py'} {' '.join(QUICK)} threads=1 | head -1"
    done = subprocess.run(script, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    (run,) = runs_below(tmp_path)
    assert files.read_summary(run)["status"] == "completed"
    script = f"{sys.executable} {ROOT / 'train.py'} 'seed=range(900)' --dry-run | head -1"
    done = subprocess.run(script, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_the_only_data_to_choose_by_are_said(command):
    out = command("train.py", *QUICK, "dataset.split.val_fraction=0")[1]
    assert "nothing is held out" in out
    assert "nothing is held out" not in command("train.py", *QUICK)[1]
    config = resolved(*QUICK, "dataset.split.val_fraction=0")
    with pytest.raises(JobError) as refused:
        job._refuse_to_tune_on_test("hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", config)
    assert "a search chooses by the validation metric" in str(refused.value.error)
    job._refuse_to_tune_on_test("hydra_plugins.nested_lookahead_sweeps.GridSweeper", config)
    job._refuse_to_tune_on_test("hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", resolved(*QUICK))


@pytest.mark.slow
def test_a_killed_process_resumes(tmp_path, command, monkeypatch):
    """SIGKILL, at a moment that no code can prepare for."""
    monkeypatch.chdir(tmp_path)
    arguments = ("model=cnn", "model.width=4", "epochs=40", "threads=1")
    script = [sys.executable, ROOT / "train.py", *arguments]
    process = subprocess.Popen(script, cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not runs_below("outputs") or len(runs_below("outputs")[0].joinpath("metrics.csv").read_bytes()) < 2000:
        time.sleep(0.01)
    process.kill()
    process.wait()
    (run,) = runs_below("outputs")
    assert files.read_summary(run) is None
    status, out, _ = command("train.py", *arguments)
    assert status == 0
    assert "resumed after step" in out
    assert command("train.py", *arguments, "output_dir=undisturbed")[0] == 0
    assert metrics_less_seconds(run) == metrics_less_seconds(runs_below("undisturbed")[0])


INT, TERM = (signal.SIGINT, 130), (signal.SIGTERM, 143)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "status", "step"),
    [(*kind, step) for kind in (INT, TERM) for step in (0, 2, 10, 15)],
)
def test_a_signal_saves_at_the_end_of_the_step(command, monkeypatch, undisturbed, signum, status, step):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        train_step = training.Trainer.train_step

        def signalled(trainer, *args):
            if trainer.step == step:
                os.kill(os.getpid(), signum)
            return train_step(trainer, *args)

        patch.setattr(training.Trainer, "train_step", signalled)
        ended, out, _ = command("train.py", "-m", *SHORT)
    assert ended == status
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    (run,) = runs_below("outputs")
    assert f"interrupted at step {step + 1}" in out
    assert files.read_status(run)["status"] == "interrupted"
    assert torch.load(run / "checkpoint.pt", weights_only=True)["progress"]["step"] == step + 1
    status, out, _ = command("train.py", "-m", *SHORT)
    assert status == 0
    assert "1 runs: 1 resumed" in out
    assert metrics_less_seconds(run) == metrics_less_seconds(undisturbed)


@pytest.mark.slow
def test_a_sweep_ends_with_what_became_of_its_runs(command, monkeypatch):
    sweep = ("-m", *QUICK, "optimizer=sgd", "optimizer.lr=0.1,1e30,-1,0.2", "scheduler=constant")
    status, out, err = command("train.py", *sweep)
    assert status == 1
    assert err == "error: 1 of 4 runs failed; the others are recorded, and the same command goes on\n"
    assert "4 runs: 2 completed, 1 diverged, 1 failed\nfailed: optimizer=sgd: Invalid learning rate: -1.0\n" in out
    again = re.search(r"  again: python train.py (.*)\n", out)[1]
    assert "optimizer.lr=-1" in again
    status, _, err = command("train.py", *shlex.split(again))
    assert (status, err) == (1, "error: optimizer=sgd: Invalid learning rate: -1.0\n")
    status, out, _ = command("train.py", *sweep)
    assert "4 runs: 3 skipped, 1 failed" in out
    assert out.count("epoch 1/2") == 0


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{chr(ord(name) - 1)}'] * 9)}]\n" for name in "bcdefgh"
)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text(LAUGHS), "stands for more than 100,000 values"),
        (os.mkfifo, "mine.yaml is no regular file"),
        (lambda path: path.write_text("# \n" * 2**19), "mine.yaml has 1,572,864 bytes, and can have 1,048,576"),
    ],
)
@pytest.mark.parametrize("option", [["--config-dir", "own"], ["--config-dir=own"], ["-cd", "own"]], ids=" ".join)
def test_files_of_settings_are_not_written_out_without_end(command, tmp_path, option, make, said):
    (tmp_path / "own/dataset").mkdir(parents=True)
    make(tmp_path / "own/dataset/mine.yaml")
    assert command("train.py", "-m", "seed=1", *option) == (1, "", f"error: own/dataset/mine.yaml: {said}\n")
