"""What a task reports: the metric's name, its unit, which way is better, and how it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

MOST_DIGITS = 10


@dataclass(frozen=True)
class Metric:
    """Recorded values times ``scale`` are shown, with so many ``digits``, and the ``unit`` behind them."""

    name: str
    unit: str = ""
    better: str = "up"
    """up or down."""
    scale: float = 1.0
    digits: int = 4
    delta: float = 0.01
    """As it is shown: the difference that matters, where nobody says otherwise."""
    loss_unit: str = ""
    """Of the loss that is recorded beside it."""

    def __post_init__(self) -> None:
        if self.better not in ("up", "down"):
            raise ValueError(f"better={self.better!r}: must be up or down")

    @property
    def sign(self) -> int:
        """Times a value, this makes more the better."""
        return 1 if self.better == "up" else -1

    def text(self, value: float, digits: int | None = None) -> str:
        """A recorded value as it is shown: ``97.22%``, ``1.8812``."""
        return f"{self.scale * value:.{self.digits if digits is None else digits}f}{self.unit}"

    def number(self, shown: float) -> str:
        """A value, or a difference of two, as it is shown already, without the unit: ``97.22``."""
        return f"{shown:.{self.digits}f}"

    def telling(self, delta: float) -> Metric:
        """Itself, with digits enough for two figures of a difference that matters: 0.5 takes two, 0.0144 three."""
        if not 0 < delta < math.inf:  # as a foreign summary may have it
            return self
        return replace(self, digits=max(self.digits, min(MOST_DIGITS, 1 - math.floor(math.log10(delta)))))

    def said(self, value: float, digits: int | None = None) -> str:
        """Where it stands alone, with the name unless the unit tells: ``97.22%``, ``1.8812 bits per character``."""
        return self.text(value, digits) + ("" if self.unit else f" {self.name}")

    @property
    def axis(self) -> str:
        """As an axis or a column is called: ``accuracy (%)``, ``bits per character``."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def difference(self) -> str:
        """What a difference is in: points of a percentage, else the unit or the metric itself."""
        return "points" if self.unit == "%" else self.unit or self.name

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, plain: Mapping[str, Any] | None) -> Metric:
        """From a summary; of a run that does not say, accuracy, which was all there was.

        Raises:
            TypeError or ValueError: it is none.
        """
        if plain is None:
            return ACCURACY
        known = {key: plain[key] for key in cls.__dataclass_fields__ if key in plain}
        made = cls(**known)
        digits = max(0, min(MOST_DIGITS, int(made.digits)))
        return cls(
            str(made.name),
            str(made.unit),
            made.better,
            float(made.scale),
            digits,
            float(made.delta),
            str(made.loss_unit),
        )


ACCURACY = Metric("accuracy", "%", "up", 100.0, 2, 0.5, "nats")
