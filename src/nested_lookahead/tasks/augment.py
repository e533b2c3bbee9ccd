"""Random changes of training images: per sample, vectorised, on the images' device, from a generator of their own.

Each is the same operation as torchvision's on one image; ``tests/test_augment.py`` holds them side by side.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

LUMA = (0.2989, 0.587, 0.114)
"""ITU-R 601-2, as torchvision rounds it."""


def none(images: Tensor, generator: torch.Generator) -> Tensor:
    return images


def standard(images: Tensor, generator: torch.Generator, padding: Annotated[int, ">= 0"]) -> Tensor:
    """Random crop after zero padding, and horizontal flip with probability ½."""
    return crop_and_flip(images, *_crops_and_flips(images, generator, padding), padding)


def _crops_and_flips(images: Tensor, generator: torch.Generator, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    n, device = len(images), images.device
    offsets = torch.randint(2 * padding + 1, (2, n), generator=generator, device=device)
    flips = torch.rand(n, generator=generator, device=device) < 0.5
    return offsets[0], offsets[1], flips


def published(
    images: Tensor,
    generator: torch.Generator,
    padding: Annotated[int, ">= 0"],
    contrast: Annotated[tuple[float, float], "ascending, >= 0"],
    saturation: Annotated[tuple[float, float], "ascending, >= 0"],
    hue: Annotated[tuple[float, float], "ascending, in [-1, 1]"],
    degrees: Annotated[float, "in [0, 180]"],
) -> Tensor:
    """`standard`, then contrast, saturation and hue in this order, then rotation: the published study's pipeline.

    Contrast and saturation factors and hue shifts (in turns) come uniformly from the given ranges, angles from
    ±``degrees``. Returns float32 in [0, 255].
    """

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(len(images), device=images.device).uniform_(low, high, generator=generator)

    # All that is random comes first: a compiler can make one part of what comes after.
    crops_and_flips = _crops_and_flips(images, generator, padding)
    factors = uniform(*contrast), *((uniform(*saturation), uniform(*hue)) if images.shape[1] == 3 else ())
    angles = uniform(-degrees, degrees)
    images = adjust_contrast(crop_and_flip(images, *crops_and_flips, padding).float(), factors[0])
    if images.shape[1] == 3:
        images = adjust_hue(adjust_saturation(images, factors[1]), factors[2])
    return rotate(images, angles)


def crop_and_flip(images: Tensor, top: Tensor, left: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Windows of the images' own size at (top, left) of the zero-padded images, mirrored where ``flips`` is true."""
    n, _, height, width = images.shape
    columns = torch.arange(width, device=images.device)
    columns = torch.where(flips[:, None], width - 1 - columns, columns) + left[:, None]
    rows = torch.arange(height, device=images.device) + top[:, None]
    padded = pad(images, (padding,) * 4)
    sample = torch.arange(n, device=images.device)
    # Indices around a slice put the channels last, in memory, too.
    return padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def grayscale(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    # Numbers rather than a tensor of them: bringing one to a GPU would wait for it.
    red, green, blue = images.unbind(dim=1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor.view(-1, 1, 1, 1)
    return (factor * images + (1 - factor) * other).clamp(0, 255)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, grayscale(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, grayscale(images), factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` turns, keeping value and saturation of the HSV model."""
    value, brightest = images.max(dim=1)
    chroma = value - images.min(dim=1).values
    red, green, blue = images.unbind(dim=1)
    safe = torch.where(chroma == 0, 1.0, chroma)
    from_red, from_green, from_blue = (green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe
    sextant = torch.where(brightest == 0, from_red, torch.where(brightest == 1, from_green, from_blue))
    sextant = sextant + 6 * shift.view(-1, 1, 1)
    # Each channel is a trapezoid over the circle of hues (Smith 1978, in closed form).
    position = torch.stack([sextant + 5, sextant + 3, sextant + 1], dim=1) % 6
    fall = torch.minimum(position, 4 - position).clamp(0, 1)
    return value[:, None] - chroma[:, None] * fall


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn counter-clockwise about the centre, nearest neighbour, zeros outside."""
    _, _, height, width = images.shape
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Sampling positions turn clockwise; affine_grid's coordinates are scaled by half the image's sides.
    rows = [
        torch.stack([cos, -sin * height / width, zero], dim=1),
        torch.stack([sin * width / height, cos, zero], dim=1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)
