"""A decoder-only transformer (Radford et al. 2019, GPT-2)."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention


class Block(nn.Module):
    """Causal self-attention and a feed-forward network, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attend = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attend(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropped = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropped, is_causal=True)
        x = x + self.drop(self.attended(mixed.transpose(1, 2).flatten(2)))
        changed: Tensor = self.drop(self.narrow(gelu(self.widen(self.norm2(x)))))
        return x + changed


class GPT(nn.Module):
    """Tokens (batch, length) to logits (batch, length, tokens); what reads the tokens in also writes them out."""

    def __init__(self, context: int, tokens: int, layers: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(context, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                last = name.endswith(("attended.weight", "narrow.weight"))  # of a block: it adds to the shortcut
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if last else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop(self.tokens(tokens) + self.places.weight[: tokens.shape[1]])
        return linear(self.norm(self.blocks(x)), self.tokens.weight)


def gpt(
    shape: tuple[int, ...],
    num_classes: int,
    layers: Annotated[int, ">= 1"],
    heads: Annotated[int, ">= 1"],
    width: Annotated[int, ">= 1"],
    dropout: Annotated[float, "in [0, 1)"] = 0.0,
) -> GPT:
    """Raises:
    ValueError: ``width`` is no multiple of ``heads``, or the samples are no text.
    """
    if len(shape) != 1:
        raise ValueError(f"gpt takes text, these samples are {shape}; try dataset=markov, text or shakespeare")
    if width % heads:
        raise ValueError(f"gpt takes a width={width} that is a multiple of heads={heads}")
    return GPT(shape[0], num_classes, layers, heads, width, dropout)
