"""Do a method's scores agree with gold scores: MAGIC's, or exact leave-one-out's?

Gold scores say what a retraining would do, document by document, so that a method can be judged
without one training for every subset. Rank and linear correlation look at all documents; the
overlap of the first k only at those a person would be shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headwater.engine.bootstrap import RESAMPLES
from headwater.engine.errors import InputError
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.lds import correlations
from headwater.evaluation.metric import Figures, Scored
from headwater.evaluation.over_queries import mean, rankings

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Agreed:
    """How far scores agree with gold scores.

    Attributes:
        spearman, pearson: mean correlation over queries, with an interval.
        overlap: mean share of gold's first k that are among the method's first k; chance gives k
            by the number of documents.
        each: of every query (spearman, pearson, overlap); None where it could not be counted.
        k: the cut of `overlap`. queries: how many were counted.
        notes: what was not counted, in words.
    """

    spearman: Estimate | str
    pearson: Estimate | str
    overlap: Estimate | str
    each: list[tuple[float, float, float] | None]
    k: int
    queries: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def agreement(
    scores: Array, gold: Array, k: int = 10, *, resamples: int = RESAMPLES, seed: int = 0
) -> Agreed:
    """Compare scores with gold scores, query by query, over the documents that both score.

    Args:
        scores, gold: [queries, documents]; NaN = no score.
        k: the cut of the overlap; below the number of documents.
        resamples, seed: of the intervals; `seed` also of ties, which each side breaks by its own
            lots: two sides that tell nothing apart agree by chance only.

    Raises:
        InputError: for shapes that differ, no query, or a k that does not fit.
    """
    ours, right = np.asarray(scores, np.float64), np.asarray(gold, np.float64)
    if ours.ndim != 2 or ours.shape != right.shape:
        raise InputError(
            "Scores and gold scores do not fit",
            expected=f"[queries, documents] {right.shape}",
            found=ours.shape,
        )
    if not len(ours):
        raise InputError("There is no query", expected="at least one")
    if not 1 <= k < ours.shape[1]:
        raise InputError("k is not usable", expected=f"from 1 to {ours.shape[1] - 1}", found=k)
    both = np.isfinite(ours) & np.isfinite(right)
    ours, right = np.where(both, ours, np.nan), np.where(both, right, np.nan)
    each: list[tuple[float, float, float] | None] = [None] * len(ours)
    notes: list[str] = []
    first, other = rankings(ours, seed), rankings(right, seed + 1)
    for q, there in enumerate(both):
        a, b = ours[q, there], right[q, there]
        if len(a) <= k:
            notes.append(f"query {q} is not counted: {len(a)} documents have both scores")
        elif not np.ptp(a) or not np.ptp(b):
            whose = "gold's" if np.ptp(a) else "its"
            notes.append(f"query {q} is not counted: {whose} scores do not vary")
        else:
            shared = len(np.intersect1d(first[q][:k], other[q][:k])) / k
            rank = float(correlations(a[:, None], b[:, None])[0])
            each[q] = (rank, float(np.corrcoef(a, b)[0, 1]), shared)
    known = np.array([one for one in each if one is not None]).reshape(-1, 3)
    spearman, pearson, overlap = (mean(column, resamples, seed) for column in known.T)
    return Agreed(spearman, pearson, overlap, each, k, len(known), notes)


class Agreement:
    """Agreement with gold scores as a metric of a board.

    Args:
        gold_scores: [queries, documents].
        k: the cut of the overlap.
        queries: which of a row's queries these are, by position; None = all. Gold is dear, and
            may be there for the first few only.
        name, title: of the gold.
        resamples, seed: as of `agreement`.
    """

    def __init__(
        self,
        gold_scores: Array,
        k: int = 10,
        *,
        queries: Sequence[int] | None = None,
        name: str = "magic",
        title: str = "MAGIC",
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.gold, self.k, self.name, self.title = gold_scores, k, name, title
        self.queries = None if queries is None else list(queries)
        self.resamples, self.seed = resamples, seed

    @property
    def columns(self) -> Mapping[str, str]:
        """Rank correlation, linear correlation, overlap."""
        return {
            "rank": f"Mean rank correlation with the scores of {self.title}; higher is better",
            "linear": f"Mean linear correlation with the scores of {self.title}; higher is better",
            f"top-{self.k}": f"Share of {self.title}'s first {self.k} that are among the method's; "
            "higher is better",
        }

    def describe(self) -> dict[str, Any]:
        """What decides the figures, beside the scores; JSON-serialisable."""
        known = np.ascontiguousarray(self.gold, dtype=np.float64)
        return {
            "gold": hashlib.sha256(known.tobytes()).hexdigest()[:16],
            "k": self.k,
            "queries": self.queries,
            "resamples": self.resamples,
            "seed": self.seed,
        }

    def measure(self, scored: Scored) -> Figures:
        """The figures of one method."""
        rows = scored.scores if self.queries is None else scored.scores[self.queries]
        made = agreement(rows, self.gold, self.k, resamples=self.resamples, seed=self.seed)
        return {"rank": made.spearman, "linear": made.pearson, f"top-{self.k}": made.overlap}
