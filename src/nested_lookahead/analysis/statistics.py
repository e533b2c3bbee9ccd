"""Array to number functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def t_half_width(values: Sequence[float], level: float = 0.95) -> float | None:
    """Half-width of Student's t interval for the mean, or None for fewer than three values.

    At n = 3 this interval covers a normal mean 94.5% of the time where a percentile bootstrap covers 75%. Two values
    give an interval too wide to be of use (t = 12.7): show the values themselves.
    """
    n = len(values)
    if n < 3:
        return None
    if np.ptp(values) == 0:
        return 0.0
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
