"""Convolutions as products over windows are the convolutions."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from nested_lookahead.training.windows import WindowedConv1d, windowed


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "around"), [(5, 2, 1), (3, 1, 0), (1, 1, 0), (4, 3, 5)])
def test_a_windowed_convolution_is_the_convolution_also_of_several_networks(kernel, stride, around, bias):
    torch.manual_seed(0)
    plain = [nn.Conv1d(3, 4, kernel, stride, around, bias=bias).double() for _ in range(2)]
    inputs = torch.randn(2, 5, 3, 11, dtype=torch.float64)
    expected = torch.stack([one(x) for one, x in zip(plain, inputs, strict=True)])
    wanted = torch.autograd.grad(expected.square().sum(), [one.weight for one in plain])
    stacked, _ = stack_module_state(plain)
    one = copy.deepcopy(plain[0])
    windowed(one)
    assert type(one) is WindowedConv1d
    found = torch.vmap(lambda params, x: functional_call(one, params, (x,)))(stacked, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.square().sum(), [stacked["weight"]])
    torch.testing.assert_close(gradient, torch.stack(wanted), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv1d(2, 4, 3, groups=2),
        nn.Conv1d(2, 4, 3, dilation=2),
        nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv1d(2, 4, 3, padding="same"),
        nn.Conv2d(2, 4, 3),
    ],
)
def test_others_stay_as_they_are(other):
    kind = type(other)
    windowed(nn.Sequential(other))
    assert type(other) is kind
