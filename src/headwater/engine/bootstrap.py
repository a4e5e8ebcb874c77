"""The bootstrap over groups: how far a figure would move if other groups had been drawn.

Whole groups (queries, prompts) are drawn again with replacement, with everything that belongs to
them. How often each is drawn is all that sums need, so nothing is ever copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

COVERAGE = 0.95  # of every interval
RESAMPLES = 1000

Array = np.ndarray[Any, Any]


def redrawn(values: Array, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Sums over groups that were drawn again, float64 [resamples, columns].

    Args:
        values: of each group, float64 [groups, columns].
    """
    random = np.random.Generator(np.random.PCG64(seed))
    count = len(values)
    share = np.full(count, 1.0 / count)
    # One draw at a time: the counts of all would be [resamples, groups].
    return np.stack([random.multinomial(count, share) @ values for _ in range(resamples)])


def interval(draws: Array) -> tuple[Array, Array]:
    """The lower and upper end of the interval of each column, float64 [columns]."""
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    return low, high
