"""TensorBoard, W&B (offline) and MLflow (in a folder, in SQLite): what each has, as its own reader finds it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, metrics_less_seconds, runs_below
from logged import SMALL, as_logged, less_seconds

from nested_lookahead.runs import files, loggers
from nested_lookahead.training.trainer import Trainer

NAMES = [name for name in ("tensorboard", "wandb", "mlflow") if importlib.util.find_spec(name)]
EACH = [pytest.param(name, marks=pytest.mark.skipif(name not in NAMES, reason=f"needs {name}"))
        for name in ("tensorboard", "wandb", "mlflow")]  # fmt: skip


def in_tensorboard():
    """Every scalar that lies in an event file, also those that a TensorBoard would pass over."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    for file in Path().rglob("events.out.tfevents.*"):
        steps = found.setdefault(file.parent, {})
        for event in EventFileLoader(str(file)).Load():
            for value in (one for one in event.summary.value if one.metadata.plugin_data.plugin_name == "scalars"):
                assert value.tag not in steps.setdefault(event.step, {}), "twice"
                steps[event.step][value.tag] = value.tensor.float_val[0]
    return found


def inspected(folder):
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", folder]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


def in_wandb():
    found = {}
    for folder in Path("wandb").glob("offline-run-*"):
        steps = {}
        for record in (record for record in inspected(folder) if record["type"] == "history"):
            values = record["history"]["item"]
            assert values["_step"] not in steps, "twice"
            steps[values["_step"]] = {key: value for key, value in values.items() if not key.startswith("_")}
        name = folder.name.rpartition("-")[2]
        assert name not in found, "two recordings of one run"
        found[name] = steps
    return found


def mlflow_runs():
    import mlflow

    client = mlflow.MlflowClient()
    folders = [experiment.experiment_id for experiment in client.search_experiments()]
    return client, list(client.search_runs(folders))


def in_mlflow():
    client, runs = mlflow_runs()
    found = {}
    for run in runs:
        steps = found.setdefault(run.info.run_id, {})
        for key in run.data.metrics:
            for one in client.get_metric_history(run.info.run_id, key):
                assert key not in steps.setdefault(one.step, {}), "twice"
                steps[one.step][key] = one.value
    return found


READERS = {"tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}


def assert_has(name, runs):
    """The tracker has these runs, each once, with all that their metrics have, each value once."""
    wanted = [as_logged(metrics_less_seconds(run)) for run in runs]
    found = [less_seconds(dict(sorted(steps.items()))) for steps in READERS[name]().values()]
    assert len(found) == len(wanted)
    for steps in wanted:
        assert pytest.approx(steps[4], rel=1e-6) in [other[4] for other in found]
        (same,) = [other for other in found if other[4] == pytest.approx(steps[4], rel=1e-6)]
        assert list(same) == list(steps)
        for step, values in steps.items():
            assert same[step] == pytest.approx(values, rel=1e-6), step  # an event file has 32 bits


@pytest.fixture(autouse=True)
def _local(monkeypatch, tmp_path):
    """Nothing leaves this machine, and MLflow's store is a folder, which is made faster than a database."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    yield
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()  # it keeps the folder and the environment of its first run


def lines(out):
    return [line for line in out.splitlines() if line.startswith("logger=")]


@pytest.mark.parametrize("name", EACH)
def test_it_has_what_the_metrics_have_and_the_run_is_the_same(command, name):
    status, out, _ = command("train.py", *SMALL, f"logger={name}")
    assert (status, lines(out)) == (0, [])
    assert command("train.py", *SMALL, "output_dir=without")[0] == 0
    (run,), (without,) = runs_below("outputs"), runs_below("without")
    assert metrics_less_seconds(run) == metrics_less_seconds(without)
    assert_has(name, [run])


def test_tensorboard_has_the_settings_and_shows_runs_by_study_and_method(command):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    assert command("train.py", *SMALL, "logger=tensorboard", "study=mine")[0] == 0
    (run,) = runs_below("outputs")
    assert run.parent.parent == Path("outputs/mine")
    events = EventAccumulator(str(run)).Reload()
    assert "test/accuracy/slow" in events.Tags()["scalars"]
    (content,) = events.PluginTagToContent("hparams").values()
    told = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert told["optimizer.inner.lr"].number_value == 0.1
    assert told["optimizer.name"].string_value == "nested_lookahead"
    assert told["compile"].bool_value is False


def test_a_tensorboard_that_looks_on_forgets_what_is_written_anew(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = {"study": "mine", "seed": 0, "optimizer": {"name": "sgd"}, "output_dir": "outputs"}
    onlooker = EventAccumulator(str(tmp_path))
    for value in (1.0, 2.0):
        logger = loggers.TensorBoard(loggers.Subject(tmp_path, config, None, anew=False))
        for step in (4, 8):
            logger.log(step, {"test/loss/fast": value})
        logger.close("completed")
        seen = [(event.step, event.value) for event in onlooker.Reload().Scalars("test/loss/fast")]
        assert seen == [(4, value), (8, value)]


def test_wandb_has_the_settings_and_the_groups(command):
    pytest.importorskip("wandb")
    assert command("train.py", *SMALL, "logger=wandb", "study=mine")[0] == 0
    (run,), (folder,) = runs_below("outputs"), Path("wandb").glob("offline-run-*")
    records = inspected(folder)
    (told,) = [record["run"] for record in records if record["type"] == "run"]
    assert told["project"] == "nested-lookahead"
    assert (told["run_group"], told["job_type"]) == ("mine", run.parent.name)
    assert told["display_name"] == f"{run.parent.name}/seed=0"
    config = files.read_config(run)
    assert {key: told["config"]["update"][key] for key in config} == config
    assert "completed" in [
        record["summary"]["update"].get("status") for record in records if record["type"] == "summary"
    ]
    (end,) = [record["exit"] for record in records if record["type"] == "exit"]
    assert end.get("exit_code", 0) == 0


def test_mlflow_has_the_settings_and_the_groups(command):
    pytest.importorskip("mlflow")
    assert command("train.py", *SMALL, "logger=mlflow", "study=mine")[0] == 0
    (run,) = runs_below("outputs")
    client, (told,) = mlflow_runs()
    assert client.get_experiment(told.info.experiment_id).name == "mine"
    assert told.info.run_name == f"{run.parent.name}/seed=0"
    assert told.info.status == "FINISHED"
    tags = {key: told.data.tags[key] for key in ("study", "method", "seed", "status")}
    assert tags == {"study": "mine", "method": run.parent.name, "seed": "0", "status": "completed"}
    assert told.data.params["optimizer.inner.lr"] == "0.1"
    assert told.data.params["optimizer.k"] == "5"


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
sys.argv = ["train.py", *{arguments!r}]
import train
from nested_lookahead.runs.loggers import Loggers
tell = Loggers.log
def cut_off(self, rows):
    if {told}:
        tell(self, rows)
    if rows and rows[0]["step"] == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    if not {told}:
        tell(self, rows)
Loggers.log = cut_off
train.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not NAMES, reason="needs a logger")
@pytest.mark.parametrize("told", [False, True], ids=["before it is told", "after it was told"])
def test_a_run_that_is_killed_and_resumed_is_one_run_with_each_row_once(command, tmp_path, told):
    typed = [*SMALL, f"logger=[{','.join(NAMES)}]"]
    script = KILLED.format(root=str(ROOT), arguments=typed, told=told)
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path).returncode == -signal.SIGKILL
    (run,) = runs_below("outputs")
    before = json.loads((run / files.LOGGERS).read_text())
    status, out, _ = command("train.py", *typed)
    assert (status, lines(out)) == (0, [])
    assert "resumed after step 8" in out
    assert json.loads((run / files.LOGGERS).read_text()) == before
    for name in NAMES:
        assert_has(name, [run])
    if "mlflow" in NAMES:
        assert [told.info.status for told in mlflow_runs()[1]] == ["FINISHED"]


@pytest.mark.parametrize("name", EACH)
def test_a_run_that_begins_anew_takes_the_place_of_the_one_before(command, name):
    assert command("train.py", *SMALL, f"logger={name}")[0] == 0
    status, out, _ = command("train.py", *SMALL, f"logger={name}", "overwrite=true")
    assert (status, lines(out)) == (0, [])
    assert_has(name, runs_below("outputs"))


@pytest.mark.parametrize("name", EACH)
def test_a_run_without_a_checkpoint_begins_anew_under_the_same_name(command, monkeypatch, name):
    """As one that was killed early: what it has told already is not told twice."""
    assert command("train.py", *SMALL, f"logger={name}")[0] == 0
    (run,) = runs_below("outputs")
    known = (run / files.LOGGERS).read_text() if name != "tensorboard" else ""
    for file in ("checkpoint.pt", "summary.json"):
        (run / file).unlink()
    status, out, _ = command("train.py", *SMALL, f"logger={name}")
    assert (status, lines(out)) == (0, [])
    assert "resumed" not in out
    assert known in ("", (run / files.LOGGERS).read_text() if name != "tensorboard" else "")
    assert_has(name, [run])


PARTS = {
    "tensorboard": ("torch.utils.tensorboard.SummaryWriter", "__init__", "add_scalar", "close"),
    "wandb": ("wandb", "init", "Run.log", "Run.finish"),
    "mlflow": ("mlflow.MlflowClient", "create_run", "log_batch", "set_terminated"),
}
"""Of each library, what is called first, for each evaluation, and last."""


@pytest.mark.parametrize("part", [1, 2, 3], ids=["at the start", "in the middle", "at the end"])
@pytest.mark.parametrize("name", EACH)
def test_one_that_fails_fails_no_run(command, monkeypatch, name, part):
    def fails(*args, **more):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(f"{PARTS[name][0]}.{PARTS[name][part]}", fails)
        status, out, _ = command("train.py", *SMALL, f"logger={name}")
    assert status == 0
    assert lines(out) == [f"logger={name}: OSError: [Errno 5] Input/output error; the run goes on without it"]
    (run,) = runs_below("outputs")
    assert files.read_summary(run)["status"] == "completed"


def test_wandb_without_a_key_and_without_a_terminal(command, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(Path.cwd()))  # of the key, if there is one
    status, out, _ = command("train.py", *SMALL, "logger=wandb")
    assert status == 0
    (line,) = lines(out)
    assert "wandb login" in line


def test_wandb_is_told_what_its_server_does_not_have(monkeypatch, tmp_path):
    """There is no server here: this takes its word for `Run.step`, the next step of a run that was resumed."""
    wandb = pytest.importorskip("wandb")
    told, asked = [], {}
    online = SimpleNamespace(id="abc", url="https://there", offline=False, dir=str(tmp_path / "x/files"), step=9,
                             log=lambda values, step, commit: told.append((step, commit)))  # fmt: skip
    monkeypatch.setattr(wandb, "init", lambda **more: asked.update(more) or online)
    config = {"study": "mine", "seed": 0, "optimizer": {"name": "sgd"}, "output_dir": "outputs"}
    logger = loggers.WeightsAndBiases(loggers.Subject(tmp_path, config, "abc", anew=False))
    for step in (4, 8, 12):
        logger.log(step, {"test/loss/fast": 0.1})
    assert told == [(12, True)]
    assert (asked["id"], asked["resume"], logger.name, logger.place) == ("abc", "allow", "abc", "https://there")
    for known, anew in ((None, False), ("abc", True)):
        loggers.WeightsAndBiases(loggers.Subject(tmp_path, config, known, anew))
        assert (asked["id"], asked["resume"]) == (known, None)


def test_mlflow_whose_server_is_gone(command, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    status, out, _ = command("train.py", *SMALL, "logger=mlflow")
    assert status == 0
    (line,) = lines(out)
    assert "127.0.0.1" in line


def test_mlflow_makes_a_run_anew_where_somebody_has_deleted_it(command, monkeypatch):
    pytest.importorskip("mlflow")
    step = Trainer.train_step

    def fails(trainer, *more):
        if trainer.step == 10:
            raise MemoryError
        return step(trainer, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", fails)
        assert command("train.py", *SMALL, "logger=mlflow")[0] == 1
    client, (told,) = mlflow_runs()
    assert told.info.status == "FAILED"
    client.delete_run(told.info.run_id)
    assert command("train.py", *SMALL, "logger=mlflow")[0] == 0
    assert_has("mlflow", runs_below("outputs"))


@pytest.mark.skipif(not NAMES, reason="needs a logger")
def test_a_signal_still_saves_the_run(command, monkeypatch):
    """Some libraries have handlers of their own."""
    step = Trainer.train_step

    def signalled(trainer, *more):
        if trainer.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, *more)

    typed = (*SMALL, f"logger=[{','.join(NAMES)}]")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", signalled)
        status, out, _ = command("train.py", *typed)
    assert status == 128 + signal.SIGTERM
    assert "interrupted at step 7" in out
    if "mlflow" in NAMES:
        assert [told.info.status for told in mlflow_runs()[1]] == ["KILLED"]
    status, out, _ = command("train.py", *typed)
    assert (status, lines(out)) == (0, [])
    assert "resumed after step 7" in out
    for name in NAMES:
        assert_has(name, runs_below("outputs"))


@pytest.mark.slow
@pytest.mark.skipif(not NAMES, reason="needs a logger")
def test_a_sweep_in_worker_processes(command, monkeypatch):
    """Which open one SQLite file at once, in which there are no tables yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    sweep = ["-m", "seed=0,1", "optimizer=sgd,lookahead", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    status, out, _ = command("train.py", *sweep, *SMALL, f"logger=[{','.join(NAMES)}]")
    assert (status, lines(out)) == (0, [])
    runs = runs_below("outputs")
    assert len(runs) == 4
    for name in NAMES:
        assert_has(name, runs)
    if "mlflow" in NAMES:
        methods = sorted(run.data.tags["method"] for run in mlflow_runs()[1])
        assert methods == sorted(run.parent.name for run in runs)


@pytest.mark.slow
def test_the_analysis_where_pandas_keeps_text_in_pyarrow(command):
    """Which comes with MLflow, and is stricter."""
    pytest.importorskip("pyarrow")
    assert command("train.py", "-m", "optimizer=sgd,lookahead", "seed=0,1", *SMALL)[0] == 0
    status, out, err = command("analyze.py", "--figures=learning_curves")
    assert (status, err) == (0, "")
    assert "Lookahead (SGD) against SGD" in out
