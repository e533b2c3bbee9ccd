"""Every preset: the runs it lists, and two steps of its first run of each method, on made data."""

import dataclasses
import hashlib
import re
from pathlib import Path

import hydra
import made_data
import pytest
from conftest import ROOT, resolved
from hydra.core.plugins import Plugins

from nested_lookahead.analysis import notebook
from nested_lookahead.runs.build import build
from nested_lookahead.runs.identity import run_name
from nested_lookahead.settings import Evaluation
from nested_lookahead.tasks import language
from nested_lookahead.training.fit import evaluate

RUNS = {
    "demo": 2,
    "cifar10": 18,
    "cifar10_pullback": 24,
    "cifar10_variation": 48,
    "cifar100": 18,
    "imagenet": 3,
    "fashion_mnist": 18,
    "fashion_mnist_reduced": 18,
    "laptop": 140,
    "laptop_tuning": 168,
    "grid": 243,
    "grid_pullback": 54,
    "noisy_quadratic": 60,
    "language": 9,
    "language_cpu": 9,
    "language_gpu": 9,
}


FAIR = {
    "fair": 48,
    "workers/mnist1d_sgd": 336,
    "answer/tunings": 96,
    **{f"answer/{path.stem}": 336 for path in (ROOT / "conf/experiment/answer").glob("*_*_*.yaml")},
}
FAIR |= {"answer/published_rule": 500, "answer/published_rate": 120, "answer/published_length": 100}
"""Fair sweeps, with the runs of their first stage; the last three have nothing to choose."""


def test_all_presets_are_tried():
    there = (ROOT / "conf/experiment").rglob("*.yaml")
    assert {str(path.relative_to(ROOT / "conf/experiment").with_suffix("")) for path in there} == {*RUNS, *FAIR}


@pytest.mark.slow
# Each part that cells are put together of, once.
@pytest.mark.parametrize(
    "experiment",
    [
        "fair",
        *(f"answer/{cell}" for cell in ("mnist1d_sgd_constant", "fashion_adamw_cosine", "language_adamw_cosine")),
        "answer/tunings",
        "answer/published_rate",
        "answer/published_length",
        "workers/mnist1d_sgd",
    ],
)
def test_a_fair_sweep_lists_its_first_stage(command, experiment):
    """Every arm's settings are resolved, which a mistyped key or an impossible range would not be."""
    status, out, err = command("train.py", f"experiment={experiment}", "hydra/launcher=list", "-m")
    assert (status, err) == (0, "")
    assert f"{FAIR[experiment]} runs, {FAIR[experiment]} directories; nothing was trained" in out


def listing(command, experiment, *arguments):
    """(directory, settings) of each run."""
    status, out, err = command("train.py", f"experiment={experiment}", *arguments, "hydra/launcher=list", "-m")
    assert (status, err) == (0, "")
    *lines, last = out.splitlines()
    runs = [tuple(re.split(r"\s{2,}", line)) for line in lines]
    n = len(runs)
    assert last == f"{n} runs, {len({path for path, _ in runs})} directories; nothing was trained"
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("experiment", RUNS)
def test_the_listing_has_every_run_once_composed_as_hydra_does(command, experiment, monkeypatch):
    """Jobs that differ in plain values alone are made from one composition: the same settings, the same directory."""
    Plugins.instance()  # loads the plugins anew, whoever has imported them before
    from hydra_plugins.nested_lookahead_sweeps import ListLauncher

    found, show = [], ListLauncher.show
    monkeypatch.setattr(ListLauncher, "show", lambda launcher, jobs: show(launcher, found.extend(jobs) or jobs))
    runs = listing(command, experiment)
    assert len(runs) == len({path for path, _ in runs}) == RUNS[experiment]
    assert not Path("outputs").exists()
    for job in (found[0], found[len(found) // 2], found[-1]):
        overrides = [part for part in job.overrides if not part.startswith("hydra")]
        whole = resolved(*overrides, f"experiment={experiment}")
        assert job.config == whole
        assert job.path == Path("outputs") / whole.study / run_name(whole.plain())


@pytest.mark.slow
def test_what_is_typed_wins_over_the_preset(command):
    runs = listing(command, "cifar10_variation", "seed=7", "epochs=3")
    assert len(runs) == 24
    assert all(path.endswith("seed=7") and "epochs=3" in settings for path, settings in runs)
    (run,) = listing(command, "grid", *(f"optimizer.{key}" for key in ("k=4", "s=2", "alpha=0.1", "h=1")), "seed=9")
    assert "grid/nested_lookahead-sgd-k4-a0.1-s2-h1-none-" in run[0]


def test_jobs_that_grids_have_in_common_run_once(command):
    grids = "hydra.sweeper.grids=[{lr: '0.1,0.2', seed: '0,1'}, {lr: '0.2,0.3', seed: '1,2'}]"
    status, out, _ = command("train.py", "optimizer=sgd", grids, "hydra/launcher=list", "-m")
    assert status == 0
    assert out.splitlines()[-1] == "7 runs, 7 directories; nothing was trained"


@pytest.mark.slow
def test_dry_run_is_the_listing(tmp_path):
    import subprocess
    import sys

    arguments = [sys.executable, ROOT / "train.py", "experiment=cifar10", "--dry-run"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.endswith("18 runs, 18 directories; nothing was trained\n")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    made_data.make_cifar10(root)
    made_data.make_cifar100(root, train=1000)
    made_data.make_mnist(root, name="FashionMNIST")
    made_data.make_image_folder(root)
    content = b"To be, or not to be: that is the question.\n" * 200
    (root / "tinyshakespeare.txt").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language, "SHAKESPEARE_SHA256", hashlib.sha256(content).hexdigest())
        yield root


# One composition per method and variation; the rest of a sweep differs in seeds and numbers.
SAMPLES = [
    ("demo", "method=nested_adam"),
    *(
        ("cifar10", f"method={method}")
        for method in ("sgd", "adam", "lookahead_sgd", "lookahead_adam", "nested_sgd", "nested_adam")
    ),
    ("cifar10_pullback", "method=nested_adam pullback=pullback"),
    ("cifar10_pullback", "method=lookahead_sgd pullback=reset"),
    ("cifar10_variation", "method=sgd weight_decay=0 optimizer.momentum=0"),
    ("cifar10_variation", "method=adam weight_decay=0 optimizer.betas=[0.0,0.999]"),
    ("cifar10_variation", "method=nested_sgd optimizer={k:5,s:10}"),
    ("cifar100", "method=nested_sgd"),
    ("imagenet", "method=nested_sgd"),
    ("fashion_mnist", "method=nested_sgd"),
    ("fashion_mnist_reduced", "method=lookahead_adam"),
    ("laptop", "method=nested_sgd pullback=reset"),
    ("laptop_tuning", "method=lookahead_adam pullback=pullback"),
    ("grid", "optimizer.k=3 optimizer.s=10 optimizer.alpha=0.3 optimizer.h=0.8"),
    ("grid_pullback", "method=nested_adam optimizer.pullback=[reset,pullback]"),
    ("language", "optimizer=adamw"),
    ("language_cpu", "optimizer=lookahead optimizer/inner=adamw"),
    ("language_gpu", "optimizer=nested_lookahead optimizer/inner=adamw compile=false precision=fp32"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "settings"), SAMPLES, ids=lambda value: value)
def test_two_steps(experiment, settings, data_dir):
    overrides = [f"experiment={experiment}", *settings.split(), "device=cpu", "batch_size=4", "threads=1"]
    if experiment in ("imagenet", "fashion_mnist", "fashion_mnist_reduced", "demo") or "cifar" in experiment:
        overrides.append(f"dataset.data_dir={data_dir}")
        overrides.append(f"dataset.split.train_size={100 if experiment == 'cifar100' else 12}")
    if experiment == "imagenet":
        overrides += ["dataset.size=32", "dataset.workers=0"]
    if experiment in ("language_cpu", "language_gpu"):
        overrides += [f"dataset.data_dir={data_dir}", "dataset.samples=8", "model.layers=1"]
    trainer = build(resolved(*overrides))
    before = [p.detach().clone() for p in trainer.model.parameters()]
    for (images, labels), _ in zip(trainer.batches, range(2), strict=False):
        assert trainer.train_step(images, labels).isfinite()
    assert any(not p.equal(b) for p, b in zip(trainer.model.parameters(), before, strict=True))
    trainer.data = dataclasses.replace(trainer.data, validation=trainer.data.train, test=trainer.data.train)
    rows = evaluate(trainer, Evaluation(1, 50, 8, 1, "fast", False))
    plain = settings.startswith(("method=sgd", "method=adam", "optimizer=adamw"))
    assert {row["weights"] for row in rows} == ({"fast"} if plain else {"fast", "slow"})


@pytest.mark.slow
def test_the_published_rule_is_taken_apart(command, data_dir):
    """30 steps: the outer layer syncs at step 25, or misfires after steps 22 to 25."""
    settings = (
        *(f"dataset.data_dir={data_dir}", "dataset.split.train_size=120", "batch_size=4", "epochs=1"),
        *("progress=false", "evaluation.bn_batches=2", "model.width=2", "hydra.sweeper.final_seeds='0'"),
    )
    status, out, _ = command("train.py", "experiment=answer/published_rule", *settings)
    assert status == 0
    assert "25 runs: 25 completed" in out
    study = notebook.load("outputs/answer/published_rule")
    found = notebook.compare(study)
    assert len(found) == 33
    assert set(found["n"]) == {1}
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = hydra.compose("config", ["experiment=answer/published_rule"], return_hydra_config=True)
    arms = composed.hydra.sweeper.arms
    assert {*found["group"], *found["baseline"]} == set(arms), "an arm that nothing is asked of"
    first = study.runs[study.runs["seed"] == 0].merge(study.metrics[study.metrics["split"] == "test"], on="path")
    losses = first.set_index("group")["loss"].to_dict()
    alike = {(name, arm["runs_of"]) for name, arm in arms.items() if "inert" in name}
    assert {losses[name] == losses[other] for name, other in alike} == {True}
    assert len(set(losses.values())) == len(arms) - len(alike), "two arms compute the same"


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["cifar10", "cifar10_pullback", "cifar10_variation", "demo", "cifar100"])
def test_the_published_studies_are_set_up_as_published_but_for_its_faults(experiment, data_dir):
    for method in ("sgd", "adam", "lookahead_sgd", "lookahead_adam", "nested_sgd", "nested_adam"):
        settings = resolved(f"experiment={experiment}", f"method={method}")
        inner = (settings.optimizer.inner or settings.optimizer).settings
        assert (inner["lr"], inner["weight_decay"]) == (0.001, 0.001)  # the same weight decay for every method
        assert inner.get("momentum", 0.9) == 0.9
        assert (settings.model.name, settings.batch_size) == ("resnet18", 64)
        assert settings.augment.name == "published"
        assert settings.scheduler.name == "constant"
        if "nested" in method:
            assert [settings.optimizer.settings[key] for key in ("k", "alpha", "s", "h")] == [5, 0.5, 5, 0.5]
