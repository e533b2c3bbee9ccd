"""Compare finished runs: ``python analyze.py --help``."""

import sys

from nested_lookahead.analyze import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(run())
