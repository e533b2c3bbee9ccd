"""State dicts, compared to rounding."""

import pytest
import torch

OWN = (".random.cpu", ".progress.seconds")
"""Of two processes that make one run: global random numbers, which are drawn for dropout alone, and the time."""


def assert_same_state(ours, theirs, rtol=1e-4, atol=1e-4, path=""):
    """Nested plain types and tensors, with the same layout."""
    if path in OWN:
        return
    if isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride()), path
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol, equal_nan=True, msg=path)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), path
        for key, value in theirs.items():
            assert_same_state(ours[key], value, rtol, atol, f"{path}.{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), path
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same_state(one, other, rtol, atol, f"{path}.{i}")
    else:
        assert ours == (pytest.approx(theirs, rel=1e-12) if isinstance(theirs, float) else theirs), path
