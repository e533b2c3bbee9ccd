"""Experiment trackers beside the run directory, which none of them can harm. See docs/loggers.md.

A tracker is told what metrics.csv has. When a run resumes it is told all of it again and leaves out what it has: so it
lacks no row and has none twice, wherever the run was cut off.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from nested_lookahead.errors import one_line
from nested_lookahead.runs import files
from nested_lookahead.runs.identity import identity, label
from nested_lookahead.runs.scores import NO_RESULTS

log = logging.getLogger(__name__)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """The run that a tracker is opened for."""

    path: Path
    config: Mapping[str, Any]
    known_as: str | None
    """What the tracker has called it in an earlier process."""
    anew: bool
    """Whether what the tracker knows of it is to be replaced."""

    @property
    def study(self) -> str:
        return str(self.config["study"])

    @property
    def method(self) -> str:
        """The name of its directory's parent: the same for all seeds, and for nothing else."""
        return f"{label(self.config)}-{identity(self.config)}"

    @property
    def name(self) -> str:
        return f"{self.method}/seed={self.config['seed']}"

    def settings(self) -> dict[str, Any]:
        """The configuration by keys with dots, as a command line has them."""
        return dict(_flat(self.config, ""))


class Logger(Protocol):
    """A tracker that has been opened for a run."""

    name: str
    """What the tracker calls the run, to find it again; empty if it lies in the run's directory."""
    place: str
    """Where a person looks."""

    def __init__(self, run: Subject) -> None: ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Steps ascend; one that an earlier process has logged may come again, and is left out."""

    def close(self, status: str) -> None:
        """The run is over, or stops here: one of the statuses in `files`."""


class TensorBoard:
    """An event file in the run's directory, written anew by each process; those before it are empty."""

    def __init__(self, run: Subject) -> None:
        importlib.import_module("tensorboard")  # torch's own part alone is always there
        hparams: Any = importlib.import_module("tensorboard.plugins.hparams.summary_v2")
        for before in run.path.glob("events.out.tfevents.*"):
            before.write_bytes(b"")  # a TensorBoard that looks on may never get past one that is gone
        # It takes a purge for its word to forget what it has read there.
        writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(run.path), purge_step=0)
        told = {key: x if isinstance(x, bool | int | float) else str(x) for key, x in run.settings().items()}
        writer.file_writer.add_summary(hparams.hparams_pb(told, trial_id=run.name))
        self._writer = writer
        self.name, self.place = "", f"tensorboard --logdir {run.config['output_dir']}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, status: str) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Online, the server has what an earlier process logged; offline there is no resuming, and it is recorded again."""

    def __init__(self, run: Subject) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "nested-lookahead"),
            group=run.study,
            job_type=run.method,
            name=run.name,
            id=run.known_as,
            resume=None if run.anew or run.known_as is None else "allow",  # without, what the server has is replaced
            config=dict(run.config),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        folder, offline = Path(self._run.dir).parent, self._run.offline
        self.name, self.place = str(self._run.id), str(folder if offline else self._run.url)
        if offline:
            for before in folder.parent.glob(f"offline-run-*-{self.name}"):
                if before != folder:
                    shutil.rmtree(before)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._run.step:  # the next that is not there
            self._run.log(dict(values), step=step, commit=True)

    def close(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == files.COMPLETED else 1)


class MLflow:
    """A run of the experiment that has the study's name."""

    def __init__(self, run: Subject) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        with _alone(self._mlflow.get_tracking_uri()):
            self._client = self._mlflow.MlflowClient()
        known = run.known_as if run.known_as is not None and self._is_there(run.known_as) else None
        if known is not None and run.anew:
            self._client.delete_run(known)
            known = None
        if known is not None:
            self._client.update_run(known, status="RUNNING")
        self.name = known or self._create(run)
        self.place = f"{self._mlflow.get_tracking_uri()}, run {self.name}"
        keys = self._client.get_run(self.name).data.metrics
        self._has = {(key, one.step) for key in keys for one in self._client.get_metric_history(self.name, key)}

    def _is_there(self, name: str) -> bool:
        """False of a run that somebody has deleted, or that another server has."""
        try:
            return bool(self._client.get_run(name).info.lifecycle_stage == "active")
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _create(self, run: Subject) -> str:
        tags = {"study": run.study, "method": run.method, "seed": str(run.config["seed"])}
        made = str(self._client.create_run(self._experiment(run.study), run_name=run.name, tags=tags).info.run_id)
        params = [self._mlflow.entities.Param(key, str(value)) for key, value in run.settings().items()]
        for first in range(0, len(params), 100):  # as many as it takes at once
            self._client.log_batch(made, params=params[first : first + 100])
        return made

    def _experiment(self, study: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", study)
        if (found := self._client.get_experiment_by_name(name)) is None:
            with suppress(self._mlflow.MlflowException):  # another worker may be faster
                return str(self._client.create_experiment(name))
            found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now, metric = int(1000 * time.time()), self._mlflow.entities.Metric
        new = {key: value for key, value in values.items() if (key, step) not in self._has}
        if new:
            self._client.log_batch(self.name, metrics=[metric(key, value, now, step) for key, value in new.items()])

    def close(self, status: str) -> None:
        self._client.set_tag(self.name, "status", status)
        ends = {files.COMPLETED: "FINISHED", files.INTERRUPTED: "KILLED"}
        self._client.set_terminated(self.name, ends.get(status, "FAILED"))


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
"""By the package that each needs, and the extra that brings it."""


class Loggers:
    """A run's trackers, open in a ``with`` block. One that fails is done without, and a line says so.

    Args:
        names: out of `LOGGERS`.
        path: the run's directory; the file `files.LOGGERS` in it has what each calls the run.
        config: as plain nested dictionaries.
        metric: name of what is in the column ``accuracy``.
        anew: whether what they know of the run is to be replaced.
    """

    def __init__(self, names: Sequence[str], path: Path, config: Mapping[str, Any], metric: str, anew: bool) -> None:
        self._names, self._path, self._config, self._anew = names, path, config, anew
        self._metric = re.sub(r"[^\w.-]+", "_", metric)
        self._open: dict[str, Logger] = {}

    def __enter__(self) -> Loggers:
        for name in self._names:
            with self._doing_without(name):
                self._start(name)
        return self

    def _start(self, name: str) -> None:
        known = _known(self._path / files.LOGGERS)
        logger = LOGGERS[name](Subject(self._path, self._config, known.get(name), self._anew))
        if logger.name:
            with files.replacing(self._path / files.LOGGERS) as file:
                file.write(json.dumps(known | {name: logger.name}, indent=2) + "\n")
        self._open[name] = logger
        log.info("%s: %s", name, logger.place)

    def log(self, rows: Sequence[Row]) -> None:
        """Tell each of these rows of the metrics, which it may have been told before."""
        for step, values in _by_step(rows, self._metric):
            for name, logger in list(self._open.items()):
                with self._doing_without(name):
                    logger.log(step, values)

    def close(self, status: str) -> None:
        while self._open:
            name, logger = self._open.popitem()
            with self._doing_without(name):
                logger.close(status)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close(files.FAILED if isinstance(error, Exception) else files.INTERRUPTED)

    @contextmanager
    def _doing_without(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            lacking = isinstance(error, ModuleNotFoundError) and error.name == name
            what = one_line(f"{type(error).__name__}: {error}", 300)
            said = f"not installed here; pip install -e '.[{name}]'" if lacking else what
            log.warning("logger=%s: %s; the run goes on without it", name, said)


def _alone(uri: str) -> Any:
    """A block for one process at a time, where several would create or migrate the tables of one SQLite file."""
    file = uri.removeprefix("sqlite:///")
    return FileLock(f"{file}.lock") if file != uri else nullcontext()


def _known(file: Path) -> dict[str, str]:
    """What each tracker calls a run, as far as it can be read: letters, digits, - and _, as parts of a path may be."""
    try:
        content = files.read_json(file)
    except (OSError, ValueError):
        return {}
    return {key: x for key, x in content.items() if isinstance(x, str) and re.fullmatch(r"[\w-]+", x)}


def _by_step(rows: Sequence[Row], metric: str) -> Iterator[tuple[int, dict[str, float]]]:
    """Each step and what is logged of it: ``test/loss/fast`` and so on, and ``epoch``, ``lr`` and ``seconds``.

    Args:
        metric: what the column ``accuracy`` is called.
    """
    for step, at_once in groupby(rows, key=lambda row: int(row["step"])):
        measured = list(at_once)
        values = {key: measured[0][key] for key in ("epoch", "lr", "seconds")}
        for row in measured:
            for key in (key for key in row if key not in ("step", "epoch", *NO_RESULTS)):
                name = metric if key == "accuracy" else key
                values[f"{row['split']}/{name}/{row['weights']}"] = row[key]
        yield step, values


def _flat(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
