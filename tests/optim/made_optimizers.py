"""The model, the inner optimizers and the wrappers that the optimizer's tests share."""

import functools

import torch
from torch import nn

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead, OptimizerList


def split(params):
    """Matrices, and the rest."""
    params = [*params]
    return [p for p in params if p.ndim == 2], [p for p in params if p.ndim != 2]


def sgd_and_adamw(params):
    matrices, rest = split(params)
    return [torch.optim.SGD(matrices, lr=0.1, momentum=0.9), torch.optim.AdamW(rest, lr=0.01)]


def muon_and_adamw(params):
    matrices, rest = split(params)
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=0.01)]


INNER = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "list": lambda p: OptimizerList(sgd_and_adamw(p)),
}
if hasattr(torch.optim, "Muon"):  # from torch 2.9 on
    INNER["muon"] = lambda p: OptimizerList(muon_and_adamw(p))


def halves(make):
    """What makes an optimizer of two groups, and a list of two optimizers with a group each, which is the same."""

    def groups(params):
        params = [*params]
        return params[: len(params) // 2], params[len(params) // 2 :]

    return {
        "one": lambda p: make([{"params": group} for group in groups(p)]),
        "list": lambda p: OptimizerList([make(group) for group in groups(p)]),
    }


HALVES = halves(INNER["sgd"])
WRAPPERS = {
    "lookahead": lambda opt, pullback="none": Lookahead(opt, 3, 0.5, pullback),
    "nested": lambda opt, pullback="none": NestedLookahead(opt, 3, 2, 0.5, 0.4, pullback),
    "multilayer": lambda opt, pullback="none": MultilayerLookahead(opt, [(2, 0.5), (2, 0.8), (2, 0.3)], pullback),
}


def make_model(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


@functools.cache
def batch(step, dtype):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 4, generator=generator).to(dtype), torch.randint(3, (8,), generator=generator)


def train(model, optimizer, steps, start=0):
    """Steps on batches that depend on the step's number alone."""
    dtype = next(model.parameters()).dtype
    for step in range(start, start + steps):
        x, y = batch(step, dtype)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
