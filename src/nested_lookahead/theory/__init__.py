"""Exact theory of Lookahead at any depth in the noisy quadratic model; ``python -m nested_lookahead.theory --help``."""

from nested_lookahead.theory.moments import (
    Cycle,
    Moments,
    Rule,
    State,
    Transition,
    cycles,
    excess_risk,
    lookahead_rule,
    moments,
    momentum_moments,
    power_law,
    scheduled_moments,
    steady_variance,
    trajectory,
    transitions,
)
from nested_lookahead.theory.published import published_rule

__all__ = [
    "Cycle",
    "Moments",
    "Rule",
    "State",
    "Transition",
    "cycles",
    "excess_risk",
    "lookahead_rule",
    "moments",
    "momentum_moments",
    "power_law",
    "published_rule",
    "scheduled_moments",
    "steady_variance",
    "trajectory",
    "transitions",
]
