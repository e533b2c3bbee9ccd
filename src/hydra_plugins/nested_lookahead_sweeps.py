"""Hydra plugins; Hydra looks for them in this namespace package."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from nested_lookahead import sweeps
from nested_lookahead.config import resolve
from nested_lookahead.progress import SweepProgress

log = logging.getLogger(__name__)


class GridSweeper(BasicSweeper):
    """The union of several grids in one sweep.

    Hydra's own sweeper runs one Cartesian product, and so cannot sweep over optimizers that have different settings.
    Each of ``grids`` maps keys to values in Hydra's sweep syntax and is multiplied out with ``params``, which are
    common to all; without grids this is Hydra's sweeper. What is typed on the command line wins over both. A job
    that two grids have in common runs once.
    """

    def __init__(self, params: Mapping[str, Any] | None = None, grids: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(max_batch_size=None, params=dict(params or {}))
        self.grids = list(grids) or [{}]

    def sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None
        assert self.launcher is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        distinct: dict[tuple[str, ...], list[str]] = {}
        for grid in self.grids:
            settings = [f"{key}={value}" for key, value in {**self.params, **grid}.items()]
            (batch,) = self.split_arguments(parser.parse_overrides(settings + arguments), None)
            distinct |= {tuple(sorted(overrides)): overrides for overrides in batch}
        if isinstance(self.launcher, ListLauncher):
            return [self.launcher.launch(list(distinct.values()), initial_job_idx=0)]

        since = time.time()
        jobs = [self._compose(overrides) for overrides in distinct.values()]
        launch = functools.partial(self.launcher.launch, initial_job_idx=0)
        names = _what_differs(list(distinct.values()))
        objectives = [(name, functools.partial(job.objective, since)) for name, job in zip(names, jobs, strict=True)]
        try:
            with sweeps.stopping_workers(jobs), SweepProgress(objectives, bool(self.config.progress)):
                sweeps.run_all(jobs, launch, since)
        finally:
            log.info(sweeps.report(jobs, since))
        sweeps.raise_if_failed(jobs)
        return [[job.result for job in jobs]]

    def _compose(self, overrides: list[str]) -> sweeps.Job:
        """A job, with its settings; a mistake in a name ends the sweep here, one in a value fails that job later."""
        assert self.hydra_context is not None
        assert self.config is not None
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        try:
            path = Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir
            return sweeps.Job(overrides, path, resolve(cfg))
        except Exception:
            return sweeps.Job(overrides)


def _what_differs(batch: list[list[str]]) -> list[str]:
    """Of each job's overrides those that not all jobs have."""
    common = set.intersection(*map(set, batch))
    return [" ".join(part for part in overrides if part not in common) or "the only run" for overrides in batch]


class ListLauncher(Launcher):
    """Prints each run of a sweep, its directory and its settings, and runs nothing."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        paths, results = [], []
        for overrides in job_overrides:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            paths.append(Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir)
            results.append(JobReturn(overrides=overrides, cfg=config, status=JobStatus.COMPLETED))
        width = max(len(str(path)) for path in paths)
        for path, overrides in zip(paths, job_overrides, strict=True):
            print(f"{path!s:<{width}}  {' '.join(filter_overrides(overrides))}")
        print(f"{len(paths)} runs, {len(set(paths))} directories; nothing was trained")
        return results
