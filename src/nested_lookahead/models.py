"""Networks, each built for a data set's image shape (channels, height, width) and number of classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torchvision.models import ResNet

Shape = tuple[int, int, int]


def mlp(shape: Shape, num_classes: int, hidden: list[int]) -> nn.Module:
    """Fully connected layers with ReLU on the flattened image; no batch norm."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(shape)
    for next_width in hidden:
        layers += [nn.Linear(width, next_width), nn.ReLU()]
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


def cnn(shape: Shape, num_classes: int, width: int) -> nn.Module:
    """Two 3×3 convolutions with batch norm and ReLU, then a linear head on a 2×2 grid of averages."""
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, padding=1, bias=False),
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


def resnet18(shape: Shape, num_classes: int) -> ResNet:
    """torchvision's ResNet-18 (He et al. 2016); only the first convolution's input channels follow the data set."""
    from torchvision.models import resnet18 as build

    model = build(num_classes=num_classes)
    if shape[0] != 3:
        model.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


def resnet18_cifar(shape: Shape, num_classes: int) -> ResNet:
    """ResNet-18 for small images: a 3×3 stem of stride 1 and no max-pool, as is usual on CIFAR."""
    from torchvision.models import resnet18 as build

    model = build(num_classes=num_classes)
    model.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
