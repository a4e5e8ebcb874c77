"""Two-stage search: a cheap method names candidates, a dear one scores only those.

With features in the index the second stage scans them. Without, the candidates' gradients are
computed on the spot, as a small index of their own in a temporary folder, so that influence can be
asked of a corpus that was never gradient-indexed. Its curvature is then that of the candidates.
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
    from headwater.gradients.features import Features
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query

CANDIDATES = 200
FEW = 1024  # documents whose features are kept in float32

Array = np.ndarray[Any, Any]


class TwoStage(Method):
    """`then` on the best `candidates` of `first`; the rest score NaN.

    Args:
        first: names candidates (BM25, Dense). then: scores them.
        candidates: how many for each query.
        features: what is computed of them where the index has no features; the defaults when left
            out.
    """

    name, additive = "two-stage", False
    influence = False
    needs = "what its methods need"
    costs = "the first method over all, the second over its candidates"

    def __init__(
        self,
        first: Method,
        then: Method,
        candidates: int = CANDIDATES,
        features: Features | None = None,
    ) -> None:
        if candidates < 1:
            raise InputError("There must be candidates", expected="at least 1", found=candidates)
        self.first, self.then, self.candidates = first, then, candidates
        self.features = features

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """By its parts, so that two searches can be told apart."""
        return f"{self.then.title} on {self.first.title}'s first {self.candidates:,}"

    @property
    def unit(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the second method's scores."""
        return self.then.unit

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of each query's own candidates, float32 [queries, documents] a block; else NaN."""
        from headwater.methods.view import View

        chosen = candidates(index, queries, self.first, self.candidates, among)
        union = np.unique(np.concatenate(chosen))
        if isinstance(self.then, View) and not index.has_features:
            small = small_index(index, union.tolist(), self.features)
            blocks = self.then.stream(small, queries, modules)
            places = [np.searchsorted(union, own) for own in chosen]  # in the small index
        else:
            wanted = np.zeros(len(index), dtype=bool)
            wanted[union] = True
            blocks, places = self.then.stream(index, queries, modules, wanted), chosen
        found = Sparse()
        for first, block in blocks:
            for number, (row, own, at) in enumerate(zip(block, chosen, places, strict=True)):
                a, b = np.searchsorted(at, [first, first + len(row)])
                found.add(number, own[a:b], row[at[a:b] - first])
        yield from found.blocks(len(queries), np.full(len(index), np.nan))

    def describe(self) -> dict[str, Any]:
        """Name, methods and parameters."""
        return {
            "method": self.name,
            "first": self.first.describe(),
            "then": self.then.describe(),
            "candidates": self.candidates,
        }


def candidates(
    index: Index,
    queries: Sequence[Query],
    method: Method,
    count: int,
    among: Mask | None = None,
) -> list[Array]:
    """Positions of each query's best `count` documents by `method`, int64, ascending.

    What has nothing in common with a query by a method of resemblance is no candidate of it.
    """
    order = index.examples.id_order
    keepers = [Keeper(count) for _ in queries]
    for first, block in method.stream(index, queries, None, among):
        positions = np.arange(first, first + block.shape[1])
        if not method.influence:
            block = np.where(block == 0, np.float32(np.nan), block)
        for keeper, row in zip(keepers, block, strict=True):
            keeper.offer(-row, order[positions], positions)
    return [np.sort(keeper.positions) for keeper in keepers]


def small_index(
    index: Index,
    positions: Sequence[int],
    features: Features | None = None,
    *,
    references: bool = False,
) -> Index:
    """A temporary index of some documents of `index`, with features, in their order.

    Only what every method reads is worked out. A few documents are kept in float32, which needs no
    basis of their curvature and so no gradients of theirs before those that are kept.

    Args:
        features: of what is kept; None = the usual ones.
        references: keep reference queries, too, for an answer that is to be judged.

    Raises:
        InputError: when the index has no model to compute gradients with.
    """
    from headwater.corpus.corpus import Corpus
    from headwater.gradients.features import Features
    from headwater.index.build import Plan
    from headwater.index.index import Index

    if not positions:
        raise InputError("No candidate was found", expected="a query that the first stage knows")
    documents = index.documents(positions)
    rows = [{"id": one.id, **one.content} for one in documents]
    kept = features or Features(storage="float32" if len(rows) <= FEW else "int8")
    plan = Plan(skip_bad=True, spectrum=False, references=references)
    return Index.build(None, index.task, Corpus.from_documents(rows), kept, plan)
