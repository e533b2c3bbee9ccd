"""The optimizer behind the best-known "no", as it behaves: to replicate its numbers, and to take them apart."""

from __future__ import annotations

from typing import Any

import torch

from nested_lookahead.optim import NestedLookahead

MISFIRE = -1
"""In place of the number of layers that are due."""
FAULTS = ("outer_misfires", "off_by_one", "pullback_inert")


class NestedLookaheadReplica(NestedLookahead):
    """A historical reference for replication only: what the published script ran under the name of Nested Lookahead.

    It differs from Nested Lookahead (`NestedLookahead`) in three faults. Each can be mended; with none of them it is
    `NestedLookahead`, bit for bit.

    Args:
        outer_misfires: the outer update comes after each of the k − 1 fast steps that follow every s-th inner sync
            instead of once at it, and so never with k = 1: ω moves toward φ and replaces the fast weights, which undoes
            those steps, while φ and momentum stay. ω is first taken, from φ, at the first of them.
        off_by_one: inner syncs come after fast steps 1, k + 1, 2k + 1, … instead of k, 2k, …, and outer ones with every
            s-th of these; slow weights are first taken after step 1 instead of before it.
        pullback_inert: ``pullback="pullback"`` has no effect, and ``"reset"`` sets SGD's momentum buffer to zero at
            inner syncs, and nothing of other optimizers.

    Learning rate and weight decay are the inner optimizer's; the published script overrode both, and so lost the weight
    decay: ``weight_decay=0`` is that fault. The other arguments are those of `NestedLookahead`, but for ``s``, which
    must be ≥ 1, and ``pullback``, which must be none, reset or pullback. The published script measured fast weights
    alone, so there is no `slow_weights`.
    """

    def __init__(
        self,
        opt: torch.optim.Optimizer,
        k: int = 5,
        s: int = 5,
        alpha: float = 0.5,
        h: float = 0.5,
        pullback: str = "none",
        outer_misfires: bool = True,
        off_by_one: bool = True,
        pullback_inert: bool = True,
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        if pullback not in ("none", "reset", "pullback"):
            raise ValueError(f"pullback must be none, reset or pullback, got {pullback!r}")
        if s == 0:
            raise ValueError("s must be an integer >= 1, got 0")
        for name, value in zip(FAULTS, (outer_misfires, off_by_one, pullback_inert), strict=True):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, got {value!r}")
        super().__init__(opt, k, s, alpha, h, "none" if pullback_inert else pullback, lr=lr, weight_decay=weight_decay)
        self.pullback = pullback
        self.outer_misfires, self.off_by_one, self.pullback_inert = outer_misfires, off_by_one, pullback_inert

    @property
    def slow_weights(self) -> Any:
        raise AttributeError("NestedLookaheadReplica has no slow weights to evaluate")

    def layers_due(self) -> int:
        inner, outer = self.layers
        syncs, since = divmod(self.fast_steps - self.off_by_one, inner.k)
        syncs += self.off_by_one  # so many until now
        outer_due = syncs > 0 and syncs % outer.k == 0
        if since == 0:
            return 2 if outer_due and not self.outer_misfires else 1
        return MISFIRE if outer_due and self.outer_misfires else 0

    @torch.no_grad()
    def _sync(self, due: int) -> None:
        if due == MISFIRE:
            self._misfire()
            return
        if self.off_by_one and self.fast_steps == 1:
            for param in self._synced():
                for depth in (1, 2):
                    self._own([param], f"slow_{depth}")[0].copy_(param)
        super()._sync(due)
        if self.pullback_inert and self.pullback == "reset":
            for state in self.opt.state.values():
                if state.get("momentum_buffer") is not None:
                    state["momentum_buffer"].zero_()

    def _misfire(self) -> None:
        inner, outer = self.layers
        first = (outer.k - self.off_by_one) * inner.k + self.off_by_one + 1
        for param in self._synced():
            slow, outermost = (self._own([param], f"slow_{depth}")[0] for depth in (1, 2))
            if self.fast_steps == first:
                outermost.copy_(slow)
            param.copy_(outermost.lerp_(slow, outer.alpha))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in ("pullback", *FAULTS)}}
