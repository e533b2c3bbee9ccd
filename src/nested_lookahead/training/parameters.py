"""Which of a model's parameters an optimizer treats how: param groups, weight decay, and what Muon takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from nested_lookahead.errors import UserError
from nested_lookahead.optim import OptimizerList

Group = dict[str, Any]
"""A param group as torch's optimizers take it: ``params``, and settings that are not the optimizer's own."""


def param_groups(model: nn.Module, decay: str, groups: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What an optimizer is called with: the parameters, or param groups of them where a group has settings of its own.

    Args:
        decay: ``all``, or ``matrices``: no weight decay for what is no matrix (norms, biases) and for embeddings.
        groups: each with a pattern, ``match``, and settings, which hold also where ``decay`` says otherwise. A
            parameter is in the first group that matches; those that none matches come first.

    Raises:
        UserError: a pattern matches nothing, or nothing that an earlier one has left.
    """
    left = list(model.parameters())
    made: list[Group] = []
    for i, group in enumerate(groups):
        matched = matching(model, group["match"], f"param_groups[{i}].match")
        taken = [param for param in left if param in matched]
        if not taken:
            raise UserError(f"param_groups[{i}].match={group['match']}: all that it matches is in an earlier group")
        left = [param for param in left if param not in matched]
        made.append({"params": taken} | {key: value for key, value in group.items() if key != "match"})
    made = [{"params": left}, *made] if left else made
    if decay == "matrices":
        decayed = {param for param in model.parameters() if param.ndim >= 2} - embeddings(model)
        made = [part for group in made for part in _by_decay(group, decayed)]
    return made if len(made) > 1 or made[0].keys() > {"params"} else left


def _by_decay(group: Group, decayed: Collection[Tensor]) -> list[Group]:
    if "weight_decay" in group:
        return [group]
    return [
        group | own
        for own in (
            {"params": [param for param in group["params"] if param in decayed]},
            {"params": [param for param in group["params"] if param not in decayed], "weight_decay": 0.0},
        )
        if own["params"]
    ]


def matching(model: nn.Module, pattern: str, key: str) -> set[Tensor]:
    """The parameters whose name, or the name of a module that they are in, fits a pattern such as ``blocks.0.*``.

    In a pattern, ``*`` stands for anything, ``?`` for one character, ``[ab]`` for one of these.

    Raises:
        UserError: there are none; ``key`` says where the pattern is from.
    """
    named = list(model.named_parameters(remove_duplicate=False))  # of what is shared, any name will do
    found: set[Tensor] = {param for name, param in named if any(fnmatchcase(part, pattern) for part in _prefixes(name))}
    if not found:
        names = [name for name, _ in named]
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise UserError(f"{key}={pattern}: matches no parameter of this model, which has {listed}")
    return found


def _prefixes(name: str) -> Iterable[str]:
    """``a.b.c``, ``a`` and ``a.b``."""
    return [name, *(name[:i] for i, character in enumerate(name) if character == ".")]


def embeddings(model: nn.Module) -> set[Tensor]:
    """Weights of embeddings, also where another layer shares them, as an output layer may."""
    return {module.weight for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}


def hidden_matrices(model: nn.Module) -> set[Tensor]:
    """Parameters with two dimensions, other than embeddings and what the last module that has parameters has.

    That one is the output layer, unless the last is a norm before tied embeddings. Kernels of convolutions have more
    dimensions.
    """
    *_, last = (module for module in model.modules() if next(module.parameters(recurse=False), None) is not None)
    matrices: set[Tensor] = {param for param in model.parameters() if param.ndim == 2}
    return matrices - embeddings(model) - set(last.parameters(recurse=False))


def muon(
    params: Sequence[Any],
    model: nn.Module,
    lr: Annotated[float, ">= 0"] = 0.001,
    weight_decay: Annotated[float, ">= 0"] = 0.1,
    momentum: Annotated[float, "in [0, 1)"] = 0.95,
    nesterov: bool = True,
    ns_steps: Annotated[int, "in [1, 99]"] = 5,
    adjust_lr_fn: Annotated[str, "one of original, match_rms_adamw, spectral_unclamped"] = "match_rms_adamw",
    adamw_lr: Annotated[float | None, ">= 0"] = None,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: Annotated[float, ">= 0"] = 1e-8,
    rest: list[str] | None = None,
) -> OptimizerList:
    """Muon (Jordan et al. 2024) for a model's `hidden_matrices`, and AdamW for the rest.

    Args:
        params: the model's parameters, or param groups of them; of a group with a setting that only one of the two
            optimizers has, that one takes it.
        adjust_lr_fn: how Muon's step follows from lr and a matrix's shape; with ``match_rms_adamw`` (Liu et al. 2025,
            arXiv:2502.16982) it is about as large as AdamW's, so that one lr serves both.
        adamw_lr: AdamW's, if it is to have another one.
        betas, eps: AdamW's.
        rest: patterns, as in `matching`, of further parameters that AdamW takes.

    Raises:
        ImportError: this torch has no Muon.
        ValueError: there are no such matrices, or groups have a setting that none of their parameters can have.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(f"needs torch.optim.Muon, which torch has from 2.9 on; this is torch {torch.__version__}")
    hidden = hidden_matrices(model).difference(*(matching(model, pattern, "rest") for pattern in rest or ()))
    if not hidden:
        raise ValueError("this model has no hidden matrices, and all would be AdamW's: use adamw")
    both: Group = {"lr": lr, "weight_decay": weight_decay}
    of_muon = both | {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
    of_adamw = both | {"betas": betas, "eps": eps} | ({} if adamw_lr is None else {"lr": adamw_lr})
    groups = list(params) if isinstance(params[0], dict) else [{"params": list(params)}]
    matrices, others = _parted(groups, hidden, of_muon, of_adamw)
    fused = all(param.device.type in ("cpu", "cuda") for param in model.parameters())
    opts: list[torch.optim.Optimizer] = [torch.optim.Muon(matrices, **of_muon)]
    return OptimizerList(opts + ([torch.optim.AdamW(others, fused=fused, **of_adamw)] if others else []))


def _parted(
    groups: Sequence[Group], first: Collection[Tensor], *known: Collection[str]
) -> tuple[list[Group], list[Group]]:
    """Each group in two, of the parameters in ``first`` and of the others, with those of its settings that are known.

    Raises:
        ValueError: a setting would be nowhere.
    """
    parts: tuple[list[Group], list[Group]] = ([], [])
    for group in groups:
        for part, wanted, names in zip(parts, (True, False), known, strict=True):
            if own := [param for param in group["params"] if (param in first) == wanted]:
                part.append({key: value for key, value in group.items() if key in names} | {"params": own})
    taken = {key for part in parts for group in part for key in group}
    if unknown := sorted({key for group in groups for key in group} - taken):
        raise ValueError(f"param_groups: no parameter that matches has {', '.join(unknown)}")
    return parts
