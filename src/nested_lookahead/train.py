"""Train one configuration, or a sweep of them; ``train.py`` of a checkout and ``nested-lookahead train`` run this."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from nested_lookahead.command import CONF, hydra_arguments, run_command
from nested_lookahead.runs import job, schema, trust
from nested_lookahead.runs.versions import load_plugins, main_settings, presets_set_the_mode

schema.register()
load_plugins()
trust.guard()
presets_set_the_mode()


def train(cfg: DictConfig) -> float:
    """One job. Worker processes find it by its name, and so import this module, before anything is composed there."""
    return job.main(cfg)


def main() -> None:
    """Make the run, or the sweep, that the command line says."""
    hydra.main(config_path=str(CONF), config_name="config", **main_settings(sys.argv[1:]))(train)()


def run() -> int:
    """Obey the command line; return the exit status."""
    sys.argv = hydra_arguments(sys.argv)
    return run_command(main)
