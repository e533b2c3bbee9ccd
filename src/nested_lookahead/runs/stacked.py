"""The launcher that trains runs of a sweep as one, where they are alike but for numbers; the others one by one."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from omegaconf import OmegaConf

from nested_lookahead.command import disk_is_full
from nested_lookahead.errors import JobError, UserError, one_line
from nested_lookahead.runs import files
from nested_lookahead.runs.build import build, import_what_trains
from nested_lookahead.runs.directory import Row
from nested_lookahead.runs.job import Job, Saver, measured
from nested_lookahead.runs.progress import ProgressBar, TerminalHandler, closing_text, evaluation_line, stack_line
from nested_lookahead.runs.provenance import environment
from nested_lookahead.runs.schema import Config
from nested_lookahead.runs.signals import Signals
from nested_lookahead.runs.stacking import chunks, grouped, in_common
from nested_lookahead.training.processes import under_torchrun

if TYPE_CHECKING:
    from nested_lookahead.runs.sweeps import PlannedRun
    from nested_lookahead.tasks.data import Dataset
    from nested_lookahead.training.stack import Stack
    from nested_lookahead.training.trainer import Trainer

log = logging.getLogger("train")  # as of a run by itself


class StackedLauncher(BasicLauncher):
    """Trains runs that differ in numbers alone as one batched network, each recorded as if it had been alone.

    What is not over then, because it cannot be stacked or its stack came to nothing, is made by Hydra's own launcher,
    one run after another; so are runs of sweepers other than this project's.

    Args:
        max_size: the most runs of one stack.
    """

    def __init__(self, max_size: int = 64) -> None:
        super().__init__()
        if type(max_size) is not int or max_size < 2:
            raise UserError(f"hydra.launcher.max_size={max_size}: must be an integer >= 2")
        self.max_size = max_size

    def train(self, runs: Sequence[PlannedRun], since: float) -> None:
        """Train what can be stacked of the runs that are not over since then, and say of the others why they cannot."""
        known = [(run.config, run) for run in runs if run.config is not None and not run.is_over(since)]
        # What was begun before comes first: a stack is of runs that are at one step.
        known.sort(key=lambda pair: not pair[1].has_checkpoint())
        stacks: list[list[PlannedRun]] = []
        reasons: Counter[str] = Counter()
        for group in grouped((in_common(config), run) for config, run in known):
            reason = why_not(group)
            if reason is None:
                stacks += chunks(group, self.max_size)
            else:
                reasons[reason] += len(group)
        for reason, count in reasons.items():
            log.info("not stacked: %d run%s (%s)", count, "" if count == 1 else "s", reason)
        for stack in stacks:
            train_stack([Member(run, self._log_format()) for run in stack])

    def _log_format(self) -> str | None:
        assert self.config is not None
        found = OmegaConf.select(self.config, "hydra.job_logging.formatters.file.format")
        return None if found is None else str(found)


def why_not(group: Sequence[PlannedRun]) -> str | None:
    """Why runs that have so much in common are not stacked; None if they can be."""
    if len(group) == 1:
        return "no other is like it but for numbers"
    if under_torchrun():
        return "torchrun: its processes share each run"
    assert group[0].config is not None
    if group[0].config.logger:
        return "logger: it looks on at one run"
    import_what_trains()
    from nested_lookahead.training import stack

    try:
        return stack.why_not(build(group[0].config))
    except Exception as error:  # the run by itself meets it again, and records it
        return one_line(f"{error}")


def train_stack(members: Sequence[Member]) -> None:
    """Train those of the runs that are free, and have not been finished meanwhile, in stacks that are at one step."""
    from nested_lookahead.training.stacked_optimizer import periods

    def place(member: Member) -> tuple[int, int]:
        return member.trainer.step, member.trainer.evaluated

    shared: dict[int | None, Dataset] = {}
    with ExitStack() as held:
        for member in members:
            held.push(member.held)
        with ThreadPoolExecutor(len(members)) as pool:  # a machine that is gone is found out by watching each lock
            free = list(pool.map(Member.take, members))
        ready = [member for member, own in zip(members, free, strict=True) if own and member.prepare(shared)]
        ready.sort(key=lambda member: (place(member), periods(member.trainer.optimizer)))
        for _, group in groupby(ready, place):
            _train_alike(list(group))


def _train_alike(members: Sequence[Member]) -> None:
    from nested_lookahead.training.stack import Stack

    config = members[0].config
    try:
        stack = Stack([member.trainer for member in members])
        what = (len(members), config.model.name, config.dataset.name, stack.hardware)
        log.info("%d runs as one: %s on %s (%s)", *what)
        stack.hardware.reset_peak_memory()
        bar = ProgressBar(stack, config.progress)
        with bar, Signals() as signals:
            StackRecorder(members, stack, signals, bar, 60 * config.checkpoint_minutes).record(config)
    except Exception as error:
        if disk_is_full(error):
            raise JobError(error) from error  # it would fail the other runs, too
        open_ones = [member for member in members if not member.over]
        log.warning("not stacked: %d runs go on one by one (%s)", len(open_ones), one_line(f"{error}"))
        for member in open_ones:
            with member.own_log():
                log.info("its stack broke", exc_info=error)
            member.leave(error)


class Member:
    """One run of a stack: its directory, while it is this process's, and its trainer."""

    trainer: Trainer
    random: dict[str, Any]
    """States of its generators, which a stack does not draw from."""

    def __init__(self, run: PlannedRun, log_format: str | None) -> None:
        assert run.config is not None
        assert run.path is not None
        self.config, self.path = run.config, run.path
        self.job = Job(run.config, run.path, run.choices)
        self.held = ExitStack()
        """Ends with the run's part in the stack."""
        self.over = False
        self.metrics: list[Row] = []
        self._format = logging.Formatter(log_format)

    def take(self) -> bool:
        """Lock its directory; False if the run is another process's, or over."""
        return self._succeeds(lambda: self.job.enter(self.held) is None)

    def prepare(self, shared: dict[int | None, Dataset]) -> bool:
        """Build it, and bring it to where an earlier process left it; False if that cannot be."""

        def build_and_begin() -> bool:
            self.trainer = build(self.config, shared=shared)
            self.metrics = self.job.begin(self.trainer)
            self.random = self.trainer.state_dict()["random"]
            return True

        return self._succeeds(build_and_begin)

    def _succeeds(self, part: Callable[[], bool]) -> bool:
        """If it does not, the run by itself will find the same, and say so."""
        try:
            with self.own_log():
                if part():
                    return True
        except Exception as error:
            if disk_is_full(error):
                raise JobError(error) from error
        self.leave(None)
        return False

    def leave(self, error: Exception | None) -> None:
        """Give the directory back, in which an error is recorded."""
        self.over = True
        self.held.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    @contextmanager
    def own_log(self) -> Iterator[None]:
        """What is logged in this block goes to the run's log; to the terminal only what calls for attention."""
        thread, root = threading.get_ident(), logging.getLogger()  # a sweep's progress has a thread of its own
        handler = logging.FileHandler(self.path / files.LOG, delay=True)
        handler.setFormatter(self._format)
        handler.addFilter(lambda record: record.thread == thread)

        def loud(record: logging.LogRecord) -> bool:
            return record.thread != thread or record.levelno >= logging.WARNING

        terminals = [one for one in root.handlers if isinstance(one, TerminalHandler)]
        root.addHandler(handler)
        for terminal in terminals:
            terminal.addFilter(loud)
        try:
            yield
        finally:
            for terminal in terminals:
                terminal.removeFilter(loud)
            root.removeHandler(handler)
            handler.close()


class StackRecorder(Saver):
    """Writes down what a stack does, each run's part into its own directory."""

    def __init__(
        self, members: Sequence[Member], stack: Stack, signals: Signals, bar: ProgressBar, interval: float
    ) -> None:
        super().__init__(stack, signals, bar, interval)
        self.members, self.stack = members, stack
        self._environment = environment()

    @property
    def running(self) -> list[tuple[int, Member]]:
        return [(number, member) for number, member in enumerate(self.members) if not member.over]

    def record(self, config: Config) -> None:
        """Train to the end of all runs."""
        from nested_lookahead.training.fit import evaluations
        from nested_lookahead.training.trainer import Diverged

        for _, member in self.running:
            with self._part(member):
                self._say_what(member)
        try:
            for _ in evaluations(self.stack, config.evaluation.every, self.on_step):
                self._note(self.stack.evaluate(config.evaluation))
                self._end_diverged()
                self.save()
                if not self.running:
                    break
        except Diverged:  # the last one
            self._end_diverged()
        for number, member in self.running:
            self._finish(number, member, {"status": files.COMPLETED})
        if self.signals.came:  # during the last evaluation; it is for the sweep
            self.signals.obey()

    def _say_what(self, member: Member) -> None:
        from nested_lookahead.runs.identity import label

        config = member.config
        what = (label(config.plain()), config.dataset.name, config.model.name, config.seed)
        log.info("%s on %s, %s, seed %d (%s), in a stack of %d", *what, self.stack.hardware, len(self.members))

    def on_step(self, trainer: Trainer) -> None:
        if self.stack.diverged:
            self._end_diverged()
        super().on_step(trainer)

    def _note(self, found: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        """What an evaluation has found of each run."""
        from nested_lookahead.training.fit import divergence
        from nested_lookahead.training.trainer import Diverged

        shown = [found[number] for number, _ in self.running]
        for number, member in self.running:
            with self._part(member):
                rows: Any = found[number]
                member.job.directory.append(rows)
                member.metrics += rows
                log.info(evaluation_line(member.trainer, rows))
            if (cause := divergence(rows)) is not None:
                self.stack.end(number, Diverged(self.stack.step, cause))
        if shown:
            log.info(stack_line(self.stack, shown))

    def write(self) -> None:
        for number, member in self.running:
            with self._part(member):
                state = self.stack.settle(number).state_dict()
                member.job.directory.save_checkpoint(state | {"random": member.random})

    def _end_diverged(self) -> None:
        for number, why in self.stack.diverged.items():
            member = self.members[number]
            if not member.over:
                with self._part(member):
                    log.warning("%s: diverged: %s", member.path, why)
                outcome = {"status": files.DIVERGED, "diverged": {"step": why.step, "cause": why.cause}}
                self._finish(number, member, outcome)

    def _finish(self, number: int, member: Member, outcome: dict[str, Any]) -> None:
        run = self.stack.counted(number)
        with self._part(member):
            summary = outcome | measured(run.data.objective, member.metrics) | run.usage() | self._environment
            summary["hardware"] |= {"stacked": len(self.members)}
            member.job.directory.finish(summary)
            log.info(closing_text(summary, run, member.path))
            member.leave(None)

    @contextmanager
    def _part(self, member: Member) -> Iterator[None]:
        """One run's part of the work: its log is its own, and what fails of its files is its own failure."""
        try:
            with member.own_log():
                yield
        except (UserError, OSError) as error:
            if disk_is_full(error):
                raise
            log.warning("%s: leaves its stack (%s)", member.path, one_line(f"{error}"))
            member.leave(error)
