"""Train one configuration, or a sweep of them: ``python train.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from nested_lookahead.command import hydra_arguments, run_command
from nested_lookahead.runs import job, schema

schema.register()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).with_name("conf")), config_name="config")
def main(cfg: DictConfig) -> float:
    return job.main(cfg)


if __name__ == "__main__":
    sys.argv = hydra_arguments(sys.argv)
    sys.exit(run_command(main))
