"""Any linear rule around SGD, step by step, with any schedule; Lookahead among them, with all that it remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nested_lookahead.theory.checks import Array, Layers, checked
from nested_lookahead.theory.momentum import modes_of, transitions


class Rule(NamedTuple):
    """A wrapper around SGD as linear maps on the vector (x, b, …): x, the buffer, then what the wrapper remembers."""

    size: int
    """Length of the vector."""
    sync: Callable[[int], Array | None]
    """The map (size, size) that follows fast step t = 1, 2, …; None where there is none."""


def lookahead_rule(layers: Layers, pullback: str | Sequence[str] = "none") -> Rule:
    """Lookahead of any depth with its slow weights and momentum caches written out: (x, b, slow₁, cache₁, slow₂, …)."""
    layers = checked(layers)
    modes = modes_of(pullback, len(layers))
    size = 2 + 2 * len(layers)

    def after(due: int) -> Array:
        now = np.eye(size)
        for depth, ((_, alpha), mode) in enumerate(zip(layers[:due], modes, strict=False), start=1):
            slow, cache = 2 * depth, 2 * depth + 1
            now[slow] += alpha * (now[0] - now[slow])
            if mode == "reset":
                now[1] = 0
            elif mode == "pullback":
                now[1] = alpha * now[1] + (1 - alpha) * now[cache]
                now[cache] = now[1]
            now[0] = now[slow]
            for below in range(1, depth):
                now[2 * below] = now[slow]
                if modes[below - 1] == "pullback":
                    now[2 * below + 1] = now[1]
        return now

    maps = [None, *(after(due) for due in range(1, len(layers) + 1))]
    periods = np.cumprod([k for k, _ in layers], dtype=int)
    return Rule(size, lambda step: maps[int(sum(step % period == 0 for period in periods))])


def trajectory(
    lrs: Sequence[ArrayLike],
    rule: Rule,
    start: ArrayLike = 1.0,
    start_variance: ArrayLike = 0.0,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Iterator[tuple[Array, Array]]:
    """Mean (…, size) and covariance (…, size, size) of the rule's vector after each step; one learning rate per step.

    The buffer starts at zero, everything else at x.

    Raises:
        ValueError: as `transitions`.
    """
    shape = np.broadcast_shapes(np.shape(curvature), np.shape(noise), np.shape(start), *map(np.shape, lrs))
    held = np.ones(rule.size)
    held[1::2] = 0  # the buffer and its caches
    mean = np.broadcast_to(np.asarray(start, dtype=np.float64), shape)[..., None] * held
    covariance = np.broadcast_to(np.asarray(start_variance, dtype=np.float64), shape)[..., None, None] * np.outer(
        held, held
    )
    for step, lr in enumerate(lrs, start=1):
        fast = transitions(lr, (), curvature, noise, momentum, nesterov)[0]
        move = np.broadcast_to(np.eye(rule.size), (*fast.matrix.shape[:-2], rule.size, rule.size)).copy()
        move[..., :2, :2] = fast.matrix
        kick = np.zeros_like(move)
        kick[..., :2, :2] = fast.noise
        sync = rule.sync(step)
        if sync is not None:
            move, kick = sync @ move, sync @ kick @ sync.T
        mean = np.squeeze(move @ mean[..., None], axis=-1)
        covariance = move @ covariance @ np.swapaxes(move, -1, -2) + kick
        yield mean, covariance
