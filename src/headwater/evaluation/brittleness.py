"""Brittleness: how few documents must go before the model no longer gives its answer?

For each query the smallest k of a list at which the mean margin over retrained models is negative
once the k documents that a method puts first are left out. A margin is the task's: the log-odds of
the target, negative where all else together is likelier.

The ks are tried in order, not by bisection: chance makes margins rise and fall with k, so that a
bisection may step over the first flip. All queries that have not yet flipped are trained in one
call for each k, and those that have flipped are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headwater.engine.bootstrap import RESAMPLES
from headwater.evaluation.bank import Bank, Trial
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Scored
from headwater.evaluation.over_queries import (
    checked_ks,
    checked_scores,
    checked_seeds,
    counted_queries,
    ends,
    few,
    mean,
    rankings,
)

Array = np.ndarray[Any, Any]

KS = tuple(range(20, 201, 20))


@dataclass(frozen=True)
class Flips:
    """When predictions flip.

    Attributes:
        ks: what was tried, ascending.
        median: the smallest k by which half the queries have flipped, with an interval over
            queries. An end at the largest k means that or more. In words where half never flip.
        shares: by k, the share of the queries that have flipped by then.
        each: of every query its k; None where it never flips, or is not counted.
        counted: of every query, whether it is: right without removal, and with enough scores.
        seeds: how many trainings a margin is the mean of.
        notes: what was not counted, in words.
    """

    ks: list[int]
    median: Estimate | str
    shares: dict[int, Estimate | str]
    each: list[int | None]
    counted: list[bool]
    seeds: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def brittleness(
    bank: Bank,
    scores: Array,
    ks: Sequence[int] = KS,
    *,
    seeds: Sequence[int] = (0, 1),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Flips:
    """Leave out ever more of each query's best documents until its prediction flips.

    Args:
        bank: its trainer measures margins (`measures=("loss", "margin")`).
        scores: [queries, documents], positive = supports; a document of NaN is never chosen.
        ks: how many to leave out; 0 is always tried.
        seeds: of the trainings. resamples, seed: of the intervals, and of ties.

    Raises:
        InputError: for scores that do not fit the bank, no query, a k that leaves nothing, or a
            bank without margins.
    """
    known, trained = checked_scores(scores, bank), checked_seeds(seeds)
    ks = checked_ks([k for k in ks if k != 0], known.shape[1])
    orders = rankings(known, seed)
    scored, notes = counted_queries(orders, ks[-1])
    if len(trained) == 1:
        notes.append("one seed: a flip may be the chance of a single training")
    if scored:
        start = _margins(bank, {q: () for q in scored}, trained)
        wrong = [q for q in scored if start[q] < 0]
        notes += [f"query {q} is not counted: it is wrong without any removal" for q in wrong]
        scored = [q for q in scored if q not in wrong]
    flipped: dict[int, int] = {}
    for k in ks:
        left = {q: tuple(sorted(orders[q][:k].tolist())) for q in scored if q not in flipped}
        if left:
            margins = _margins(bank, left, trained)
            flipped |= {q: k for q in left if margins[q] < 0}
    counts = np.array([flipped.get(q, np.inf) for q in scored])
    return Flips(
        ks,
        median(counts, ks[-1], resamples, seed),
        {k: mean(counts <= k, resamples, seed) for k in ks},
        [flipped.get(q) for q in range(len(known))],
        [q in scored for q in range(len(known))],
        len(trained),
        notes,
    )


def _margins(
    bank: Bank, left_out: Mapping[int, tuple[int, ...]], seeds: Sequence[int]
) -> dict[int, float]:
    """By query its mean margin, each without its own documents."""
    trials = [Trial(subset, seed) for subset in left_out.values() for seed in seeds]
    found = bank.margins(trials).reshape(len(left_out), len(seeds), -1).mean(axis=1)
    return {q: float(found[row, q]) for row, q in enumerate(left_out)}


def median(counts: Array, last: int, resamples: int = RESAMPLES, seed: int = 0) -> Estimate | str:
    """The smallest k by which half have flipped, with its interval.

    Args:
        counts: of each query its k, infinite where it never flips. last: the largest k tried.
    """
    if len(counts) == 1 and counts[0] > last:
        return f"one query only, which does not flip within {last}"
    if len(counts) < 2:
        return few(len(counts), float(counts[0]) if len(counts) else None)
    middle = (len(counts) - 1) // 2
    value = float(np.sort(counts)[middle])
    if value > last:
        share = float(np.mean(counts <= last))
        return f"over {last}: {share:.0%} of {len(counts)} queries flip"
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = np.minimum(random.choice(counts, (resamples, len(counts))), last)
    return Estimate(value, *ends(np.sort(drawn, axis=1)[:, middle], len(counts)))


class Brittleness:
    """Brittleness as a metric of a board; see `brittleness` for the arguments.

    Args:
        bank: as for `brittleness`, like all that follows.
        seeds: of the trainings.
    """

    name = "brittleness"

    def __init__(
        self,
        bank: Bank,
        seeds: Sequence[int] = (0, 1),
        ks: Sequence[int] = KS,
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.bank, self.seeds = bank, checked_seeds(seeds)
        self.ks = checked_ks([k for k in ks if k != 0], bank.trainer.documents)
        self.resamples, self.seed = resamples, seed

    @property
    def columns(self) -> Mapping[str, str]:
        """The median, and for each k the share that has flipped."""
        made = {
            "flips at": "Documents left out when half the queries have flipped; fewer is better"
        }
        return made | {
            f"flipped by {k}": f"Share of queries flipped with at most {k} left out; more is better"
            for k in self.ks
        }

    def describe(self) -> dict[str, Any]:
        """What decides the figures, beside the scores; JSON-serialisable."""
        own = {"seeds": self.seeds, "ks": self.ks, "resamples": self.resamples, "seed": self.seed}
        return {"bank": self.bank.key, **own}

    def measure(self, scored: Scored) -> Figures:
        """The figures of one method."""
        options: dict[str, Any] = {"resamples": self.resamples, "seed": self.seed}
        made = brittleness(self.bank, scored.scores, self.ks, seeds=self.seeds, **options)
        shares = {f"flipped by {k}": share for k, share in made.shares.items()}
        return {"flips at": made.median} | shares
