"""The run directory, as a run writes it: under a lock, each file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import yaml
from filelock import SoftFileLease, Timeout

from nested_lookahead.errors import Busy, RunFailed, UserError, one_line
from nested_lookahead.runs import checkpoints, earlier, files
from nested_lookahead.runs.files import (
    CHECKPOINT,
    CHECKSUM,
    CONFIG,
    FAILED,
    INTERRUPTED,
    LOCK,
    LOG,
    METRICS,
    PREVIOUS_CHECKPOINT,
    RUNNING,
    STATUS,
    SUMMARY,
    VERSION,
    checksum,
    read_bytes,
)
from nested_lookahead.runs.identity import RULE, identity, label

log = logging.getLogger(__name__)

LEASE = 60.0
"""Seconds without a sign of life after which a process on another machine is taken for dead."""

Row = Mapping[str, Any]
"""A line of the metrics: its columns and their values."""


class Run:
    """Writes one run's directory.

    A ``with`` block is the run: it is ``running`` from `start` on, and whatever ends the block before `finish` is
    written down as ``failed`` or ``interrupted``. While it lasts the directory is this process's alone.

    Nothing that was recorded is deleted before what replaces it is there, whatever fails.

    Raises:
        Busy: another process has the directory, and is alive: on this machine it exists, on another it has given a
            sign of life within `LEASE`.
        UserError: the directory cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics: IO[str] | None = None
        self._columns: list[str] = []
        self._rows: list[Row] = []
        self._resumed = False
        self._name: dict[str, Any] = {}
        self._lock = lock_of(path)

    def __enter__(self) -> Run:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            before = self._lock.owner
            self._lock.acquire(timeout=_patience(self._lock))
        except Timeout:
            raise Busy(f"{self.path}: {holder(self._lock)} is at work on it; left alone") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written to ({error.strerror or error})") from error
        if before is not None:
            log.info("%s: taken over from process %d on %s, which is gone", self.path, before.pid, before.hostname)
        try:
            for leftover in (*self.path.glob("*.tmp"), *self.path.glob("*.new")):  # of a process killed while it wrote
                leftover.unlink(missing_ok=True)
            earlier.bring_back(self.path)
        except BaseException:
            self._lock.release()
            raise
        return self

    def _ensure_ours(self) -> None:
        """Raises:
        UserError: this process was taken for dead (it was suspended, say), and its directory taken over.
        """
        if not self._lock.is_lock_held_by_us:
            raise UserError(f"{self.path}: {holder(self._lock)} has taken it over; nothing more is written here")

    @property
    def started(self) -> bool:
        return self._metrics is not None

    def start(self, config: Mapping[str, Any], choices: Mapping[str, str], columns: Sequence[str]) -> None:
        """Begin anew, with these columns of metrics. What is there is moved away until the first checkpoint."""
        self._ensure_ours()
        earlier.move_away(self.path)
        self._write_config(config, choices)
        self._open_metrics([], columns)

    def _write_config(self, config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
        self._name = name_of(config)
        with files.replacing(self.path / CONFIG) as file:
            content = {"version": VERSION, "config": dict(config), "choices": dict(choices)}
            file.write(yaml.safe_dump(content, sort_keys=False))

    def resume(
        self,
        checkpoint: Mapping[str, Any],
        config: Mapping[str, Any],
        choices: Mapping[str, str],
        columns: Sequence[str],
    ) -> list[Row]:
        """Go on from a checkpoint; return the rows of the metrics until then. Rows written later will come again.

        The columns may be more than those rows have: they are empty there.
        """
        rows = list(checkpoint["metrics"])
        before = list(rows[0]) if rows else list(columns)
        try:
            if not read_bytes(self.path / METRICS).decode().startswith(_csv_text(rows, before)):
                log.warning("%s: damaged; written anew from the checkpoint", self.path / METRICS)
        except (FileNotFoundError, ValueError):
            log.warning("%s: cannot be read; written anew from the checkpoint", self.path / METRICS)
        self._resumed = True
        (self.path / SUMMARY).unlink(missing_ok=True)
        self._write_config(config, choices)  # it may be damaged, or tell of another place or number of threads
        self._open_metrics(rows, list(dict.fromkeys([*before, *columns])))
        return list(rows)

    def _open_metrics(self, rows: list[Row], columns: Sequence[str]) -> None:
        self._rows, self._columns = list(rows), list(columns)
        with files.replacing(self.path / METRICS) as file:
            file.write(_csv_text(rows, self._columns))
        # Line-buffered: a killed run loses no whole line.
        self._metrics = open(self.path / METRICS, "a", buffering=1, newline="")  # noqa: SIM115
        self._write_status(RUNNING)

    def append(self, rows: Sequence[Row]) -> None:
        assert self._metrics is not None
        self._ensure_ours()
        self._metrics.write(_csv_text(rows, self._columns, header=False))
        self._rows += rows

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, with the metrics so far, and keep the one before."""
        self._ensure_ours()
        newest = self.path / CHECKPOINT
        fresh = newest.with_name(f"{CHECKPOINT}.{os.getpid()}.new")
        try:
            with files.replacing(fresh, binary=True) as file:
                checkpoints.write({**state, "metrics": self._rows, "run": self._name}, file)
            if newest.exists():
                os.replace(newest, self.path / PREVIOUS_CHECKPOINT)
            os.replace(fresh, newest)
        finally:
            fresh.unlink(missing_ok=True)
        earlier.let_go(self.path)

    def load_checkpoint(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, tensors on the CPU; None if there is none. Damaged ones are renamed.

        Raises:
            UserError: it is that of another configuration or seed.
        """
        for path in (self.path / CHECKPOINT, self.path / PREVIOUS_CHECKPOINT):
            try:
                state = checkpoints.read(path)
            except FileNotFoundError:
                continue
            except checkpoints.Damaged as error:
                log.warning("%s is damaged (%s): kept as %s", path, error, earlier.put_aside(path).name)
                continue
            if not is_of(state.get("run"), config):
                raise another_run(self.path, state.get("run"), config)
            return state
        return None

    def fail(self, error: Exception, config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
        """Note an error that came before the run began or went on; of what is there, only the status changes."""
        if not self._lock.is_lock_held_by_us:
            return
        with suppress(OSError):  # the error may be the disk's
            if not (self.path / CONFIG).exists():
                self._write_config(config, choices)
            self._write_status(FAILED, _status_text(error))

    def mend_config(self, config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
        """Write the configuration of a run that is over, and whose own cannot be read."""
        self._ensure_ours()
        self._write_config(config, choices)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary: last, and whole or not at all, so that its presence means the run is over."""
        self._ensure_ours()
        if self._metrics is not None:
            self._metrics.close()
        dated = {"version": VERSION, "run": self._name, **summary}
        signed = {**dated, CHECKSUM: checksum(self.path, dated)}
        with files.replacing(self.path / SUMMARY) as file:
            file.write(json.dumps(signed, indent=2, allow_nan=False) + "\n")
        with suppress(OSError):  # the run is over, and this only tidies up
            earlier.let_go(self.path)
            (self.path / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
            self._write_status(str(summary["status"]))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._lock.is_lock_held_by_us:
            return
        if self._metrics is not None:
            with suppress(OSError):  # a full disk, which has been said
                self._metrics.close()
            with suppress(OSError):
                if error is not None and not isinstance(error, Exception):  # a signal
                    self._write_status(INTERRUPTED)
                elif error is not None:
                    cause = error.__cause__ if isinstance(error, RunFailed) and error.__cause__ else error
                    self._write_status(FAILED, _status_text(cause))
        self._lock.release()
        if self._metrics is None:
            self._discard()

    def _write_status(self, status: str, error: str | None = None) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content: dict[str, Any] = {"status": status, "error": error, "resumed": self._resumed}
        content |= {"host": socket.gethostname(), "pid": os.getpid(), "parent": os.getppid(), "time": now}
        with files.replacing(self.path / STATUS) as file:
            file.write(json.dumps(content, indent=2) + "\n")

    def _discard(self) -> None:
        """Leave nothing of a run that was refused before it began; keep what an earlier run left."""
        with suppress(OSError):  # another process may come to the same directory, or have left it, just now
            if {entry.name for entry in self.path.iterdir()} <= {LOG}:
                (self.path / LOG).unlink(missing_ok=True)
                self.path.rmdir()
                self.path.parent.rmdir()


class Onlooker(Run):
    """A run that another process records, while this one helps to train it: nothing is written."""

    def __enter__(self) -> Onlooker:
        return self

    def start(self, config: Mapping[str, Any], choices: Mapping[str, str], columns: Sequence[str]) -> None: ...

    def resume(
        self,
        checkpoint: Mapping[str, Any],
        config: Mapping[str, Any],
        choices: Mapping[str, str],
        columns: Sequence[str],
    ) -> list[Row]:
        return list(checkpoint["metrics"])

    def fail(self, error: Exception, config: Mapping[str, Any], choices: Mapping[str, str]) -> None: ...

    def append(self, rows: Sequence[Row]) -> None: ...

    def save_checkpoint(self, state: dict[str, Any]) -> None: ...

    def finish(self, summary: Mapping[str, Any]) -> None: ...


def name_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint and a summary say of the run that they are of."""
    return {"label": label(config), "id": identity(config), "rule": RULE, "seed": config["seed"]}


def is_of(name: Any, config: Mapping[str, Any]) -> bool:
    """Whether a name is that of the configuration's run, as far as today's rule can tell."""
    if not isinstance(name, Mapping) or name.get("rule") != RULE:
        return False
    return bool((name.get("id"), name.get("seed")) == (identity(config), config["seed"]))


def another_run(path: Path, name: Any, config: Mapping[str, Any]) -> UserError:
    """The error of a directory that holds something of another run, given what this says of itself."""
    said = name if isinstance(name, Mapping) else {}
    theirs = f"{said.get('label', '?')}, id {said.get('id', '?')}, seed {said.get('seed', '?')}"
    mine = f"id {identity(config)}, seed {config['seed']}"
    return UserError(
        f"{path}: holds a run of another configuration; move it away, or set overwrite=true "
        f"(it is {theirs}; this one is {mine})"
    )


def lock_of(path: Path) -> SoftFileLease:
    """Held by the process that makes a run: a file with its host and process id, renewed as a sign of life."""
    return SoftFileLease(path / LOCK, lease_duration=LEASE, is_singleton=False, thread_local=False)


def holder(lock: SoftFileLease) -> str:
    owner = lock.owner
    return "another process" if owner is None else f"process {owner.pid} on {owner.hostname}"


def _patience(lock: SoftFileLease) -> float:
    """Seconds to wait for a lock: whether a process on another machine is dead can only be seen by watching."""
    try:
        age = time.time() - Path(lock.lock_file).stat().st_mtime
    except OSError:
        return 0
    if lock.owner is None:
        return 5  # nobody's: damaged, or being written just now
    return 1.5 * LEASE if age > LEASE else 0


def _status_text(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")


def _csv_text(rows: Sequence[Row], columns: Sequence[str], header: bool = True) -> str:
    text = io.StringIO()
    lines = [[row.get(column, "") for column in columns] for row in rows]
    csv.writer(text, lineterminator="\n").writerows([columns, *lines] if header else lines)
    return text.getvalue()
