"""The exact moments of `nested_lookahead.NestedLookaheadReplica`, which is linear, too."""

from __future__ import annotations

import numpy as np

from nested_lookahead.theory.checks import Array
from nested_lookahead.theory.rules import Rule


def replica_rule(k: int, s: int, alpha: float, h: float, pullback: str = "none") -> Rule:
    """What the published script did around SGD: the vector is (x, b, φ, 0, ω, 0)."""

    def sync(step: int) -> Array | None:
        syncs, since = divmod(step - 1, k)
        now = np.eye(6)
        if since == 0:
            now[2] = now[0] if step == 1 else (1 - alpha) * now[2] + alpha * now[0]
            now[0] = now[2]
            if pullback == "reset":
                now[1] = 0
            return now
        if (syncs + 1) % s:
            return None
        if step == (s - 1) * k + 2:
            now[4] = now[2]
        now[4] = (1 - h) * now[4] + h * now[2]
        now[0] = now[4]
        return now

    return Rule(6, sync)
