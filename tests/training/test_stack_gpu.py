"""What only a GPU can show of a stack: the same runs, none that another's divergence reaches, no waiting in a step."""

import pytest
import torch
from test_stack import ALIKE, NETWORKS, assert_same_rows, diverges_at_once, make_runs, rows_of, rows_of_stack
from test_stacked_optimizer import nested, sgd

from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.stack import Stack

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def hardware(monkeypatch):
    """In full float32: TF32, which PyTorch takes for convolutions, rounds differently in a grouped one."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return Hardware.choose("cuda", "fp32", None, None)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ALIKE)
def test_each_run_is_what_it_would_be_by_itself(hardware, name, network):
    options = {"network": network, "hardware": hardware}
    stacked = Stack(make_runs(ALIKE[name], **options))
    for ours, single in zip(rows_of_stack(stacked), make_runs(ALIKE[name], **options), strict=True):
        assert_same_rows(ours, rows_of(single), tolerance=2e-3)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_that_is_not_finite_does_not_reach_the_others(hardware, network):
    """Its losses are looked at once in an epoch here: until then its weights are not finite in the same kernels."""
    makes = [sgd(0.05), diverges_at_once, sgd(0.02)]
    options = {"network": network, "hardware": hardware}
    singles, stacked = make_runs(makes, **options), Stack(make_runs(makes, **options))
    stacked.rows.weights.data[1] = float("nan")
    found = rows_of_stack(stacked)
    assert set(stacked.diverged) == {1}
    assert stacked.diverged[1].step == 1
    for number in (0, 2):
        assert_same_rows(found[number], rows_of(singles[number]), tolerance=2e-3)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_never_waits_for_the_device(hardware, network):
    makes = [nested(sgd(0.05), 2, 2), nested(sgd(0.02), 3, 2), *ALIKE["nested"]]
    stacked = Stack(make_runs(makes, network=network, hardware=hardware))
    stacked.train_epoch()
    batches = list(stacked.batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, labels in batches:
            stacked.train_step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
