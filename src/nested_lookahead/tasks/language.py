"""Text as a task: predict each token from those before it. The parts of a text are contiguous, the test part last."""

from __future__ import annotations

import hashlib
import math
import urllib.request
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from nested_lookahead.errors import UserError, one_line
from nested_lookahead.inputs import opened
from nested_lookahead.settings import Split
from nested_lookahead.tasks.data import Source
from nested_lookahead.tasks.datasets import obtain
from nested_lookahead.tasks.objectives import NO_LABEL, NextToken

LARGEST = 2**31
"""Bytes of a text."""


@dataclass(frozen=True)
class Text:
    """Windows of a text, cut on the device that it lies on: inputs (batch, context), and labels one token further on.

    In training they are ``samples`` windows an epoch at random places, fresh in each. In order, they cover the text
    once: every token but the first is asked for, once.
    """

    tokens: Tensor
    """(length,), uint8 or int32."""
    context: int
    samples: int | None = None
    """Windows of an epoch; None: as many as cover the text."""

    @property
    def labels(self) -> Tensor:
        return self.tokens

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.context,)

    def __len__(self) -> int:
        covering = math.ceil((len(self.tokens) - 1) / self.context) if len(self.tokens) > self.context else 0
        return covering if self.samples is None or not covering else self.samples

    def to(self, device: torch.device) -> Text:
        return replace(self, tokens=self.tokens.to(device))

    def take(self, indices: np.ndarray[Any, Any]) -> Text:
        """So many windows from the beginning."""
        return Text(self.tokens[: len(indices) * self.context + 1], self.context)

    def divide(self, wanted: Split) -> tuple[Text, Text]:
        """The text without its end, and the end, for validation; of the former, the first ``train_size`` tokens.

        Raises:
            UserError: there are not so many, or less than a window.
        """
        held_out = round(wanted.val_fraction * len(self.tokens))
        kept, size = len(self.tokens) - held_out, wanted.train_size
        if size is not None and not self.context < size <= kept:
            raise UserError(f"dataset.split.train_size={size}: must be in [{self.context + 1}, {kept}] tokens here")
        if min(kept, held_out or kept) <= self.context:
            raise UserError(f"dataset: a part of the text has no more than the context's {self.context} tokens")
        return replace(self, tokens=self.tokens[: size or kept]), Text(self.tokens[kept:], self.context)

    def fetch(self, chunks: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        if not len(chunks):
            return
        indices = torch.cat(list(chunks))
        if seed is None:
            starts = indices * self.context
        else:
            generator = torch.Generator().manual_seed(seed)
            starts = torch.randint(len(self.tokens) - self.context, (len(self),), generator=generator)[indices]
        last = len(self.tokens) - 1 - self.context  # the last window of all overlaps with the one before
        covered = (starts - last).clamp(min=0)
        windows = self.tokens.unfold(0, self.context + 1, 1)
        sizes = [len(chunk) for chunk in chunks]
        overlaps = [bool(part.any()) for part in torch.split(covered, sizes)]
        # One transfer for all chunks: copying each would wait for the device.
        starts = starts.clamp(max=last).to(self.tokens.device)
        covered = covered.to(self.tokens.device)
        places = torch.arange(self.context, device=self.tokens.device)
        for start, done, overlap in zip(torch.split(starts, sizes), torch.split(covered, sizes), overlaps, strict=True):
            cut = windows[start].long()
            labels = cut[:, 1:]
            yield cut[:, :-1], labels.masked_fill(places < done[:, None], NO_LABEL) if overlap else labels

    def moments(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1), torch.ones(1)  # tokens are used as they are


def _source(
    tokens: np.ndarray[Any, Any], kinds: int, context: int, samples: int, test_fraction: float, goal: NextToken
) -> Source:
    """Raises:
    UserError: a part of the text has less than a window.
    """
    stored = torch.from_numpy(tokens.astype(np.uint8 if kinds <= 256 else np.int32))
    end = len(stored) - round(test_fraction * len(stored))
    train, test = Text(stored[:end], context, samples), Text(stored[end:], context)
    if not len(train) or not len(test):
        raise UserError(
            f"dataset: training and test part need more than the context's {context} tokens each, and have {end:,} and "
            f"{len(stored) - end:,}"
        )
    return Source(train, test, kinds, goal, normalize=False)


@dataclass(frozen=True)
class HiddenMarkov:
    """A source with ``states`` that are not seen. A state emits a symbol, and state and symbol give the next state."""

    emission: np.ndarray[Any, Any]
    """(states, symbols): probabilities."""
    successor: np.ndarray[Any, Any]
    """(states, symbols): the next state."""

    @classmethod
    def random(cls, states: int, symbols: int, concentration: float, seed: int) -> HiddenMarkov:
        """Emissions are drawn from a Dirichlet distribution. All states can be reached from each, by symbol 0; after a
        symbol of odd number the next state does not depend on the one before, so that it can be known.
        """
        generator = np.random.default_rng(seed)
        emission = generator.dirichlet(np.full(symbols, concentration), size=states)
        emission = 0.99 * emission + 0.01 / symbols
        successor = generator.integers(states, size=(states, symbols))
        successor[:, 1::2] = successor[0, 1::2]
        successor[:, 0] = (np.arange(states) + 1) % states
        return cls(emission, successor)

    def stationary(self) -> np.ndarray[Any, Any]:
        """Share of time in each state."""
        states = len(self.emission)
        moves = np.zeros((states, states))
        np.add.at(moves, (np.arange(states)[:, None], self.successor), self.emission)
        equations = np.vstack([moves.T - np.eye(states), np.ones(states)])
        result: np.ndarray[Any, Any] = np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0]
        return result

    def entropy_rate(self) -> float:
        """Nats per symbol: Σ π(s) H(symbol | s).

        Exact, as state and symbol give the next state: past symbols and the first state are the present state, and the
        first state is worth at most log(states) nats, over the whole sequence (Crutchfield & Young 1989).
        """
        entropies = -(self.emission * np.log(self.emission)).sum(axis=1)
        return float(self.stationary() @ entropies)

    def sample(self, length: int, seed: int) -> np.ndarray[Any, Any]:
        drawn = np.random.default_rng(seed).random(length).tolist()
        cumulative = [row[:-1] for row in self.emission.cumsum(axis=1).tolist()]
        successor, state, symbols = self.successor.tolist(), 0, []
        for share in drawn:
            symbol = bisect(cumulative[state], share)
            symbols.append(symbol)
            state = successor[state][symbol]
        return np.array(symbols)


def markov(
    context: Annotated[int, ">= 1"],
    samples: Annotated[int, ">= 1"],
    length: Annotated[int, ">= 1"],
    states: Annotated[int, ">= 1"],
    symbols: Annotated[int, "in [2, 256]"],
    concentration: Annotated[float, "> 0"],
    source_seed: Annotated[int, ">= 0"],
    test_fraction: Annotated[float, "in (0, 1)"],
) -> Source:
    """Text of a random hidden Markov source, whose entropy rate is the least expected loss, in nats."""
    source = HiddenMarkov.random(states, symbols, concentration, source_seed)
    tokens = source.sample(length, source_seed + 1)
    goal = NextToken("character", source.entropy_rate())
    return _source(tokens, symbols, context, samples, test_fraction, goal)


def text(
    file: str | None,
    unit: Annotated[str, "one of characters, bytes"],
    context: Annotated[int, ">= 1"],
    samples: Annotated[int, ">= 1"],
    test_fraction: Annotated[float, "in (0, 1)"],
) -> Source:
    """A file's characters, in UTF-8, or bytes, numbered in their order.

    Raises:
        UserError: there is no file, or it cannot be read.
    """
    if file is None:
        raise UserError("dataset=text: which one? set dataset.file to its path")
    return _read_text("text", Path(file), unit, context, samples, test_fraction)


SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def shakespeare(
    data_dir: str,
    download: bool,
    context: Annotated[int, ">= 1"],
    samples: Annotated[int, ">= 1"],
    test_fraction: Annotated[float, "in (0, 1)"],
) -> Source:
    """1,115,394 characters, 65 different ones, of Shakespeare's plays (Karpathy 2015)."""
    path = Path(data_dir) / "tinyshakespeare.txt"
    obtain("shakespeare", path.parent, [path.name], download, lambda folder: _fetch_shakespeare(folder / path.name))
    return _read_text("shakespeare", path, "characters", context, samples, test_fraction, SHAKESPEARE_SHA256)


def _fetch_shakespeare(path: Path) -> None:
    with urllib.request.urlopen(SHAKESPEARE, timeout=60) as answer:
        content = answer.read(2**24)
    if hashlib.sha256(content).hexdigest() != SHAKESPEARE_SHA256:
        raise ValueError(f"{SHAKESPEARE} is not the text that it was")
    path.write_bytes(content)


def _read_text(
    name: str, path: Path, unit: str, context: int, samples: int, test_fraction: float, digest: str | None = None
) -> Source:
    """Raises:
    UserError: it is not to be had, or not what it should be.
    """
    where = f"dataset={name}: {path.resolve()}"
    try:
        with opened(path, LARGEST) as file:
            content = file.read()
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise UserError(f"{where} is not the text that was published; delete it and run again to download it anew")
        if unit == "bytes":
            codes = np.frombuffer(content, dtype=np.uint8)
        else:
            codes = np.frombuffer(content.decode("utf-8").encode("utf-32-le"), dtype="<u4")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no UTF-8 ({one_line(str(error), 200)}); take dataset.unit=bytes") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read ({one_line(str(error), 200)})") from error
    kinds, tokens = np.unique(codes, return_inverse=True)
    goal = NextToken("character" if unit == "characters" else "byte")
    return _source(tokens, len(kinds), context, samples, test_fraction, goal)
