"""A study without its checkpoints in one file: a few kilobytes a run, read like a folder."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from nested_lookahead import inputs
from nested_lookahead.errors import UserError
from nested_lookahead.runs import fair, files

KEPT = (files.CONFIG, files.METRICS, files.SUMMARY, files.STATUS, fair.FILE)
"""Of each run, and of a fair study; what the analysis reads."""
SUFFIX = ".tar.xz"
MOST_MEMBERS = 400_000
MOST_BYTES = 4 << 30
"""Unpacked, of all members together."""
MOST_BYTES_OF_ONE = 512 << 20
MOST_MEMORY = 256 << 20
"""To unpack with; what `pack` writes needs 9 MiB."""
HEADER = 1 << 20
"""Bytes that a member's header, and what is read ahead, may have."""


def pack(folders: Sequence[Path], target: Path) -> str:
    """Write the runs below the folders into an archive; return what to print.

    The same runs make the same bytes: names in order, and no owner. Times are kept, as they tell which run is newer.

    Raises:
        UserError: a folder does not exist or has no run, or the archive cannot be written.
    """
    runs = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        runs += [(folder, run) for run in files.find_runs(folder)]
    if not runs:
        raise UserError(f"{', '.join(map(str, folders))}: no run here")
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(temporary, "w:xz", format=tarfile.PAX_FORMAT) as made:
            studies = [(folder, study) for folder in folders for study in fair.find_studies(folder)]
            for folder, run in [*studies, *runs]:
                inside = PurePosixPath(folder.resolve().name, *run.relative_to(folder).parts)
                for name in KEPT:
                    if (run / name).is_file():
                        _add(made, run / name, inside / name)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"--archive {target}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    size = target.stat().st_size
    return f"{len(runs)} runs in {target}, {size / 1024:,.0f} KiB, {size / 1024 / len(runs):.1f} KiB a run"


def _add(made: tarfile.TarFile, path: Path, inside: PurePosixPath) -> None:
    content = path.read_bytes()
    member = tarfile.TarInfo(str(inside))
    member.size, member.mtime, member.mode = len(content), int(path.stat().st_mtime), 0o644
    made.addfile(member, io.BytesIO(content))


def is_archive(path: Path) -> bool:
    return path.name.endswith(SUFFIX) and not path.is_dir()


def beside(path: Path) -> Path:
    """Where what is made of runs belongs: in their folder; of an archive, in one beside it with its name."""
    return path.with_name(path.name.removesuffix(SUFFIX)) if is_archive(path) else path


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Folders as they are, and archives unpacked into folders that go when the block ends; by these, what was asked.

    Raises:
        UserError: an archive that cannot be read, or has what no archive of runs has. One that the block raises has
            the archive's name for the folder's.
    """
    with ExitStack() as stack:
        places = {}
        for path in paths:
            place = path
            if is_archive(path):
                place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runs-")))
                unpack(path, place)
            places[place] = path
        try:
            yield places
        except UserError as error:
            raise UserError(renamed(str(error), places)) from None


def renamed(text: str, places: Mapping[Path, Path]) -> str:
    """A path or message with the archives' names for the folders that they were unpacked into."""
    for place, path in places.items():
        text = text if place == path else text.replace(str(place), str(path))
    return text


class _Unxz(io.RawIOBase):
    """What an .xz file holds, as far as there is a budget for it: a few bytes may stand for terabytes."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._unxz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)
        self.budget = 0

    def read(self, size: int = -1) -> bytes:
        content = b""
        while not content and not self._unxz.eof:
            fed = self._file.read(1 << 16) if self._unxz.needs_input else b""
            if self._unxz.needs_input and not fed:
                raise EOFError("it ends too early")
            content = self._unxz.decompress(fed, size)
        self.budget -= len(content)
        if self.budget < 0:
            raise tarfile.ReadError("a header of more than a megabyte")
        return content


def unpack(path: Path, folder: Path) -> None:
    """Unpack what a stranger may have made: regular files of a run's names alone, so many and so large at most.

    Raises:
        UserError: it cannot be read, or has something else.
    """
    members = total = 0
    try:
        with inputs.opened(path) as file, _Unxz(file) as plain:
            plain.budget = HEADER
            with tarfile.open(fileobj=plain, mode="r|", errorlevel=2) as stored:
                while (member := stored.next()) is not None:
                    members, total = members + 1, total + max(0, member.size)
                    _refuse(path, member, members, total)
                    plain.budget = member.size + HEADER
                    if member.isfile():
                        stored.extract(member, folder, filter="data")
                    stored.members = []  # type: ignore[attr-defined]  # else all are kept
                    plain.budget = HEADER
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except tarfile.FilterError as error:
        raise UserError(f"{path}: not an archive of runs: {error}") from None
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        raise UserError(f"{path}: damaged, or no {SUFFIX}: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be unpacked: {error.strerror or error}") from None
    if not members:
        raise UserError(f"{path}: an empty archive")


def _refuse(path: Path, member: tarfile.TarInfo, members: int, total: int) -> None:
    """Raises:
    UserError: a member that does not belong in an archive of runs, or more than there may be.
    """
    name = member.name[:100]
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise UserError(f"{path}: not an archive of runs: {name!r} is neither a file nor a folder")
    if member.isfile() and PurePosixPath(member.name).name not in KEPT:
        raise UserError(f"{path}: not an archive of runs: {name!r} is none of {', '.join(KEPT)}")
    if members > MOST_MEMBERS:
        raise UserError(f"{path}: more than {MOST_MEMBERS:,} members")
    if member.size > MOST_BYTES_OF_ONE:
        raise UserError(f"{path}: {name!r} has {member.size:,} bytes, more than {MOST_BYTES_OF_ONE:,}")
    if total > MOST_BYTES:
        raise UserError(f"{path}: more than {MOST_BYTES:,} bytes when unpacked")
