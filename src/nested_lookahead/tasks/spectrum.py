"""The spectrum of the noisy quadratic model: curvatures and noise variances. numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def power_law(coordinates: int, power: float = 1.0, noise_power: float = 1.0) -> tuple[Array, Array]:
    """Curvatures aᵢ = i^−power, i = 1 … n, and noise variances σᵢ² = aᵢ^−noise_power (Zhang et al. 2019: both 1).

    Raises:
        ValueError: no coordinates.
    """
    if coordinates < 1:
        raise ValueError(f"coordinates must be >= 1, got {coordinates}")
    curvature = np.arange(1, coordinates + 1, dtype=np.float64) ** -power
    return curvature, curvature**-noise_power
