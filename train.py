"""Train one configuration, or a sweep of them: ``python train.py --help``."""

import sys

from nested_lookahead.train import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(run())
