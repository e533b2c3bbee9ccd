"""Train one configuration, or a sweep of them: ``python train.py --help``."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nested_lookahead import config as configuration
from nested_lookahead.errors import JobError, RunFailed, UserError, disk_is_full, flatten, run_command
from nested_lookahead.processes import ALONE, Processes, first_process, importing, under_torchrun, worker_number
from nested_lookahead.records import COMPLETED, DIVERGED, LOG, Onlooker, Run, environment, scores
from nested_lookahead.sweeps import Signals, finished_before, result_of, resume

if TYPE_CHECKING:
    from nested_lookahead.training import Trainer

log = logging.getLogger("train")
configuration.register()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).with_name("conf")), config_name="config")
def main(cfg: DictConfig) -> float:
    if not first_process():
        logging.disable()
    try:
        return job(configuration.resolve(cfg))
    except UserError as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN and not cfg.fail_fast and not under_torchrun():
            raise  # the sweep goes on
        raise JobError(error) from error


def job(config: dict[str, Any]) -> float:
    settings, processes = HydraConfig.get(), Processes.join()
    path, choices = Path(settings.runtime.output_dir), settings.runtime.choices
    run = Run(path) if processes.first else Onlooker(path)
    with ExitStack() as stack:

        def enter() -> float | None:
            stack.enter_context(run)
            return None if config["overwrite"] else finished_before(path, config)

        def resumed() -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
            return None if config["overwrite"] else resume(run, config, choices)

        try:
            if (finished := processes.first_says(enter)) is not None:
                return finished
            trainer = build(config, processes)
            if (last := processes.first_says(resumed)) is not None:
                trainer.load_state_dict(last[0])
                return record(run, trainer, config, last[1])
            run.start(config, choices)
            return record(run, trainer, config, [])
        except UserError:
            raise
        except Exception as error:
            if disk_is_full(error):
                raise JobError(error) from error  # it would fail the other jobs of a sweep, too
            if not run.started:
                run.start(config, choices)
            log.exception("the run failed")
            what = flatten(f"{type(error).__name__}: {error}")
            raise RunFailed(f"{what} (traceback in {path / LOG})") from error


def build(config: dict[str, Any], processes: Processes = ALONE) -> Trainer:
    with importing():  # here, so that help and a mistyped setting need not wait for it
        import torch
        import torch._dynamo  # the first optimizer would

        from nested_lookahead.data import Batches, split_source
        from nested_lookahead.hardware import Hardware
        from nested_lookahead.training import Recipe, Trainer, seed_of

    def seed(stream: str) -> int:
        return seed_of(config["seed"], stream)

    turn = processes.local_rank if processes.count > 1 else worker_number()
    where = {key: config[key] for key in ("device", "precision", "channels_last", "threads", "compile")}
    hardware = Hardware.choose(**where, turn=turn)
    wanted = config["dataset"]
    published = {key: wanted[key] for key in wanted if key not in ("val_fraction", "train_size", "split_seed")}
    with importing():
        source = configuration.build_source(published)
    split_seed = seed("split") % 2**32 if wanted["split_seed"] is None else wanted["split_seed"]
    data = split_source(source, wanted["val_fraction"], wanted["train_size"], split_seed).to(hardware.device)
    hardware.keep_freed_memory()

    torch.manual_seed(seed("weights"))
    model = configuration.build("model", config["model"], data.shape, data.num_classes).to(hardware.device)
    if processes.count > 1 and hardware.device.type == "cuda":  # elsewhere torch has no such layer
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if hardware.channels_last:
        model = model.to(memory_format=torch.channels_last)
    torch.manual_seed(seed("training"))  # dropout and the like, whatever the model has drawn

    optimizer = configuration.build_optimizer(config["optimizer"], list(model.parameters()))
    order = torch.Generator().manual_seed(seed("order"))
    plain = config["augment"]["name"] == "none"  # else a batch is augmented whole, and then shared out
    batches = Batches(data.train, config["batch_size"], order, *([processes.share] if plain else []))
    schedule = {key: value for key, value in config["scheduler"].items() if key != "warmup"}
    recipe = Recipe(
        epochs=config["epochs"],
        schedule=configuration.build_function("scheduler", schedule),
        warmup=config["scheduler"]["warmup"],
        augment=configuration.build_function("augment", config["augment"]),
        label_smoothing=config["label_smoothing"],
        grad_clip=config["grad_clip"],
    )
    return Trainer(model, optimizer, data, batches, recipe, hardware, seed("augment"), processes)


def record(run: Run, trainer: Trainer, config: dict[str, Any], metrics: list[dict[str, Any]]) -> float:
    """Train on from what is in ``metrics``, write down what comes, and return the run's result."""
    from nested_lookahead.progress import ProgressBar, closing_text, evaluation_line
    from nested_lookahead.training import Diverged, Evaluation, divergence, fit

    evaluation, processes = Evaluation(**config["evaluation"]), trainer.processes
    what = (configuration.label(config), config["dataset"]["name"], config["model"]["name"], config["seed"])
    log.info("%s on %s, %s, seed %d (%s)", *what, trainer.hardware)
    if processes.count > 1:
        log.info("%d processes share each batch of %d", processes.count, config["batch_size"])
    outcome: dict[str, Any] = {"status": COMPLETED}
    trainer.hardware.reset_peak_memory()
    saved = time.monotonic()
    with ProgressBar(trainer, config["progress"] and processes.first) as bar, Signals() as signals:

        def save() -> None:
            nonlocal saved
            run.save_checkpoint(trainer.state_dict())
            saved = time.monotonic()

        def stop_if_told() -> None:
            if processes.any(signals.came):
                save()
                processes.wait()
                log.warning("interrupted at step %d; the same command goes on from there", trainer.step)
                signals.obey()

        def on_step(trainer: Trainer) -> None:
            bar.on_step(trainer)
            if time.monotonic() - saved >= 60 * config["checkpoint_minutes"]:
                save()
            if trainer.step % trainer.check_every == 0 or processes.count == 1:
                stop_if_told()

        try:
            for rows in fit(trainer, evaluation, on_step):
                run.append(rows)
                if divergence(rows) is None:  # else there would be nothing to go on from
                    save()
                metrics += rows
                bar.on_evaluation(rows)
                log.info(evaluation_line(trainer, rows))
        except Diverged as error:
            outcome = {"status": DIVERGED, "diverged": {"step": error.step, "cause": error.cause}}
            log.warning("diverged: %s", error)
    identity = {"label": configuration.label(config), "id": configuration.identity(config), "seed": config["seed"]}
    summary = {**outcome, "run": identity, **scores(metrics), **trainer.usage(), **environment()}
    run.finish(summary)
    log.info(closing_text(summary, trainer, run.path))
    if signals.came:  # during the last evaluation; it is for the sweep
        signals.obey()
    return result_of(summary, config)


if __name__ == "__main__":
    if "--dry-run" in sys.argv:  # a launcher's work; spelled as people expect it
        sys.argv = [argument for argument in sys.argv if argument != "--dry-run"] + ["hydra/launcher=list", "-m"]
    sys.exit(run_command(main))
