"""Leave-top-k-out: how far does a query's loss rise without the k documents a method puts first?

    QLD_k(q) = mean over seeds of [loss of q, trained without them - loss of q, trained on all]

Both trainings of a difference have the same seed. Any k documents left out move the loss, so the
figure to read is QLD less that of k random documents; there the training on all documents, and what
chance it had, cancels. The random subsets are the same for all queries: a model trained without one
measures every query. Whole groups may take the place of documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headwater.engine.bootstrap import RESAMPLES
from headwater.engine.errors import InputError
from headwater.evaluation.bank import Bank, Kind, Trial
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Scored
from headwater.evaluation.over_queries import (
    checked_ks,
    checked_scores,
    checked_seeds,
    counted_queries,
    mean,
    rankings,
)

Array = np.ndarray[Any, Any]
ByK = dict[int, Estimate | str]
Groups = Mapping[str, Sequence[int]]
Subset = tuple[int, ...]


@dataclass(frozen=True)
class Removed:
    """What leaving documents out does; every figure is by k, in the unit of the queries' loss.

    Attributes:
        ks: how many documents (or groups) were left out.
        top: mean rise of a query's loss without its k best, with an interval over queries.
        random: without k random ones. less_random: `top` less `random`, paired by query; both with
            intervals over queries and random subsets. Empty without random subsets.
        bottom: without the k lowest; empty where not asked for.
        each: of every query its rise for each k; None where it could not be counted.
        queries, seeds: how many were counted, and trained with.
        notes: what was not counted and what the figures cannot show, in words.
    """

    ks: list[int]
    top: ByK
    random: ByK
    less_random: ByK
    bottom: ByK
    each: list[list[float] | None]
    queries: int
    seeds: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def removal(
    bank: Bank,
    scores: Array,
    ks: Sequence[int],
    *,
    seeds: Sequence[int] = (0, 1),
    kind: Kind = "resampled",
    draws: int = 8,
    bottom: bool = False,
    groups: Groups | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Removed:
    """Leave each query's best documents out and train: all trainings go to the bank at once.

    Args:
        bank: trains, and measures the queries in the order of `scores`.
        scores: [queries, documents], positive = supports; a document of NaN is never chosen.
        ks: how many are left out.
        seeds: of the trainings; every difference is taken within a seed.
        kind: retrained without them, or the same training with their loss weighted zero.
        draws: random subsets for each k. bottom: leave also the lowest scores out.
        groups: name -> positions: whole groups are left out, ranked by the sum of their scores.
        resamples, seed: of the intervals; `seed` also of random subsets and of ties.

    Raises InputError for scores that do not fit the bank, no query, a k that leaves nothing, or
    groups that are not usable.
    """
    trained = checked_seeds(seeds)
    units, known = _units(checked_scores(scores, bank), groups)
    ks = checked_ks(ks, len(units), "documents" if groups is None else "groups")
    orders = rankings(known, seed)
    counted, notes = counted_queries(orders, ks[-1])
    notes += _cautions(len(trained), draws)
    best = [orders[q] for q in counted]
    worst = [order[::-1] for order in best] if bottom else []
    drawn = _random_orders(len(units), draws, seed)
    rows = [[_subset(units, order[:k]) for k in ks] for order in (*best, *worst, *drawn) if counted]
    rises = _rises(bank, rows, len(ks), trained, kind)
    own = np.arange(len(counted))  # the row of each query
    top, low = rises[own, :, counted], rises[own + len(own) * bottom, :, counted]
    beside = rises[len(best) + len(worst) :][:, :, counted].transpose(2, 0, 1)

    def figures(table: Array) -> ByK:
        return {k: mean(table[..., place], resamples, seed) for place, k in enumerate(ks)}

    rise = dict(zip(counted, top.tolist(), strict=True))
    return Removed(
        ks,
        top=figures(top),
        random=figures(beside) if draws else {},
        less_random=figures(top[:, None] - beside) if draws else {},
        bottom=figures(low) if bottom else {},
        each=[rise.get(q) for q in range(len(known))],
        queries=len(counted),
        seeds=len(trained),
        notes=notes,
    )


def _random_orders(count: int, draws: int, seed: int) -> list[Array]:
    if draws < 0:
        raise InputError("draws is too small", expected="0 or more", found=draws)
    return [np.random.default_rng([seed, draw]).permutation(count) for draw in range(draws)]


def _cautions(seeds: int, draws: int) -> list[str]:
    """What few seeds or random subsets cannot show."""
    made: list[str] = []
    if seeds == 1:
        made.append("one seed: the rise of a query holds all the chance of one training")
    if draws == 1:
        made.append("one random subset: the interval does not hold the chance of its draw")
    return made


def _units(scores: Array, groups: Groups | None) -> tuple[list[Subset], Array]:
    """What is left out as one, and its scores [queries, units]: documents, or whole groups."""
    count = scores.shape[1]
    if groups is None:
        return [(position,) for position in range(count)], scores
    units: list[Subset] = []
    for name, positions in groups.items():
        unit = tuple(sorted({int(position) for position in positions}))
        if not unit or not 0 <= unit[0] <= unit[-1] < count:
            raise InputError(
                f"The group {name!r} is not usable",
                expected=f"at least one position, all below {count}",
                found=list(positions)[:8],
            )
        units.append(unit)
    sums = np.full((len(scores), len(units)), np.nan)
    for place, unit in enumerate(units):
        own = scores[:, list(unit)]
        there = ~np.isnan(own).all(axis=1)  # a group without any score has none
        sums[there, place] = np.nansum(own[there], axis=1)
    return units, sums


def _subset(units: Sequence[Subset], chosen: Array) -> Subset:
    return tuple(sorted({position for unit in chosen for position in units[unit]}))


def _rises(
    bank: Bank, rows: Sequence[Sequence[Subset]], each: int, seeds: Sequence[int], kind: Kind
) -> Array:
    """How far each query's loss rises without these, float64 [rows, each, queries]."""
    queries = len(bank.trainer.asked())
    if not rows:
        return np.zeros((0, each, queries))
    subsets = [(), *(subset for row in rows for subset in row)]
    trials = [Trial(subset, seed, kind) for subset in subsets for seed in seeds]
    losses = bank.losses(trials).reshape(len(subsets), len(seeds), queries)
    rises = (losses[1:] - losses[0]).mean(axis=1)
    return rises.reshape(len(rows), each, queries)


class Removal:
    """Leave-top-k-out as a metric of a board; see `removal` for the arguments.

    Args:
        bank: as for `removal`, like all that follows.
        seeds: of the trainings.
    """

    def __init__(
        self,
        bank: Bank,
        seeds: Sequence[int] = (0, 1),
        ks: Sequence[int] = (5, 20),
        *,
        kind: Kind = "resampled",
        draws: int = 8,
        bottom: bool = False,
        groups: Groups | None = None,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        units = bank.trainer.documents if groups is None else len(groups)
        self.bank, self.seeds, self.ks = bank, checked_seeds(seeds), checked_ks(ks, units)
        self.options: dict[str, Any] = {
            "kind": kind,
            "draws": draws,
            "bottom": bottom,
            "groups": groups,
            "resamples": resamples,
            "seed": seed,
        }
        self.name = "removal" if kind == "resampled" else "removal-fixed"

    @property
    def columns(self) -> Mapping[str, str]:
        """For each k: the rise without the best, the same less random, without the worst."""
        what = "documents" if self.options["groups"] is None else "groups"
        made: dict[str, str] = {}
        for k in self.ks:
            made[f"top-{k}"] = f"Rise of the loss without the {k} best {what}; higher is better"
            if self.options["draws"]:
                made[f"top-{k} less random"] = (
                    f"The same less the rise without {k} random {what}; an interval above 0 says "
                    "that the method finds what matters"
                )
            if self.options["bottom"]:
                made[f"bottom-{k}"] = f"Rise without the {k} lowest {what}; lower is better"
        return made

    def describe(self) -> dict[str, Any]:
        """What decides the figures, beside the scores; JSON-serialisable."""
        groups: Groups | None = self.options["groups"]
        named = None if groups is None else {name: list(one) for name, one in groups.items()}
        told = {**self.options, "groups": named}
        return {"bank": self.bank.key, "seeds": self.seeds, "ks": self.ks, **told}

    def measure(self, scored: Scored) -> Figures:
        """The figures of one method."""
        made = removal(self.bank, scored.scores, self.ks, seeds=self.seeds, **self.options)
        figures: dict[str, Estimate | str] = {}
        for k in self.ks:
            figures[f"top-{k}"] = made.top[k]
            if made.less_random:
                figures[f"top-{k} less random"] = made.less_random[k]
            if made.bottom:
                figures[f"bottom-{k}"] = made.bottom[k]
        return figures
