"""Which documents trials leave out, where chance decides."""

from __future__ import annotations

import numpy as np


def left_out(documents: int, trials: int, share: float, seed: int) -> list[tuple[int, ...]]:
    """For each trial positions drawn without replacement, ascending."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, documents))))
    count = max(1, round(share * documents))
    return [tuple(sorted(random.permutation(documents)[:count].tolist())) for _ in range(trials)]
