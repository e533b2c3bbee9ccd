"""Opening files that somebody else may have made: by kind and size, before anything is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any

import yaml

VALUES = 100_000
"""That a configuration or a summary holds, by far; a YAML file of a few lines can stand for billions."""


@contextmanager
def opened(path: Path, largest: int | None = None) -> Iterator[IO[bytes]]:
    """A regular file to read from, for a ``with`` block.

    Raises:
        ValueError: it is something else, such as a pipe, which would be waited for; or it is larger than so many bytes.
        OSError: it is not there, or cannot be read now.
    """

    def open_now(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    if path.is_dir():  # which Python refuses as it refuses a file that cannot be read now
        raise ValueError(f"{path.name} is no regular file")
    with open(path, "rb", opener=open_now) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path.name} is no regular file")
        if largest is not None and status.st_size > largest:
            raise ValueError(f"{path.name} has {status.st_size:,} bytes, and can have {largest:,}")
        yield file


def at_most(file: GzipFile, largest: int) -> bytes:
    """All that can be read of a file that unpacks itself.

    Raises:
        ValueError: it is more than so many bytes.
    """
    content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it unpacks to more than {largest:,} bytes")
    return content


def load_yaml(content: bytes) -> Any:
    """Aliases are one object, seen several times.

    Raises:
        yaml.YAMLError, UnicodeError or RecursionError: it is no YAML.
    """
    return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def stands_for(content: Any, most: int) -> int:
    """How many values a YAML document or JSON file stands for, written out; counting ends above ``most``."""
    count, waiting = 0, [content]
    while waiting and count <= most:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
    return count
