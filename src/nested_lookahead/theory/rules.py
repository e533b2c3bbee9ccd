"""Any linear rule around SGD, step by step, with any schedule; Lookahead among them, with all that it remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nested_lookahead.theory.checks import Array, Layers, checked
from nested_lookahead.theory.moments import Moments
from nested_lookahead.theory.momentum import fast_step, modes_of


class Rule(NamedTuple):
    """A wrapper around SGD as linear maps on the vector (x, b, …): x, the buffer, then what the wrapper remembers."""

    size: int
    """Length of the vector."""
    sync: Callable[[int], Array | None]
    """The map (size, size) that follows fast step t = 1, 2, …; None where there is none."""
    held: tuple[bool, ...] = ()
    """Which entries start at x, rather than at 0; if not said, every other one."""


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

    The buffer starts at zero, everything else at x. What is followed is a square root of the covariance, so that no
    variance is negative, however far a transient went.

    Raises:
        ValueError: as `transitions`.
    """
    shape = np.broadcast_shapes(np.shape(curvature), np.shape(noise), np.shape(start), *map(np.shape, lrs))
    held = _held(rule)
    mean = np.broadcast_to(np.asarray(start, dtype=np.float64), shape)[..., None] * held
    spread = np.broadcast_to(np.sqrt(np.asarray(start_variance, dtype=np.float64)), shape)
    root = np.zeros((*shape, rule.size, rule.size))
    root[..., 0] = spread[..., None] * held
    for step, lr in enumerate(lrs, start=1):
        move, kick = step_of(rule, step, lr, curvature, noise, momentum, nesterov)
        mean = np.squeeze(move @ mean[..., None], axis=-1)
        columns = np.concatenate([move @ root, np.broadcast_to(kick, mean.shape)[..., None]], axis=-1)
        root = np.swapaxes(np.linalg.qr(np.swapaxes(columns, -1, -2), mode="r"), -1, -2)
        yield mean, root @ np.swapaxes(root, -1, -2)


def step_of(
    rule: Rule, step: int, lr: ArrayLike, curvature: ArrayLike, noise: ArrayLike, momentum: float, nesterov: bool
) -> tuple[Array, Array]:
    """Of the step and the sync after it: the matrix (…, size, size), and a standard deviation of noise (…, size)."""
    fast, push = fast_step(lr, curvature, noise, momentum, nesterov)
    move = np.broadcast_to(np.eye(rule.size), (*fast.shape[:-2], rule.size, rule.size)).copy()
    move[..., :2, :2] = fast
    kick = np.zeros(move.shape[:-1])
    kick[..., :2] = push
    sync = rule.sync(step)
    return (move, kick) if sync is None else (sync @ move, kick @ sync.T)


def impulse_moments(
    lrs: Sequence[ArrayLike],
    rule: Rule,
    start: ArrayLike = 1.0,
    curvature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    entry: int = 0,
) -> Moments:
    """Of one entry at the end, from what the noise of each step becomes by then: a sum of squares, exact to rounding.

    Goes back from the end: a row vector times the matrices of the last steps says what an impulse before them becomes.
    """
    shape = np.broadcast_shapes(np.shape(curvature), np.shape(noise), np.shape(start), *map(np.shape, lrs))
    row = np.broadcast_to(np.eye(rule.size)[entry], (*shape, rule.size))
    variance = np.zeros(shape)
    for step in range(len(lrs), 0, -1):
        move, kick = step_of(rule, step, lrs[step - 1], curvature, noise, momentum, nesterov)
        variance = variance + np.sum(row * kick, axis=-1) ** 2
        row = np.squeeze(row[..., None, :] @ move, axis=-2)
    held = _held(rule)
    return Moments(np.asarray(start) * (row @ held), variance)


def _held(rule: Rule) -> Array:
    """1 for each entry that starts at x, 0 for the others."""
    return np.array(rule.held or [i % 2 == 0 for i in range(rule.size)], dtype=np.float64)
