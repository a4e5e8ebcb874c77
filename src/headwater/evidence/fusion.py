"""One order out of several: reciprocal-rank fusion (Cormack et al. 2009).

    score(q, z) = sum over methods of w / (k + rank of z by that method)

It needs no common scale, which kinds of evidence do not have. Equal scores share the best of their
ranks. Only the first `depth` of a method count, and only those with a positive score: to be
5,000th, or to share no word, is no support. So no more than these are kept of each query, however
large the corpus is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.evidence.sparse import Sparse
from headwater.methods.method import Method, Scores
from headwater.methods.scoring import Keeper

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query

K = 60.0  # the paper's
DEPTH = 1000

Array = np.ndarray[Any, Any]


def best_first(scores: Array, order: Array, depth: int) -> Array:
    """Positions of the `depth` best scores, best first, ties by `order`; NaN takes no part.

    Args:
        scores: [documents]. order: `Examples.id_order` [documents].
    """
    there = np.flatnonzero(~np.isnan(scores))
    if len(there) > depth:
        limit = np.partition(scores[there], len(there) - depth)[len(there) - depth]
        there = there[scores[there] >= limit]
    return there[np.lexsort((order[there], -scores[there]))][:depth]


def reciprocal_ranks(scores: Array, order: Array, k: float = K, depth: int = DEPTH) -> Array:
    """1 / (k + rank), float64 [documents]; 0 beyond `depth` and for scores that are not positive.

    Equal scores have the same rank, the best of theirs.

    Args:
        scores: [documents]. order: `Examples.id_order` [documents].
        k: how little the first places stand out.
    """
    some = np.flatnonzero(scores > 0)  # few of many: a match is rare
    best = some[best_first(scores[some], order[some], depth)]
    made = np.zeros(len(scores))
    made[best] = 1 / (k + shared_ranks(scores[best]))
    return made


def shared_ranks(descending: Array) -> Array:
    """Ranks from 1 of scores that are in order, best first; equal ones share the first's."""
    return 1 + np.searchsorted(-descending, -descending, side="left")


def _offer(keepers: Sequence[Keeper], order: Array, first: int, block: Array) -> None:
    """Show each query's keeper the documents of a block with a positive score."""
    for keeper, row in zip(keepers, block, strict=True):
        some = np.flatnonzero(row > 0)
        keeper.offer(-row[some], order[first + some], first + some)


class Fusion(Method):
    """Several methods as one, by reciprocal ranks.

    Args:
        methods: at least two. weights: of each; 1 when left out. k, depth: see the module.
    """

    name, additive = "fusion", False
    influence = False
    unit = "sum of reciprocal ranks"
    needs = "what its methods need"
    costs = "what its methods cost"

    def __init__(
        self,
        *methods: Method,
        weights: Sequence[float] | None = None,
        k: float = K,
        depth: int = DEPTH,
    ) -> None:
        if len(methods) < 2:
            raise InputError("A fusion needs methods", expected="at least two", found=len(methods))
        if weights is not None and len(weights) != len(methods):
            raise InputError(
                "A fusion needs one weight for each method",
                expected=len(methods),
                found=len(weights),
            )
        if k <= 0 or depth < 1:
            raise InputError("k and depth must be positive", found=f"k={k}, depth={depth}")
        self.methods, self.k, self.depth = methods, k, depth
        self.weights = list(weights) if weights is not None else [1.0] * len(methods)

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """By its methods, so that two fusions can be told apart."""
        return " + ".join(method.title for method in self.methods)

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Fused scores, float32 [queries, documents] a block; NaN where no method has one."""
        fused, everyone = Sparse(), np.full(len(index), np.nan)
        for method, weight in zip(self.methods, self.weights, strict=True):
            keepers = [Keeper(self.depth) for _ in queries]
            for first, block in method.stream(index, queries, modules, among):
                _offer(keepers, index.examples.id_order, first, block)
                # A score is something that a document has for all queries, or, rarely, for some.
                there = ~np.isnan(block)
                shared: Array = np.all(there, axis=0)
                everyone[first : first + len(shared)][shared] = 0
                rows, columns = np.nonzero(there & ~shared)
                fused.add(rows, columns + first, 0.0)
            for number, keeper in enumerate(keepers):
                ranks = shared_ranks(-keeper.values)
                fused.add(number, keeper.positions, weight / (self.k + ranks))
        yield from fused.blocks(len(queries), everyone)

    def describe(self) -> dict[str, Any]:
        """Name, methods and parameters."""
        return {
            "method": self.name,
            "methods": [method.describe() for method in self.methods],
            "weights": self.weights,
            "k": self.k,
            "depth": self.depth,
        }
