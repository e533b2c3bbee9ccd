"""Samples that cannot be trained on, and what they are normalised by."""

import pytest
import torch

from nested_lookahead.errors import UserError
from nested_lookahead.settings import Split
from nested_lookahead.tasks.data import Source, TensorSamples, split_source


def source(change=lambda images, labels: None, n=40):
    """Signals of 3 channels in 2 classes, changed in place."""
    images, labels = torch.randn(n, 3, 5, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 2
    change(images, labels)
    return Source(TensorSamples(images, labels), TensorSamples(torch.randn(10, 3, 5), torch.arange(10) % 2), 2)


def test_a_constant_channel_is_centred_named_and_not_divided(caplog):
    made = split_source(source(lambda images, _: images[:, 1].fill_(7.0)), Split(0.0, None, None), seed=0)
    normal = made.normalize(made.train.images)
    assert torch.isfinite(normal).all()
    assert (normal[:, 1] == 0).all()
    assert abs(normal[:, 0].std() - 1) < 0.1
    (record,) = caplog.records
    assert "1 channel(s) of the training samples are constant (1, counted from 0)" in record.getMessage()


def test_a_channel_that_is_constant_in_training_alone_stays_finite():
    made = source(lambda images, _: images[:, 1].fill_(7.0))
    made = split_source(made, Split(0.0, None, None), seed=0)
    assert torch.isfinite(made.normalize(made.test.images)).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda images, _: images[3, 2].fill_(float("nan")),
            "samples hold numbers that are not finite, in channel 2",
        ),
        (lambda images, _: images[0, 2, 0].fill_(float("inf")), r"not finite, in channel 2 \(from 0\)"),
        (lambda _, labels: labels[5].fill_(2), r"training labels must be in \[0, 1\], and are in \[0, 2\]"),
        (lambda _, labels: labels[5].fill_(-1), r"training labels must be in \[0, 1\], and are in \[-1, 1\]"),
    ],
)
def test_samples_that_cannot_be_trained_on_are_refused(change, said):
    with pytest.raises(UserError, match=said) as caught:
        split_source(source(change), Split(0.0, None, None), seed=0)
    assert len(str(caught.value)) < 200  # it names the place, and does not print the data


def test_no_samples():
    with pytest.raises(UserError, match="there are no training samples"):
        split_source(source(n=0), Split(0.0, None, None), seed=0)


def test_a_validation_split_that_takes_everything():
    with pytest.raises(UserError, match=r"val_fraction=0.9999999: leaves none of the 40 samples to train on"):
        split_source(source(), Split(0.9999999, None, None), seed=0)
