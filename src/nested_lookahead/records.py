"""The run directory: the one module that knows its files, for writing and for reading. See docs/run_directory.md."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml
from filelock import SoftFileLease, Timeout

from nested_lookahead.errors import Busy, RunFailed, UserError, flatten

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

CONFIG, METRICS = "config.yaml", "metrics.csv"
CHECKPOINT, PREVIOUS_CHECKPOINT = "checkpoint.pt", "checkpoint.previous.pt"
SUMMARY, STATUS, LOG, LOCK = "summary.json", "status.json", "train.log", "lock"

BOOKKEEPING = (
    "study",
    "output_dir",
    "device",
    "threads",
    "progress",
    "overwrite",
    "fail_fast",
    "checkpoint_minutes",
    "dataset.data_dir",
    "dataset.download",
    "dataset.workers",
)
"""Keys of a configuration that change where and how a run takes place, but not what it computes."""

FEEDERS = ("pullback", "lr", "weight_decay")
"""Keys of a configuration whose values end up in the optimizer's."""

ADDED: dict[str, Any] = {"compile": False}
"""Keys that came into the schema after runs had been recorded, with the value that stands for what those runs did.

A key at this value is left out of the identity, so that adding it does not orphan the runs made before.
"""

CHECKSUM = "sha256"

LEASE = 60.0
"""Seconds without a sign of life after which a process on another machine is taken for dead."""

COLUMNS = ("step", "epoch", "split", "weights", "loss", "accuracy", "lr", "seconds")

COMPLETED, DIVERGED = "completed", "diverged"
RUNNING, FAILED, INTERRUPTED = "running", "failed", "interrupted"


class Run:
    """Writes one run's directory.

    A ``with`` block is the run: it is ``running`` from `start` on, and whatever ends the block before `finish` is
    written down as ``failed`` or ``interrupted``. While it lasts the directory is this process's alone.

    Raises:
        Busy: another process has the directory, and is alive: on this machine it exists, on another it has given a
            sign of life within `LEASE`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics: IO[str] | None = None
        self._rows: list[dict[str, Any]] = []
        self._resumed = False
        self._lock = lock_of(path)

    def __enter__(self) -> Run:
        self.path.mkdir(parents=True, exist_ok=True)
        before = self._lock.owner
        try:
            self._lock.acquire(timeout=_patience(self._lock))
        except Timeout:
            raise Busy(f"{self.path}: {holder(self._lock)} is at work on it; left alone") from None
        if before is not None:
            log.info("%s: taken over from process %d on %s, which is gone", self.path, before.pid, before.hostname)
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

    def start(self, config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
        """Begin anew: what an earlier try left is removed, its summary first."""
        for name in (SUMMARY, CHECKPOINT, PREVIOUS_CHECKPOINT, METRICS):
            (self.path / name).unlink(missing_ok=True)
        self._write_config(config, choices)
        self._open_metrics([])

    def _write_config(self, config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
        with _replacing(self.path / CONFIG) as file:
            yaml.safe_dump({"config": dict(config), "choices": dict(choices)}, file, sort_keys=False)

    def resume(
        self, checkpoint: Mapping[str, Any], config: Mapping[str, Any], choices: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Go on from a checkpoint; return the rows of the metrics until then. Rows written later will come again."""
        rows = list(checkpoint["metrics"])
        try:
            if not (self.path / METRICS).read_text().startswith(_csv_text(rows)):
                log.warning("%s: damaged; written anew from the checkpoint", self.path / METRICS)
        except (OSError, ValueError):
            log.warning("%s: cannot be read; written anew from the checkpoint", self.path / METRICS)
        self._resumed = True
        (self.path / SUMMARY).unlink(missing_ok=True)
        self._write_config(config, choices)  # it may be damaged, or tell of another place or number of threads
        self._open_metrics(rows)
        return list(rows)

    def _open_metrics(self, rows: list[dict[str, Any]]) -> None:
        for leftover in (*self.path.glob("*.tmp"), *self.path.glob("*.new")):  # of a process killed while it wrote
            leftover.unlink(missing_ok=True)
        self._rows = list(rows)
        with _replacing(self.path / METRICS) as file:
            file.write(_csv_text(rows))
        # Line-buffered: a killed run loses no whole line.
        self._metrics = open(self.path / METRICS, "a", buffering=1, newline="")  # noqa: SIM115
        self._write_status(RUNNING)

    def append(self, rows: list[dict[str, Any]]) -> None:
        assert self._metrics is not None
        self._ensure_ours()
        self._metrics.write(_csv_text(rows, header=False))
        self._rows += rows

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, with the metrics so far, and keep the one before."""
        import torch  # the analysis reads run directories without it

        self._ensure_ours()
        newest = self.path / CHECKPOINT
        fresh = newest.with_name(f"{CHECKPOINT}.{os.getpid()}.new")
        try:
            with _replacing(fresh, binary=True) as file:
                torch.save({**state, "metrics": self._rows}, file)
            if newest.exists():
                os.replace(newest, self.path / PREVIOUS_CHECKPOINT)
            os.replace(fresh, newest)
        finally:
            fresh.unlink(missing_ok=True)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, tensors on the CPU; None if there is none."""
        import torch

        for path in (self.path / CHECKPOINT, self.path / PREVIOUS_CHECKPOINT):
            try:
                with zipfile.ZipFile(path) as archive:
                    if (member := archive.testzip()) is not None:  # which torch.load does not ask
                        raise ValueError(f"wrong checksum of {member}")
                state = dict(torch.load(path, map_location="cpu", weights_only=True))
                if "metrics" not in state:
                    raise ValueError("it has no metrics: an earlier version's")
                return state
            except FileNotFoundError:
                continue
            except Exception as error:  # a torn archive or a damaged record can fail in many ways
                log.warning("%s cannot be read (%s): left aside", path, flatten(str(error)) or type(error).__name__)
        return None

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary: last, and whole or not at all, so that its presence means the run is over."""
        self._ensure_ours()
        if self._metrics is not None:
            self._metrics.close()
        signed = {**summary, CHECKSUM: _checksum(self.path, summary)}
        with _replacing(self.path / SUMMARY) as file:
            json.dump(signed, file, indent=2, allow_nan=False)
            file.write("\n")
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
                    self._write_status(FAILED, f"{type(cause).__name__}: {cause}")
        self._lock.release()
        if self._metrics is None:
            self._discard()

    def _write_status(self, status: str, error: str | None = None) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content: dict[str, Any] = {"status": status, "error": error, "resumed": self._resumed}
        content |= {"host": socket.gethostname(), "pid": os.getpid(), "parent": os.getppid(), "time": now}
        with _replacing(self.path / STATUS) as file:
            json.dump(content, file, indent=2)
            file.write("\n")

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

    def start(self, config: Mapping[str, Any], choices: Mapping[str, str]) -> None: ...

    def append(self, rows: list[dict[str, Any]]) -> None: ...

    def save_checkpoint(self, state: dict[str, Any]) -> None: ...

    def finish(self, summary: Mapping[str, Any]) -> None: ...


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


def _csv_text(rows: list[dict[str, Any]], header: bool = True) -> str:
    text = io.StringIO()
    lines = [[row[column] for column in COLUMNS] for row in rows]
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *lines] if header else lines)
    return text.getvalue()


def _checksum(path: Path, summary: Mapping[str, Any]) -> str:
    """SHA-256 of the metrics, as they lie on the disk, and of the rest of the summary."""
    rest = {key: value for key, value in summary.items() if key != CHECKSUM}
    content = (path / METRICS).read_bytes() + json.dumps(rest, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _replacing(path: Path, binary: bool = False) -> Iterator[Any]:
    """Write a file under another name and put it in place when it is whole and on the disk."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb" if binary else "w") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


Scores = dict[str, dict[str, dict[str, dict[str, Any]]]]


def scores(metrics: list[dict[str, Any]]) -> Scores:
    """``{"final": …, "best": …}``, each {weights: {split: {"step", "epoch", "loss", "accuracy"}}}.

    The best evaluation is chosen on the validation split, for each kind of weights, the first of equals; there is
    none without that split. A value that is not finite is None, as JSON has no name for it.
    """
    result: Scores = {"final": {}, "best": {}}
    for weights in dict.fromkeys(row["weights"] for row in metrics):
        rows = [row for row in metrics if row["weights"] == weights]
        steps = {"final": rows[-1]["step"]}
        validated = [row for row in rows if row["split"] == "validation"]
        if validated:
            steps["best"] = max(validated, key=lambda row: (row["accuracy"], -row["step"]))["step"]
        for name, step in steps.items():
            result[name][weights] = {
                row["split"]: {key: _finite(row[key]) for key in ("step", "epoch", "loss", "accuracy")}
                for row in rows
                if row["step"] == step
            }
    return result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def objective(result: Mapping[str, Any], weights: str) -> float:
    """Final validation accuracy (test accuracy where nothing is held out), of the fast weights if there are no slow."""
    final = result["final"].get(weights) or result["final"]["fast"]
    return float(final.get("validation", final["test"])["accuracy"])


def environment() -> dict[str, Any]:
    """Versions of what can change a result, and the commit of the code."""
    packages = ("nested-lookahead", "torch", "torchvision", "numpy", "hydra-core")
    versions = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "torch" in sys.modules:
        versions["torch"] = sys.modules["torch"].__version__  # with the build: +cpu, +cu130
    return {"versions": versions, "git": _git_state()}


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout this module lies in, and whether tracked files differ from it; None outside git."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy may lie in somebody else's checkout
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


# --- reading --------------------------------------------------------------------------------------------------------


def find_runs(root: Path) -> list[Path]:
    """Directories at or below ``root`` that hold a run, finished or not."""
    return sorted(Path(folder) for folder, _, files in os.walk(root) if CONFIG in files)


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration.

    Raises:
        ValueError, KeyError or TypeError: the file is not one of ours.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load((path / CONFIG).read_bytes(), Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    return dict(content["config"])


def read_summary(path: Path) -> dict[str, Any] | None:
    """None if the run is not over.

    Raises:
        ValueError: the file is not one of ours.
    """
    try:
        return dict(json.loads((path / SUMMARY).read_text()))
    except FileNotFoundError:
        return None


def is_intact(path: Path, summary: Mapping[str, Any]) -> bool:
    """Whether a run's summary and metrics are as they were written; a summary without checksum is taken at its word."""
    return CHECKSUM not in summary or summary[CHECKSUM] == _checksum(path, summary)


def read_status(path: Path) -> dict[str, Any]:
    try:
        return {"status": "unknown", "error": None} | dict(json.loads((path / STATUS).read_text()))
    except (OSError, ValueError, TypeError):
        return {"status": "unknown", "error": None}


def read_metrics(path: Path) -> pd.DataFrame:
    """The metrics.

    Raises:
        ValueError: the file is torn: it does not end with its last line's end.
    """
    import pandas as pd

    content = (path / METRICS).read_bytes()
    if not content.endswith(b"\n"):
        raise ValueError(f"{METRICS} is torn in its last line")
    return pd.read_csv(io.BytesIO(content))
