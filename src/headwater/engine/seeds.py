"""Seeds of single things drawn from one seed, so that what is drawn does not depend on batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def own_seeds(seed: int, numbers: Sequence[int]) -> list[int]:
    """A seed for each of these numbers, below 2^63."""
    return [
        int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)
        for number in numbers
    ]
