"""Convolutions as matrix products over windows, which is what a GPU computes fast for several networks at once.

Several networks' convolutions as one are a convolution with groups. cuDNN has a kernel for few kinds of these, and for
the others computes group by group: 1,864 launches a step for 64 networks ``cnn1d``, and 88 as products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class WindowedConv1d(nn.Conv1d):
    """The same convolution, of the kinds that `windowed` takes: inputs (batch, channels, length)."""

    def forward(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)
        (kernel,), (stride,), (around,) = self.kernel_size, self.stride, self.padding
        padded = pad(input, (around, around)) if around else input
        windows = padded.unfold(2, kernel, stride)  # (batch, channels, places, kernel), in the same memory
        output = torch.einsum("bcpk,ock->bop", windows, self.weight)
        return output if self.bias is None else output + self.bias[:, None]


def windowed(model: nn.Module) -> None:
    """Have a model's convolutions of signals computed so, those without groups, dilation, or padding but zeros."""
    for module in model.modules():
        plain = type(module) is nn.Conv1d and module.groups == 1 and module.dilation == (1,)
        if plain and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = WindowedConv1d
