"""How a user's mistake reaches the user: in one line that says what, where and what is allowed."""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable

from omegaconf.errors import OmegaConfBaseException

from nested_lookahead.processes import first_process


class UserError(Exception):
    """Something only the user can put right. Its message is one line."""


class RunFailed(UserError):
    """A run ended by an error that is not the user's; its log has the traceback."""


class Busy(UserError):
    """A run that another process has in hand; it was left alone."""


class JobError(SystemExit):
    """Carries a job's error past Hydra, which would announce it in two lines of its own, and past a sweep."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Interrupted(SystemExit):
    """A run or a sweep stopped by a signal. Its code is a shell's for that signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:  # it comes back from worker processes
        return Interrupted, (self.signum,)


def run_command(main: Callable[[], object]) -> int:
    """Run a command line's ``main`` and return its exit status.

    A mistake prints one line; anything else is a fault of the program and prints its traceback. With
    ``HYDRA_FULL_ERROR=1`` in the environment everything is raised as it is.
    """
    logging.raiseExceptions = False  # a log on a full disk has nothing to add to the error itself
    raise_all = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them its own way
    try:
        main()
    except KeyboardInterrupt:
        return 130
    except (Exception, JobError) as error:
        cause = error.error if isinstance(error, JobError) else error
        if raise_all:
            raise cause from cause.__cause__
        message = explain(cause)
        if message is None:
            traceback.print_exception(cause)
        elif first_process():
            print(f"error: {message}", file=sys.stderr)
        return 1
    finally:
        if not raise_all:
            del os.environ["HYDRA_FULL_ERROR"]
    return 0


def explain(error: BaseException) -> str | None:
    """One line for a mistake in the settings, None for any other error."""
    chain = _chain(error)
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
    if disk_is_full(error):
        return "no space left on the disk; make room, and the same command goes on"
    for link in reversed(chain):  # the cause before its consequences
        if isinstance(link, OmegaConfBaseException) and link.full_key and link.msg:
            fields = getattr(link.object_type, "__dataclass_fields__", {})
            if isinstance(link, AttributeError | KeyError) and fields and link.key not in fields:
                return unknown_key(str(link.full_key), list(fields))
            if "is not a subclass of" in link.msg:
                return f"{link.full_key}: is a group; choose as {str(link.full_key).replace('.', '/')}={link.value}"
            return f"{link.full_key}: {flatten(link.msg)}"
    if missing := re.search(r"'hydra/(launcher|sweeper)/(joblib|slurm|submitit_local|ray|optuna)'", str(error)):
        group, choice = missing.groups()
        extra = choice.replace("submitit_local", "slurm")
        return f"hydra/{group}={choice}: not installed here; pip install -e '.[{extra}]'"
    if _raised_in(error, "hydra", "omegaconf"):
        return flatten(str(error))
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what led to it."""
    chain = [error]
    while (link := chain[-1].__cause__ or chain[-1].__context__) is not None and link not in chain:
        chain.append(link)
    return chain


def disk_is_full(error: BaseException) -> bool:
    return any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in _chain(error))


def unknown_key(full_key: str, allowed: list[str]) -> str:
    parent, _, key = full_key.rpartition(".")
    guess = difflib.get_close_matches(key, allowed, n=1)
    hint = f"did you mean {guess[0]!r}? " if guess else ""
    return f"{full_key}: no such key; {hint}{parent or 'the top level'} has {', '.join(sorted(allowed))}"


def flatten(message: str) -> str:
    """Hydra's paragraphs as one line: no search path, no advice to append keys that no schema knows."""
    paragraph = message.partition("Config search path:")[0]
    lines = [line.strip() for line in paragraph.splitlines()]
    kept = [
        line for line in lines if line and not re.match(r"To append to your|full_key:|(object|reference)_type=", line)
    ]
    if "Available options in" in paragraph:
        where = next(i for i, line in enumerate(kept) if line.startswith("Available options in"))
        return f"{' '.join(kept[:where])}: {kept[where][0].lower()}{kept[where][1:]} {', '.join(kept[where + 1 :])}"
    return " ".join(kept)


def _raised_in(error: BaseException, *packages: str) -> bool:
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").partition(".")[0] in packages
