"""Learning-rate schedules: pure functions of progress.

Each takes the share of training that is done, from 0 (first step) to 1, and returns the learning rate as a fraction
of its configured value.
"""

from __future__ import annotations

import math


def constant(progress: float) -> float:
    return 1.0


def cosine(progress: float, final: float) -> float:
    """Half a cosine from 1 down to ``final`` (Loshchilov & Hutter 2017, SGDR, equation 5, without restarts)."""
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
