"""One number for each query, made a figure: its mean with an interval, or why there is none.

Where every query was also measured against several draws that all queries share (random subsets
left out), queries and draws are both drawn again: another study would have had other ones of each.

The plain bootstrap is too sure of itself over few queries: over ten, its 95 % interval holds the
truth in 90 % of trials. Its percentiles are therefore moved outwards as far as Student's t asks
(the expanded percentile interval of Hesterberg, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from headwater.engine.bootstrap import COVERAGE, RESAMPLES
from headwater.engine.errors import InputError
from headwater.evaluation.bank import Bank
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.reranking import lots as of_names

Array = np.ndarray[Any, Any]


def mean(values: Array, resamples: int = RESAMPLES, seed: int = 0) -> Estimate | str:
    """The mean over queries, with its 95 % bootstrap interval.

    Args:
        values: float [queries], or [queries, draws] with the same draws for every query.
    """
    table = np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if len(table) < 2:
        return few(len(table), float(table.mean()) if len(table) else None)
    of_queries, of_draws = counts(table.shape[0], resamples, seed), np.ones((resamples, 1))
    if table.shape[1] > 1:
        of_draws = counts(table.shape[1], resamples, seed + 1)
    sums = ((of_queries @ table) * of_draws).sum(axis=1)
    return Estimate(float(table.mean()), *ends(sums / table.size, len(table)))


def ends(draws: Array, count: int) -> tuple[float, float]:
    """The interval's ends from bootstrap draws [resamples] over `count` queries, 2 or more."""
    z = NormalDist().inv_cdf((1 + COVERAGE) / 2)
    free = count - 1
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    tail = 100 * NormalDist().cdf(-t * math.sqrt(count / free))
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def few(count: int, value: float | None) -> str:
    """Why there is no interval over so few queries."""
    if not count or value is None:
        return "no query could be counted"
    return f"one query only, which has no interval: {value:.4g}"


def counts(count: int, resamples: int, seed: int) -> Array:
    """How often each of `count` things is drawn again, float64 [resamples, count]."""
    random = np.random.Generator(np.random.PCG64(seed))
    return random.multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)


def lots(count: int, seed: int) -> Array:
    """What orders equal scores of documents by position, the lowest first, int64 [count]."""
    return of_names([str(position) for position in range(count)], seed)


def best_first(scores: Array, drawn: Array) -> Array:
    """Positions from the highest score down; NaN is never among them."""
    order = np.lexsort((drawn, -scores))
    return order[~np.isnan(scores[order])]


def rankings(scores: Array, seed: int = 0) -> list[Array]:
    """`best_first` of each query; `scores` is [queries, documents], `seed` that of the lots."""
    drawn = lots(scores.shape[1], seed)
    return [best_first(row, drawn) for row in scores]


def counted_queries(orders: Sequence[Array], k: int) -> tuple[list[int], list[str]]:
    """The queries that have k documents with a score, and in words those that have not."""
    counted = [q for q, order in enumerate(orders) if len(order) >= k]
    notes = [
        f"query {q} is not counted: {len(order)} have a score, and {k} are to be left out"
        for q, order in enumerate(orders)
        if len(order) < k
    ]
    return counted, notes


def checked_scores(scores: Array, bank: Bank) -> Array:
    """The scores, float64 [queries, documents].

    Raises:
        InputError: when there are none, or they do not fit the bank.
    """
    made = np.asarray(scores, np.float64)
    right = (len(bank.trainer.asked()), bank.trainer.documents)
    if made.shape != right:
        raise InputError(
            "Scores and bank do not fit", expected=f"[queries, documents] {right}", found=made.shape
        )
    if not len(made):
        raise InputError("There is no query", expected="at least one")
    return made


def checked_ks(ks: Sequence[int], units: int, what: str = "documents") -> list[int]:
    """How many are left out, ascending.

    Raises:
        InputError: when one is no number of them, or as many as there are.
    """
    made = sorted({int(k) for k in ks})
    if not made or made[0] < 1 or made[-1] >= units:
        raise InputError(
            f"One cannot leave out so many {what}",
            expected=f"ks from 1 to {units - 1}",
            found=list(ks)[:12],
        )
    return made


def checked_seeds(seeds: Sequence[int]) -> list[int]:
    """The trainings' seeds.

    Raises:
        InputError: when there is none, or one is there twice.
    """
    made = [int(seed) for seed in seeds]
    if not made or len(set(made)) != len(made):
        raise InputError("seeds are not usable", expected="at least one, each once", found=made)
    return made
