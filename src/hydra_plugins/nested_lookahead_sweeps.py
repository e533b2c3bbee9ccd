"""Hydra plugins; Hydra looks for them in this namespace package."""

from __future__ import annotations

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
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        jobs: dict[tuple[str, ...], list[str]] = {}
        for grid in self.grids:
            settings = [f"{key}={value}" for key, value in {**self.params, **grid}.items()]
            (batch,) = self.split_arguments(parser.parse_overrides(settings + arguments), None)
            jobs |= {tuple(sorted(job)): job for job in batch}
        batch = list(jobs.values())
        if not isinstance(self.launcher, ListLauncher):  # which composes them itself
            self.validate_batch_is_legal(batch)
        started = time.time()
        results = self.launcher.launch(batch, initial_job_idx=0)
        if not isinstance(self.launcher, ListLauncher):
            log.info(sweeps.report(results, started))
        sweeps.raise_if_failed(results)
        return [results]


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
