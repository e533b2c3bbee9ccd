"""A small problem, optimizers for it, and the loop that a trainer is held against."""

import torch

from nested_lookahead import Lookahead, NestedLookahead, OptimizerList

PER_EPOCH = 8
"""Batches."""


def data():
    x = torch.randn(8 * PER_EPOCH, 6, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True).sin())


def loader(**more):
    return torch.utils.data.DataLoader(data(), batch_size=8, **more)


def model():
    torch.manual_seed(2)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def loss(net, batch):
    return (net(batch[0]) - batch[1]).square().mean()


def lookahead(params):
    return Lookahead(torch.optim.SGD(params, lr=0.1, momentum=0.9), k=3, pullback="reset")


def nested(params):
    return NestedLookahead(torch.optim.Adam(params, lr=0.01), k=3, s=2, pullback="pullback")


def muon_and_adamw(params):
    params = list(params)
    matrices, rest = ([p for p in params if (p.ndim == 2) == wanted] for wanted in (True, False))
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=0.01)]


def nested_two(params):
    return NestedLookahead(muon_and_adamw(params), k=3, s=2, pullback="reset")


def two(params):
    return OptimizerList(muon_and_adamw(params))


OPTIMIZERS = [lookahead, nested]
if hasattr(torch.optim, "Muon"):  # torch 2.9
    OPTIMIZERS += [nested_two, two]


def trained(make, epochs, accumulate=1, clip=None, schedule=None):
    """The model and its optimizer after a plain loop.

    Args:
        accumulate: batches whose gradients' mean is that of a step.
        clip: largest norm of a gradient.
        schedule: from an optimizer, stepped after each of its steps.
    """
    net = model()
    optimizer = make(net.parameters())
    scheduler = schedule(optimizer) if schedule else None
    for _ in range(epochs):
        for number, batch in enumerate(loader(), start=1):
            (loss(net, batch) / accumulate).backward()
            if number % accumulate == 0:
                if clip:
                    torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
                if scheduler:
                    scheduler.step()
    return net, optimizer


def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)


def assert_same(ours, theirs):
    """To the last bit."""
    ours, theirs = (dict(net.state_dict()) for net in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def slow_of(net, optimizer):
    with optimizer.slow_weights():
        return {key: value.clone() for key, value in net.state_dict().items()}
