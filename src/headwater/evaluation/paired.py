"""The difference of two methods on the same queries, with its interval.

Queries differ far more than methods do: two intervals that overlap say little, the interval of the
paired difference says what is asked. Both methods' queries are drawn again together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headwater.evaluation.retrieval import COVERAGE, Estimate

Array = np.ndarray[Any, Any]


def paired_difference(
    first: Array, other: Array, *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """The mean of `other - first` over queries, with its 95 % bootstrap interval.

    Args:
        first, other: one number for each query, float [queries]. resamples, seed: of the draws.
    """
    difference = np.asarray(other, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    count = len(difference)
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = random.multinomial(count, np.full(count, 1.0 / count), size=resamples)
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(drawn @ difference / count, [tail, 100 - tail])
    return Estimate(float(difference.mean()), float(low), float(high))
