"""The optimizer behind the best-known "no", as it behaves: to replicate its numbers, and for nothing else."""

from __future__ import annotations

from typing import Any

import torch

from nested_lookahead.optim import NestedLookahead


class NestedLookaheadReplica(NestedLookahead):
    """A historical reference for replication only: what the published script ran under the name of Nested Lookahead.

    It differs from Nested Lookahead (`NestedLookahead`) in each of these:

    - Inner syncs come after fast steps 1, k + 1, 2k + 1, …; the slow weights φ are first taken after step 1.
    - Outer syncs come after each of the k − 1 fast steps that follow every s-th inner sync, never with k = 1: ω moves
      toward φ and replaces the fast weights, which undoes those steps, while φ stays. ω is first taken, from φ, at the
      first of them.
    - ``pullback="pullback"`` has no effect, ``"reset"`` sets SGD's momentum buffer to zero at inner syncs, and nothing
      of other optimizers.

    Learning rate and weight decay are the inner optimizer's; the published script overrode both. The arguments are
    those of `NestedLookahead`, but for ``s``, which must be ≥ 1. Slow weights are never what it trains on, so there is
    no `slow_weights`.
    """

    def __init__(
        self,
        opt: torch.optim.Optimizer,
        k: int = 5,
        s: int = 5,
        alpha: float = 0.5,
        h: float = 0.5,
        pullback: str = "none",
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        if pullback not in ("none", "reset", "pullback"):
            raise ValueError(f"pullback must be none, reset or pullback, got {pullback!r}")
        if s == 0:
            raise ValueError("s must be an integer >= 1, got 0")
        super().__init__(opt, k, s, alpha, h, lr=lr, weight_decay=weight_decay)
        self.pullback = pullback

    @property
    def slow_weights(self) -> Any:
        raise AttributeError("NestedLookaheadReplica has no slow weights to evaluate")

    def _layers_due(self) -> int:
        syncs, since = divmod(self.fast_steps - 1, self.layers[0].k)
        if since == 0:
            return 1
        return 2 if (syncs + 1) % self.layers[1].k == 0 else 0

    @torch.no_grad()
    def _sync(self, due: int) -> None:
        inner, outer = self.layers
        for param in self._synced():
            slow, outermost = (self._own([param], f"slow_{depth}")[0] for depth in (1, 2))
            if due == 1:
                if self.fast_steps == 1:
                    slow.copy_(param)
                param.copy_(slow.lerp_(param, inner.alpha))
            else:
                if self.fast_steps == (outer.k - 1) * inner.k + 2:
                    outermost.copy_(slow)
                param.copy_(outermost.lerp_(slow, outer.alpha))
        if due == 1 and self.pullback == "reset":
            for state in self.opt.state.values():
                if state.get("momentum_buffer") is not None:
                    state["momentum_buffer"].zero_()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "pullback": self.pullback}
