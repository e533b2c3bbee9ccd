"""The console command: ``nested-lookahead train``, ``analyze`` and ``theory``, in any folder."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from nested_lookahead import __version__

PROGRAM = "nested-lookahead"
MODULES = {
    "train": "nested_lookahead.train",
    "analyze": "nested_lookahead.analyze",
    "theory": "nested_lookahead.theory.__main__",
}


def main() -> int:
    """Run the command that is named first, with the arguments after it; return the exit status."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="train: one configuration, or a sweep of them. analyze: compare finished runs. theory: what exact "
        "theory says of Lookahead at any depth. Each has --help of its own.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=MODULES)
    if sys.argv[1:2] == ["-sc"]:
        return _complete()
    name = parser.parse_args(sys.argv[1:2]).command
    sys.argv = [f"{PROGRAM} {name}", *sys.argv[2:]]
    try:
        module = importlib.import_module(MODULES[name])
    except ModuleNotFoundError as error:
        if str(error.name).startswith("nested_lookahead"):
            raise
        print(
            f"error: {error.name} is not installed; the commands need more than the optimizers do: install this "
            "package with its extra 'experiments'",
            file=sys.stderr,
        )
        return 1
    return int(module.run())


def _complete() -> int:
    """Hydra's shell completion asks the program for words, with the whole line, in which train is none of Hydra's."""
    program, *words = os.environ.get("COMP_LINE", f"{PROGRAM} train ").split(" ")
    if len(words) < 2:
        print(*MODULES, sep="\n")  # as fish wants it
    if len(words) < 2 or words[0] != "train":
        return 0
    os.environ["COMP_LINE"] = " ".join([program, *words[1:]])
    sys.argv[0] = PROGRAM
    return int(importlib.import_module(MODULES["train"]).run())


if __name__ == "__main__":
    sys.exit(main())
