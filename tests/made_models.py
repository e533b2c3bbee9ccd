"""Small models whose parameters are of every kind, and their names."""

import torch
from torch import nn

from nested_lookahead.tasks.gpt import gpt


def make_gpt():
    torch.manual_seed(0)
    return gpt((8,), 11, layers=2, heads=2, width=6)


class Untied(nn.Module):
    def __init__(self, tie=False):
        super().__init__()
        self.read = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7)
        if tie:
            self.head.weight = self.read.weight


def names_of(model):
    return [name for name, _ in model.named_parameters()]


def named(model, params):
    names = {param: name for name, param in model.named_parameters()}
    return [names[param] for param in params]
