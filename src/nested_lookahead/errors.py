"""What can go wrong with a run, by who can put it right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


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


def unknown_key(full_key: str, allowed: Iterable[str], further: Iterable[str] = ()) -> str:
    """What a mistyped key is told: the nearest of those that there are, and all of them.

    ``further`` may be meant, too, and are not listed: keys of the groups in this one, in dots, say.
    """
    parent, _, key = full_key.rpartition(".")
    allowed, further = sorted(set(allowed)), sorted(set(further))
    guesses = difflib.get_close_matches(key, [*allowed, *further], n=1)
    guesses += [other for other in further if other.rpartition(".")[2] == key]
    hint = f"did you mean {guesses[0]!r}? " if guesses else ""
    return f"{full_key}: no such key; {hint}{parent or 'the top level'} has {', '.join(allowed)}"


def one_line(message: str, longest: int = 1000) -> str:
    """A message of several paragraphs, such as Hydra's, as one line: no search path, no advice to append keys that no
    schema knows, and no more than so many characters: an error may quote all that it was given."""
    paragraph = message.partition("Config search path:")[0]
    lines = [line.strip() for line in paragraph.splitlines()]
    kept = [
        line for line in lines if line and not re.match(r"To append to your|full_key:|(object|reference)_type=", line)
    ]
    if "Available options in" in paragraph:
        where = next(i for i, line in enumerate(kept) if line.startswith("Available options in"))
        kept = [f"{' '.join(kept[:where])}: {kept[where][0].lower()}{kept[where][1:]} {', '.join(kept[where + 1 :])}"]
    line = "".join(c if c.isprintable() else " " for c in " ".join(kept))
    return line if len(line) <= longest else f"{line[: longest // 2]} … {line[-longest // 4 :]}"
