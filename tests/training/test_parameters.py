"""Which parameters an optimizer treats how: groups, weight decay, and which matrices are hidden ones."""

import pytest
from made_models import Untied, make_gpt, named, names_of

from nested_lookahead.errors import UserError
from nested_lookahead.tasks import models
from nested_lookahead.training.parameters import hidden_matrices, matching, param_groups


def told(model, decay="all", groups=()):
    """The names in each group, with its settings."""
    return [
        (named(model, group["params"]), {key: value for key, value in group.items() if key != "params"})
        for group in param_groups(model, decay, groups)
    ]


# --- groups -----------------------------------------------------------------------------------------------------------


def test_without_groups_an_optimizer_gets_the_parameters_alone():
    model = Untied()
    assert all(own is param for own, param in zip(param_groups(model, "all", ()), model.parameters(), strict=True))


def test_the_first_pattern_that_matches_has_the_parameter():
    groups = [
        {"match": "head.*", "lr": 0.1},
        {"match": "*.bias", "lr": 0.2, "momentum": 0.5},
        {"match": "n?rm", "lr": 0},
    ]
    assert told(Untied(), groups=groups) == [
        (["read.weight", "mix.weight", "conv.weight"], {}),
        (["head.weight", "head.bias"], {"lr": 0.1}),
        (["mix.bias", "conv.bias", "norm.bias"], {"lr": 0.2, "momentum": 0.5}),
        (["norm.weight"], {"lr": 0}),
    ]
    assert told(Untied(), groups=[{"match": "*", "lr": 0.1}]) == [(names_of(Untied()), {"lr": 0.1})]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("blocks.0", 6), ("blocks.*", 12), ("blocks.[01].norm?", 4), ("*norm*", 5), ("tokens.weight", 1), ("BLOCKS.*", 0)],
)
def test_a_pattern_fits_a_parameters_name_or_that_of_a_module_around_it(pattern, count):
    if count:
        assert len(matching(make_gpt(), pattern, "key")) == count
    else:
        with pytest.raises(
            UserError, match=r"key=BLOCKS.\*: matches no parameter of this model, which has tokens.weig"
        ):
            matching(make_gpt(), pattern, "key")


def test_a_shared_parameter_goes_by_any_of_its_names():
    model = Untied(tie=True)
    assert matching(model, "head.weight", "key") == matching(model, "read", "key") == {model.read.weight}


def test_a_pattern_that_is_left_nothing_has_its_line():
    with pytest.raises(UserError, match=r"^param_groups\[1\].match=\*.bias: all that it matches is in an earlier"):
        param_groups(Untied(), "all", [{"match": "*", "lr": 1}, {"match": "*.bias", "lr": 1}])
    with pytest.raises(UserError, match=r"^param_groups\[0\].match=hed: matches no parameter of this model"):
        param_groups(Untied(), "all", [{"match": "hed", "lr": 1}])


# --- weight decay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", [False, True])
def test_norms_biases_and_embeddings_do_not_decay(tie):
    """Tied embeddings neither, although a layer has them as its matrix."""
    decayed, spared = told(Untied(tie), "matrices")
    assert decayed == (["mix.weight", "conv.weight", *([] if tie else ["head.weight"])], {})
    assert spared[1] == {"weight_decay": 0.0}
    assert sorted(decayed[0] + spared[0]) == sorted(names_of(Untied(tie)))


def test_a_groups_own_weight_decay_stands():
    groups = [{"match": "norm", "weight_decay": 0.3}, {"match": "head", "lr": 0.1}]
    assert told(Untied(), "matrices", groups) == [
        (["mix.weight", "conv.weight"], {}),
        (["read.weight", "mix.bias", "conv.bias"], {"weight_decay": 0.0}),
        (["norm.weight", "norm.bias"], {"weight_decay": 0.3}),
        (["head.weight"], {"lr": 0.1}),
        (["head.bias"], {"lr": 0.1, "weight_decay": 0.0}),
    ]


# --- Muon and AdamW ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        (make_gpt(), [f"blocks.{i}.{m}.weight" for i in (0, 1) for m in ("attend", "attended", "widen", "narrow")]),
        (Untied(), ["mix.weight"]),
        (Untied(tie=True), ["mix.weight"]),
        (models.mlp((1, 8, 8), 10, [16, 8]), ["1.weight", "3.weight"]),
        (models.cnn((1, 8, 8), 10, 4), []),
    ],
    ids=["gpt", "untied", "tied", "mlp", "cnn"],
)
def test_hidden_matrices(model, hidden):
    """Neither embeddings, tied or not, nor output layers, nor kernels of convolutions, nor vectors."""
    found = hidden_matrices(model)
    assert [name for name, param in model.named_parameters() if param in found] == hidden
