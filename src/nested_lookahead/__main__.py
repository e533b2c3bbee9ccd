"""The console command: ``nested-lookahead train``, ``analyze`` and ``theory``, in any folder."""

from __future__ import annotations

import argparse
import importlib
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


if __name__ == "__main__":
    sys.exit(main())
