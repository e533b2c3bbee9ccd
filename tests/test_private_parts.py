"""Each lean on a part of a library that it does not promise to keep: what we rely on there still holds.

A lean is a private name, or a behaviour that no documentation states. Each is in the list below with a sentence that
says what is broken when it no longer holds; and whatever private name the code uses is in the list.
"""

import ast
import ctypes
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), *ROOT.glob("*.py")])
OURS = ("nested_lookahead", "hydra_plugins")

ROOT_OF_HYDRA = Path(importlib.util.find_spec("hydra").origin).parent

DOCUMENTED = {"_asdict", "_fields", "_make", "_replace"}  # of a named tuple
DOCUMENTED |= {"_target_", "_partial_", "_convert_", "_recursive_", "_args_", "_self_", "_here_"}  # Hydra's keywords


@dataclass(frozen=True)
class Lean:
    library: str
    broken: str
    """What no longer holds; and what of ours breaks with it."""
    check: Callable[..., None]
    names: tuple[str, ...]
    """The private names, as `private_names` gives them."""
    sign: str | None
    """Where no name is private: text by which its use is found."""

    def where(self) -> list[str]:
        """The files that lean on it."""
        if self.sign is not None:
            return [_relative(file) for file in FILES if self.sign in file.read_text(encoding="utf-8")]
        return sorted({file for name in self.names for file in used().get(name, ())})


LEANS: list[Lean] = []


def lean(library: str, broken: str, *names: str, sign: str | None = None) -> Callable[..., Callable[..., None]]:
    def enter(check: Callable[..., None]) -> Callable[..., None]:
        LEANS.append(Lean(library, broken, check, names, sign))
        return check

    return enter


# --- Hydra and OmegaConf ----------------------------------------------------------------------------------------------


@lean(
    "hydra",
    "BasicSweeper no longer keeps params, or split_arguments no longer multiplies overrides out into lists of "
    "key=value; GridSweeper takes the jobs of each of its grids from there",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
)
def the_product_of_overrides():
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert BasicSweeper(max_batch_size=None, params={"seed": "0,1"}).params == {"seed": "0,1"}
    overrides = OverridesParser.create().parse_overrides(["seed=0,1", "lr=0.1"])
    assert BasicSweeper.split_arguments(overrides, None) == [[["seed=0", "lr=0.1"], ["seed=1", "lr=0.1"]]]


@lean(
    "hydra",
    "BasicLauncher no longer makes one job after another, in this process, from setup's arguments; runs that cannot be "
    "stacked would not be made",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
)
def the_launcher_that_is_hydras_own():
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra.plugins.launcher import Launcher

    assert issubclass(BasicLauncher, Launcher)
    assert {*inspect.signature(BasicLauncher.launch).parameters} == {"self", "job_overrides", "initial_job_idx"}
    assert (BasicLauncher().config, BasicLauncher().task_function) == (None, None)


@lean(
    "hydra",
    "JobReturn._return_value no longer holds what a job returned or, of a failed one, its error without raising it; a "
    "sweep's report could not tell why a job failed",
    "._return_value",
)
def the_error_of_a_failed_job():
    from hydra.core.utils import JobReturn, JobStatus

    error = ValueError("why")
    assert JobReturn(status=JobStatus.FAILED, _return_value=error)._return_value is error
    assert JobReturn(status=JobStatus.COMPLETED, _return_value=0.5).return_value == 0.5


@lean(
    "hydra",
    "not every configuration passes through ConfigLoaderImpl.load_configuration or, from 1.4 on, _load_configuration, "
    "or its run_mode is called otherwise; what Hydra calls would no longer be looked at first",
    "hydra._internal.config_loader_impl.ConfigLoaderImpl",
)
def loading():
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    from nested_lookahead.runs import trust

    load = inspect.unwrap(getattr(ConfigLoaderImpl, trust.LOADS))
    assert {"self", "config_name", "overrides", "run_mode"} <= {*inspect.signature(load).parameters}
    assert "_load_configuration_impl(" in inspect.getsource(load)
    users = {
        path.relative_to(ROOT_OF_HYDRA).as_posix(): len(re.findall(r"\._load_configuration_impl\(", text))
        for path in ROOT_OF_HYDRA.rglob("*.py")
        if "._load_configuration_impl(" in (text := path.read_text(encoding="utf-8"))
    }
    assert users == {"_internal/config_loader_impl.py": 1}


@lean(
    "hydra",
    "from 1.4 on: Hydra.get_mode no longer says None where neither the command line nor config.yaml sets hydra.mode, "
    "or is called otherwise than with names; a preset would no longer set it, and a study need -m",
    "hydra._internal.hydra.Hydra",
)
def asking_for_the_mode():
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import _run_hydra

    from nested_lookahead.runs import versions

    parameters = list(inspect.signature(inspect.unwrap(Hydra.get_mode)).parameters)
    assert parameters == ["self", "config_name", "overrides", *versions.newer(parsed_overrides=None)]
    named = r"\.get_mode\(\s*config_name=config_name,\s*overrides=overrides"
    assert re.search(named, inspect.getsource(_run_hydra))
    composing = inspect.signature(Hydra.compose_config).parameters
    assert list(composing)[1:5] == ["config_name", "overrides", "run_mode", "with_log_configuration"]
    assert "validate_sweep_overrides" in composing


@lean(
    "hydra",
    "its messages for a choice that there is not are worded otherwise; a mistake would no longer end in one line",
    sign="Available options in",
)
def messages(tmp_path):
    from hydra import compose, initialize_config_dir

    from nested_lookahead.command import explain

    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "one.yaml").write_text("k: 1\n")
    (tmp_path / "config.yaml").write_text("defaults: [group: one]\n")
    plugins = {"ray": "hydra_ray_launcher", "joblib": "hydra_joblib_launcher"}
    absent = [name for name, plugin in plugins.items() if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None]
    with initialize_config_dir(version_base="1.3", config_dir=str(tmp_path)):
        with pytest.raises(Exception, match="group/two") as error:
            compose("config", ["group=two"])
        line = explain(error.value)
        assert line is not None
        assert line.startswith("In 'config'")
        assert line.endswith(": available options in 'group': one")
        for name in absent:
            with pytest.raises(Exception, match=name) as error:
                compose("config", [f"hydra/launcher={name}"])
            assert explain(error.value) == f"hydra/launcher={name}: not installed here; pip install -e '.[{name}]'"


@lean(
    "omegaconf",
    "its errors no longer carry full_key, msg and parent_node, or word a group that was given a value otherwise; a "
    "mistake in a key or a value would no longer end in one line that names it",
    sign="link.full_key",
)
def errors_that_name_the_key():
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from nested_lookahead.command import explain

    @dataclass
    class Inner:
        k: int = 5

    @dataclass
    class Outer:
        inner: Inner

    cfg = OmegaConf.structured(Outer(Inner()))
    with pytest.raises(OmegaConfBaseException) as unknown:
        cfg.inner.kk = 3
    assert unknown.value.full_key == "inner.kk"
    assert list(unknown.value.parent_node) == ["k"]
    with pytest.raises(OmegaConfBaseException) as wrong:
        cfg.inner.k = "five"
    assert (wrong.value.full_key, "five" in str(wrong.value.msg)) == ("inner.k", True)
    with pytest.raises(OmegaConfBaseException) as group:
        OmegaConf.update(cfg, "inner", "other", merge=True)
    assert explain(group.value) == "inner: is a group; choose as inner=other"


# --- torch ------------------------------------------------------------------------------------------------------------


@lean(
    "torch",
    "the first optimizer no longer imports torch._dynamo; a run that imports it beforehand, with the garbage collector "
    "at rest, would wait for it in vain",
    "torch._dynamo",
)
def an_optimizer_imports_dynamo():
    code = "import sys, torch; torch.optim.SGD([torch.zeros(1)]); sys.exit('torch._dynamo' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@lean(
    "torch",
    "callback_handler no longer calls back at the start and the end of compiling until torch.compiler.reset; the time "
    "of compiling would count as training",
    "torch._dynamo.callback.callback_handler",
)
def the_time_of_compiling():
    import torch

    from nested_lookahead.training.hardware import CompileClock

    torch.compiler.reset()
    clock = CompileClock()
    clock.start()
    torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(2))
    seconds = clock.seconds
    assert seconds > 0
    torch.compiler.reset()
    torch.compile(lambda x: x + 2, backend="eager")(torch.zeros(2))
    assert clock.seconds == seconds


@lean(
    "torch",
    "LambdaLR's state dict no longer holds base_lrs and _last_lr beside what is the same for all learning rates; the "
    "checkpoint of a run that was trained in a stack would have the stack's",
    "._last_lr",
)
def the_state_of_a_schedule():
    import torch

    def state_after(lr):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        optimizer.step()
        scheduler.step()
        return scheduler.state_dict()

    one, other = state_after(1.0), state_after(0.1)
    assert {key for key in one if one[key] != other[key]} == {"base_lrs", "_last_lr"}
    assert other["_last_lr"] == [0.05]


@lean(
    "torch",
    "_disable_dynamo no longer keeps a function out of compiled graphs; a compiled training step would trace the sync, "
    "and again for every step of a cycle",
    "torch._disable_dynamo",
)
def functions_that_are_not_compiled():
    import torch

    seen = []

    @torch._disable_dynamo
    def apart(x):
        seen.append(torch.compiler.is_compiling())
        return x

    torch.compiler.reset()
    torch.compile(lambda x: apart(x + 1), backend="eager")(torch.zeros(2))
    torch.compiler.reset()
    assert seen == [False]


@lean(
    "torch",
    "_foreach_lerp_, _foreach_copy_ or _foreach_zero_ no longer do to each of a list of tensors what lerp_, copy_ and "
    "zero_ do to one; the sync of all layers takes them",
    sign="_foreach_",
)
def many_tensors_at_once():
    import torch

    def tensors():
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(shape, generator=generator) for shape in ((3, 2), (5,))]

    sources = [torch.ones(3, 2), torch.ones(5)]
    changed = tensors()
    torch._foreach_lerp_(changed, sources, 0.3)
    assert all(torch.equal(a, b.lerp(c, 0.3)) for a, b, c in zip(changed, tensors(), sources, strict=True))
    torch._foreach_copy_(changed, sources)
    assert all(torch.equal(a, b) for a, b in zip(changed, sources, strict=True))
    torch._foreach_zero_(changed)
    assert not any(tensor.any() for tensor in changed)


HOOKS = ("state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post")


@lean(
    "torch",
    "an Optimizer no longer keeps the hooks of state_dict and load_state_dict in _optimizer_…_hooks; a Lookahead, "
    "which merges two state dicts, would not call them",
    "._optimizer_state_dict_pre_hooks",
    "._optimizer_load_state_dict_post_hooks",
    sign="_optimizer_",
)
def the_hooks_of_an_optimizer():
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)])
    for name in HOOKS:
        hook = print
        getattr(optimizer, f"register_{name}_hook")(hook)
        assert list(getattr(optimizer, f"_optimizer_{name}_hooks").values()) == [hook]


@lean(
    "torch",
    "Optimizer's constructor no longer hands each param group as it is to add_param_group, or its pickle is no longer "
    "made of defaults, state and param_groups; a Lookahead shares its groups with the inner optimizer that way",
    sign="super().__getstate__",
)
def the_parts_of_an_optimizer():
    import torch

    given = []

    class Wrapper(torch.optim.Optimizer):
        def add_param_group(self, param_group):
            given.append(param_group)

    inner = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    wrapper = Wrapper(inner.param_groups, inner.defaults)
    assert [id(group) for group in given] == [id(group) for group in inner.param_groups]
    assert set(wrapper.__getstate__()) == {"defaults", "state", "param_groups"}


@lean(
    "torch",
    "an optimizer keeps its momentum under another name than momentum_buffer or exp_avg; pullback and reset would not "
    "find it",
    sign='"exp_avg"',
)
def the_names_of_momentum():
    import torch

    built = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9}, "Muon": {}}
    built |= {name: {} for name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax")}
    for name, settings in built.items():
        if not hasattr(torch.optim, name):  # of a later version than the oldest that we take
            continue
        param = torch.ones(2, 2, requires_grad=True)
        optimizer = getattr(torch.optim, name)([param], lr=0.1, **settings)
        param.sum().backward()
        optimizer.step()
        key = "momentum_buffer" if settings or name == "Muon" else "exp_avg"
        assert optimizer.state[param][key].shape == param.shape, name


@lean(
    "torch",
    "torch.distributed.checkpoint no longer takes an optimizer with an empty state for a fresh one, which it has step "
    "once; a Lookahead keeps its state empty until its first step for that alone",
    sign="torch.distributed.checkpoint",
)
def fresh_optimizers_in_distributed_checkpoints():
    import torch
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    steps = []
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    saved = get_optimizer_state_dict(model, optimizer)
    assert len(steps) == 1
    assert "momentum_buffer" in saved["state"]["weight"]
    get_optimizer_state_dict(model, optimizer)
    assert len(steps) == 1


@lean(
    "torch",
    "torchrun no longer sets TORCHELASTIC_RUN_ID, by which torch itself knows it; a run over several GPUs would train "
    "as many runs",
    sign="TORCHELASTIC_RUN_ID",
)
def the_sign_of_torchrun():
    import torch.distributed as dist

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        assert not dist.is_torchelastic_launched()
        patch.setenv("TORCHELASTIC_RUN_ID", "1")
        assert dist.is_torchelastic_launched()


# --- torchvision ------------------------------------------------------------------------------------------------------


@lean(
    "torchvision",
    "a ResNet's convolutions can no longer become others by their __class__, or compute something else then; model= "
    "resnet18 and resnet50 would pay for padding or be another network",
    "__class__",
)
def convolutions_of_another_class():
    import torch
    from torchvision import models as theirs

    from nested_lookahead.tasks import models

    ours, original = models.resnet18((3, 32, 32), 10).eval(), theirs.resnet18(num_classes=10).eval()
    original.load_state_dict(ours.state_dict())
    trimmed = [module for module in ours.modules() if isinstance(module, models.TrimmedConv2d)]
    assert len(trimmed) == len([module for module in original.modules() if isinstance(module, torch.nn.Conv2d)])
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), original(images), rtol=1e-4, atol=1e-4)


# --- processes, locks and the system ----------------------------------------------------------------------------------


@lean(
    "joblib",
    "its workers are no longer children of multiprocessing whose names end in their number, as LokyProcess-3; "
    "runs side by side would share one GPU, and draw over each other's bars",
    sign="LokyProcess",
)
def names_of_workers():
    joblib = pytest.importorskip("joblib")

    def look():
        import multiprocessing

        return multiprocessing.parent_process() is not None, multiprocessing.current_process().name

    seen = joblib.Parallel(n_jobs=2)(joblib.delayed(look)() for _ in range(4))
    assert all(is_child for is_child, _ in seen)
    # A pool of joblib's is kept, and its workers count on: the number matters only by what it is modulo the GPUs.
    assert all(int(name.rpartition("-")[2]) >= 1 for _, name in seen)


@lean(
    "joblib",
    "a backend that is registered as loky is not the one that Parallel takes, or its submit no longer starts the "
    "workers; a signal that all processes get would end those that have had no run, and joblib kill the others",
    sign="register_parallel_backend",
)
def where_workers_are_started():
    import signal

    joblib = pytest.importorskip("joblib")
    from joblib.externals.loky import get_reusable_executor

    from nested_lookahead.runs import workers

    get_reusable_executor().shutdown(wait=True)  # whoever has started it
    workers.start_workers_deaf()
    look = joblib.delayed(signal.pthread_sigmask)(signal.SIG_BLOCK, [])
    masks = joblib.Parallel(n_jobs=2, backend="loky")([look, look])
    get_reusable_executor().shutdown(wait=True)
    assert all(mask >= set(workers.STOPS) for mask in masks)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(workers.STOPS)


@lean(
    "submitit",
    "the error of a worker that died is no longer of a class of its own; a sweep on a cluster would end instead of "
    "going on",
    sign='"submitit"',
)
def the_error_of_a_broken_worker():
    utils = pytest.importorskip("submitit.core.utils")
    assert issubclass(utils.UncompletedJobError, Exception)
    assert utils.UncompletedJobError.__module__.partition(".")[0] == "submitit"


@lean(
    "filelock",
    "SoftFileLease no longer writes its owner's process and host, or no longer touches its file as a sign of life; a "
    "run whose process died on another machine would never be taken up, or a living one would be",
    sign="SoftFileLease",
)
def signs_of_life(tmp_path):
    import socket
    import time

    from filelock import SoftFileLease

    lock = SoftFileLease(tmp_path / "lock", lease_duration=1, is_singleton=False, thread_local=False)
    with lock:
        assert (lock.owner.pid, lock.owner.hostname) == (os.getpid(), socket.gethostname())
        assert lock.is_lock_held_by_us
        os.utime(lock.lock_file, (0, 0))
        deadline = time.monotonic() + 10
        while Path(lock.lock_file).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert Path(lock.lock_file).stat().st_mtime > 0
    assert not Path(lock.lock_file).exists()


@lean(
    "tqdm",
    "a bar no longer says in disable whether it is drawn, or format_interval is gone; a run would read its loss, which "
    "waits for the device, for nobody",
    sign="_bar.disable",
)
def bars_that_are_not_drawn():
    import io

    from tqdm import tqdm

    assert tqdm(total=1, disable=None, file=io.StringIO()).disable is True  # it is no terminal
    assert tqdm(total=1, disable=False, file=io.StringIO()).disable is False
    assert tqdm.format_interval(61) == "01:01"


@lean(
    "glibc",
    "mallopt no longer keeps large blocks on the heap; each training step on a CPU would wait for fresh pages",
    sign="mallopt",
)
def memory_that_is_kept():
    if not (sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")):
        pytest.skip("no glibc, or one before 2.33, which cannot say what it does")
    import torch

    from nested_lookahead.training.hardware import Hardware

    class Info(ctypes.Structure):  # of malloc.h
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    def look():
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = Info
        Hardware(torch.device("cpu"), "fp32", False).keep_freed_memory()
        before = libc.mallinfo2()
        kept = torch.zeros(16 * 2**20)
        after = libc.mallinfo2()
        del kept
        freed = libc.mallinfo2()
        sys.exit(after.hblkhd > before.hblkhd or freed.arena < after.arena or after.uordblks < before.uordblks + 2**26)

    process = multiprocessing.get_context("fork").Process(target=look)  # what is set holds for a process's life
    process.start()
    process.join()
    assert process.exitcode == 0


# --- the list against the code ----------------------------------------------------------------------------------------


def _relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


@cache
def own_names() -> frozenset[str]:
    """All private names that the code itself defines, and so takes for its own wherever they appear."""
    found = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_bytes())):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                    found.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    found.add(name)
    return frozenset(filter(_is_private, found))


def private_names(source: str) -> Iterator[str]:
    """The private parts of other libraries that a file names.

    ``package.module.name`` where the way there is written out, else ``.name``; ``__class__`` where one is assigned.
    """
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                imported[alias.asname or root] = alias.name if alias.asname else root
            yield from (alias.name for alias in node.names if _foreign_and_private(alias.name))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            imported |= names
            yield from filter(_foreign_and_private, names.values())
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="__class__", ctx=ast.Store()):
                yield "__class__"
            case ast.Attribute(attr=name) if _is_private(name):
                first, *rest = ast.unparse(node).split(".")
                if first in imported and all(part.isidentifier() for part in rest):
                    yield from filter(_foreign_and_private, [".".join([imported[first], *rest])])
                elif name not in own_names():
                    yield f".{name}"
            case ast.keyword(arg=str(name)) if _is_private(name) and name not in own_names():
                yield f".{name}"
            case ast.Dict(keys=keys):
                yield from _in_strings(keys)
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, name, *_]):
                yield from _in_strings([name])


def _foreign_and_private(path: str) -> bool:
    first, *rest = path.split(".")
    return first not in OURS and any(map(_is_private, [first, *rest]))


def _in_strings(nodes: list[ast.expr | None]) -> Iterator[str]:
    for node in nodes:
        name = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if name.isidentifier() and _is_private(name) and name not in own_names():
            yield f".{name}"


def overridden() -> Iterator[tuple[str, str]]:
    """Private methods of other libraries' classes that a class of ours replaces, and the file."""
    from hydra.core.plugins import Plugins

    Plugins.instance()  # Hydra loads its plugins anew: imported before, their classes would be others than Hydra's
    package = importlib.import_module("nested_lookahead")
    found = [module.name for module in pkgutil.walk_packages(package.__path__, "nested_lookahead.")]
    for module in [importlib.import_module(name) for name in [*found, "hydra_plugins.nested_lookahead_sweeps"]]:
        for kind in [value for value in vars(module).values() if inspect.isclass(value)]:
            if kind.__module__ != module.__name__:
                continue
            bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in OURS]
            methods = [name for name, value in vars(kind).items() if _is_private(name) and inspect.isroutine(value)]
            for name in methods:
                base = next((base for base in bases if name in vars(base)), None)
                if base is not None:
                    yield f"{base.__module__}.{base.__qualname__}.{name}", _relative(Path(inspect.getfile(kind)))


@cache
def used() -> dict[str, set[str]]:
    """Each private part that the code leans on, and the files that do."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        for name in private_names(file.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(_relative(file))
    for name, where in overridden():
        found.setdefault(name, set()).add(where)
    return found


SLOW = (an_optimizer_imports_dynamo,)  # in a process of its own, which imports torch


@pytest.mark.parametrize(
    "lean",
    [
        pytest.param(one, marks=[pytest.mark.slow] * (one.check in SLOW), id=f"{one.library}-{one.check.__name__}")
        for one in LEANS
    ],
)
def test_what_we_lean_on_holds(lean, tmp_path):
    try:
        lean.check(**({"tmp_path": tmp_path} if inspect.signature(lean.check).parameters else {}))
    except Exception as error:
        seen = f"{type(error).__name__}: {error}".splitlines()[0]
        pytest.fail(f"{lean.library}: {lean.broken}.\nUsed in {', '.join(lean.where())}. {seen}", pytrace=False)


def test_every_lean_is_in_the_list():
    listed = {name for lean in LEANS for name in lean.names}
    new = {name: sorted(files) for name, files in used().items() if name not in listed}
    assert not new, f"private parts of other libraries that tests/test_private_parts.py does not know: {new}"


def test_nothing_in_the_list_is_no_longer_used():
    gone = {name for lean in LEANS for name in lean.names} - set(used())
    gone |= {lean.sign for lean in LEANS if lean.sign is not None and not lean.where()}
    assert not gone, f"tests/test_private_parts.py lists what no code leans on any more: {sorted(gone)}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch._inductor", ["torch._inductor"]),
        ("from numpy import _core as core", ["numpy._core"]),
        ("import torch\ntorch._foreach_add_([], 1)", ["torch._foreach_add_"]),
        ("import torch as t\nt._foreach_add_([], 1)", ["torch._foreach_add_"]),
        ("def f(bar):\n    return bar._time()", ["._time"]),
        ("def f(job):\n    return job()._result", ["._result"]),
        ("type('A', (B,), {'_check_all': None})", ["._check_all"]),
        ("getattr(a, '_hidden', None)", ["._hidden"]),
        ("Job(_value=1)", ["._value"]),
        ("module.__class__ = Other", ["__class__"]),
        ("a.__dict__, a.__name__, type(a)._replace(k=1), {'_target_': 'b'}", []),
        ("from nested_lookahead.optim import _check_inner", []),
    ],
)
def test_the_scanner_finds(source, found):
    assert list(private_names(source)) == found


GROUPED = """
import os
import pathlib
import pytest

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("test", range(6))
def test_of_the_group(test):
    pathlib.Path(str(test)).write_text(str(os.getpid()))
"""


@pytest.mark.slow
def test_tests_of_a_group_share_a_process(tmp_path):
    """Else what they share is made in each process anew: the suite takes half as long again, without a word."""
    pytest.importorskip("xdist")
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    processes = {(tmp_path / str(test)).read_text() for test in range(6)}
    assert len(processes) == 1, "pytest-xdist takes no notice of xdist_group; which pytest does it go with?"
