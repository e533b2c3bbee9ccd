"""Networks, each built for a data set's sample shape and number of classes.

A shape is (channels, height, width) of an image or (channels, length) of a signal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

if TYPE_CHECKING:
    from torchvision.models import ResNet, VisionTransformer

Shape = tuple[int, ...]


def _channels(shape: Shape, dimensions: int, model: str, instead: str) -> int:
    """Number of channels of a shape with so many other dimensions.

    Raises:
        ValueError: the samples have another number of dimensions.
    """
    if len(shape) != 1 + dimensions:
        raise ValueError(f"{model} takes {dimensions}-D samples, these are {len(shape) - 1}-D, {shape}; try {instead}")
    return shape[0]


def mlp(shape: Shape, num_classes: int, hidden: Annotated[list[int], ">= 1"]) -> nn.Module:
    """Fully connected layers with ReLU on the flattened sample; no batch norm."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(shape)
    for next_width in hidden:
        layers += [nn.Linear(width, next_width), nn.ReLU()]
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


def cnn(shape: Shape, num_classes: int, width: Annotated[int, ">= 1"]) -> nn.Module:
    """Two 3×3 convolutions with batch norm and ReLU, then a linear head on a 2×2 grid of averages."""
    return nn.Sequential(
        nn.Conv2d(_channels(shape, 2, "cnn", "model=cnn1d or mlp"), width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, num_classes),
    )


def cnn1d(shape: Shape, num_classes: int, width: Annotated[int, ">= 1"]) -> nn.Module:
    """Three strided convolutions with ReLU and a linear head (Greydanus & Kobak 2024, ``ConvBase``); no batch norm."""
    convolutions = nn.Sequential(
        nn.Conv1d(_channels(shape, 1, "cnn1d", "model=cnn"), width, 5, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv1d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv1d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
    )
    features = convolutions(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(*convolutions, nn.Linear(features, num_classes))


class TrimmedConv2d(nn.Conv2d):
    """The same convolution, without the kernel's rows and columns that meet nothing but padding.

    The last blocks of an ImageNet network see images of 32 × 32 as a single pixel, on which only the middle of a 3 × 3
    kernel acts: one ninth of the work.
    """

    def forward(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)
        places = zip(input.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        (top, bottom), (left, right) = (_taps_that_meet(*place) for place in places)
        if (bottom - top, right - left) == self.kernel_size or self.dilation != (1, 1):
            return super().forward(input)
        # Slices of the kernel as it lies in memory, so that its gradient lies there in the same way.
        weight = self.weight
        if weight.is_contiguous(memory_format=torch.channels_last):
            weight = weight.permute(0, 2, 3, 1)[:, top:bottom, left:right].permute(0, 3, 1, 2)
        else:
            weight = weight[:, :, top:bottom, left:right]
        padding = (self.padding[0] - top, self.padding[1] - left)
        output: Tensor = conv2d(input, weight, self.bias, self.stride, padding, groups=self.groups)
        return output


def _taps_that_meet(size: int, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """First and one past the last tap of a kernel that lies on one of ``size`` pixels in some place."""
    places = (size + 2 * padding - kernel) // stride + 1
    return max(0, padding - (places - 1) * stride), min(kernel, size + padding)


def resnet18(shape: Shape, num_classes: int) -> ResNet:
    """torchvision's ResNet-18 (He et al. 2016); only the first convolution's input channels follow the data set."""
    return _resnet("resnet18", shape, num_classes)


def resnet50(shape: Shape, num_classes: int) -> ResNet:
    """torchvision's ResNet-50 (He et al. 2016), likewise."""
    return _resnet("resnet50", shape, num_classes)


def resnet18_cifar(shape: Shape, num_classes: int) -> ResNet:
    """ResNet-18 for small images: a 3×3 stem of stride 1 and no max-pool, as is usual on CIFAR."""
    model = _resnet("resnet18", shape, num_classes)
    model.conv1 = _he_normal(nn.Conv2d(shape[0], 64, 3, padding=1, bias=False))
    model.maxpool = nn.Identity()
    return model


def _resnet(name: str, shape: Shape, num_classes: int) -> ResNet:
    from torchvision import models

    channels = _channels(shape, 2, name, "model=cnn1d or mlp")
    model: ResNet = getattr(models, name)(num_classes=num_classes)
    if channels != 3:
        model.conv1 = _he_normal(nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False))
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = TrimmedConv2d  # torchvision has no place to say so; weights and names stay
    return model


def _he_normal(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class WideBlock(nn.Module):
    """Pre-activation residual block of two 3×3 convolutions."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = _he_normal(nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False))
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.conv2 = _he_normal(nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False))
        self.shortcut: nn.Module | None = None
        if channels_in != channels_out or stride != 1:
            self.shortcut = _he_normal(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.norm1(x))
        residual: Tensor = self.conv2(relu(self.norm2(self.conv1(active))))
        # Where the shape changes, the shortcut starts from the activation, as in the authors' code.
        return residual + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """Wide ResNet (Zagoruyko & Komodakis 2016): three groups of (depth − 4) / 6 blocks, ``widen`` times as wide."""

    def __init__(self, channels: int, num_classes: int, depth: int, widen: int) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6n + 4 with n >= 1, got {depth}")
        self.stem = _he_normal(nn.Conv2d(channels, 16, 3, padding=1, bias=False))
        blocks: list[nn.Module] = []
        width = 16
        for group in range(3):
            for block in range((depth - 4) // 6):
                stride = 2 if group > 0 and block == 0 else 1
                blocks.append(WideBlock(width, 16 * widen * 2**group, stride))
                width = 16 * widen * 2**group
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = relu(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def wide_resnet(shape: Shape, num_classes: int, depth: int, widen: Annotated[int, ">= 1"]) -> WideResNet:
    return WideResNet(_channels(shape, 2, "wide_resnet", "model=cnn1d or mlp"), num_classes, depth, widen)


def vit_tiny(
    shape: Shape,
    num_classes: int,
    patch_size: Annotated[int, ">= 1"],
    layers: Annotated[int, ">= 1"],
    heads: Annotated[int, ">= 1"],
    hidden: Annotated[int, ">= 1"],
) -> VisionTransformer:
    """torchvision's Vision Transformer (Dosovitskiy et al. 2021) in the width of ViT-Ti (Touvron et al. 2021).

    Raises:
        ValueError: the images are not square, or not a whole number of patches wide; or ``hidden`` is no multiple of
            ``heads``.
    """
    from torchvision.models import VisionTransformer

    channels = _channels(shape, 2, "vit_tiny", "model=cnn1d or mlp")
    size = shape[1]
    if shape[1] != shape[2] or size % patch_size:
        raise ValueError(f"vit_tiny takes square images, a multiple of patch_size={patch_size} wide; these are {shape}")
    if hidden % heads:
        raise ValueError(f"vit_tiny takes a hidden={hidden} that is a multiple of heads={heads}")
    model = VisionTransformer(size, patch_size, layers, heads, hidden, mlp_dim=4 * hidden, num_classes=num_classes)
    if channels != 3:
        model.conv_proj = nn.Conv2d(channels, hidden, patch_size, stride=patch_size)
        nn.init.trunc_normal_(model.conv_proj.weight, std=math.sqrt(1 / (channels * patch_size**2)))
        nn.init.zeros_(model.conv_proj.bias)
    return model
