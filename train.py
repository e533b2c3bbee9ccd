"""Train one configuration, or a sweep of them: ``python train.py --help``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nested_lookahead import config as configuration
from nested_lookahead.errors import Interrupted, JobError, RunFailed, UserError, flatten, run_command
from nested_lookahead.records import COMPLETED, DIVERGED, LOG, Run, environment, scores
from nested_lookahead.sweeps import finished_before, result_of, resume, stop_on_signals

if TYPE_CHECKING:
    from nested_lookahead.training import Trainer

log = logging.getLogger("train")
configuration.register()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).with_name("conf")), config_name="config")
def main(cfg: DictConfig) -> float:
    try:
        return job(configuration.resolve(cfg))
    except UserError as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # the sweep goes on
        raise JobError from error


def job(config: dict[str, Any]) -> float:
    settings = HydraConfig.get()
    path = Path(settings.runtime.output_dir)
    with Run(path) as run:
        try:
            if not config["overwrite"] and (finished := finished_before(run, config)) is not None:
                return finished
            trainer = build(config)
            metrics = None if config["overwrite"] else resume(run, trainer, config, settings.runtime.choices)
            if metrics is None:
                run.start(config, settings.runtime.choices)
            return record(run, trainer, config, metrics or [])
        except UserError:
            raise
        except Exception as error:
            if not run.started:
                run.start(config, settings.runtime.choices)
            log.exception("the run failed")
            what = flatten(f"{type(error).__name__}: {error}")
            raise RunFailed(f"{what} (traceback in {path / LOG})") from error


def build(config: dict[str, Any]) -> Trainer:
    import torch  # here, so that help and a mistyped setting need not wait for it

    from nested_lookahead.data import Batches, split_source
    from nested_lookahead.hardware import Hardware
    from nested_lookahead.training import Recipe, Trainer, seed_of

    def seed(stream: str) -> int:
        return seed_of(config["seed"], stream)

    hardware = Hardware.choose(*(config[key] for key in ("device", "precision", "channels_last", "threads")))
    wanted = config["dataset"]
    source = configuration.build(
        "dataset", {key: wanted[key] for key in wanted if key not in ("val_fraction", "train_size", "split_seed")}
    )
    split_seed = seed("split") % 2**32 if wanted["split_seed"] is None else wanted["split_seed"]
    data = split_source(source, wanted["val_fraction"], wanted["train_size"], split_seed).to(hardware.device)

    torch.manual_seed(seed("weights"))
    model = configuration.build("model", config["model"], data.shape, data.num_classes).to(hardware.device)
    if hardware.channels_last:
        model = model.to(memory_format=torch.channels_last)
    torch.manual_seed(seed("training"))  # dropout and the like, whatever the model has drawn

    optimizer = configuration.build_optimizer(config["optimizer"], model.parameters())
    batches = Batches(data.train, config["batch_size"], torch.Generator().manual_seed(seed("order")))
    schedule = {key: value for key, value in config["scheduler"].items() if key != "warmup"}
    recipe = Recipe(
        epochs=config["epochs"],
        schedule=configuration.build("scheduler", {**schedule, "_partial_": True}),
        warmup=config["scheduler"]["warmup"],
        augment=configuration.build("augment", {**config["augment"], "_partial_": True}),
        label_smoothing=config["label_smoothing"],
        grad_clip=config["grad_clip"],
    )
    return Trainer(model, optimizer, data, batches, recipe, hardware, augment_seed=seed("augment"))


def record(run: Run, trainer: Trainer, config: dict[str, Any], metrics: list[dict[str, Any]]) -> float:
    """Train on from what is in ``metrics``, write down what comes, and return the run's result."""
    from nested_lookahead.progress import ProgressBar, closing_text, evaluation_line
    from nested_lookahead.training import Diverged, Evaluation, fit

    evaluation = Evaluation(**config["evaluation"])
    log.info(
        "%s on %s, %s, seed %d (%s)",
        configuration.label(config),
        config["dataset"]["name"],
        config["model"]["name"],
        config["seed"],
        trainer.hardware,
    )
    outcome: dict[str, Any] = {"status": COMPLETED}
    trainer.hardware.reset_peak_memory()
    with ProgressBar(trainer, config["progress"]) as bar, stop_on_signals() as raise_if_stopped:

        def on_step(trainer: Trainer) -> None:
            bar.on_step(trainer)
            raise_if_stopped()

        try:
            for rows in fit(trainer, evaluation, on_step):
                run.append(rows)
                run.save_checkpoint(trainer.state_dict())
                metrics += rows
                bar.on_evaluation(rows)
                log.info(evaluation_line(trainer, rows))
        except Interrupted:
            run.save_checkpoint(trainer.state_dict())
            log.warning("interrupted at step %d; the same command goes on from there", trainer.step)
            raise
        except Diverged as error:
            outcome = {"status": DIVERGED, "diverged": {"step": error.step, "cause": error.cause}}
            log.warning("diverged: %s", error)
    identity = {"label": configuration.label(config), "id": configuration.identity(config), "seed": config["seed"]}
    summary = {**outcome, "run": identity, **scores(metrics), **trainer.usage(), **environment()}
    run.finish(summary)
    log.info(closing_text(summary, trainer, run.path))
    return result_of(summary, config)


if __name__ == "__main__":
    if "--dry-run" in sys.argv:  # a launcher's work; spelled as people expect it
        sys.argv = [argument for argument in sys.argv if argument != "--dry-run"] + ["hydra/launcher=list", "-m"]
    sys.exit(run_command(main))
