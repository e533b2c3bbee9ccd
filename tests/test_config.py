"""The configuration: every key counts, and a run's identity is what it computes."""

import hydra
import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from nested_lookahead import config
from nested_lookahead.records import ADDED, BOOKKEEPING

config.register()


def compose(*overrides):
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose("config", overrides=list(overrides))


def resolved(*overrides):
    return config.resolve(compose(*overrides))


def choices(group):
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("group", "choice"),
    [
        (g, c)
        for g in ("optimizer", "dataset", "model", "augment", "scheduler", "pullback", "optimizer/inner")
        for c in choices(g)
    ],
)
def test_every_choice_composes_to_its_schema(group, choice):
    chosen = resolved(f"{group}={choice}", *(["optimizer.inner._target_=x.Y"] if choice == "custom" else []))
    if group == "pullback":
        assert chosen["optimizer"]["pullback"] == choice
    else:
        node = chosen["optimizer"]["inner"] if group == "optimizer/inner" else chosen[group]
        assert node["name"] == choice


def test_the_pullback_choices_are_those_of_the_optimizer():
    from nested_lookahead.optim import PULLBACK_SCOPES

    assert choices("pullback") == sorted(PULLBACK_SCOPES)


def leaves(node, path=""):
    for key, value in node.items():
        full = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from leaves(value, full)
        else:
            yield full, value


DEFAULT = resolved()


def changed(value):
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, *value] if isinstance(value, list) else f"{value}-else"


@pytest.mark.parametrize("key", [key for key, _ in leaves(DEFAULT)])
def test_identity_covers_every_key_but_bookkeeping(key):
    other = OmegaConf.create(DEFAULT)
    OmegaConf.update(other, key, changed(OmegaConf.select(other, key)))
    same = config.identity(OmegaConf.to_container(other)) == config.identity(DEFAULT)
    assert same == (key in (*BOOKKEEPING, *config.FEEDERS, "seed"))


@pytest.mark.parametrize(
    ("overrides", "identity"),
    [
        ([], "d57c42da"),
        (["optimizer=sgd", "seed=3"], "7b121d59"),
        (["optimizer=multilayer_lookahead", "optimizer/inner=adam"], "9b192384"),
        (["dataset=cifar10", "model=resnet18", "augment=published"], "ad31a3bb"),
        (["dataset=imagenet", "model=vit_tiny", "scheduler=multistep"], "31c7f689"),
    ],
)
def test_identities_stay_what_they_were(overrides, identity):
    """Else finished runs would be made again. A new key belongs in records.ADDED, with what older runs did."""
    assert config.identity(resolved(*overrides)) == identity


def test_a_key_that_is_added_with_what_older_runs_did_leaves_them_found(monkeypatch):
    before = OmegaConf.to_container(OmegaConf.create(DEFAULT))
    del before["label_smoothing"], before["evaluation"]["bn_batches"]
    monkeypatch.setitem(ADDED, "label_smoothing", 0.0)
    monkeypatch.setitem(ADDED, "evaluation.bn_batches", 20)
    assert DEFAULT["label_smoothing"] == 0.0
    assert DEFAULT["evaluation"]["bn_batches"] == 20
    assert config.run_name(DEFAULT) == config.run_name(before)
    assert config.computed(DEFAULT) == config.computed(before)
    for other in ("label_smoothing=0.1", "evaluation.bn_batches=10"):
        assert config.identity(resolved(other)) != config.identity(before)


def test_identity_does_not_depend_on_how_a_setting_was_typed():
    assert config.run_name(resolved("optimizer.k=7", "epochs=3")) == config.run_name(
        resolved("epochs=3", "optimizer.k=7")
    )
    assert config.run_name(resolved("optimizer.k=5", "optimizer.alpha=5e-1", "seed=0")) == config.run_name(DEFAULT)
    assert config.identity(resolved("pullback=reset")) == config.identity(resolved("optimizer.pullback=reset"))
    assert config.identity(resolved("pullback=reset")) == config.identity(resolved("optimizer.pullback=[reset,reset]"))
    assert config.run_name(resolved("pullback=reset_inner")) == config.run_name(
        resolved("optimizer.pullback=[reset,none]")
    )
    assert config.run_name(resolved("lr=0.3", "weight_decay=0.1")) == config.run_name(
        resolved("optimizer.inner.lr=0.3", "optimizer.inner.weight_decay=0.1")
    )
    layers = "optimizer=multilayer_lookahead", "optimizer.layers=[[5,1],[2,0.5]]"
    assert config.run_name(resolved(*layers)) == config.run_name(resolved(layers[0], layers[1].replace(",1]", ",1.0]")))
    assert config.identity(resolved("optimizer.h=1")) == config.identity(resolved("optimizer.h=1.0"))


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (["optimizer=sgd"], "sgd"),
        (["optimizer=lookahead", "optimizer/inner=adam", "optimizer.alpha=0.8"], "lookahead-adam-k5-a0.8-none"),
        (
            ["optimizer/inner=adam", "pullback=reset", "optimizer.h=1"],
            "nested_lookahead-adam-k5-a0.5-s5-h1-reset",
        ),
        (["optimizer.pullback=[reset,none]"], "nested_lookahead-sgd-k5-a0.5-s5-h0.5-reset_inner"),
        (["optimizer.pullback=[reset,pullback]"], "nested_lookahead-sgd-k5-a0.5-s5-h0.5-reset+pullback"),
        (["optimizer=multilayer_lookahead"], "multilayer_lookahead-sgd-5x0.5-5x0.5-2x0.5-none"),
    ],
)
def test_labels(overrides, label):
    assert config.label(resolved(*overrides)) == label
