"""The difference of two methods on the same queries, with its interval.

Queries differ far more than methods do: two intervals that overlap say little, the interval of the
paired difference says what is asked. Both methods' queries are drawn again together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headwater.engine.bootstrap import interval, redrawn
from headwater.evaluation.estimate import Estimate

Array = np.ndarray[Any, Any]


def paired_difference(
    first: Array, other: Array, *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """The mean of `other - first` over queries, with its 95 % bootstrap interval.

    Args:
        first, other: one number for each query, float [queries]. resamples, seed: of the draws.
    """
    difference = np.asarray(other, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    low, high = interval(redrawn(difference[:, None], resamples, seed)[:, 0] / len(difference))
    return Estimate(float(difference.mean()), float(low), float(high))
