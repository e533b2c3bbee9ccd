"""A file of settings runs no code of its own choosing: not by what Hydra itself calls, either."""

import re

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from nested_lookahead.errors import UserError
from nested_lookahead.runs import trust

CALLBACKS = "hydra: {{callbacks: {{mine: {{_target_: {}}}}}}}"


def check(text, parts=(*trust.CALLED, *trust.IN_SWEEPS)):
    trust.check_hydra(OmegaConf.create(text), parts)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (CALLBACKS.format("os.system"), "hydra.callbacks.mine._target_=os.system"),
        (CALLBACKS.format("logging.os.system"), "hydra.callbacks.mine._target_=logging.os.system"),
        (CALLBACKS.format("'${name}'") + "\nname: os.system", "hydra.callbacks.mine._target_=os.system"),
        (CALLBACKS.format("'${hydra.job.name}'"), "hydra.callbacks.mine._target_=${hydra.job.name}"),
        ("hydra: {callbacks: '${mine}'}\nmine: {one: {_target_: os.system}}", "hydra.callbacks.one._target_=os.system"),
        ("hydra: {job_logging: {handlers: {a: {'()': os.system, command: x}}}}", "hydra.job_logging.handlers.a.()="),
        ("hydra: {hydra_logging: {handlers: {a: {class: pathlib.Path}}}}", "hydra.hydra_logging.handlers.a.class="),
        ("hydra: {job_logging: {formatters: {a: {factory: os.system}}}}", "hydra.job_logging.formatters.a.factory="),
        ("hydra: {job_logging: {filters: [{a: 'ext://os.system'}]}}", "hydra.job_logging.filters[0].a=os.system"),
        (
            "hydra: {job_logging: {handlers: {a: {class: logging.handlers.QueueHandler, queue: os.abort}}}}",
            "hydra.job_logging.handlers.a.queue=os.abort",
        ),
        (
            "hydra: {job_logging: {handlers: {a: {class: logging.handlers.QueueHandler, listener: mine.Listener}}}}",
            "hydra.job_logging.handlers.a.listener=mine.Listener",
        ),
        ("hydra: {job_logging: {handlers: {a: {'()': logging.config.fileConfig, fname: a}}}}", "hydra.job_logging."),
        (CALLBACKS.format("logging.sys.modules.clear"), "hydra.callbacks.mine._target_=logging.sys.modules.clear"),
        (CALLBACKS.format("hydra.utils.get_method"), "hydra.callbacks.mine._target_=hydra.utils.get_method"),
        (CALLBACKS.format("nested_lookahead.runs.typed.named"), "hydra.callbacks.mine._target_=nested_lookahead."),
        ("hydra: {launcher: {_target_: os.system}}", "hydra.launcher._target_=os.system"),
        ("hydra: {sweeper: {sampler: {_target_: mine.Sampler}}}", "hydra.sweeper.sampler._target_=mine.Sampler"),
    ],
)
def test_what_is_called_must_be_known_or_trusted(text, key):
    with pytest.raises(UserError, match="is code outside of") as error:
        check(text)
    assert str(error.value).startswith(key)


@pytest.mark.parametrize(
    "text",
    [
        "hydra: {callbacks: {}}",
        CALLBACKS.format("hydra.experimental.callbacks.LogJobReturnCallback"),
        CALLBACKS.format("mine.Callback") + "\ntrust: [mine]",
        "hydra: {job_logging: {handlers: {a: {class: logging.handlers.RotatingFileHandler, stream: 'ext://sys.stdout'}}}}",
        "hydra: {launcher: {_target_: hydra_plugins.that_is_not_installed.Launcher}}",
        "hydra: {job_logging: {handlers: {a: {class: logging.FileHandler, filename: '${hydra.nowhere}/a'}}}}",
    ],
)
def test_what_is_known_is_left_alone(text):
    check(text)


def test_launchers_and_sweepers_are_looked_at_where_they_are_made():
    text = "hydra: {launcher: {_target_: os.system}}"
    check(text, trust.CALLED)
    with pytest.raises(UserError):
        check(text)


@pytest.mark.parametrize("sweep", [False, True])
def test_nothing_is_called_before_it_is_refused(command, tmp_path, sweep):
    (tmp_path / "own/experiment").mkdir(parents=True)
    mark = tmp_path / "called"
    node = f"{{callbacks: {{a: {{_target_: os.mkdir, path: {mark}}}}}}}"
    (tmp_path / "own/experiment/theirs.yaml").write_text(f"# @package _global_\nhydra: {node}\n")
    typed = ["experiment=theirs", *(["seed=0,1", "-m"] if sweep else [])]
    status, _, err = command("train.py", "--config-dir", str(tmp_path / "own"), *typed)
    assert status == 1
    assert err.startswith("error: hydra.callbacks.a._target_=os.mkdir: is code outside of")
    assert err.endswith("add trust=[os]\n")
    assert not mark.exists()


def test_a_job_of_a_sweep_is_looked_at_by_itself(command, tmp_path):
    """What the settings of all of them do not name, one value of a group that is swept over may."""
    (tmp_path / "own/augment").mkdir(parents=True)
    mark = tmp_path / "called"
    node = f"{{job_logging: {{handlers: {{a: {{'()': os.mkdir, path: {mark}}}}}}}}}"
    ours = (ROOT / "conf/augment/none.yaml").read_text().replace("\n", "\n  ")
    (tmp_path / "own/augment/theirs.yaml").write_text(f"# @package _global_\naugment:\n  {ours}\nhydra: {node}\n")
    typed = ("augment=none,theirs", "model=mlp", "epochs=1", "-m")
    status, _, err = command("train.py", "--config-dir", str(tmp_path / "own"), *typed)
    assert status == 1
    assert "hydra.job_logging.handlers.a.()=os.mkdir: is code outside of" in err
    assert not mark.exists()


@pytest.mark.parametrize("target", ["nested_lookahead.runs.typed.named", "torch.nn.functional.torch.sys.modules.clear"])
def test_what_makes_no_part_of_a_run_is_not_called(command, tmp_path, target):
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/theirs.yaml").write_text(f"name: theirs\n_target_: {target}\n")
    status, _, err = command("train.py", "--config-dir", str(tmp_path / "own"), "model=theirs")
    assert status == 1
    assert re.search(r"is code outside of|lies in", err)
    assert err.count("\n") == 1


PRESET = "# @package _global_\n"
TYPED_ONLY = "error: trust: is set in a file; only who types a command says whom to trust, as trust=[mine]\n"


@pytest.mark.parametrize(
    ("preset", "typed", "said"),
    [
        ("trust: [os]", (), TYPED_ONLY),
        ("trust: [os]", ("trust=[mine]",), None),  # what is typed takes its place
        ("hydra: {sweeper: {params: {trust: '[os]', seed: '0,1'}}}", ("-m",), TYPED_ONLY),
        ("hydra: {sweeper: {grids: [{+trust: '[os]', seed: '0,1'}]}}", ("-m",), TYPED_ONLY),
        ("hydra: {job: {env_set: {CXX: ./theirs}}}", (), "error: hydra.job.env_set: is set in a file; only who types"),
        (
            "hydra: {sweeper: {params: {hydra.job.env_set.CXX: ./theirs, seed: '0,1'}}}",
            ("-m",),
            "error: hydra.job.env_set: is set in a file; only who types",
        ),
        ("{}", ("+hydra.job.env_set.MINE=1",), None),
    ],
)
def test_no_file_speaks_for_itself(command, tmp_path, monkeypatch, preset, typed, said):
    monkeypatch.setenv("MINE", "0")
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/theirs.yaml").write_text(f"{PRESET}{preset}\n")
    own = ("--config-dir", str(tmp_path / "own"), "experiment=theirs", "model=mlp", "epochs=1")
    status, _, err = command("train.py", *own, "evaluation.train_samples=100", *typed)
    assert status == (0 if said is None else 1), err
    assert err.startswith(said or "")
    if said is not None:
        assert not (tmp_path / "outputs").exists()


def test_all_that_comes_with_the_project_is_known():
    import hydra

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for launcher in ("basic", "joblib", "slurm", "stacked", "list"):
            for sweeper in ("basic", "fair"):
                config = hydra.compose(
                    "config", [f"hydra/launcher={launcher}", f"hydra/sweeper={sweeper}"], return_hydra_config=True
                )
                trust.check_hydra(config, (*trust.CALLED, *trust.IN_SWEEPS))
