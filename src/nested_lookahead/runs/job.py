"""One job: a configuration becomes a run, or is found to be one already."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nested_lookahead.command import disk_is_full
from nested_lookahead.errors import JobError, RunFailed, UserError, one_line
from nested_lookahead.metric import Metric
from nested_lookahead.runs import files
from nested_lookahead.runs.build import build, import_what_trains
from nested_lookahead.runs.directory import Onlooker, Row, Run, another_run, is_of, name_of
from nested_lookahead.runs.identity import RULE, computed, label
from nested_lookahead.runs.loggers import Loggers
from nested_lookahead.runs.progress import ProgressBar, closing_text, evaluation_line
from nested_lookahead.runs.provenance import environment
from nested_lookahead.runs.schema import Config, resolve
from nested_lookahead.runs.scores import objective, scores
from nested_lookahead.runs.signals import Signals, end_undisturbed, ending_the_job_alone
from nested_lookahead.training.processes import PATIENCE, Processes, first_process, under_torchrun

if TYPE_CHECKING:
    from nested_lookahead.tasks.objectives import Objective
    from nested_lookahead.training.trainer import Trainer

log = logging.getLogger("train")


def main(cfg: DictConfig) -> float:
    """Make the run of a configuration that Hydra has composed; return its result, see `result_of`.

    Raises:
        UserError: of one job of a sweep, which goes on.
        JobError: of the only job, or of one that ends a sweep.
    """
    if not first_process():
        logging.disable()
    try:
        settings = HydraConfig.get()
        config = resolve(cfg)
        if settings.mode is RunMode.MULTIRUN:
            _refuse_to_tune_on_test(str(settings.sweeper.get("_target_")), config)
        with ending_the_job_alone():
            return Job(config, Path(settings.runtime.output_dir), dict(settings.runtime.choices)).run()
    except UserError as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN and not cfg.fail_fast and not under_torchrun():
            raise
        raise JobError(error) from error


def _refuse_to_tune_on_test(sweeper: str, config: Config) -> None:
    """Raises:
    JobError: a search, which chooses by the runs' results, has nothing but test data to choose by.
    """
    listing = sweeper.startswith(
        ("hydra_plugins.nested_lookahead_sweeps.", "hydra._internal.")
    )  # those of ours that choose see to it
    if listing:
        return
    try:
        require_validation(config.dataset.split.val_fraction, "hydra/sweeper: a search")
    except UserError as error:
        raise JobError(error) from None


def require_validation(val_fraction: float, who: str) -> None:
    """Raises:
    UserError: nothing is held out for a search, ``who`` chooses, to choose by.
    """
    if not val_fraction:
        raise UserError(
            f"{who} chooses by the validation metric, and nothing is held out; set dataset.split.val_fraction=0.1, say"
        )


class Job:
    """A configuration, the directory of its run, and the processes that train it together."""

    def __init__(self, config: Config, path: Path, choices: dict[str, str]) -> None:
        self.config, self.choices = config, choices
        self.plain = config.plain()
        self.processes = Processes.join()
        self.directory = Run(path) if self.processes.first else Onlooker(path)

    def run(self) -> float:
        """Skip a run that is over, resume one that is half done, else begin; return the result.

        Raises:
            UserError: a mistake in the settings, or an error in the run, which its log and its status then have.
        """
        with ExitStack() as stack:
            try:
                if (finished := self.processes.first_says(lambda: self.enter(stack))) is not None:
                    return finished
                import_what_trains()
                return self._train()
            except Exception as error:
                if self.processes.count > 1:
                    end_undisturbed()  # by torchrun, which ends all once one has ended
                    self.processes.tell_torchrun(error)
                if isinstance(error, UserError):
                    raise
                if disk_is_full(error):
                    raise JobError(error) from error  # it would fail the other jobs of a sweep, too
                self.directory.fail(error, self.plain, self.choices)
                with suppress(OSError):  # the error may be the disk's
                    log.exception("the run failed")
                what = one_line(f"{type(error).__name__}: {error}")
                if self.processes.lost_one(error):
                    lost = f"one of the {self.processes.count} processes has ended, or did not answer for"
                    advice = "the same command goes on from the last checkpoint"
                    what = f"{lost} {PATIENCE.seconds // 60} minutes; {advice}: {what}"
                raise RunFailed(f"{what} (traceback in {self.directory.path / files.LOG})") from error

    def enter(self, stack: ExitStack) -> float | None:
        """Lock the directory; the result of a run that is over."""
        stack.enter_context(self.directory)
        if (self.directory.path / files.LOG).exists() and not (self.directory.path / files.LOG).is_file():
            raise UserError(f"{self.directory.path / files.LOG}: is no file; move it away")
        if self.config.overwrite:
            return None

        def mend() -> None:
            self.directory.mend_config(self.plain, self.choices)

        return finished_before(self.directory.path, self.config, mend)

    def _train(self) -> float:
        trainer = build(self.config, self.processes)
        return self._record(trainer, self.begin(trainer))

    def begin(self, trainer: Trainer) -> list[Row]:
        """Bring the trainer to where an earlier process left it; the metrics until then."""
        from nested_lookahead.training.fit import COLUMNS

        def find() -> dict[str, Any] | None:
            return None if self.config.overwrite else self.directory.load_checkpoint(self.plain)

        state = self.processes.first_says(find)
        if state is None:
            self.directory.start(self.plain, self.choices, COLUMNS)
            return []
        try:
            trainer.load_state_dict(state)
        except (LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            what = one_line(f"{type(error).__name__}: {error}")
            raise UserError(
                f"{self.directory.path}: its checkpoint does not fit this version's code ({what}); "
                "overwrite=true starts anew"
            ) from error
        log.info("%s: resumed after step %d", self.directory.path, trainer.step)
        return self.directory.resume(state, self.plain, self.choices, COLUMNS)

    def _record(self, trainer: Trainer, metrics: list[Row]) -> float:
        """Train on from what is in ``metrics``, write down what comes, and return the run's result."""
        what = (label(self.plain), self.config.dataset.name, self.config.model.name, self.config.seed)
        log.info("%s on %s, %s, seed %d (%s)", *what, trainer.hardware)
        if (workers := self.config.workers) is not None:
            log.info("%d workers train apart, on %d process(es)", workers.count, self.processes.count)
        elif self.processes.count > 1:
            log.info("%d processes share each batch of %d", self.processes.count, self.config.batch_size)
        trainer.hardware.reset_peak_memory()
        bar = ProgressBar(trainer, self.config.progress and self.processes.first)
        with bar, Signals() as signals, self._loggers(trainer) as loggers:
            loggers.log(metrics)
            recorder = Recorder(self.directory, trainer, signals, bar, loggers, 60 * self.config.checkpoint_minutes)
            outcome = recorder.record(metrics, self.config)
            summary = outcome | measured(trainer.data.objective, metrics) | trainer.usage() | environment()
            self.directory.finish(summary)
            loggers.close(summary["status"])
        log.info(closing_text(summary, trainer, self.directory.path))
        if signals.came:  # during the last evaluation; it is for the sweep
            signals.obey()
        return result_of(summary, self.config)

    def _loggers(self, trainer: Trainer) -> Loggers:
        names = self.config.logger if self.processes.first else []
        metric = trainer.data.objective.metric.name
        return Loggers(names, self.directory.path, self.plain, metric, self.config.overwrite)


class Saver:
    """Saves what is being trained: now and then, and at a signal."""

    def __init__(self, trainer: Trainer, signals: Signals, bar: ProgressBar, interval: float) -> None:
        self.trainer, self.signals, self.bar = trainer, signals, bar
        self.interval = interval
        """Seconds between two checkpoints."""
        self._saved = time.monotonic()

    def on_step(self, trainer: Trainer) -> None:
        self.bar.on_step(trainer)
        if trainer.step % trainer.check_every and trainer.processes.count > 1:
            return
        due = time.monotonic() - self._saved >= self.interval
        due, told = trainer.processes.any(due, self.signals.came)  # all save, as a part of it may be with each
        if due or told:
            self.save()
        if told:
            self._stop()

    def save(self) -> None:
        self.write()
        self._saved = time.monotonic()

    def write(self) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        self.trainer.processes.wait()
        log.warning("interrupted at step %d; the same command goes on from there", self.trainer.step)
        self.signals.obey()


class Recorder(Saver):
    """Writes down what a trainer does: rows at evaluations; checkpoints there, now and then, and at a signal."""

    def __init__(
        self,
        directory: Run,
        trainer: Trainer,
        signals: Signals,
        bar: ProgressBar,
        loggers: Loggers,
        interval: float,
    ) -> None:
        super().__init__(trainer, signals, bar, interval)
        self.directory, self.loggers = directory, loggers

    def write(self) -> None:
        self.directory.save_checkpoint(self.trainer.state_dict())

    def record(self, metrics: list[Row], config: Config) -> dict[str, Any]:
        """Train to the end; add the rows to ``metrics``; return how it ended."""
        from nested_lookahead.training.fit import divergence, fit
        from nested_lookahead.training.trainer import Diverged

        try:
            for rows in fit(self.trainer, config.evaluation, self.on_step):
                self.directory.append(rows)
                if divergence(rows) is None:  # else there would be nothing to go on from
                    self.save()
                metrics += rows
                self.loggers.log(rows)  # after they are in a checkpoint: a resumed run begins with all that it has told
                self.bar.on_evaluation(rows)
                log.info(evaluation_line(self.trainer, rows))
        except Diverged as error:
            log.warning("diverged: %s", error)
            return {"status": files.DIVERGED, "diverged": {"step": error.step, "cause": error.cause}}
        return {"status": files.COMPLETED}


def finished_before(
    path: Path, config: Config, mend: Callable[[], None] | None = None, say: bool = True
) -> float | None:
    """The result of a run that is over; None if it is yet to be made or finished.

    Args:
        mend: writes its configuration anew, where this is torn and the summary says what it was.
        say: whether the log is to say that it is skipped.

    Raises:
        UserError: the directory holds a run of another configuration or seed.
        OSError: it cannot be read now.
    """
    plain, summary = config.plain(), _intact_summary(path)
    name = summary.get("run") if summary is not None else None
    try:
        stored = files.read_config(path)
        if computed(stored) != computed(plain) or stored.get("seed") != config.seed:
            raise another_run(path, _name(stored), plain)
    except FileNotFoundError:
        if summary is None:
            return None
        stored = {}
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s: its configuration cannot be read (%s) and is written anew", path, error)
        stored = {}
    if summary is None:
        return None
    if isinstance(name, dict) and name.get("rule") == RULE and not is_of(name, plain):
        raise another_run(path, name, plain)
    if not stored:
        if mend is None or not is_of(name, plain):
            return None
        mend()
    if say:
        log.info("%s: %s already, skipped (overwrite=true trains anew)", path, summary["status"])
    return result_of(summary, config)


def _name(config: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return name_of(config)
    except (LookupError, TypeError, AttributeError):  # somebody else's
        return None


def _intact_summary(path: Path) -> dict[str, Any] | None:
    """None if the run is not over, or its summary and metrics are not as they were written."""
    try:
        summary = files.read_summary(path)
        if summary is None or files.is_intact(path, summary):
            return summary
        log.warning("%s: its summary and metrics are not as they were written, and are made anew", path)
    except FileNotFoundError:
        log.warning("%s: it has a summary and no metrics, and is made anew", path)
    except ValueError as error:
        log.warning("%s: its summary or metrics cannot be read (%s) and are made anew", path, error)
    return None


def result_of(summary: dict[str, Any], config: Config) -> float:
    """Final validation metric, negated where less is better: a search maximises it. NaN of a diverged run."""
    if summary["status"] != files.COMPLETED:
        return math.nan
    return Metric.read(summary.get("metric")).sign * objective(summary, config.evaluation.weights)


def measured(goal: Objective, metrics: list[Row]) -> dict[str, Any]:
    """What a summary says of the metric, and of what it came to."""
    bounds = dict(zip(("least", "most"), goal.bounds, strict=True))
    known = {} if goal.optimum is None else {"optimum": goal.optimum}
    return {"metric": goal.metric.plain(), "score": bounds, **known, **scores(metrics, goal.metric)}
