"""How far two rankings agree: shares of their first places, correlations, points of a scatter.

Examples are matched by id, so that the rankings may be of different indexes; every share is told
beside what chance gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headwater.engine.errors import InputError

FIRST = 100  # of either side that a scatter shows
OTHERS = 200  # further examples by lot
SEED = 0

Array = np.ndarray[Any, Any]


def agreement(
    scores: Sequence[Array], ids: Sequence[Sequence[str]], ks: Sequence[int]
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """How far two rankings agree, over the examples that both score, matched by id.

    Args:
        scores, ids: of either side, [examples] each. ks: cuts of the overlap.

    Returns:
        The figures, with `points` still without texts; and where each point stands on both sides.

    Raises:
        InputError: when no example has a score on both sides.
    """
    place = {name: number for number, name in enumerate(ids[1])}
    pairs = [(a, place[name]) for a, name in enumerate(ids[0]) if name in place]
    matched = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    a, b = (np.asarray(one, np.float64)[matched[:, side]] for side, one in enumerate(scores))
    both = np.isfinite(a) & np.isfinite(b)
    matched, a, b = matched[both], a[both], b[both]
    if not len(a):
        expected = "indexes of the same corpus"
        raise InputError("The two sides share no example with a score", expected=expected)
    first, other = _order(a), _order(b)
    overlap = [
        {
            "k": k,
            "share": len(np.intersect1d(first[:k], other[:k])) / k,
            "by_chance": k / len(a),
        }
        for k in sorted(set(ks))
        if k <= len(a)
    ]
    rank_a, rank_b = _ranks(a), _ranks(b)
    spearman = _correlation(rank_a, rank_b)
    chosen = _shown(first, other)
    points = [
        {
            "id": ids[0][matched[i, 0]],
            "a": float(a[i]),
            "b": float(b[i]),
            "rank_a": int((a > a[i]).sum()) + 1,
            "rank_b": int((b > b[i]).sum()) + 1,
        }
        for i in chosen
    ]
    figures = {
        "overlap": overlap,
        "spearman": spearman,
        "pearson": _correlation(a, b),
        "points": points,
        "examples": len(a),
        "only_a": len(ids[0]) - len(pairs),
        "only_b": len(ids[1]) - len(pairs),
        "says": _agreement_says(overlap, spearman),
    }
    return figures, [(int(matched[i, 0]), int(matched[i, 1])) for i in chosen]


def _order(values: Array) -> Array:
    """Positions, the highest first; equal ones as they stand."""
    return np.argsort(-values, kind="stable")


def _ranks(values: Array) -> Array:
    """Ranks from the lowest up, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _correlation(a: Array, b: Array) -> float | None:
    """None where one side does not vary."""
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _shown(first: Array, other: Array) -> list[int]:
    """The first of both sides, and some by lot, ascending."""
    chosen = {*first[:FIRST].tolist(), *other[:FIRST].tolist()}
    rest = np.setdiff1d(np.arange(len(first)), np.array(sorted(chosen)))
    lots = np.random.default_rng(SEED).choice(rest, min(OTHERS, len(rest)), replace=False)
    return sorted({*chosen, *lots.tolist()})


def _agreement_says(overlap: Sequence[dict[str, Any]], spearman: float | None) -> str:
    if not overlap:
        return "There are too few examples to compare first places."
    one = overlap[0]
    told = (
        f"Of the first {one['k']:,} of either side {100 * one['share']:.3g} % are the same; "
        f"chance alone would give {100 * one['by_chance']:.2g} %"
    )
    if spearman is None:
        return f"{told}. One side scores all examples the same, so there is no rank correlation."
    return f"{told}. Over all examples the rank correlation is {spearman:.2f}."
