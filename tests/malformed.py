"""Nonsense, as typed by people and as left by other programs; and what the commands make of it.

Each case is a command, in a folder that holds something malformed. It runs in a fork of this process. It has to end in
a success or in a message of one line, within seconds, in a moderate amount of memory, and without harm to other runs.
"""

# ruff: noqa: E501  # tables of nonsense

from __future__ import annotations

import contextlib
import json
import os
import resource
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import faulty
import made_data
from hypothesis import strategies as st

SECONDS, BYTES = 10, 2 * 2**30
"""What a case may take: of CPU time, and of memory."""

TINY = ("dataset=noisy_quadratic", "dataset.coordinates=3", "dataset.samples=4", "model=point", "batch_size=2")
TINY += ("epochs=1", "threads=1", "device=cpu", "progress=false")

KEYS = (
    "optimizer", "optimizer/inner", "optimizer.inner", "optimizer.k", "optimizer.s", "optimizer.alpha", "optimizer.h",
    "optimizer.pullback", "optimizer.name", "optimizer._target_", "optimizer.inner.lr", "optimizer.inner.momentum",
    "optimizer.inner.name", "optimizer.inner._target_", "+optimizer.inner.betas", "pullback", "dataset.split",
    "dataset.split.val_fraction", "dataset.split.train_size", "dataset.split.seed", "dataset.power", "dataset.name",
    "dataset.noise_power", "dataset._target_", "model", "model._target_", "model.name", "augment", "augment.padding",
    "scheduler", "scheduler.warmup", "scheduler.final", "batch_size", "seed", "lr", "weight_decay", "label_smoothing",
    "grad_clip", "precision", "channels_last", "compile", "evaluation.every", "evaluation.batch_size", "evaluation",
    "evaluation.train_samples", "evaluation.bn_batches", "evaluation.weights", "device", "threads", "study", "output_dir",
    "overwrite", "fail_fast", "trust", "checkpoint_minutes", "logger", "hydra/launcher", "hydra.launcher.n_jobs",
    "hydra/sweeper", "hydra.sweep.subdir", "hydra.sweeper.grids", "method", "experiment", "foo", "+foo", "~epochs", "~optimizer", "~seed",
    "+model.width", "++optimizer.inner.lr", "hydra.mode", "+optimizer._partial_", "+model._args_", "+model._recursive_",
)  # fmt: skip
VALUES = (
    "", " ", "nan", "inf", "-inf", "1e999", "-1", "0", "1", "2", "0.5", "1.5", "-0.0", "1e-320", "9" * 30, "true", "null",
    "none", "abc", "a b", "a,b", "0,-1", "range(0)", "range(5,1)", "range(3)", "choice()", "glob(*)", "interval(0,1)",
    "[]", "{}", "[1,2", "{a:1}", "[[1,2],[3]]", "'", '"', "\\", "${seed}", "${foo}", "${", "${oc.env:NOT_THERE}",
    "${optimizer}", "???", "..", "../../x", "a/../../b", "/dev/null/x", "a" * 300, "\u0000", "\ud800", "é–😀", "\n", "\t",
    "sgd", "adam", "lookahead", "custom", "torch.optim.LBFGS", "torch.optim.SparseAdam", "os.system", "builtins.eval",
    "nested_lookahead", "nested_lookahead.optim.Layer", "cuda:99", "fp16", "bf16", "laptop", "joblib", "list", "basic",
    "2147483648", "-2147483649", "=", "=1", "1=2", "@", "!", "%s", "{0}", "<b>", "|", "reset_inner", "[reset,none]",
)  # fmt: skip
OPTIONS = ("--weights", "--split", "--baseline", "--delta", "--reference", "--figures", "--metric", "--x", "--target",
           "--smooth", "--out", "--foo")  # fmt: skip
PLACES = ("study", "study/none", "file", "", ".", "..", "\u0000", "\ud800", "a" * 300, "reference.csv", "/dev/null")

TEXTS = (
    "", "\n", "\x00" * 40, "{", "[]", "3", "null", "a: [", "a: &a [*a]", "- 1\n- 2", "config: 3", "config: {}",
    "config:\n  optimizer: 3", "config:\n  optimizer: {name: 2020-01-01}", "!!python/object/apply:os.system ['true']",
    "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
    "g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\nconfig: {x: *h}",
    "[" * 100_000, '{"a":' * 50_000, "Infinity", '{"status": "completed"}', '{"status": "completed", "planned_steps": 1e999}',
    '{"status": "\\ud800"}', '{"status": "completed", "seconds": ' + "9" * 400 + "}", "step,epoch\n1,2\n", "step\n" * 1000,
    "step,epoch,split,weights,loss,accuracy,lr,seconds\n1,1,test,fast,x,y,z,w\n",
    "step,epoch,split,weights,loss,accuracy,lr,seconds\n1,1,test,fast,0.1,2.5,0.1,1\n",
    "study,method,tag,run,epoch,test_accuracy\n", "study,method,tag,run,epoch,test_accuracy\na,SGD,default,x,1,0.5\n",
    "study,method,tag,run,epoch,test_accuracy\na,=1+1,<script>,1,1,0.5\n",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command, and what is done to the folder before."""

    family: str
    command: tuple[str, ...]
    spoiled: tuple[str, str, Any] | None = None
    """File below the folder; how; with what."""

    def __str__(self) -> str:
        spoiled = f"  # {' '.join(str(part)[:60] for part in self.spoiled)}" if self.spoiled else ""
        return f"{self.family}: {shlex.join(part[:80] for part in self.command)}{spoiled}"


def spoil(file: Path, how: str, what: Any) -> None:
    """Do something to a file that is there; each number in ``what`` is a share of its length, or a bit."""
    content = file.read_bytes() if file.is_file() else b""
    if how != "twice":
        file.unlink(missing_ok=True)
    if how == "text":
        file.write_bytes(what.encode("utf-8", "surrogatepass"))
    elif how == "bytes":
        file.write_bytes(what)
    elif how == "cut":
        file.write_bytes(content[: int(what * len(content))])
    elif how == "flip":
        changed = bytearray(content)
        for where in what if content else ():
            changed[int(where * len(changed))] ^= 1 << int(where * 8e6) % 8
        file.write_bytes(changed)
    elif how == "splice":
        where, text = what
        at = int(where * len(content))
        file.write_bytes(content[:at] + text.encode("utf-8", "surrogatepass") + content[at:])
    elif how == "twice":
        lines = content.splitlines(keepends=True) or [b""]
        file.write_bytes(content + lines[int(what * len(lines))])
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "folder":
        file.mkdir()
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "huge":
        with open(file, "wb") as sparse:
            sparse.truncate(3 * 2**30)


def spoilings(text: bool) -> st.SearchStrategy[tuple[str, Any]]:
    """How, and with what."""
    share = st.floats(0, 1, exclude_max=True)
    ways = [
        st.tuples(st.just("cut"), share),
        st.tuples(st.just("flip"), st.lists(share, min_size=1, max_size=4)),
        st.tuples(st.sampled_from(["pipe", "folder", "loop", "huge"]), st.none()),
        st.tuples(st.just("bytes"), st.binary(max_size=60)),
    ]
    if text:
        ways += [st.tuples(st.just("text"), st.sampled_from(TEXTS)), st.tuples(st.just("text"), st.sampled_from(TEXTS))]
        ways += [st.tuples(st.just("splice"), st.tuples(share, st.sampled_from(VALUES)))]
        ways += [st.tuples(st.just("twice"), share)]
    return st.one_of(ways)


@st.composite
def typed(draw: Any) -> Case:
    settings = draw(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), min_size=1, max_size=3))
    flags = draw(st.sampled_from([(), (), ("-m",), ("-m",), ("--dry-run",), ("--cfg", "job"), ("--foo",)]))
    written = [key if key.startswith("~") else f"{key}={value}" for key, value in settings]
    return Case("command line", ("train.py", *TINY, *written, *flags))


@st.composite
def analysed(draw: Any) -> Case:
    options = draw(st.lists(st.tuples(st.sampled_from(OPTIONS), st.sampled_from([*VALUES, *PLACES])), max_size=2))
    folders = draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=2))
    written = [part for option in options for part in option]
    return Case("command line", ("analyze.py", *folders, *written, "--figures=learning_curves"))


@st.composite
def recorded(draw: Any) -> Case:
    """A run directory of somebody else's, or one that was damaged."""
    name = draw(st.sampled_from(["config.yaml", "metrics.csv", "summary.json", "status.json", "checkpoint.pt",
                                 "checkpoint.previous.pt", "train.log", "lock", ".earlier", ".earlier.moving"]))  # fmt: skip
    run = draw(st.sampled_from(["finished", "half"]))
    how, what = draw(spoilings(text=not name.endswith(".pt")))
    train, analyze = ("again", run), ("analyze.py", "runs", "--figures=learning_curves")
    unsigned = draw(st.booleans())
    command = draw(st.sampled_from([train, train, analyze]))
    return Case("run directory", command, (f"{run}{'!' if unsigned else ''}/{name}", how, what))


@st.composite
def stored(draw: Any) -> Case:
    """A file of a data set, or the analysis' cache, or a table of published numbers."""
    what = draw(st.sampled_from(["mnist", "cifar10", "svhn", "mnist1d", "cache", "reference"]))
    if what == "cache":
        how = draw(spoilings(text=True))
        return Case(
            "data file", ("analyze.py", "study", "--figures=learning_curves"), ("study/analysis/cache.npz", *how)
        )
    if what == "reference":
        command = ("analyze.py", "--reference", "reference.csv", "--out", "out", "--figures=learning_curves")
        return Case("data file", command, ("reference.csv", *draw(spoilings(text=True))))
    files = {
        "mnist": ["MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte.gz"],
        "cifar10": ["cifar-10-batches-py/data_batch_2", "cifar-10-batches-py/test_batch"],
        "svhn": ["train_32x32.mat"],
        "mnist1d": ["mnist1d.npz"],
    }[what]
    settings = ("model=mlp", "model.hidden=[4]", "epochs=1", "threads=1", "device=cpu", "progress=false")
    command = ("train.py", f"dataset={what}", "dataset.data_dir=data", *settings)
    command += () if what == "mnist1d" else ("dataset.download=false",)
    return Case("data file", command, (f"data/{draw(st.sampled_from(files))}", *draw(spoilings(text=False))))


@st.composite
def configured(draw: Any) -> Case:
    """A YAML file of one's own."""
    text = draw(st.one_of(st.sampled_from(TEXTS), st.text(max_size=40)))
    name = draw(
        st.sampled_from(["model/mine.yaml", "optimizer/mine.yaml", "experiment/mine.yaml", "dataset/mine.yaml"])
    )
    head = draw(st.sampled_from(["", "name: mine\n", "name: mine\n_target_: nested_lookahead.tasks.models.mlp\n",
                                 "# @package _global_\n", "defaults:\n  - sgd\n"]))  # fmt: skip
    command = ("train.py", *TINY, f"{name.partition('/')[0]}=mine", "--config-dir", "mine")
    return Case("YAML", command, (f"mine/{name}", "text", head + text))


CASES = st.one_of(typed(), typed(), analysed(), recorded(), recorded(), stored(), configured())


def import_all() -> None:
    """What the commands need, once, for all forks of this process."""
    import matplotlib.pyplot  # noqa: F401
    import torch

    from nested_lookahead.analysis import collect, report  # noqa: F401
    from nested_lookahead.runs.build import import_what_trains

    import_what_trains()
    torch.set_num_threads(1)  # no threads, which a fork would lack


@cache
def templates(root: Path) -> Path:
    """What the cases spoil: runs, data, a study, a table."""
    import_all()
    for name, stop in (("finished", 0), ("half", 4)):
        folder = root / "runs" / name
        folder.mkdir(parents=True)
        left = faulty.launch(folder, _jobs_until(stop))()
        assert (left.status == 0) == (stop == 0), left.printed
    made_data.make_mnist(root / "data", train=60, test=20)
    labels = root / "data/MNIST/raw/t10k-labels-idx1-ubyte"
    made_data._idx(
        labels.with_suffix(".gz"), made_data._labels(made_data.np.random.default_rng(1), 20, 10).astype("u1")
    )
    labels.unlink()
    made_data.make_cifar10(root / "data", per_batch=20, test=20)
    made_data.make_svhn(root / "data", train=60, test=20)
    shutil.copytree(faulty.ROOT / "tests/stored_runs/version2", root / "study")
    (root / "file").write_text("no folder\n")
    (root / "reference.csv").write_text("study,method,tag,run,epoch,test_accuracy\na,SGD,default,0,1,0.5\n")
    (root / "mine").mkdir()
    with contextlib.chdir(root):
        left = faulty.launch(root, lambda: _analyze("study", "--figures=learning_curves"))()
        assert left.status == 0, left.printed
        left = faulty.launch(root, lambda: _make_mnist1d())()
        assert left.status == 0, left.printed
    return root


def _make_mnist1d() -> None:
    from nested_lookahead.tasks.datasets import mnist1d

    mnist1d("data")


def _analyze(*arguments: str) -> None:
    import analyze

    sys.argv = ["analyze.py", *arguments]
    analyze.main()


def _jobs_until(step: int) -> Callable[[], None]:
    """The jobs of `faulty.SWEEP`; with a step, the first is broken off there, and the second is not begun."""

    def stopped() -> None:
        from nested_lookahead.training.trainer import Trainer

        train_step = Trainer.train_step

        def cut_off(trainer: Trainer, *args: Any) -> Any:
            if trainer.step == step:
                raise KeyboardInterrupt
            return train_step(trainer, *args)

        Trainer.train_step = cut_off  # type: ignore[method-assign]
        faulty.jobs_alone()

    return stopped if step else faulty.jobs_alone


def prepare(case: Case, template: Path, folder: Path) -> None:
    """A folder like the template's, spoiled."""
    shutil.copytree(template, folder, symlinks=True)
    if case.spoiled is None:
        return
    place, how, what = case.spoiled
    file = folder / place
    if case.family == "run directory":
        name, _, rest = place.partition("/")
        run = sorted((folder / "runs" / name.rstrip("!") / "outputs").glob("*/seed=0"))[0]
        file = run / rest
        if name.endswith("!"):
            unsign(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    spoil(file, how, what)


def unsign(run: Path) -> None:
    """As another program may write it: without a checksum."""
    with contextlib.suppress(FileNotFoundError):
        summary = json.loads((run / "summary.json").read_text())
        summary.pop("sha256")
        (run / "summary.json").write_text(json.dumps(summary))


def run(case: Case, template: Path, folder: Path) -> tuple[str, str]:
    """(class, what is wrong): ``success``, ``clear`` (one line), ``traceback``, ``hang``, ``memory`` or ``lost``."""
    prepare(case, template, folder)
    before = _kept(folder)
    printed = folder.parent / f"{folder.name}.printed"
    with open(printed, "wb") as file:
        if not (pid := os.fork()):
            _be(case, folder, file.fileno())
        began = time.monotonic()
        while not (ended := os.wait4(pid, os.WNOHANG))[0]:
            if time.monotonic() - began > 12 * SECONDS:  # other work may hold the processors
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
    status, used = os.waitstatus_to_exitcode(ended[1]), ended[2]
    text = printed.read_text(errors="replace")
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return "hang", text
    if 1024 * used.ru_maxrss > BYTES:
        return "memory", f"{used.ru_maxrss / 2**20:.1f} GiB\n{text}"
    if "Traceback" in text or status < 0 or status not in (0, 1, 2, 130):
        return "traceback", f"exit status {status}\n{text}"
    if case.family == "run directory" and (gone := before - _kept(folder)):
        return "lost", f"{sorted(gone)}\n{text}"
    said = [line for line in text.splitlines() if ": error: " in line or line.startswith("error: ")]
    if status and len(said) != 1:
        return "traceback", f"exit status {status}, and {len(said)} lines that say why\n{text}"
    return ("clear" if status else "success"), text


def _kept(folder: Path) -> set[str]:
    """Rows and summaries of the runs that nothing was done to, by their text: none may be gone afterwards."""
    found = set()
    for file in (folder / "runs").rglob("seed=1/*"):
        if file.name in ("metrics.csv", "summary.json", "config.yaml") and file.is_file():
            found.add(f"{file.relative_to(folder)}: {file.read_text(errors='replace')}")
    return found


def _be(case: Case, folder: Path, printed: int) -> None:
    """The child's whole life."""
    status = 70
    try:
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        sys.stdout = open(1, "w", closefd=False, errors="replace")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, errors="replace")  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS + 1, SECONDS + 1))
        os.chdir(folder)
        status = _command(case)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _command(case: Case) -> int:
    import analyze
    import train
    from nested_lookahead.command import hydra_arguments, run_command

    script, *arguments = case.command
    if script == "again":
        os.chdir(Path("runs") / arguments[0])
        return run_command(faulty.jobs_alone)
    sys.argv = [script, *arguments]
    if script == "train.py":
        sys.argv = hydra_arguments(sys.argv)
        return run_command(train.main)
    return run_command(analyze.main)
