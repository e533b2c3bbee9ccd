"""Lookahead, Nested Lookahead and Multilayer Lookahead for PyTorch."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nested_lookahead.optim import Lookahead, MultilayerLookahead, NestedLookahead, OptimizerList
    from nested_lookahead.replica import NestedLookaheadReplica

__all__ = ["Lookahead", "MultilayerLookahead", "NestedLookahead", "NestedLookaheadReplica", "OptimizerList"]


def __getattr__(name: str) -> Any:
    """Import torch when an optimizer is asked for, not for the analysis or a help text."""
    if name in __all__:
        from nested_lookahead import optim, replica

        return getattr(replica if name == "NestedLookaheadReplica" else optim, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
