"""A run's identity is what it computes, and stays what it was."""

import json
from pathlib import Path

import pytest
from conftest import resolved
from omegaconf import OmegaConf

from nested_lookahead.runs.identity import ADDED, BOOKKEEPING, FEEDERS, computed, identity, label, run_name

STORED = json.loads((Path(__file__).parent / "identities.json").read_text())
"""Configurations as they were composed when this rule began, with their identities and labels."""


def plain(*overrides):
    return resolved(*overrides).plain()


def leaves(node, path=""):
    for key, value in node.items():
        full = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from leaves(value, full)
        else:
            yield full, value


DEFAULT = plain()


def changed(value):
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, *value] if isinstance(value, list) else f"{value}-else"


@pytest.mark.parametrize("key", [key for key, _ in leaves(DEFAULT)])
def test_it_covers_every_key_but_bookkeeping_and_where_our_code_lies(key):
    other = OmegaConf.create(DEFAULT)
    OmegaConf.update(other, key, changed(OmegaConf.select(other, key)))
    same = identity(OmegaConf.to_container(other)) == identity(DEFAULT)
    ours = key.endswith("_target_") and OmegaConf.select(other, key).startswith("nested_lookahead.")
    assert same == (key in (*BOOKKEEPING, *FEEDERS, "seed") or ours)


def test_other_peoples_code_counts_wherever_it_lies():
    ours, theirs, others = (DEFAULT | {"model": DEFAULT["model"] | {"_target_": target}} for target in (
        "nested_lookahead.elsewhere.cnn", "somebodys.cnn", "somebodys.moved.cnn"
    ))  # fmt: skip
    assert identity(ours) == identity(DEFAULT)
    assert len({identity(DEFAULT), identity(theirs), identity(others)}) == 3


def layered(*layers):
    return DEFAULT | {"optimizer": {"name": "multilayer_lookahead", "layers": [*layers], "pullback": "none"}}


def layer(target, **settings):
    return {"_target_": target, "k": 5, "alpha": 0.5, **settings}


def test_a_layer_with_code_of_its_own_is_known_by_its_class_wherever_ours_lies():
    ours, moved, other = (layered([5, 0.5], layer(f"nested_lookahead.{target}", mu=0.5)) for target in (
        "optim.HeavyBall", "layers.momentum.HeavyBall", "optim.Nesterov"
    ))  # fmt: skip
    assert computed(ours) == computed(moved)
    assert computed(ours)["optimizer"]["layers"] == [[5, 0.5], layer("HeavyBall", mu=0.5)]
    assert identity(ours) != identity(other)
    theirs, elsewhere = (layered(layer(target)) for target in ("my.HeavyBall", "my.moved.HeavyBall"))
    assert computed(theirs)["optimizer"]["layers"] == [layer("my.HeavyBall")]
    assert identity(theirs) != identity(elsewhere)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([layer("my.HeavyBall", mu=0.9)], "heavyball-k5-a0.5-m0.9"),
        ([[2, 0.8], layer("my.HeavyBall", outer_mu=1.0, pullback="reset")], "2x0.8-heavyball-k5-a0.5-om1-reset"),
        ([layer("my.HeavyBall", where="a/b c")], "heavyball-k5-a0.5-axbxc"),
    ],
)
def test_the_label_of_a_layer_with_code_of_its_own(layers, text):
    optimizer = layered(*layers)["optimizer"] | {"inner": {"name": "sgd"}}
    assert label(DEFAULT | {"optimizer": optimizer}) == f"multilayer_lookahead-sgd-{text}-none"


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: " ".join(stored["overrides"]) or "default")
def test_identities_stay_what_they_were(stored):
    """Else finished runs would be made again. A new key belongs in identity.ADDED, with what older runs did."""
    assert identity(stored["config"]) == stored["id"]
    assert label(stored["config"]) == stored["label"]
    assert run_name(plain(*stored["overrides"])) == f"{stored['label']}-{stored['id']}/seed={stored['config']['seed']}"


def test_a_key_that_is_added_with_what_older_runs_did_leaves_them_found(monkeypatch):
    before = OmegaConf.to_container(OmegaConf.create(DEFAULT))
    del before["label_smoothing"], before["evaluation"]["bn_batches"]
    monkeypatch.setitem(ADDED, "label_smoothing", 0.0)
    monkeypatch.setitem(ADDED, "evaluation.bn_batches", 20)
    assert DEFAULT["label_smoothing"] == 0.0
    assert DEFAULT["evaluation"]["bn_batches"] == 20
    assert run_name(DEFAULT) == run_name(before)
    assert computed(DEFAULT) == computed(before)
    for other in ("label_smoothing=0.1", "evaluation.bn_batches=10"):
        assert identity(plain(other)) != identity(before)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["optimizer.k=7", "epochs=3"], ["epochs=3", "optimizer.k=7"]),
        (["optimizer.k=5", "optimizer.alpha=5e-1", "seed=0"], []),
        (["pullback=reset"], ["optimizer.pullback=reset"]),
        (["pullback=reset"], ["optimizer.pullback=[reset,reset]"]),
        (["pullback=reset_inner"], ["optimizer.pullback=[reset,none]"]),
        (["pullback=reset_outer"], ["optimizer.pullback=[none,reset]"]),
        (["lr=0.3", "weight_decay=0.1"], ["optimizer.inner.lr=0.3", "optimizer.inner.weight_decay=0.1"]),
        (["optimizer.h=1"], ["optimizer.h=1.0"]),
        (
            ["optimizer=multilayer_lookahead", "optimizer.layers=[[5,1],[2,0.5]]"],
            ["optimizer=multilayer_lookahead", "optimizer.layers=[[5,1.0],[2,0.5]]"],
        ),
    ],
)
def test_it_does_not_depend_on_how_a_setting_was_typed(one, other):
    assert run_name(plain(*one)) == run_name(plain(*other))


@pytest.mark.parametrize(
    ("overrides", "text"),
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
        (["optimizer/inner=custom", "optimizer.inner._target_=torch.optim.Adamax"], "nested_lookahead-adamax-k5-a0.5"),
    ],
)
def test_labels(overrides, text):
    assert label(plain(*overrides)).startswith(text)


def test_a_fault_that_is_mended_is_in_the_label_and_the_identity():
    replica, mended = (
        plain("optimizer=nested_lookahead_replica", *more) for more in ([], ["optimizer.off_by_one=false"])
    )
    assert label(replica) == "nested_lookahead_replica-sgd-k5-a0.5-s5-h0.5-none"
    assert label(mended) == "nested_lookahead_replica-sgd-k5-a0.5-s5-h0.5-oboFalse-none"
    assert identity(mended) != identity(replica)


def test_a_setting_that_comes_later_is_in_the_label_by_its_initials():
    optimizer = DEFAULT["optimizer"] | {"outer_momentum": 0.7}
    assert label(DEFAULT | {"optimizer": optimizer}).endswith("-om0.7-none")
