"""docs/ecosystem.md: each example as it is printed, in an empty folder."""

import re

import pytest
import torch
from page import EXAMPLES, PAGE

NEEDS = {
    "with_lightning.py": "lightning",
    "with_accelerate.py": "accelerate",
    "with_transformers.py": "transformers",
    "with_muon.py": "torch",
}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """What an example leaves behind, by name."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)

    def run(file):
        pytest.importorskip(NEEDS[file])
        space = {"__name__": "__main__"}
        exec(compile(EXAMPLES[file], file, "exec"), space)
        return space

    return run


def error(model, x):
    with torch.no_grad():
        return (model(x) - x.sum(1, keepdim=True)).square().mean().item()


def test_all_examples_are_tried_and_none_is_long():
    assert set(EXAMPLES) == set(NEEDS)
    assert all(len(source.splitlines()) < 60 for source in EXAMPLES.values())
    assert PAGE.count("```python") == len(EXAMPLES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning(example):
    left = example("with_lightning.py")
    x, best = left["x"], left["best"]
    kept = left["Regression"].load_from_checkpoint(best.best_model_path)
    assert best.best_model_score.item() == pytest.approx(error(kept.layers, x), rel=1e-4)  # of the slow weights
    assert best.best_model_score < 0.1
    saved = torch.load(best.best_model_path, weights_only=False)
    assert not torch.equal(saved["fast_weights"]["layers.0.weight"], saved["state_dict"]["layers.0.weight"])


@pytest.mark.slow
def test_accelerate(example):
    left = example("with_accelerate.py")
    from accelerate import load_checkpoint_in_model

    model, x = left["model"], left["x"]
    assert left["optimizer"].optimizer.fast_steps == 20 * 16 // 2
    fast = error(model, x)
    load_checkpoint_in_model(model, "slow")
    assert error(model, x) != fast
    assert error(model, x) < 0.5
    left["accelerator"].load_state("state")
    assert error(model, x) == fast


@pytest.mark.slow
def test_transformers(example):
    left = example("with_transformers.py")
    trainer = left["trainer"]
    measured = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(measured) == 5
    assert measured == sorted(measured, reverse=True)
    plainly = left["Trainer"].evaluate  # of what is in the model
    assert plainly(trainer)["eval_loss"] != pytest.approx(measured[-1], rel=1e-4)
    trainer.model.load_state_dict(left["GPT2LMHeadModel"].from_pretrained("slow").state_dict())
    assert plainly(trainer)["eval_loss"] == pytest.approx(measured[-1], rel=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
def test_muon_and_adamw(example):
    left = example("with_muon.py")
    muon, adamw = left["optimizer"].opt.opts
    assert [tuple(p.shape) for group in muon.param_groups for p in group["params"]] == [(8, 6), (8, 8)]
    assert [tuple(p.shape) for group in adamw.param_groups for p in group["params"]] == [(8,), (8,), (1, 8), (1,)]
    assert all(group["lr"] == 0 for group in left["optimizer"].param_groups)
    x = torch.randn(512, 6)
    with left["optimizer"].slow_weights():
        assert error(left["model"], x) < 0.3


def test_the_versions_are_those_that_are_named_elsewhere():
    """docs/loggers.md has those of the loggers, too."""
    from conftest import ROOT

    loggers = re.search(r"TensorBoard, W&B, MLflow \| (\S+), (\S+), (\S+) \|", PAGE).groups()
    said = (ROOT / "docs/loggers.md").read_text(encoding="utf-8")
    assert "TensorBoard {}, W&B {} and MLflow {}".format(*loggers) in said
