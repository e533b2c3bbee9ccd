"""Learning-rate schedules: pure functions of progress.

Each takes the share of training that is done, from 0 (first step) to 1, and returns the learning rate as a fraction
of its configured value.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Annotated


def constant(progress: float) -> float:
    return 1.0


def cosine(progress: float, final: Annotated[float, ">= 0"]) -> float:
    """Half a cosine from 1 down to ``final`` (Loshchilov & Hutter 2017, SGDR, equation 5, without restarts)."""
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def linear(progress: float, final: Annotated[float, ">= 0"]) -> float:
    return 1 + (final - 1) * progress


def multistep(
    progress: float, milestones: Annotated[Sequence[float], "in [0, 1]"], gamma: Annotated[float, ">= 0"]
) -> float:
    """Multiplied by ``gamma`` at each of the milestones, which are shares of training."""
    return gamma ** bisect_right(sorted(milestones), progress)


def over_steps(schedule: Callable[[float], float], total_steps: int, warmup: float) -> Callable[[int], float]:
    """A schedule as a function of the step, counted from 0, after a linear warm-up.

    During the first ``warmup`` of all steps the factor rises in equal parts to the schedule's first value, which it
    has at the step after them; the schedule then extends over the rest.
    """
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return schedule(0.0) * (step + 1) / (rising + 1)
        return schedule((step - rising) / max(1, total_steps - rising))

    return factor
