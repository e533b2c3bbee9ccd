"""A search by Optuna: Hydra's plugin says what to try, and the trials are runs as those of any sweep."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from nested_lookahead.errors import Busy, UserError
from nested_lookahead.runs import sweeps
from nested_lookahead.runs.directory import holder, lock_of
from nested_lookahead.runs.grids import RunSweeper, what_differs
from nested_lookahead.runs.job import require_validation
from nested_lookahead.runs.progress import SweepProgress
from nested_lookahead.runs.signals import stopping_workers

log = logging.getLogger(__name__)

TAKEN_UP = "taken up"
"""Of an Optuna study: numbers of trials that were given up, and have another in their place."""
NOTHING = (math.nan, "")
"""The result of a run that has none; without any, Optuna has no best trial to name at the end."""


@dataclass
class Slot:
    """One trial of the search, asked for or still to come."""

    jobs: list[sweeps.PlannedRun]
    number: int
    since: float

    def objective(self) -> tuple[float, str] | None:
        return self.jobs[self.number].objective(self.since) if self.number < len(self.jobs) else None

    def __str__(self) -> str:
        return what_differs([job.overrides for job in self.jobs])[self.number]


class SearchSweeper(RunSweeper):
    """Makes ``n_trials`` in all, typed as often as it is; a trial that was given up, or has failed, comes again first.

    Args:
        settings: those of Hydra's plugin.
    """

    def __init__(self, n_trials: int = 20, **settings: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

        super().__init__(max_batch_size=None, params={})
        if type(n_trials) is not int or n_trials < 1:
            raise UserError(f"hydra.sweeper.n_trials={n_trials}: must be an integer >= 1")
        self.count, self.settings = n_trials, settings
        self.search = OptunaSweeper(n_trials=n_trials, **settings)
        self.jobs: list[sweeps.PlannedRun] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.search.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.search.sweeper.launcher = self

    def sweep(self, arguments: list[str]) -> Any:
        """Raises:
        UserError: nothing is held out to choose by, or at least one of the runs failed; the others are made.
        Busy: another process searches in this study.
        """
        assert self.config is not None
        require_validation(self.config.dataset.split.val_fraction, "hydra/sweeper: a search")
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_of(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Busy(f"{folder}: {holder(lock)} searches here already") from None
        try:
            return self._search(arguments)
        finally:
            lock.release()

    def _search(self, arguments: list[str]) -> list[list[JobReturn | None]]:
        assert self.config is not None
        self.since = time.time()
        self.jobs = self._take_up()
        self.search.sweeper.n_trials = max(0, self.count - len(self.jobs))
        slots = [Slot(self.jobs, number, self.since) for number in range(max(self.count, len(self.jobs)))]
        objectives = [(slot, slot.objective) for slot in slots]
        try:
            with SweepProgress(objectives, bool(self.config.progress), "search"):
                self.search.sweep(arguments)
        except (KeyError, ValueError):
            if any((job.objective(self.since) or NOTHING)[0] > -math.inf for job in self.jobs):
                raise
        finally:
            log.info(sweeps.report(self.jobs, self.since))
        sweeps.raise_if_failed(self.jobs)
        return [[job.result for job in self.jobs]]

    def _take_up(self) -> list[sweeps.PlannedRun]:
        """The runs of earlier trials that are over; those that are not are asked for once more."""
        import optuna

        assert self.config is not None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        where = {key: self.settings.get(key) for key in ("study_name", "storage")}
        if where["storage"] is None:
            return []
        try:
            study = optuna.load_study(**where)
        except KeyError:
            return []
        if self.config.overwrite:
            optuna.delete_study(**where)
            return []
        replaced = set(study.user_attrs.get(TAKEN_UP, []))
        trials = [one for one in study.trials if one.number not in replaced and one.params]
        state = optuna.trial.TrialState
        jobs = self._compose([[f"{k}={v}" for k, v in {**one.params, **one.user_attrs}.items()] for one in trials])
        over = []
        for trial, job in zip(trials, jobs, strict=True):
            if trial.state is state.COMPLETE or (trial.state is state.FAIL and job.is_over(self.since)):  # diverged
                over.append(job)
            elif trial.state in (state.FAIL, state.RUNNING):
                study.enqueue_trial(trial.params)
                if trial.state is state.RUNNING:
                    study.tell(trial.number, state=state.FAIL)
                study.set_user_attr(TAKEN_UP, sorted(replaced := replaced | {trial.number}))
        if trials and hasattr(self.search.sweeper.sampler, "reseed_rng"):
            self.search.sweeper.sampler.reseed_rng()  # a seed would begin with the same points once more
        return over

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What the plugin takes for a launcher: these runs, made or found."""
        assert self.launcher is not None
        jobs = self._compose([list(overrides) for overrides in job_overrides])
        self.jobs += jobs
        launch = functools.partial(self.launcher.launch, initial_job_idx=initial_job_idx)
        with stopping_workers([job.path for job in jobs if job.path is not None]):
            sweeps.run_all(jobs, launch, self.since)
        return [_told(job.result) for job in jobs if job.result is not None]


def _told(result: JobReturn) -> JobReturn:
    """What the plugin is told: of a failed run NaN, as of a diverged one; the report says why it has failed."""
    if result.status is JobStatus.COMPLETED:
        return result
    return JobReturn(result.overrides, status=JobStatus.COMPLETED, _return_value=math.nan)
