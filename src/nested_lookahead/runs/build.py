"""From a configuration to a trainer: each part is built by what its group's ``_target_`` names."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nested_lookahead.errors import UserError, one_line
from nested_lookahead.runs.schema import MUON, Choice, Config, OptimizerChoice
from nested_lookahead.runs.typed import TRUSTED, below, home, named, targets
from nested_lookahead.runs.workers import importing, worker_number
from nested_lookahead.training.processes import ALONE, Processes

if TYPE_CHECKING:  # torch is imported when something is built: a run that is over need not wait for it
    from nested_lookahead.tasks.data import Dataset, Source
    from nested_lookahead.training.hardware import Hardware
    from nested_lookahead.training.trainer import Recipe, Trainer

FUSED = ("torch.optim.SGD", "torch.optim.Adam", "torch.optim.AdamW")


def import_what_trains() -> None:
    """Import torch and what needs it, once for all runs of this process.

    Apart from `build`: importing torch leaves cycles of frames behind, which keep what is below them on the stack, and
    a run's tensors must not be there.
    """
    with importing():
        import torch
        import torch._dynamo  # noqa: F401  # the first optimizer would

        import nested_lookahead.training.fit  # noqa: F401


def build(config: Config, processes: Processes = ALONE, shared: dict[int | None, Dataset] | None = None) -> Trainer:
    """Everything that a run trains with, in the state it starts from.

    Args:
        shared: by the seed of their splits, the data that runs of one data set have in common; what it lacks is added.

    Raises:
        UserError: what was chosen does not go together, or is not to be had here.
    """
    import torch

    from nested_lookahead.training.batches import Batches
    from nested_lookahead.training.trainer import Trainer, seed_of

    def seed(stream: str) -> int:
        return seed_of(config.seed, stream)

    hardware = _hardware(config, processes)
    shared = {} if shared is None else shared
    if (which := _split_seed(config)) not in shared:
        shared[which] = _data(config, seed("split") % 2**32).to(hardware.device)
    data = shared[which]
    hardware.keep_freed_memory()
    torch.manual_seed(seed("weights"))
    model = _model(config, data, hardware, processes)
    torch.manual_seed(seed("training"))  # dropout and the like, whatever the model has drawn
    if config.workers is not None:
        return _apart(config, model, data, hardware, processes)
    optimizer = build_optimizer(config.optimizer, model, config.decay, config.param_groups or ())
    order = torch.Generator().manual_seed(seed("order"))
    plain = config.augment.name == "none"  # else a batch is augmented whole, and then shared out
    batches = Batches(data.train, config.batch_size, order, *([processes.share] if plain else []))
    return Trainer(model, optimizer, data, batches, _recipe(config), hardware, seed("augment"), processes)


def _apart(config: Config, model: Any, data: Dataset, hardware: Hardware, processes: Processes) -> Trainer:
    """A trainer of workers that train apart.

    Raises:
        UserError: as of `build`.
    """
    import torch

    from nested_lookahead.optim import MultilayerLookahead
    from nested_lookahead.replica import NestedLookaheadReplica
    from nested_lookahead.training import workers as apart
    from nested_lookahead.training.trainer import seed_of

    wanted = config.workers
    workers = apart.Workers(wanted.count, wanted.group_size or wanted.count, processes)
    replicas = apart.replicas_of(model, workers.here)
    groups = config.param_groups or ()
    inner = [build_inner(config.optimizer, one, config.decay, groups) for one in replicas]
    optimizer = _call("optimizer", config.optimizer, inner)
    if not isinstance(optimizer, MultilayerLookahead) or isinstance(optimizer, NestedLookaheadReplica):
        raise UserError(f"workers=local: the layers of optimizer={config.optimizer.name} cannot average over workers")
    if wanted.group_size not in (None, wanted.count) and len(optimizer.layers) == 1:
        raise UserError(
            f"workers.group_size={wanted.group_size}: optimizer={config.optimizer.name} has one layer, which averages "
            "over all workers; use null"
        )
    optimizer.groups = workers.means(len(optimizer.layers)) if workers.count > 1 else ()
    parts = None
    if wanted.skew is not None:
        if not data.objective.classes:
            raise UserError(f"workers.skew={wanted.skew}: dataset={config.dataset.name} has no classes; use null")
        parts = apart.skewed_parts(data.train.labels, workers.count, wanted.skew, seed_of(config.seed, "skew"))
    order = torch.Generator().manual_seed(seed_of(config.seed, "order"))
    share = [workers.share] if config.augment.name == "none" else []  # as in `build`
    batches = apart.WorkersBatches(data.train, config.batch_size, order, workers.count, parts, *share)
    if not len(batches):
        raise UserError(f"workers.count={wanted.count}: {len(data.train)} samples are too few for so many")
    augment_seed = seed_of(config.seed, "augment")
    return apart.WorkersTrainer(replicas, optimizer, data, batches, _recipe(config), hardware, augment_seed, workers)


def _hardware(config: Config, processes: Processes) -> Hardware:
    from nested_lookahead.training.hardware import Hardware

    turn = processes.local_rank if processes.count > 1 else worker_number()
    return Hardware.choose(config.device, config.precision, config.channels_last, config.threads, config.compile, turn)


def _split_seed(config: Config) -> int | None:
    """The seed, if the run's data depend on it."""
    split = config.dataset.split
    drawn = split.val_fraction or split.train_size is not None
    return config.seed if drawn and split.seed is None else None


def _data(config: Config, seed: int) -> Dataset:
    from nested_lookahead.tasks.data import split_source

    with importing():
        source = build_source(config.dataset)
    return split_source(source, config.dataset.split, seed)


def _model(config: Config, data: Dataset, hardware: Hardware, processes: Processes) -> Any:
    import torch

    model = _call("model", config.model, data.shape, data.num_classes).to(hardware.device)
    share = processes.count > 1 and config.workers is None
    if share and hardware.device.type == "cuda":  # elsewhere torch has no such layer
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return model.to(memory_format=torch.channels_last) if hardware.channels_last else model


def _recipe(config: Config) -> Recipe:
    from nested_lookahead.training.trainer import Recipe

    return Recipe(
        epochs=config.epochs,
        schedule=_function("scheduler", config.scheduler),
        warmup=config.scheduler.warmup,
        augment=_function("augment", config.augment),
        label_smoothing=config.label_smoothing,
        grad_clip=config.grad_clip,
        ema=config.decays(),
        tail=config.tail,
    )


def build_source(choice: Choice) -> Source:
    """A data set as it comes; the last one is kept, as the jobs of a sweep have it in common and none changes it."""
    return _source(choice.name, choice.target, json.dumps(dict(choice.settings)))


@functools.lru_cache(maxsize=1)
def _source(name: str, target: str, settings: str) -> Source:
    source: Source = _call("dataset", Choice(name, target, json.loads(settings)))
    return source


def build_optimizer(
    choice: OptimizerChoice, model: Any, decay: str = "all", groups: Sequence[Mapping[str, Any]] = ()
) -> Any:
    """An optimizer of a model's parameters, around its inner one where there is one; `param_groups` says the rest."""
    inner = build_inner(choice, model, decay, groups)
    return inner if choice.inner is None else _call("optimizer", choice, inner)


def build_inner(choice: OptimizerChoice, model: Any, decay: str, groups: Sequence[Mapping[str, Any]]) -> Any:
    """The optimizer that takes the fast steps: the inner one, where there is one."""
    from nested_lookahead.training.parameters import param_groups

    params = param_groups(model, decay, groups)
    if choice.inner is None:
        return _torch_optimizer("optimizer", choice, params, model)
    return _torch_optimizer("optimizer/inner", choice.inner, params, model)


def _torch_optimizer(group: str, choice: Choice, params: Sequence[Any], model: Any) -> Any:
    """Raises:
    UserError: it asks of a training step what this one does not give.
    """
    from torch.optim import SparseAdam

    made = _call(group, _fused(choice, list(model.parameters())), params, *([model] if choice.target == MUON else []))
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UserError(f"{group}={choice.name}: asks for a closure that computes the loss anew, which no run gives it")
    if isinstance(made, SparseAdam):
        raise UserError(f"{group}={choice.name}: takes sparse gradients alone, and those of a run are dense")
    return made


def _fused(choice: Choice, params: Sequence[Any]) -> Choice:
    """With ``fused=True`` for the classes of torch that have such a kernel, where it is the fastest.

    Settings that are null are not passed on.
    """
    settings = {key: value for key, value in choice.settings.items() if value is not None}
    if choice.target in FUSED and all(param.device.type in ("cpu", "cuda") for param in params):
        # On a CPU it copies tensors that are not contiguous, such as channels-last weights: Adam gains all the same.
        copies = any(param.device.type == "cpu" and not param.is_contiguous() for param in params)
        if not copies or choice.target != "torch.optim.SGD":
            settings = {"fused": True} | settings
    return Choice(choice.name, choice.target, settings)


def _function(group: str, choice: Choice) -> functools.partial[Any]:
    """What was chosen, with its settings, to be called with the arguments that are left."""
    made: functools.partial[Any] = _call(
        group, Choice(choice.name, choice.target, {**choice.settings, "_partial_": True})
    )
    return made


def _call(group: str, choice: Choice, *args: Any) -> Any:
    """Raises:
    UserError: the target does not take a setting, or is not to be called; the message names the group.
    """
    settings = {"_target_": choice.target, **choice.settings}
    for key, target in targets(group.replace("/", "."), settings):
        _check_lies_there(key, target)
    try:
        return _made(settings, *args)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"{group}={choice.name}: {one_line(str(error))}") from error


def _made(node: Any, *args: Any) -> Any:
    """What the settings stand for, with every ``_target_`` in them called, as Hydra's ``instantiate`` does.

    That one asks, from Hydra 1.4 on, for a list of all classes that a target may return, where `check_trusted` has
    seen to the targets.
    """
    if isinstance(node, list | tuple):
        return [_made(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    values = {key: _made(value) for key, value in node.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return values
    if (found := named(str(node["_target_"]))) is None:
        raise ImportError(f"there is no {node['_target_']}")
    return functools.partial(found, *args, **values) if node.get("_partial_") else found(*args, **values)


def _check_lies_there(key: str, target: str) -> None:
    """Raises:
    UserError: the name leads through a module that is trusted to what lies elsewhere, as ``torch.optim.….os.system``.
    """
    if not below(target, TRUSTED):
        return  # by the user's own word: see `check_trusted`
    lies_in = home(target)
    if named(target) is not None and not below(f"{lies_in}.", TRUSTED):  # that there is none is said by who calls it
        raise UserError(f"{key}={target}: lies in {lies_in}, which is none of {', '.join(TRUSTED)}")
