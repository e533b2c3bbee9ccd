"""Each batch operation against torchvision's on single images with the same parameters."""

import pytest
import torch
from torchvision.transforms import functional as tv

from nested_lookahead.tasks import augment

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8, generator=GENERATOR)
IMAGES[0, :, :16] = 77  # grey pixels have no hue
IMAGES[1] = 255 * (IMAGES[1] > 127).to(torch.uint8)


def test_crop_and_flip_exactly():
    top, left = torch.randint(9, (2, 16), generator=GENERATOR)
    flips = torch.rand(16, generator=GENERATOR) < 0.5
    ours = augment.crop_and_flip(IMAGES, top, left, flips, padding=4)
    assert ours.dtype == torch.uint8
    assert flips.any()
    assert not flips.all()
    for i, image in enumerate(IMAGES):
        theirs = tv.crop(tv.pad(image, 4), int(top[i]), int(left[i]), 32, 32)
        assert torch.equal(ours[i], tv.hflip(theirs) if flips[i] else theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (augment.adjust_contrast, tv.adjust_contrast, 0.7, 1.0),
        (augment.adjust_saturation, tv.adjust_saturation, 0.7, 1.0),
        (augment.adjust_hue, tv.adjust_hue, 0.0, 0.1),
        (augment.adjust_hue, tv.adjust_hue, -0.5, 0.5),
    ],
)
def test_colour_within_a_thousandth_of_a_grey_level(ours, theirs, low, high):
    parameters = torch.empty(16).uniform_(low, high, generator=GENERATOR)
    batch = ours(IMAGES.float(), parameters)
    for i, image in enumerate(IMAGES):
        single = theirs(image.float() / 255, float(parameters[i])) * 255
        torch.testing.assert_close(batch[i], single, atol=1e-3, rtol=0)


def test_colour_within_two_grey_levels_on_8_bit_images_where_torchvision_truncates():
    factors = torch.full((16,), 0.8)
    batch = augment.adjust_contrast(IMAGES.float(), factors)
    for i, image in enumerate(IMAGES):
        assert (batch[i] - tv.adjust_contrast(image, 0.8).float()).abs().max() <= 2


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 31)])
def test_rotation_but_for_ties(shape):
    """A pixel's source may lie on the border of two: less than 0.2% of all may come from the other side."""
    images = torch.rand(16, *shape, generator=GENERATOR)
    angles = torch.empty(16).uniform_(-45, 45, generator=GENERATOR)
    ours = augment.rotate(images, angles)
    different = sum(
        (ours[i] != tv.rotate(image, float(angles[i]))).float().mean().item() for i, image in enumerate(images)
    )
    assert different / 16 < 0.002
    assert torch.equal(augment.rotate(images, torch.zeros(16)), images)


PUBLISHED = {"padding": 4, "contrast": (0.7, 1), "saturation": (0.7, 1), "hue": (0, 0.1), "degrees": 45}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("function", "settings"), [(augment.standard, {"padding": 4}), (augment.published, PUBLISHED)])
def test_every_sample_gets_its_own_and_the_generator_alone_decides(function, settings, channels):
    same = IMAGES[2:3, :channels].expand(64, -1, -1, -1)
    first, again, other = (function(same, torch.Generator().manual_seed(seed), **settings) for seed in (5, 5, 6))
    assert first.shape == same.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(image.flatten().tolist()) for image in first}) > 50
    assert first.min() >= 0
    assert first.max() <= 255


def test_standard_reaches_every_offset_and_both_orientations():
    generator = torch.Generator().manual_seed(1)
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).expand(2000, -1, -1, -1)
    seen = {tuple(result.flatten().tolist()) for result in augment.standard(image, generator, padding=1)}
    assert len(seen) == 3 * 3 * 2


def test_none_changes_nothing():
    state = GENERATOR.get_state()
    assert augment.none(IMAGES, GENERATOR) is IMAGES
    assert torch.equal(GENERATOR.get_state(), state)
