"""What all of the theory takes, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Layers = Sequence[tuple[int, float]]
"""(k, alpha) pairs, innermost first, as in `nested_lookahead.MultilayerLookahead`."""


def arrays(*values: ArrayLike) -> list[Array]:
    """Learning rate, curvature and noise variance, of one shape.

    Raises:
        ValueError: one is empty, not finite or below 0.
    """
    names = ("lr", "curvature", "noise")
    given = [np.asarray(value, dtype=np.float64) for value in values]
    for name, array in zip(names, given, strict=True):
        if array.size == 0:
            raise ValueError(f"{name} must not be empty")
        if not np.all(np.isfinite(array) & (array >= 0)):
            raise ValueError(f"{name} must be finite and >= 0, got {array.min() if array.ndim else array}")
    return [np.asarray(array) for array in np.broadcast_arrays(*given)]


def checked(layers: Layers) -> Layers:
    """The layers as they are.

    Raises:
        ValueError: a k that is no integer >= 1, or an alpha outside (0, 1].
    """
    for k, alpha in layers:
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k must be an integer >= 1, got {k!r}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {alpha!r}")
    return layers
