"""The configuration: every choice composes, every value has its type and range, every mistake its line."""

import inspect

import pytest
from conftest import ROOT, resolved
from omegaconf import OmegaConf

from nested_lookahead import signatures
from nested_lookahead.command import explain
from nested_lookahead.errors import UserError
from nested_lookahead.runs.identity import run_name


def choices(group):
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


NEEDED = {"text": ["dataset.file=text.txt"]}
"""What a choice cannot do without."""
GROUPS = ("optimizer", "dataset", "model", "augment", "scheduler", "pullback", "optimizer/inner")


@pytest.mark.parametrize(("group", "choice"), [(g, c) for g in GROUPS for c in choices(g) if c != "custom"])
def test_every_choice_composes(group, choice):
    config = resolved(f"{group}={choice}", *NEEDED.get(choice, ()))
    if group == "pullback":
        assert config.optimizer.settings["pullback"] == choice
    else:
        chosen = config.optimizer.inner if group == "optimizer/inner" else getattr(config, group)
        assert chosen.name == choice


def test_the_pullback_choices_are_those_of_the_optimizer():
    from nested_lookahead.optim import PULLBACK_SCOPES

    assert choices("pullback") == sorted(PULLBACK_SCOPES)


@pytest.mark.parametrize("choice", [c for c in choices("optimizer") if "lookahead" in c])
def test_a_wrapper_has_the_defaults_of_its_signature(choice):
    """The signature owns them; a YAML file has to show them, for only what it shows can be changed without a plus.

    What a signature has by keyword alone, momentum and schedules of the slow weights, is shown by `snoo` and the like.
    """
    chosen = resolved(f"optimizer={choice}").optimizer
    defaults = signatures.defaults_of(chosen.target)
    module, _, name = chosen.target.rpartition(".")
    told = inspect.signature(getattr(__import__(module, fromlist=[name]), name)).parameters
    shown = {key: value for key, value in chosen.settings.items() if key != "layers"}
    assert shown == {key: x for key, x in defaults.items() if told[key].kind is not inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("choice", ["snoo", "slowmo", "nested_momentum"])
def test_a_preset_with_slow_momentum_has_settings_that_its_target_takes(choice):
    chosen = resolved(f"optimizer={choice}").optimizer
    assert set(chosen.settings) <= set(signatures.defaults_of(chosen.target))
    assert max(chosen.settings.get(key, 0) for key in ("slow_momentum", "outer_momentum")) > 0


@pytest.mark.slow
def test_the_settings_of_a_choice_are_those_of_its_target():
    """So that none can be forgotten in the YAML file, which could then not be changed."""
    for group, passed in (("model", 2), ("augment", 2), ("scheduler", 1), ("dataset", 0)):
        for choice in choices(group):
            chosen = getattr(resolved(f"{group}={choice}", *NEEDED.get(choice, ())), group)
            assert set(chosen.settings) == set(signatures.signature_of(chosen.target).less(passed).settings)


@pytest.mark.parametrize(
    "target",
    [
        *("nested_lookahead.optim.NestedLookahead", "nested_lookahead.optim.MultilayerLookahead"),
        *("torch.optim.SGD", "torch.optim.Adam", "torch.optim.RMSprop", "torch.optim.Adagrad", "torch.optim.NAdam"),
        *("nested_lookahead.tasks.models.vit_tiny", "nested_lookahead.tasks.augment.published"),
    ],
)
def test_signatures_are_read_as_python_reads_them(target):
    module, _, name = target.rpartition(".")
    told = inspect.signature(getattr(__import__(module, fromlist=[name]), name)).parameters
    read = signatures.signature_of(target).settings
    assert list(read) == list(told)
    for key, parameter in told.items():
        wanted = signatures.REQUIRED if parameter.default is parameter.empty else parameter.default
        assert read[key].default == wanted


OWN = """
from dataclasses import dataclass
from typing import Annotated, Optional
from {package}.other import moved as renamed
from .other import Base

def net(shape, num_classes, width: Annotated[int, ">= 1"], depths: list[int], rate: "float" = 0.5, *,
        deep: bool = False, name: Optional[str] = None, pair: tuple[float, float] = (1, 2), odd: SomeType | int = 3,
        **more): ...

class Child(Base):
    extra: int = 2

@dataclass
class Fields:
    a: int
    b: float = 0.1
"""


def test_signatures_of_other_peoples_modules(tmp_path, monkeypatch):
    package = tmp_path / "somebodys"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('must not be run')")
    (package / "other.py").write_text(
        "def moved(x: int = 1): ...\nclass Base:\n    def __init__(self, y: float): ...\n"
    )
    (package / "own.py").write_text(OWN.format(package="somebodys"))
    monkeypatch.syspath_prepend(tmp_path)
    net = signatures.signature_of("somebodys.own.net")
    assert net.open
    types = {key: setting.type for key, setting in net.less(2).settings.items()}
    assert types["width"] is int
    assert types["depths"] == list[int]
    assert types["rate"] is float
    assert types["name"] == str | None
    assert types["pair"] == tuple[float, float]
    assert types["odd"] is int
    assert net.settings["width"].range == ">= 1"
    assert net.settings["width"].default is signatures.REQUIRED
    assert net.settings["pair"].default == (1, 2)
    assert list(signatures.signature_of("somebodys.own.renamed").settings) == ["x"]
    assert list(signatures.signature_of("somebodys.own.Child").settings) == ["y"]  # it is no dataclass
    assert list(signatures.signature_of("somebodys.own.Fields").settings) == ["a", "b"]
    assert signatures.signature_of("somebodys.own.nothing") is None
    assert signatures.signature_of("nobodys.own.net") is None
    assert signatures.signature_of("math.sin") is None
    with pytest.raises(LookupError, match="no source"):
        signatures.defaults_of("math.sin")
    with pytest.raises(LookupError, match="assigns no literal"):
        signatures.constant("somebodys.own", "net")


LAYERS = """
from dataclasses import dataclass
from nested_lookahead import optim
from nested_lookahead.optim import Layer

@dataclass(frozen=True)
class HeavyBall(Layer):
    mu: float = 0.0

@dataclass(frozen=True)
class Far(optim.Layer):
    mu: float = 0.0
"""


@pytest.fixture
def layers(tmp_path, monkeypatch):
    """Overrides for a layer of somebody's own, with these settings."""
    (tmp_path / "somebodys_layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)

    def overrides(settings, name="HeavyBall"):
        layer = f"{{_target_: somebodys_layers.{name}, {settings}}}"
        return "optimizer=multilayer_lookahead", f"optimizer.layers=[{layer}]", "trust=[somebodys_layers]"

    return overrides


def test_a_layer_with_code_of_its_own_has_the_types_of_its_signature(layers):
    typed = ("k: 5, alpha: 1, mu: 0", "k: 5, alpha: 1.0, mu: 0.0", "mu: 0, alpha: 1, k: 5")
    whole, decimal, turned = (resolved(*layers(settings)).plain() for settings in typed)
    assert run_name(whole) == run_name(decimal) == run_name(turned)
    (layer,) = whole["optimizer"]["layers"]
    assert layer == {"_target_": "somebodys_layers.HeavyBall", "k": 5, "alpha": 1.0, "mu": 0.0}
    assert [type(value) for value in layer.values()] == [str, int, float, float]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            "k: 5, alpha: 0.5, mmu: 1",
            "optimizer.layers[0].mmu: no such key; did you mean 'mu'? optimizer.layers[0] has _target_, alpha, ",
        ),
        ("k: 5", "optimizer.layers[0].alpha: missing; somebodys_layers.HeavyBall needs it"),
        ("k: 5, alpha: 0.5, mu: abc", "optimizer.layers[0].mu: Value 'abc' of type 'str' could not be converted to "),
    ],
)
def test_a_mistake_in_a_layer_has_a_line(layers, settings, line):
    assert said(*layers(settings)).startswith(line)


def test_a_layer_whose_base_cannot_be_read_takes_any_settings(layers):
    (layer,) = resolved(*layers("k: 5, alpha: 0.5, mu: 1", "Far")).optimizer.settings["layers"]
    assert layer == {"_target_": "somebodys_layers.Far", "k": 5, "alpha": 0.5, "mu": 1.0}


def said(*overrides):
    """The line that a mistake ends in."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # Hydra's or ours
        resolved(*overrides)
    return explain(caught.value)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("optimizer.kk=3", "optimizer.kk: no such key; did you mean 'k'? optimizer has _target_, alpha, h, inner, k"),
        ("+optimizer.kk=3", "optimizer.kk: no such key; did you mean 'k'? optimizer has _target_, alpha, h, inner, k"),
        ("+evaluation.evry=3", "evaluation.evry: no such key; did you mean 'every'? evaluation has augment, "),
        ("dataset.val_fraction=0.1", "dataset.val_fraction: no such key; did you mean 'split.val_fraction'? dataset"),
        ("+dataset.split.fraction=0.1", "dataset.split.fraction: no such key; did you mean 'val_fraction'? dataset."),
        (
            "momentum=0.9",
            "momentum: no such key; did you mean 'optimizer.inner.momentum'? the top level has analysis, augment, ",
        ),
        ("+momentum=0.9", "momentum: no such key; the top level has analysis, augment, batch_size, "),
        ("+model.depth=3", "model.depth: no such key; did you mean 'width'? model has _target_, name, width"),
        ("~model.width", "model.width: missing; nested_lookahead.tasks.models.cnn needs it"),
        ("~model.name", "model.name: missing"),
        ("~evaluation.every", "evaluation.every: Evaluation (DictConfig) does not support deletion"),
        ("~dataset.split.seed", "dataset.split.seed: missing"),
        ("optimizer.k=abc", "optimizer.k: Value 'abc' of type 'str' could not be converted to Integer"),
        ("optimizer.inner.lr=abc", "optimizer.inner.lr: Value 'abc' of type 'str' could not be converted to Float"),
        ("dataset.split.train_size=1.5", "dataset.split.train_size: Value '1.5' of type 'float' could not be "),
        ("epochs=2.5", "epochs: Value '2.5' of type 'float' could not be converted to Integer"),
        ("epochs=0", "epochs=0: must be an integer >= 1"),
        ("seed=-1", "seed=-1: must be an integer >= 0"),
        ("model.width=0", "model.width=0: must be an integer >= 1"),
        ("scheduler.warmup=1", "scheduler.warmup=1.0: must be in [0, 1)"),
        ("scheduler.final=nan", "scheduler.final=nan: must be a finite number"),
        ("dataset.split.val_fraction=-0.1", "dataset.split.val_fraction=-0.1: must be in [0, 1)"),
        ("grad_clip=0", "grad_clip=0.0: must be > 0"),
        ("checkpoint_minutes=inf", "checkpoint_minutes=inf: must be a finite number"),
        ("evaluation.weights=slwo", "evaluation.weights=slwo: must be one of fast, slow; ema and tail add some"),
        ("evaluation.weights=ema", "evaluation.weights=ema: must be one of fast, slow; ema and tail add some"),
        ("evaluation.augment=true", "evaluation.augment=true: augment=none augments nothing"),
        ("ema=abc", "ema=abc: must be in (0, 1)"),
        ("precision=fp8", "precision=fp8: must be one of auto, fp32, bf16, fp16"),
        ("model=resnet", "In 'config': Could not find 'model/resnet': available options in 'model': cnn, cnn1d"),
        ("optimizer/inner=custom", "optimizer.inner._target_: Missing mandatory value"),
        ("decay=matrix", "decay=matrix: must be one of all, matrices"),
        ("param_groups=head.*", "param_groups=head.*: must be a list, such as [{match: head.*, lr: 0.01}]"),
        ("param_groups=[head.*]", "param_groups[0]=head.*: must have a match and a setting, such as {match: head.*, "),
        ("param_groups=[{match: head.*}]", "param_groups[0]={'match': 'head.*'}: must have a match and a setting"),
        ("param_groups=[{lr: 1, betas: [0, 1]}]", "param_groups[0]={'lr': 1, 'betas': [0, 1]}: must have a match and"),
        (
            "param_groups=[{match: head.*, lr: 1}, {match: a, lrr: 1}]",
            "param_groups[1].lrr: no such key; did you mean 'lr'? param_groups[1] has dampening, differentiable, ",
        ),
        ("param_groups=[{match: a, lr: abc}]", "param_groups[0].lr: Value 'abc' of type 'str' could not be converted"),
        ("param_groups=[{match: a, lr: -1}]", "param_groups[0].lr=-1.0: must be >= 0"),
    ],
)
def test_a_mistake_has_a_line(typed, line):
    assert said(typed).startswith(line)


@pytest.mark.parametrize(
    ("kept", "kind"),
    [
        (["ema=0.9"], "ema"),
        (["ema=[0.9,0.99]"], "ema0.99"),
        (["tail=0.5"], "tail"),
        (["ema=[0.9]"], "ema"),
        ([], "slow"),
    ],
)
def test_a_run_may_answer_with_any_weights_that_it_keeps(kept, kind):
    assert resolved(*kept, f"evaluation.weights={kind}").evaluation.weights == kind


@pytest.mark.parametrize(
    ("value", "allowed", "holds"),
    [
        (1, ">= 1", True), (0, ">= 1", False), (0.0, "> 0", False), (1e-9, "> 0", True), (None, "> 0", True),
        (1, "in [0, 1)", False), (0, "in [0, 1)", True), (1, "in (0, 1]", True), (0, "in (0, 1]", False),
        (float("inf"), ">= 1", False), (float("nan"), ">= 1", False), ("a", "one of a, b", True),
        ("c", "one of a, b", False), ([1, 2], ">= 1", True), ([1, 0], ">= 1", False), ("a", ">= 1", False),
    ],
)  # fmt: skip
def test_ranges(value, allowed, holds):
    from nested_lookahead.settings import check_range

    if holds:
        check_range("key", value, allowed)
    else:
        with pytest.raises(UserError, match="key="):
            check_range("key", value, allowed)


def test_a_range_that_is_none_is_the_programs_fault():
    from nested_lookahead.settings import check_range

    with pytest.raises(ValueError, match="no such kind of range"):
        check_range("key", 1, "about 3")


@pytest.mark.slow
def test_param_groups_have_the_types_of_the_optimizers_settings():
    for inner in ("sgd", "adamw", "muon"):
        config = resolved(f"optimizer/inner={inner}", "param_groups=[{lr: 1, match: a.*, weight_decay: 0}]")
        (group,) = config.param_groups
        assert group == {"match": "a.*", "lr": 1.0, "weight_decay": 0.0}
        assert [type(value) for value in group.values()] == [str, float, float]
    names = {run_name(resolved(f"param_groups={typed}").plain()) for typed in ("[{match: a, lr: 1}]",
             "[{lr: 1.0, match: a}]", "[{match: b, lr: 1}]", "null", "[]")}  # fmt: skip
    assert len(names) == 3
    assert run_name(resolved().plain()) in names


def test_decay_of_an_optimizer_without_weight_decay_has_its_line():
    rprop = (
        "optimizer/inner=custom",
        "optimizer.inner._target_=torch.optim.Rprop",
        "optimizer.inner.weight_decay=null",
    )
    assert resolved(*rprop).decay == "all"
    assert said(*rprop, "decay=matrices") == "decay=matrices: optimizer rprop has no weight_decay"


def test_values_become_what_they_are_declared_to_be():
    config = resolved("optimizer.h=1", "optimizer/inner=adam", "optimizer.inner.betas=[0,0.9]", "grad_clip=2")
    assert isinstance(config.optimizer.settings["h"], float)
    assert config.optimizer.inner.settings["betas"] == [0.0, 0.9]
    assert isinstance(config.grad_clip, float)
    assert OmegaConf.create(config.plain())  # nothing but plain values


def test_a_custom_class_is_known_by_its_name():
    names = set()
    for target in ("torch.optim.Adamax", "torch.optim.Rprop"):
        overrides = (
            "optimizer/inner=custom",
            f"optimizer.inner._target_={target}",
            "optimizer.inner.weight_decay=null",
        )
        names.add(resolved(*overrides).optimizer.inner.name)
    assert names == {"adamax", "rprop"}
    config = resolved(*overrides[:1], "optimizer.inner._target_=torch.optim.Adamax", "+optimizer.inner.kwargs.eps=1e-7")
    assert config.optimizer.inner.settings["eps"] == 1e-7
