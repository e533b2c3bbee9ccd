"""Exact theory of Lookahead at any depth in the noisy quadratic model; ``python -m nested_lookahead.theory --help``."""

from nested_lookahead.tasks.spectrum import power_law
from nested_lookahead.theory.moments import (
    Cycle,
    Moments,
    cycles,
    excess_risk,
    moments,
    scheduled_moments,
    steady_variance,
)
from nested_lookahead.theory.momentum import State, Transition, momentum_moments, transitions
from nested_lookahead.theory.replica import replica_rule
from nested_lookahead.theory.rules import Rule, lookahead_rule, trajectory

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
    "replica_rule",
    "scheduled_moments",
    "steady_variance",
    "trajectory",
    "transitions",
]
