"""What an additive method predicts for a query without some examples, beside what chance gives.

A sum of scores says little by itself: any large set has one. So it is compared with the sums of as
many examples by lot.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headwater.engine.errors import InputError

DRAWS = 500  # random sets that an effect is compared with
DRAWN_CELLS = 20_000_000  # examples in all of them
SEED = 0

Array = np.ndarray[Any, Any]


def effect(scores: Array, positions: Array, unit: str) -> dict[str, Any]:
    """What an additive method predicts for a query without these examples.

    Args:
        scores: float [examples], positive = supports; NaN = none. positions: of the examples.
        unit: of the scores.

    Returns:
        `total`: their summed score: how far the loss rises without them. `share_of_positive`: that
        of the sum of all positive scores. `random`: the same for as many examples by lot, mean and
        the middle 95 %.
    """
    there = np.flatnonzero(np.isfinite(scores))
    chosen = np.unique(positions[np.isfinite(scores[positions])])
    if not len(chosen):
        raise InputError("None of these examples has a score", expected="examples that take part")
    known = scores[there].astype(np.float64)
    total = float(scores[chosen].astype(np.float64).sum())
    positive = float(known[known > 0].sum())
    low, high, draws = _by_lot(known, len(chosen))
    return {
        "examples": len(chosen),
        "without_score": len(np.unique(positions)) - len(chosen),
        "total": total,
        "unit": unit,
        "share_of_positive": total / positive if positive > 0 else None,
        "random": {
            "mean": float(known.mean() * len(chosen)),
            "low": low,
            "high": high,
            "draws": draws,
        },
        "says": _effect_says(len(chosen), total, low, high),
    }


def _by_lot(known: Array, count: int) -> tuple[float, float, int]:
    """The middle 95 % of sums of so many scores by lot, and of how many draws."""
    random = np.random.default_rng(SEED)
    few = min(count, len(known) - count)  # a set's sum is that of all less that of the others
    draws = max(40, min(DRAWS, DRAWN_CELLS // max(few, 1)))
    sums = np.array(
        [known[random.choice(len(known), few, replace=False)].sum() for _ in range(draws)]
    )
    if few != count:
        sums = known.sum() - sums
    low, high = np.percentile(sums, [2.5, 97.5])
    return float(low), float(high), draws


def _effect_says(count: int, total: float, low: float, high: float) -> str:
    these = "this example" if count == 1 else f"these {count:,} examples"
    if low <= total <= high:
        return (
            f"Without {these} about the same is predicted as without as many at random: "
            "nothing that chance would not give."
        )
    way = "less likely" if total > high else "more likely"
    return f"Without {these} the output is predicted to become {way}, beyond what chance gives."
