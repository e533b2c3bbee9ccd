"""Labels that are no classes: their loss and score, and how they are split."""

import pytest
import torch

from nested_lookahead.errors import UserError
from nested_lookahead.settings import Split
from nested_lookahead.tasks.data import Source, TensorSamples, split_source
from nested_lookahead.tasks.objectives import Regression


def numbers(count=40, labels=None):
    inputs = torch.arange(count, dtype=torch.float32)[:, None]
    return TensorSamples(inputs, torch.linspace(-1, 1, count) if labels is None else labels)


def test_r_squared():
    labels = torch.tensor([1.0, 2.0, 3.0, 6.0])
    goal = Regression(labels)
    assert goal.variance == pytest.approx(3.5)
    mean = torch.full((4, 1), 3.0)
    assert goal.score(mean, labels).item() == pytest.approx(0, abs=1e-6)  # the mean explains nothing
    assert goal.score(labels[:, None], labels).item() == 4
    assert goal.loss(mean, labels).item() == pytest.approx(3.5)
    assert goal.loss(mean, labels, reduction="sum").item() == pytest.approx(14)
    two = torch.stack([labels, 2 * labels], dim=1)  # errors are averaged over targets
    assert Regression(two).loss(torch.zeros(4, 2), two).item() == pytest.approx((12.5 + 50) / 2)


def test_numbers_are_split_at_random_and_stay_numbers():
    source = Source(numbers(), numbers(10), 1, Regression(numbers(10).labels))
    data = split_source(source, Split(0.25, 20, None), seed=1)
    assert (len(data.train), len(data.validation)) == (20, 10)
    assert not set(data.train.images.flatten().tolist()) & set(data.validation.images.flatten().tolist())
    again, other = (split_source(source, Split(0.25, 20, None), seed) for seed in (1, 2))
    assert torch.equal(data.validation.labels, again.validation.labels)
    assert not torch.equal(data.validation.labels, other.validation.labels)
    assert data.train.labels.dtype == torch.float32


def test_labels_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="training labels must be integers, one per sample; for others, give an obj"):
        split_source(Source(numbers(), numbers(), 2), Split(0.0, None, None), 0)
    bad = numbers(labels=torch.full((40,), torch.nan))
    with pytest.raises(UserError, match="training labels hold numbers that are not finite"):
        split_source(Source(bad, numbers(), 1, Regression(numbers().labels)), Split(0.0, None, None), 0)
