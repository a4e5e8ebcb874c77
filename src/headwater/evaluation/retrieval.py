"""Does a ranking put the right documents first? Three numbers, each with its uncertainty.

Papers use "recall@k" for two different things; here they have two names. An interval comes from
drawing the queries again with replacement: it says what another sample of queries would give, and
nothing about another model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.bootstrap import interval, redrawn
from headwater.engine.errors import InputError
from headwater.evaluation.estimate import Estimate

if TYPE_CHECKING:
    from headwater.evaluation.metric import Figures, Scored


@dataclass(frozen=True)
class Retrieval:
    """How well rankings find the gold documents; each number is a mean over queries, from 0 to 1.

    Attributes:
        mrr: 1 / rank of the first gold document, counted from 1 in the whole list that was given;
            0 where the list holds none.
        success: 1 where any of the first k is gold, else 0 (what TrackStar's paper calls
            recall@10).
        recall: the share of the gold documents among the first k (set recall). With more gold
            documents than k it cannot reach 1.
        k: the cut of `success` and `recall`.
        queries: how many.
    """

    mrr: Estimate
    success: Estimate
    recall: Estimate
    k: int
    queries: int


def retrieval(
    ranked: Sequence[Sequence[str | None]],
    gold: Sequence[Collection[str]],
    *,
    k: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> Retrieval:
    """MRR, success@k and recall@k of one ranking for each query.

    Args:
        ranked: for each query the ids it found, best first, each at most once. None = a place
            taken by a document that is no find.
        gold: for each query the ids that are right, at least one; order and repeats do not matter.
        k: the cut of success and recall.
        resamples: bootstrap draws of the queries, for the intervals.
        seed: of those draws.

    Raises InputError for lists of different length, no queries, a query without gold, an id ranked
    twice, or a k or resamples below 1.
    """
    _check(ranked, gold, k, resamples)
    rows: list[tuple[float, float, float]] = []
    for found, right in zip(ranked, gold, strict=True):
        wanted = set(right)
        first = next((rank for rank, name in enumerate(found, start=1) if name in wanted), None)
        hits = sum(name in wanted for name in found[:k])
        rows.append((0.0 if first is None else 1.0 / first, float(hits > 0), hits / len(wanted)))
    scores = np.asarray(rows, dtype=np.float64)
    low, high = interval(redrawn(scores, resamples, seed) / len(scores))
    mrr, success, recall = (
        Estimate(float(mean), float(down), float(up))
        for mean, down, up in zip(scores.mean(axis=0), low, high, strict=True)
    )
    return Retrieval(mrr, success, recall, k, len(rows))


def _check(
    ranked: Sequence[Sequence[str | None]], gold: Sequence[Collection[str]], k: int, resamples: int
) -> None:
    if len(ranked) != len(gold) or not gold:
        raise InputError(
            "Rankings and gold documents do not pair up",
            expected="as many rankings as sets of gold documents, at least one",
            found=f"{len(ranked)} and {len(gold)}",
        )
    if k < 1 or resamples < 1:
        raise InputError("k and resamples must be 1 or more", found=f"k={k}, resamples={resamples}")
    for number, (found, right) in enumerate(zip(ranked, gold, strict=True), start=1):
        if isinstance(found, str) or isinstance(right, str):
            raise InputError(
                f"Query {number} is not usable", expected="lists of ids", found="one string"
            )
        if not right:
            raise InputError(
                f"Query {number} has no gold documents",
                expected="at least one",
                do="leave out queries whose right documents are not known",
            )
        named = [name for name in found if name is not None]
        if len(set(named)) != len(named):
            raise InputError(f"The ranking of query {number} names an id more than once")


class RetrievalMetric:
    """MRR and success at k of scores over a whole corpus, for a board.

    A query that a method did not score counts as not found.

    Args:
        ids: of all documents, in order. gold: for each query the ids that are right.
        k: the cut of success. resamples, seed: of the bootstrap.
    """

    name = "retrieval"

    def __init__(
        self,
        ids: Sequence[str],
        gold: Sequence[Collection[str]],
        *,
        k: int = 10,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.ids, self.gold, self.k = list(ids), [sorted(one) for one in gold], k
        self.resamples, self.seed = resamples, seed
        order = {name: place for place, name in enumerate(sorted(self.ids))}
        self._places = np.asarray([order[name] for name in self.ids])

    @property
    def columns(self) -> Mapping[str, str]:
        """MRR and success."""
        return {
            "MRR": "1 / rank of the first document that states it",
            f"success@{self.k}": f"share of queries with such a document in the first {self.k}",
        }

    def ranked(self, scores: np.ndarray[Any, Any]) -> list[list[str]]:
        """For each query the ids, best first, ties by id; without those of no score."""
        made: list[list[str]] = []
        for row in scores:
            order = np.lexsort((self._places, -row))
            made.append([self.ids[i] for i in order[~np.isnan(row[order])]])
        return made

    def measure(self, scored: Scored) -> Figures:
        """Both figures."""
        how = {"k": self.k, "resamples": self.resamples, "seed": self.seed}
        found = retrieval(self.ranked(scored.scores), self.gold, **how)
        return {"MRR": found.mrr, f"success@{self.k}": found.success}

    def notes(self) -> list[str]:
        """How many queries."""
        return [f"Retrieval: {len(self.gold)} queries over {len(self.ids)} documents."]

    def describe(self) -> dict[str, Any]:
        """All that decides the figures beside the scores."""
        how = {"k": self.k, "resamples": self.resamples, "seed": self.seed}
        return {"metric": self.name, "ids": self.ids, "gold": self.gold, **how}
