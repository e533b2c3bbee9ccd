"""Moments with momentum on the slow weights, to 19 digits: what the optimizers and the theory are held against."""

import json
from pathlib import Path

import numpy as np

FILE = json.loads((Path(__file__).parent / "slow_momentum_vectors.json").read_text())
VECTORS = FILE["vectors"]
NAMES = [f"{vector['id']} {vector['note']}" for vector in VECTORS]


def numbers(expected):
    """Mean, variance, and those of the whole state (x, v, b₁ … b_L)."""
    names = ("mean", "variance", "state_mean", "state_covariance")
    return [np.array(expected[name], dtype=object).astype(float) for name in names]
