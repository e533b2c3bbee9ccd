"""Train one configuration, or a sweep of them; ``train.py`` of a checkout and ``nested-lookahead train`` run this."""

from __future__ import annotations

import importlib
import sys

import hydra
from omegaconf import DictConfig

from nested_lookahead.command import CONF, hydra_arguments, run_command
from nested_lookahead.runs import job, schema, trust
from nested_lookahead.runs.versions import NEWER, main_settings, presets_set_the_mode


def load_plugins() -> None:
    """Before Hydra 1.4 hands a worker process what the sweep has stored: loaded later, they would store their own
    defaults over it, and it holds a job's launcher and sweeper against the sweep's. Hydra 1.3 compares nothing."""
    if NEWER:
        importlib.import_module("hydra_plugins.nested_lookahead_sweeps")
        importlib.import_module("hydra_plugins.nested_lookahead_engines").store()


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
