"""A sweep over grids: from what was typed to runs that are made, found, or listed."""

from __future__ import annotations

import copy
import functools
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from nested_lookahead.errors import UserError
from nested_lookahead.runs import sweeps
from nested_lookahead.runs.identity import run_name
from nested_lookahead.runs.progress import SweepProgress
from nested_lookahead.runs.schema import Config, resolve
from nested_lookahead.runs.signals import stopping_workers
from nested_lookahead.runs.stacked import StackedLauncher
from nested_lookahead.runs.workers import start_workers_deaf

log = logging.getLogger(__name__)


class RunSweeper(BasicSweeper):
    """Makes lists of runs: what is finished is skipped, and what was interrupted goes on."""

    def make(self, batch: list[list[str]], stage: str = "sweep") -> list[sweeps.PlannedRun]:
        """The runs with these overrides, made or found, or listed where that is all that is asked for.

        Raises:
            UserError: at least one of them failed; the others are made.
        """
        assert self.config is not None
        assert self.launcher is not None
        since = time.time()
        jobs = self._compose(batch)
        sweeps.refuse_shared_directories(jobs)
        if isinstance(self.launcher, ListLauncher):
            self.launcher.show(jobs)
            return jobs
        if type(self.launcher).__module__.startswith("hydra_plugins.hydra_joblib_launcher"):
            start_workers_deaf()
        launch = functools.partial(self.launcher.launch, initial_job_idx=0)
        objectives = [
            (name, functools.partial(job.objective, since)) for name, job in zip(what_differs(batch), jobs, strict=True)
        ]
        try:
            with (
                stopping_workers([job.path for job in jobs if job.path is not None]),
                SweepProgress(objectives, bool(self.config.progress), stage),
            ):
                if isinstance(self.launcher, StackedLauncher):
                    self.launcher.train(jobs, since)
                sweeps.run_all(jobs, launch, since)
        finally:
            log.info(sweeps.report(jobs, since))
        sweeps.raise_if_failed(jobs)
        return jobs

    def _compose(self, batch: list[list[str]]) -> list[sweeps.PlannedRun]:
        """The jobs, with their settings; a mistake in a name ends the sweep here, one in a value fails its job later.

        Hydra takes 0.08 s to compose a configuration, and copying it takes 0.01 s. Jobs that choose the same groups
        differ in plain values alone; where they also set the same keys, each sets them over those of the one before.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        parse = functools.cache(lambda text: parser.parse_override(text))
        is_group = functools.cache(lambda key: bool(loader.get_group_options(key)))
        composed: dict[tuple[str, ...], DictConfig] = {}
        shared: dict[tuple[tuple[str, ...], ...], DictConfig] = {}
        jobs = []
        for overrides in batch:
            parsed = [parse(text) for text in overrides]
            plain = [o for o in parsed if _sets_a_value(o) and not is_group(o.key_or_group)]
            chosen = tuple(override.input_line or "" for override in parsed if override not in plain)
            if chosen not in composed:
                composed[chosen] = loader.load_sweep_config(self.config, list(chosen))
            values = [(override.key_or_group, override.value()) for override in plain]
            cfg = shared.get((chosen, keys := tuple(key for key, _ in values)))
            if cfg is None or any(isinstance(value, dict | list) for _, value in values):  # these are merged
                cfg = shared[chosen, keys] = copy.deepcopy(composed[chosen])
            for key, value in values:
                OmegaConf.update(cfg, key, value, merge=True)
            try:
                config = resolve(cfg)
                choices = dict(cfg.hydra.runtime.choices)
                jobs.append(sweeps.PlannedRun(overrides, _path(cfg, config), config, choices))
            except Exception as error:
                jobs.append(sweeps.PlannedRun(overrides, refused=error))
        return jobs


class GridSweeper(RunSweeper):
    """The union of several grids in one sweep.

    Hydra's own sweeper runs one Cartesian product, and so cannot sweep over optimizers that have different settings.
    Each of ``grids`` maps keys to values in Hydra's sweep syntax and is multiplied out with ``params``, which are
    common to all; without grids this is Hydra's sweeper. What is typed on the command line wins over both. A job
    that two grids have in common runs once.
    """

    def __init__(self, params: Mapping[str, Any] | None = None, grids: Sequence[Mapping[str, Any]] = ()) -> None:
        if not isinstance(grids, Sequence) or not all(isinstance(grid, Mapping) for grid in grids):
            raise UserError(f"hydra.sweeper.grids={grids}: must be a list of mappings, each a grid")
        super().__init__(max_batch_size=None, params=dict(params or {}))
        self.grids = list(grids) or [{}]

    def sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        distinct: dict[tuple[str, ...], list[str]] = {}
        for grid in self.grids:
            settings = [f"{key}={value}" for key, value in {**self.params, **grid}.items()]
            parsed = parser.parse_overrides(settings + arguments)
            refuse_empty(parsed)
            (batch,) = self.split_arguments(parsed, None)
            distinct |= {tuple(sorted(overrides)): overrides for overrides in batch}
        return [[job.result for job in self.make(list(distinct.values()))]]


def refuse_empty(parsed: Sequence[Override]) -> None:
    """Raises:
    UserError: one of the overrides sweeps over nothing, as ``seed=range(0)`` does.
    """
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            continue
        if override.is_sweep_override() and next(iter(override.sweep_iterator()), None) is None:
            raise UserError(f"{override.input_line}: sweeps over nothing")


def _path(cfg: DictConfig, config: Config) -> Path:
    """Where the run goes; its usual name is that of the settings at hand, which Hydra would find once more."""
    sweep = cfg.hydra.sweep
    usual = OmegaConf.to_container(sweep, resolve=False)["subdir"] == "${run_name:}"  # type: ignore[call-overload, index]
    return Path(sweep.dir) / (run_name(config.plain()) if usual else sweep.subdir)


def _sets_a_value(override: Override) -> bool:
    """``key=value``, if the key is no group, and none of Hydra's own."""
    other = override.is_add() or override.is_delete() or override.is_force_add() or override.package is not None
    return not other and not override.key_or_group.startswith("hydra")


def what_differs(batch: list[list[str]]) -> list[str]:
    """Of each job's overrides those that not all jobs have."""
    common = set.intersection(*map(set, batch))
    return [" ".join(part for part in overrides if part not in common) or "the only run" for overrides in batch]


class ListLauncher(Launcher):
    """Prints each run of a sweep, its directory and its settings, and runs nothing."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None: ...

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise UserError("hydra/launcher=list: lists the runs of a grid, and no other sweeper's")

    def show(self, jobs: Sequence[sweeps.PlannedRun]) -> None:
        """Raises:
        UserError: a job's settings cannot be resolved.
        """
        for job in jobs:
            if job.refused is not None:
                raise job.refused
        width = max(len(str(job.path)) for job in jobs)
        for job in jobs:
            print(f"{job.path!s:<{width}}  {' '.join(filter_overrides(job.overrides))}")
        print(f"{len(jobs)} runs, {len({job.path for job in jobs})} directories; nothing was trained")
