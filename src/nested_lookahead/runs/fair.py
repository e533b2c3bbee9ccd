"""Arms tuned at an equal cost: their points, the choice, and the file that says what was chosen from what.

See docs/fair.md. Nothing here launches anything: `stages` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nested_lookahead.errors import UserError
from nested_lookahead.metric import Metric
from nested_lookahead.runs import files

FILE = "comparison.json"
"""In the study's folder: arms, their trials, what was chosen, and what is to be compared."""
TUNING, FINAL = "tuning", "final"
"""Folders of the study: runs that choose, and runs on fresh seeds."""
VERSION = 1
SCALES = ("linear", "log", "log_complement")
DIGITS = 4
"""Significant ones of a value that is drawn: more differ between machines, and with them a run's identity."""
EDGE = 0.05
"""Share of a range, on its scale, that counts as its edge."""


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds; ``log_complement``: 1 − x on a logarithmic scale, as suits momentum."""

    low: float
    high: float
    scale: str = "linear"
    whole: bool = False

    def at(self, share: float) -> str:
        """The value at this share of the way, in [0, 1), as it is typed. Whole numbers have equal parts of the scale's
        length to their halves, those at the ends included."""
        low, high = self._ends()
        value = self._back(low + share * (high - low))
        if self.whole:
            return str(min(max(round(value), int(self.low)), int(self.high)))
        if self.scale == "log_complement":  # digits of what is on the scale
            return f"{1 - float(f'{1 - value:.{DIGITS - 1}g}'):.10g}"
        return f"{min(max(float(f'{value:.{DIGITS}g}'), self.low), self.high):.10g}"

    def where(self, value: float) -> float:
        """The share of the way at which a value lies; inverse of `at`, but for rounding."""
        low, high = self._ends()
        return (self._to(value) - low) / (high - low)

    def _ends(self) -> tuple[float, float]:
        half = 0.5 if self.whole else 0.0
        return self._to(self.low - half), self._to(self.high + half)

    def _to(self, value: float) -> float:
        if self.scale == "linear":
            return value
        return math.log(value) if self.scale == "log" else -math.log1p(-value)

    def _back(self, value: float) -> float:
        if self.scale == "linear":
            return value
        return math.exp(value) if self.scale == "log" else -math.expm1(-value)


@dataclass(frozen=True)
class Options:
    """One of several values, as they are typed."""

    values: tuple[str, ...]

    def at(self, share: float) -> str:
        return self.values[int(share * len(self.values))]


@dataclass(frozen=True)
class Arm:
    """A method with the space in which it is tuned.

    ``fixed`` and ``space``: what is typed for it, by key. ``weights``: the kinds of which it chooses what it ships.
    ``runs_of``: the arm whose trials these are, read by other weights. ``follows``: the arm at whose chosen settings
    it is run, untuned, less those ``without``.
    """

    name: str
    fixed: Mapping[str, str] = field(default_factory=dict)
    space: Mapping[str, Range | Options] = field(default_factory=dict)
    weights: tuple[str, ...] = ("slow",)
    runs_of: str | None = None
    follows: str | None = None
    without: tuple[str, ...] = ()

    def trials(self, count: int, seed: int) -> list[dict[str, str]]:
        """Settings of its first ``count`` trials; one where there is nothing to choose.

        They are points of a scrambled Sobol sequence (Owen 1998, scipy.stats.qmc), with a dimension per range in the
        order of their names: the same list whoever asks, and a longer one begins with the shorter.
        """
        if not self.space:
            return [dict(self.fixed)]
        names = sorted(self.space)
        points = _sobol(len(names), count, seed)
        return [
            {**self.fixed, **{name: self.space[name].at(float(x)) for name, x in zip(names, point, strict=True)}}
            for point in points
        ]

    def following(self, chosen: Mapping[str, str]) -> dict[str, str]:
        """Its settings beside those chosen for the arm that it follows; ``product(a, b)`` is of two of these."""
        kept = {key: value for key, value in chosen.items() if key not in self.without}
        return kept | {key: _computed(self.name, key, value, chosen) for key, value in self.fixed.items()}

    def edges(self, settings: Mapping[str, str]) -> dict[str, float]:
        """Where in its range each chosen number lies, see `places`."""
        return places({key: _text(part) for key, part in self.space.items()}, settings)


def _sobol(dimensions: int, count: int, seed: int) -> Any:
    from scipy.stats import qmc

    power = max(0, math.ceil(math.log2(count)))  # whose first points are the first of the sequence
    return qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2(power)[:count]


def _computed(arm: str, key: str, value: str, chosen: Mapping[str, str]) -> str:
    if (found := re.fullmatch(r"product\((.+)\)", value)) is None:
        return value
    names = [name.strip() for name in found[1].split(",")]
    for name in names:
        if name not in chosen:
            raise UserError(f"hydra.sweeper.arms.{arm}.{key}={value}: the arm that it follows has no {name}")
    return f"{math.prod(float(chosen[name]) for name in names):.10g}"


@dataclass
class Trial:
    """One point of an arm's space, and what its runs came to: for each kind of weights, by seed; NaN: diverged."""

    number: int
    settings: dict[str, str]
    values: dict[str, dict[int, float]] = field(default_factory=dict)

    def rank(self, weights: str, sign: int) -> tuple[int, float]:
        """Less is better: first by the number of diverged runs, then by the mean of all others."""
        values = list(self.values[weights].values())
        finite = [value for value in values if math.isfinite(value)]
        mean = sum(finite) / len(finite) if finite else -math.inf * sign
        return len(values) - len(finite), -sign * mean


def ranked(arm: Arm, trials: Sequence[Trial], sign: int) -> list[tuple[Trial, str]]:
    """Trials and kinds of weights, the best first; of equals the one that came first."""
    pairs = [(trial, weights) for trial in trials for weights in arm.weights]
    return sorted(pairs, key=lambda pair: pair[0].rank(pair[1], sign))


def finalists(arm: Arm, trials: Sequence[Trial], sign: int, count: int) -> list[Trial]:
    """The best trials, each by the weights that suit it best."""
    numbers = list(dict.fromkeys(trial.number for trial, _ in ranked(arm, trials, sign)))
    by_number = {trial.number: trial for trial in trials}
    return [by_number[number] for number in numbers[:count]]


def validation(path: Path, kinds: Sequence[str]) -> tuple[dict[str, float], Metric]:
    """A finished run's last validation value for each kind of weights (fast ones for slow ones that it does not
    have), NaN where it diverged; and its metric.

    Raises:
        UserError: it is not finished, nothing was held out, or it has no such weights.
    """
    try:
        summary = files.read_summary(path)
        if summary is None:
            raise UserError(f"{path}: is not finished")
        metric = Metric.read(summary.get("metric"))
        if summary["status"] != files.COMPLETED:
            return dict.fromkeys(kinds, math.nan), metric
        final = summary["final"]
        return {kind: _of(path, final, kind) for kind in kinds}, metric
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error}); the same command goes on") from None


def _of(path: Path, final: Mapping[str, Any], kind: str) -> float:
    shown = "fast" if kind == "slow" and kind not in final else kind
    if shown not in final:
        raise UserError(f"{path}: has no weights {kind!r}, but {', '.join(final)}")
    if "validation" not in final[shown]:
        raise UserError(f"{path}: nothing was held out to choose by")
    value = final[shown]["validation"]["accuracy"]
    return math.nan if value is None else float(value)


def check_arms(arms: Mapping[str, Arm], contrasts: Sequence[tuple[str, str]]) -> None:
    """Raises:
    UserError: an arm or a contrast names an arm that there is not, or one that is not tuned itself.
    """
    if not arms:
        raise UserError("hydra.sweeper.arms: names no arm; each is a mapping, as in docs/fair.md")
    for arm in arms.values():
        for word, other in (("runs_of", arm.runs_of), ("follows", arm.follows)):
            if other is None:
                continue
            if other not in arms:
                raise UserError(f"hydra.sweeper.arms.{arm.name}.{word}={other}: no such arm; {', '.join(arms)}")
            if arms[other].runs_of or arms[other].follows:
                raise UserError(f"hydra.sweeper.arms.{arm.name}.{word}={other}: has no trials of its own")
        if arm.follows and arm.space:
            raise UserError(f"hydra.sweeper.arms.{arm.name}.{next(iter(arm.space))}: it follows {arm.follows}, untuned")
        if arm.runs_of and (arm.space or arm.fixed):
            raise UserError(f"hydra.sweeper.arms.{arm.name}: has the runs of {arm.runs_of}, and no settings of its own")
    for pair in contrasts:
        for name in pair:
            if name not in arms:
                raise UserError(f"hydra.sweeper: contrast {' - '.join(pair)}: no arm {name!r}; {', '.join(arms)}")


@dataclass(frozen=True)
class Chosen:
    """What was chosen for an arm. ``trial`` is None of one that follows another."""

    trial: int | None
    settings: Mapping[str, str]
    weights: str
    directory: str
    """Of the final runs, below the study: ``final/<settings>-<id>``."""
    group: str
    """Identity of the final runs."""


@dataclass(frozen=True)
class Comparison:
    """A fair study: the content of comparison.json.

    ``contrasts``: families of pairs (arm, arm it is compared with) by their names, ``primary`` and ``secondary``.
    """

    metric: Metric
    seeds: Mapping[str, Sequence[int]]
    contrasts: Mapping[str, Sequence[tuple[str, str]]]
    arms: Mapping[str, Mapping[str, Any]]
    chosen: Mapping[str, Chosen]

    def plain(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "metric": self.metric.plain(),
            "seeds": {name: list(seeds) for name, seeds in self.seeds.items()},
            "contrasts": {name: [list(pair) for pair in pairs] for name, pairs in self.contrasts.items()},
            "arms": {name: dict(arm) for name, arm in self.arms.items()},
            "chosen": {name: dict(vars(chosen)) for name, chosen in self.chosen.items()},
        }


def described(arm: Arm, trials: Sequence[Trial], sign: int) -> dict[str, Any]:
    """An arm as comparison.json has it: its space, and each trial's settings and validation values."""
    return {
        "space": {key: _text(part) for key, part in arm.space.items()},
        "weights": list(arm.weights),
        "runs_of": arm.runs_of,
        "follows": arm.follows,
        "trials": [
            {
                "trial": trial.number,
                "settings": trial.settings,
                "values": {
                    kind: {str(seed): value if math.isfinite(value) else None for seed, value in values.items()}
                    for kind, values in trial.values.items()
                },
            }
            for trial in trials
        ],
        "order": [[trial.number, weights] for trial, weights in ranked(arm, trials, sign)][:10],
    }


def _text(part: Range | Options) -> str:
    if isinstance(part, Options):
        return ", ".join(part.values)
    return f"{part.low:g} to {part.high:g}{' whole' if part.whole else ''}, {part.scale}"


def _range(text: str) -> Range | None:
    """What `_text` made this of; None of options."""
    if (found := re.fullmatch(r"(\S+) to (\S+?)( whole)?, (\w+)", text)) is None:
        return None
    return Range(float(found[1]), float(found[2]), found[4], found[3] is not None)


def places(space: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, float]:
    """Of an arm's space as comparison.json has it: where in its range each number lies, from 0 to 1, on its scale."""
    ranges = {key: _range(text) for key, text in space.items()}
    there = {key: part for key, part in ranges.items() if part is not None and key in settings}
    return {key: round(part.where(float(settings[key])), 3) for key, part in there.items()}


def find_studies(root: Path) -> list[Path]:
    """Folders at or below ``root`` that hold a fair study whose choice is made."""
    return sorted(path.parent for path in root.rglob(FILE))


def read(folder: Path) -> Comparison | None:
    """None where the folder holds no fair study.

    Raises:
        ValueError, KeyError, TypeError or AttributeError: the file is not one of ours.
    """
    try:
        content = files.read_json(folder / FILE)
    except FileNotFoundError:
        return None
    return Comparison(
        Metric.read(content["metric"]),
        {str(name): [int(seed) for seed in seeds] for name, seeds in content["seeds"].items()},
        {str(name): [(str(a), str(b)) for a, b in pairs] for name, pairs in content["contrasts"].items()},
        {str(name): dict(arm) for name, arm in content["arms"].items()},
        {str(name): Chosen(**chosen) for name, chosen in content["chosen"].items()},
    )


def at_the_edge(arm: Arm, settings: Mapping[str, str]) -> Iterator[str]:
    """In words, the chosen values that lie in the outermost twentieth of their range."""
    for key, share in arm.edges(settings).items():
        if share < EDGE or share > 1 - EDGE:
            yield f"{key}={settings[key]} is at the {'lower' if share < EDGE else 'upper'} edge of its range"
