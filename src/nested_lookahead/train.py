"""Train one configuration, or a sweep of them; ``train.py`` of a checkout and ``nested-lookahead train`` run this."""

from __future__ import annotations

import sys

import hydra

from nested_lookahead.command import CONF, hydra_arguments, run_command
from nested_lookahead.runs import job

main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job.main)


def run() -> int:
    """Obey the command line; return the exit status."""
    sys.argv = hydra_arguments(sys.argv)
    return run_command(main)
