"""Weights out of a run's checkpoint, to keep or to deploy: ``weights("outputs/…/seed=0", "ema")``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from nested_lookahead.runs import checkpoints
from nested_lookahead.runs.files import CHECKPOINT


def weights(run: str | Path, kind: str = "fast") -> dict[str, Tensor]:
    """The model's state dict with one kind of weights, of a run's directory or its checkpoint; `torch.save` keeps it.

    Kinds are ``fast``, ``slow`` (a Lookahead's outermost) and those of the averages that the run kept (``ema``,
    ``tail``). Buffers are the fast weights': estimate batch-norm statistics anew for others, by
    `torch.optim.swa_utils.update_bn`.

    Raises:
        ValueError: there are no weights of that kind; the message lists those that there are. Or the file is damaged.
    """
    path = Path(run)
    file = path / CHECKPOINT if path.is_dir() else path
    try:
        state = checkpoints.read(file)
    except checkpoints.Damaged as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    found = kinds(state)
    if kind not in found:
        raise ValueError(f"weights must be one of {', '.join(found)}, got {kind!r}")
    model: dict[str, Tensor] = dict(state["model"])
    return model | dict(zip(state.get("parameters", []), found[kind], strict=True))


def kinds(state: dict[str, Any]) -> dict[str, list[Tensor]]:
    """Of a trainer's state: each kind of weights, in the order of the model's parameters."""
    model = state["model"]
    names = state.get("parameters", [])
    optimizer = state["optimizer"]
    found = {"fast": [model[name] for name in names]}
    index = {name: i for i, name in enumerate(state.get("optimizer_parameters", names))}
    if optimizer["param_groups"][0].get("train_mode"):
        found["fast"] = [_averaged(optimizer, index[name], model[name]) for name in names]
    if "lookahead" in optimizer["param_groups"][0] and names:
        depth = len(optimizer["param_groups"][0]["lookahead"]["layers"])
        slow = [optimizer["state"].get(index[name], {}) for name in names]
        # A parameter that has been frozen from the start has no slow weights: it has not moved.
        found["slow"] = [own.get(f"slow_{depth}", model[name]) for own, name in zip(slow, names, strict=True)]
    averages = state.get("averages", {})
    return found | {name: average["kept"] for name, average in averages.items() if average["ready"]}


def _averaged(optimizer: dict[str, Any], index: int, trained: Tensor) -> Tensor:
    """Of what a Schedule-Free optimizer trains, (1 − β) z + β x, the average x."""
    group = next(group for group in optimizer["param_groups"] if index in group["params"])
    own = optimizer["state"].get(index, {})
    beta = group["momentum"] if "momentum" in group else group["betas"][0]
    return trained.lerp(own["z"], 1 - 1 / beta) if "z" in own else trained
