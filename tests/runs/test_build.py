"""From the command line to an optimizer: param groups, weight decay, and the split of Muon and AdamW."""

import pytest
import torch
from made_models import Untied, make_gpt, named, names_of
from test_schema import resolved
from torch import nn

from nested_lookahead import OptimizerList, checkpoint
from nested_lookahead.errors import UserError
from nested_lookahead.runs import checkpoints
from nested_lookahead.runs.build import build, build_optimizer
from nested_lookahead.training.parameters import hidden_matrices, muon

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
TEXT = ("dataset=markov", "dataset.length=4000", "dataset.samples=40", "model=gpt", "batch_size=16", "epochs=2")


@pytest.mark.parametrize(
    "optimizer", [["optimizer=adamw"], ["optimizer/inner=adamw", "optimizer.alpha=1", "optimizer.h=1"]]
)
def test_a_run_steps_as_torch_does_with_these_groups(optimizer):
    """From the command line to the weights, bit for bit."""
    typed = ("decay=matrices", "param_groups=[{match: blocks.0, lr: 0.03}]", "lr=0.01", "weight_decay=0.2")
    trainer = build(resolved(*TEXT, *typed, *optimizer))
    reference = build(resolved(*TEXT, "optimizer=adamw"))
    model = reference.model
    names = dict(model.named_parameters())
    first = [name for name in names if name.startswith("blocks.0.")]
    vectors = {name for name, param in names.items() if param.ndim < 2} | {"tokens.weight", "places.weight"}
    reference.optimizer = torch.optim.AdamW(
        [
            {"params": [p], "lr": 0.03 if n in first else 0.01, "weight_decay": 0.0 if n in vectors else 0.2}
            for n, p in names.items()
        ],
        fused=True,
    )
    reference.scheduler = torch.optim.lr_scheduler.LambdaLR(reference.optimizer, trainer.scheduler.lr_lambdas[0])
    for one in (trainer, reference):
        one.train_epoch()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_slow_weights_are_those_of_their_parameters_whatever_the_groups(tmp_path):
    trainer = build(
        resolved(*TEXT, "optimizer/inner=adamw", "decay=matrices", "param_groups=[{match: blocks.0, lr: 1}]")
    )
    trainer.train_epoch()
    with open(tmp_path / "checkpoint.pt", "wb") as file:
        checkpoints.write(trainer.state_dict(), file)
    kept = checkpoint.weights(tmp_path, "slow")
    with trainer.optimizer.slow_weights():
        for name, value in trainer.model.state_dict().items():
            assert torch.equal(kept[name], value), name


# --- Muon and AdamW ---------------------------------------------------------------------------------------------------


def made(model, *typed):
    config = resolved("optimizer=muon", *typed)
    return build_optimizer(config.optimizer, model, config.decay, config.param_groups or ())


def split_of(model, optimizer):
    """By name, each parameter's optimizer and group."""
    return {
        name: (type(opt).__name__, group)
        for opt in optimizer.opts
        for group in opt.param_groups
        for name in named(model, group["params"])
    }


@needs_muon
def test_muon_takes_the_hidden_matrices_and_adamw_the_rest():
    model = make_gpt()
    optimizer = made(model, "lr=0.02", "optimizer.betas=[0.8,0.9]", "optimizer.momentum=0.7")
    assert isinstance(optimizer, OptimizerList)
    split = split_of(model, optimizer)
    assert set(split) == set(names_of(model))
    hidden = set(named(model, hidden_matrices(model)))
    assert {name for name, (kind, _) in split.items() if kind == "Muon"} == hidden
    for name, (_, group) in split.items():
        assert (group["lr"], group["weight_decay"]) == (0.02, 0.1)
        assert group.get("momentum") == (0.7 if name in hidden else None)
        assert group.get("betas") == (None if name in hidden else (0.8, 0.9))


@needs_muon
def test_muon_has_groups_of_both_optimizers():
    model = Untied()
    groups = "[{match: mix, lr: 0.5, momentum: 0.6}, {match: '*.weight', betas: [0.1, 0.2]}]"
    split = split_of(model, made(model, f"param_groups={groups}", "decay=matrices", "optimizer.adamw_lr=0.25"))
    kind, group = split["mix.weight"]
    assert (kind, group["lr"], group["momentum"], group["weight_decay"]) == ("Muon", 0.5, 0.6, 0.1)
    kind, group = split["mix.bias"]
    assert (kind, group["lr"], "momentum" in group, group["weight_decay"]) == ("AdamW", 0.5, False, 0.0)
    kind, group = split["read.weight"]
    assert (kind, group["lr"], tuple(group["betas"]), group["weight_decay"]) == ("AdamW", 0.25, (0.1, 0.2), 0.0)
    assert split["head.weight"][1]["weight_decay"] == 0.1
    assert tuple(split["head.bias"][1]["betas"]) == (0.9, 0.999)


@needs_muon
def test_more_can_be_given_to_adamw():
    model = make_gpt()
    split = split_of(model, made(model, "optimizer.rest=[blocks.1, '*.attend.*']"))
    muons = {name for name, (kind, _) in split.items() if kind == "Muon"}
    assert muons == {f"blocks.0.{name}.weight" for name in ("attended", "widen", "narrow")}


@needs_muon
def test_muon_may_be_alone():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.LayerNorm(3))
    (only,) = muon(list(model[:2].parameters()), model).opts
    assert isinstance(only, torch.optim.Muon)


@needs_muon
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("optimizer.rest=[foo.*]", r"rest=foo.\*: matches no parameter of this model, which has tokens.weight, "),
        ("optimizer.rest=[blocks]", "optimizer=muon: this model has no hidden matrices, and all would be AdamW's"),
        ("param_groups=[{match: norm, momentum: 0.5}]", "param_groups: no parameter that matches has momentum"),
        ("param_groups=[{match: norm, adamw_lr: 0.5}]", "param_groups: no parameter that matches has adamw_lr"),
    ],
)
def test_a_mistake_about_muon_has_a_line(typed, line):
    with pytest.raises(UserError, match=line):
        made(make_gpt(), typed)


def test_without_muon_in_torch_there_is_a_line(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(UserError, match=r"optimizer=muon: needs torch.optim.Muon, which torch has from 2.9 on"):
        made(make_gpt())
