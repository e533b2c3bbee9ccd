"""Exact theory of Lookahead at any depth in the noisy quadratic model; ``python -m nested_lookahead.theory --help``."""

from nested_lookahead.tasks.spectrum import power_law
from nested_lookahead.theory.averages import (
    ema_moments,
    floor,
    polyak_moments,
    schedule_free_moments,
    tail_moments,
)
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
from nested_lookahead.theory.rules import Rule, impulse_moments, lookahead_rule, trajectory
from nested_lookahead.theory.slow_momentum import (
    SlowLayer,
    largest_step,
    slow_moments,
    slow_rule,
    slow_transitions,
    steady_variance_over,
)

__all__ = [
    "Cycle",
    "Moments",
    "Rule",
    "SlowLayer",
    "State",
    "Transition",
    "cycles",
    "ema_moments",
    "excess_risk",
    "floor",
    "impulse_moments",
    "largest_step",
    "lookahead_rule",
    "moments",
    "momentum_moments",
    "polyak_moments",
    "power_law",
    "replica_rule",
    "schedule_free_moments",
    "scheduled_moments",
    "slow_moments",
    "slow_rule",
    "slow_transitions",
    "steady_variance",
    "steady_variance_over",
    "tail_moments",
    "trajectory",
    "transitions",
]
