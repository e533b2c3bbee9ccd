"""What a task reports: the metric's name, its unit, which way is better, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """Recorded values times ``scale`` are shown, with so many ``digits``, and the ``unit`` behind them."""

    name: str
    unit: str = ""
    better: str = "up"
    """up or down."""
    scale: float = 1.0
    digits: int = 4

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
        return cls(str(made.name), str(made.unit), str(made.better), float(made.scale), min(10, int(made.digits)))


ACCURACY = Metric("accuracy", "%", "up", 100.0, 2)
