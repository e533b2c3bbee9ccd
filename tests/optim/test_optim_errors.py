"""An error names the argument, the value and what is allowed."""

import pytest
import torch
from made_optimizers import INNER, make_model, train

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead
from nested_lookahead.optim import MOMENTUM_BUFFERS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: Lookahead(o, k=0), "k must be an integer >= 1, got 0"),
        (lambda o: Lookahead(o, k=2.0), "k must be an integer >= 1, got 2.0"),
        (lambda o: Lookahead(o, k=True), "k must be an integer >= 1, got True"),
        (lambda o: Lookahead(o, alpha=0), r"alpha must be in \(0, 1\], got 0"),
        (lambda o: Lookahead(o, alpha=1.5), r"alpha must be in \(0, 1\], got 1.5"),
        (lambda o: Lookahead(o, alpha=float("nan")), r"alpha must be in \(0, 1\], got nan"),
        (lambda o: Lookahead(o, alpha="0.5"), r"alpha must be in \(0, 1\], got '0.5'"),
        (lambda o: NestedLookahead(o, s=-1), "s must be an integer >= 0, got -1"),
        (lambda o: NestedLookahead(o, h=0.0), r"h must be in \(0, 1\], got 0.0"),
        (lambda o: Lookahead(o, pullback="reste"), "pullback must be one of none, reset, pullback, .*, got 'reste'"),
        (lambda o: Lookahead(o, pullback="reset_outer"), "pullback='reset_outer' tells two layers apart"),
        (lambda o: NestedLookahead(o, pullback=("none", "off")), "must be one of none, reset, pullback, got 'off'"),
        (lambda o: NestedLookahead(o, pullback=["none"]), r"2 mode\(s\), one per layer, got 1"),
        (lambda o: MultilayerLookahead(o, layers=[]), "layers must hold at least one"),
        (lambda o: MultilayerLookahead(o, layers=[5, 0.5]), r"must be a \(k, alpha\) pair, got 5"),
        (lambda o: MultilayerLookahead(o, layers=[(5, 0.5), (0, 0.5)]), "k must be an integer >= 1, got 0"),
        (lambda o: Lookahead(o, lr=-1.0), "lr must be a finite number >= 0, got -1.0"),
    ],
)
def test_values_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make(INNER["sgd"](make_model().parameters()))


def test_wrong_kind_of_inner_optimizer():
    model = make_model()
    for wrong, message in (
        (torch.optim.SGD, "opt must be a torch.optim.Optimizer, got type"),
        (model.parameters(), "opt must be a torch.optim.Optimizer, got generator"),
        (Lookahead(INNER["sgd"](model.parameters())), "already a Lookahead"),
    ):
        with pytest.raises(TypeError, match=message):
            NestedLookahead(wrong)


@pytest.mark.parametrize(
    "make_inner",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.RMSprop(p),
        lambda p: torch.optim.Adagrad(p),
        lambda p: torch.optim.LBFGS(p),
    ],
)
@pytest.mark.parametrize("pullback", ["reset", "pullback", "reset_outer"])
def test_pullback_without_momentum(make_inner, pullback):
    with pytest.raises(ValueError, match="keeps no momentum to reset or pull back"):
        NestedLookahead(make_inner(make_model().parameters()), pullback=pullback)


def test_momentum_of_an_unknown_optimizer_is_looked_for_at_the_first_sync():
    class Plain(torch.optim.Optimizer):
        def __init__(self, params, buffer):
            super().__init__(params, {"lr": 0.1})
            self.buffer = buffer

        def step(self, closure=None):
            for param in self.param_groups[0]["params"]:
                self.state[param][self.buffer] = param.grad.clone()

    def two_steps(buffer):
        model = make_model()
        optimizer = Lookahead(Plain(model.parameters(), buffer), k=2, pullback="reset")
        train(model, optimizer, 2)
        return optimizer

    assert all(not s["exp_avg"].any() for s in two_steps(MOMENTUM_BUFFERS[1]).opt.state.values())
    with pytest.raises(ValueError, match="Plain keeps no momentum"):
        two_steps("velocity")


def test_a_pullback_over_an_optimizer_without_any_state_is_an_error_too():
    class SignSGD(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

        @torch.no_grad()
        def step(self, closure=None):
            for param in self.param_groups[0]["params"]:
                param -= 0.1 * param.grad.sign()

    model = make_model()
    with pytest.raises(ValueError, match="SignSGD keeps no momentum"):
        train(model, Lookahead(SignSGD(model.parameters()), k=2, pullback="reset"), 2)


def test_lr_and_weight_decay_default_to_the_inner_optimizers_own():
    x, y = torch.ones(1), torch.ones(1)
    inner = torch.optim.SGD([{"params": [x], "lr": 0.3}, {"params": [y]}], lr=0.1, weight_decay=0.01)
    NestedLookahead(inner)
    assert [(g["lr"], g["weight_decay"]) for g in inner.param_groups] == [(0.3, 0.01), (0.1, 0.01)]
    optimizer = NestedLookahead(inner, lr=0.2, weight_decay=0.0)
    optimizer.add_param_group({"params": [torch.ones(1)]})
    assert [(g["lr"], g["weight_decay"]) for g in inner.param_groups] == [(0.2, 0.0)] * 3
    with pytest.raises(ValueError, match="weight_decay given, but Rprop has no weight_decay"):
        NestedLookahead(torch.optim.Rprop([x]), weight_decay=0.1)
