"""A checkpoint as a file: torch's archive, with a digest of all of it as the archive's comment.

Readers of zip archives, `torch.load` among them, pass over the comment. The archive's own checksums would not do: they
are of the records, and a flipped bit in the directory of an archive can hide a record.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import IO, Any

from nested_lookahead.inputs import opened

MARK = b"nested-lookahead sha256:"
COMMENT = len(MARK) + 64
"""Bytes of the comment: the mark, and the digest of all that comes before it in hexadecimal."""
END = struct.Struct("<4s4H2LH")
"""The last record of a zip archive; its last field is the length of the comment."""


class Damaged(Exception):
    """The file is not as it was written, or not one of ours."""


def write(state: dict[str, Any], file: IO[bytes]) -> None:
    """Write a state of plain types and tensors to a file, from its beginning to its end."""
    import torch  # the analysis reads run directories without it

    signing = _Signing(file)
    torch.save(state, signing)  # type: ignore[arg-type]
    signing.sign()


class _Signing:
    """Passes an archive on to a file, and signs it; torch writes one without ever going back.

    An error of the file is raised at the end: torch would have another one to tell, of its own.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._held = b""
        """What may be the archive's last record."""
        self._error: BaseException | None = None

    def write(self, data: bytes) -> int:
        rest = max(0, len(data) - END.size)
        waiting = self._held + data[rest:]
        self._pass_on(waiting[: -END.size] if not rest else self._held)
        self._pass_on(memoryview(data)[:rest])
        self._held = bytes(waiting[-END.size :])
        return len(data)

    def flush(self) -> None: ...

    def sign(self) -> None:
        end = END.unpack(self._held)
        assert end[0] == b"PK\5\6"
        assert end[-1] == 0
        self._pass_on(END.pack(*end[:-1], COMMENT) + MARK)
        self._pass_on(self._digest.hexdigest().encode())
        if self._error is not None:
            raise self._error

    def _pass_on(self, data: bytes | memoryview) -> None:
        if self._error is None and len(data):
            try:
                self._file.write(data)
                self._digest.update(data)
            except BaseException as error:
                self._error = error


def read(path: Path) -> dict[str, Any]:
    """What was written, tensors on the CPU.

    Raises:
        Damaged: for certain; it will not be otherwise next time.
        OSError, MemoryError: it cannot be read now.
    """
    import torch

    try:
        with opened(path) as file:
            length = os.fstat(file.fileno()).st_size - COMMENT
            if length < END.size:
                raise Damaged("it is too short")
            file.seek(length)
            comment = file.read(COMMENT)
            if not comment.startswith(MARK) or comment != MARK + _digest(file, length + len(MARK)):
                raise Damaged("its digest is another one")
            file.seek(0)
            return dict(torch.load(file, map_location="cpu", weights_only=True))
    except ValueError as error:  # no regular file
        raise Damaged(str(error)) from None


def _digest(file: IO[bytes], length: int) -> bytes:
    """SHA-256 of the first bytes, in hexadecimal."""
    file.seek(0)
    digest = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, 2**20))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest().encode()
