"""Launchers and sweepers that other packages bring, where they are installed, with defaults that suit these runs.

Each is an extra of pyproject.toml. A YAML file of the same name would not do: Hydra refuses it beside the plugin's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from nested_lookahead.runs.versions import newer

SLURM: dict[str, Any] = {
    "timeout_min": 240,
    "cpus_per_task": 8,
    "gpus_per_node": 1,  # 0: nodes without
    "max_num_timeout": 100,  # a run that has reached its time-out saves, is queued again, and resumes
}
OPTUNA: dict[str, Any] = {
    "_target_": "hydra_plugins.nested_lookahead_sweeps.SearchSweeper",
    "direction": "maximize",  # the result, of which more is better
    "study_name": "${study}",
    "storage": "sqlite:///${made_folder:${hydra.sweep.dir}}/optuna.db",
    "n_jobs": 1,  # trials asked for at once: as many as the launcher runs side by side
    "max_failure_rate": 1.0,  # a diverged run is a failed trial, and no reason to stop
}
GRIDS: dict[str, Any] = {
    "_target_": "hydra_plugins.nested_lookahead_sweeps.GridSweeper",
    "params": {},
    "grids": [],  # each is multiplied out with the params
}
ENGINES: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    (
        "hydra/launcher",
        "joblib",
        "hydra_joblib_launcher.config",
        "JobLibLauncherConf",
        {"n_jobs": "${jobs_at_once:${device}}", "pre_dispatch": "n_jobs", "batch_size": "1"},
    ),
    ("hydra/launcher", "slurm", "hydra_submitit_launcher.config", "SlurmQueueConf", SLURM),
    ("hydra/launcher", "submitit_local", "hydra_submitit_launcher.config", "LocalQueueConf", {"timeout_min": 1440}),
    (
        "hydra/launcher",
        "ray",
        "hydra_ray_launcher._config",
        "RayLauncherConf",
        {"ray": {"init": {"address": None}, "remote": {"num_cpus": 1, "num_gpus": 0, "max_retries": 10}}},
    ),
    ("hydra/sweeper", "optuna", "hydra_optuna_sweeper.config", "OptunaSweeperConf", OPTUNA),
)
"""Group, name, module of the plugin, its dataclass, our defaults."""


def store() -> None:
    """These defaults over the plugins' own, which are loaded for that."""
    ours: dict[str, Any] = {"provider": "nested_lookahead", **newer(replace=True)}
    # Hydra's usual one is this: overridden in conf/config.yaml, no preset could choose another
    ConfigStore.instance().store("basic", GRIDS, "hydra/sweeper", **ours)
    for group, name, module, schema, defaults in ENGINES:
        try:
            plugin = import_module(f"hydra_plugins.{module}")
        except ImportError:
            continue
        node = OmegaConf.merge(OmegaConf.structured(getattr(plugin, schema)), defaults)
        ConfigStore.instance().store(name=name, node=node, group=group, **ours)


class Engines(SearchPathPlugin):
    """Hydra calls it when it has loaded all plugins, in whatever order."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        store()
