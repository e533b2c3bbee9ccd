"""Train one configuration, or a sweep of them: ``python train.py --help``."""

import sys

from nested_lookahead.train import main, run  # with @hydra.main, for which shell completion looks into this file

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(run())
