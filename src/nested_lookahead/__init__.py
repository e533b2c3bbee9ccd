"""Lookahead, Nested Lookahead and Multilayer Lookahead for PyTorch."""

from nested_lookahead.optim import Lookahead, MultilayerLookahead, NestedLookahead

__all__ = ["Lookahead", "MultilayerLookahead", "NestedLookahead"]
