"""A share of windows with its uncertainty, drawn over prompts.

Windows of one output overlap, and outputs of one prompt say the same things: the windows are no
independent trials, the prompts are. So whole prompts are drawn again, with all their windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headwater.engine.bootstrap import RESAMPLES, interval, redrawn

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rate:
    """A mean over windows, with its 95 % bootstrap interval over prompts.

    Attributes:
        value: the mean; None where there is no window.
        low, high: the interval; None with windows of fewer than two prompts.
        windows: how many windows it is a mean of.
    """

    value: float | None
    low: float | None
    high: float | None
    windows: int

    def __str__(self) -> str:
        """Such as "0.41 (0.35 to 0.47)"."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def rate(values: Array, prompts: Array, seed: int = 0, resamples: int = RESAMPLES) -> Rate:
    """The mean of `values`, float [windows], NaN left out.

    Args:
        prompts: the number of each window's prompt, int [windows].
        seed, resamples: of the bootstrap.
    """
    there = ~np.isnan(values)
    values, prompts = values[there], prompts[there]
    if not len(values):
        return Rate(None, None, None, 0)
    _, number = np.unique(prompts, return_inverse=True)
    count = int(number.max()) + 1
    sums = np.stack(
        [np.bincount(number, values, minlength=count), np.bincount(number, minlength=count)], 1
    )
    mean = float(values.mean())
    if count < 2:
        return Rate(mean, None, None, len(values))
    drawn = redrawn(sums, resamples, seed)
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    return Rate(mean, float(low), float(high), len(values))
