"""A figure with its interval: what every metric gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % bootstrap interval, `low` to `high`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Such as "0.83 (0.75 to 0.90)"."""
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"
