"""A page whose tables a command makes: they stand between comments, and what is around them stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nested_lookahead.errors import UserError

END = "<!-- end -->"


def renew(path: Path, tables: Mapping[str, str]) -> list[str]:
    """Replace what stands between ``<!-- table: name -->`` and ``<!-- end -->``; return the names that the page has.

    Raises:
        UserError: there is no such page, or a table of it has no end.
    """
    if not path.is_file():
        raise UserError(f"--docs {path}: there is no such file")
    text, found = path.read_text(encoding="utf-8"), []
    for name, table in tables.items():
        before, begin, rest = text.partition(f"<!-- table: {name} -->\n")
        if begin:
            inside, end, after = rest.partition(END)
            if not end or "<!-- table:" in inside:
                raise UserError(f"--docs {path}: the table {name} has no {END}")
            text = f"{before}{begin}{table}\n{end}{after}"
            found.append(name)
    path.write_text(text, encoding="utf-8")
    return found
