"""The linear datamodeling score: do summed scores foretell what leaving examples out does?

For a query, the examples that a trial leaves out have a summed score; the models trained without
them have a loss. LDS is the rank correlation of the two over trials (Park et al. 2023), here of the
rise of the loss with the score left out, so that a good method comes near 1.

No method can foretell the chance in a training. Where trials were trained with several seeds, the
rank correlation of half the seeds' losses with the other half's says how much of them is not chance
(Spearman and Brown's step from half to all), and its root is the ceiling of any method.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import rankdata

from headwater.engine.bootstrap import RESAMPLES, interval
from headwater.engine.errors import InputError
from headwater.evaluation.bank import Bank, Kind, Trial
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Scored

Array = np.ndarray[Any, Any]

FEWEST = 8  # trials; a rank correlation over fewer says next to nothing


@dataclass(frozen=True)
class LDS:
    """How well scores foretell retrained models.

    Attributes:
        value: the mean over queries, with an interval over trials and queries.
        each: of every query; None where its losses, or its summed scores, do not vary.
        ceiling: what a method that knows the expected loss would reach; None with one seed.
        share: value / ceiling, with its interval.
        trials, seeds: how many.
        notes: queries that could not be counted, in words.
    """

    value: Estimate
    each: list[float | None]
    ceiling: Estimate | None
    share: Estimate | None
    trials: int
    seeds: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def lds(
    scores: Array,
    left_out: Sequence[Sequence[int]],
    losses: Array,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> LDS:
    """LDS of one method.

    Args:
        scores: [queries, documents], positive = supports the query; NaN counts as 0.
        left_out: for each trial the positions that it leaves out.
        losses: of the queries under the retrained models, [trials, seeds, queries].
        resamples, seed: of the bootstrap, which draws trials and queries again.

    Raises:
        InputError: for shapes that do not fit, too few trials, or no query that varies.
    """
    _check(scores, left_out, losses)
    foretold = summed(scores, left_out)
    mean = losses.mean(axis=1)
    varies = (np.ptp(mean, axis=0) > 0) & (np.ptp(foretold, axis=0) > 0)
    notes = [
        f"query {number}: {'its losses do' if np.ptp(mean[:, number]) == 0 else 'its scores do'} "
        "not vary over the trials, so it is not counted"
        for number in np.flatnonzero(~varies)
    ]
    if not varies.any():
        raise InputError(
            "No query has an LDS", expected="losses and scores that vary", found="; ".join(notes)
        )
    kept = np.flatnonzero(varies)
    each = correlations(foretold[:, kept], mean[:, kept])
    held = losses[:, :, kept]
    top = None if losses.shape[1] < 2 else ceiling(held)
    rows, some = _drawn(len(mean), len(kept), resamples, seed)
    values = _weighted(_redrawn(foretold[:, kept], mean[:, kept], rows), some)
    limits = np.full(resamples, np.nan)
    if top is not None:
        limits = _limit(_weighted(_redrawn(*_halves(held), rows), some))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(limits > 0, values / limits, np.nan)
    draws = np.stack([values, limits, shares], axis=1)
    named: list[float | None] = [None] * scores.shape[0]
    for number, value in zip(kept, each, strict=True):
        named[number] = float(value)
    value = float(_mean(each))
    return LDS(
        _estimate(value, draws[:, 0]),
        named,
        None if top is None else _estimate(top, draws[:, 1]),
        None if not top else _estimate(value / top, draws[:, 2]),
        len(mean),
        losses.shape[1],
        notes,
    )


def lds_difference(
    first: Array,
    other: Array,
    left_out: Sequence[Sequence[int]],
    losses: Array,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """LDS of `other` less that of `first`, on the queries that have one under both.

    Both methods meet the same draws of trials and queries, so that what these have in common does
    not widen the interval.

    Args, Raises: as in `lds`.
    """
    _check(first, left_out, losses)
    _check(other, left_out, losses)
    mean = losses.mean(axis=1)
    sums = [summed(scores, left_out) for scores in (first, other)]
    kept = np.flatnonzero(np.all([np.ptp(one, axis=0) > 0 for one in (mean, *sums)], axis=0))
    if not len(kept):
        raise InputError("No query has an LDS under both methods", expected="at least one")
    mean, (a, b) = mean[:, kept], [one[:, kept] for one in sums]
    rows, some = _drawn(len(mean), len(kept), resamples, seed)
    draws = _weighted(_redrawn(b, mean, rows) - _redrawn(a, mean, rows), some)
    return _estimate(_mean(correlations(b, mean) - correlations(a, mean)), draws)


class LDSMetric:
    """LDS on a bank, for a board.

    Args:
        bank: of the trainings. subsets: for each trial the positions that it leaves out, ascending.
        seeds: every trial is trained with each of them; two or more give a ceiling.
        kind: as in `Trial`. name, label: of the metric, and of its columns.
        resamples, seed: of the bootstrap.
    """

    def __init__(
        self,
        bank: Bank,
        subsets: Sequence[Sequence[int]],
        seeds: Sequence[int],
        *,
        kind: Kind = "resampled",
        name: str = "lds",
        label: str = "LDS",
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.bank, self.seeds = bank, list(seeds)
        self.kind: Kind = kind
        self.subsets = [tuple(int(p) for p in subset) for subset in subsets]
        self.name, self.label = name, label
        self.resamples, self.seed = resamples, seed

    @property
    def columns(self) -> Mapping[str, str]:
        """LDS, and its share of the ceiling where there is one."""
        made = {self.label: "rank correlation of summed scores with retrained losses"}
        if len(self.seeds) > 1:
            made[f"{self.label} / ceiling"] = (
                "the same, as a share of what chance leaves to foretell"
            )
        return made

    @cached_property
    def trials(self) -> list[Trial]:
        """All trainings: the seeds of a subset stand together."""
        return [Trial(subset, seed, self.kind) for subset in self.subsets for seed in self.seeds]

    @cached_property
    def losses(self) -> Array:
        """Of the queries under the retrained models, [trials, seeds, queries]."""
        found = self.bank.losses(self.trials)
        return found.reshape(len(self.subsets), len(self.seeds), -1)

    def measure(self, scored: Scored) -> Figures:
        """LDS, or in words why there is none."""
        if len(self.subsets) < FEWEST:  # said before anything is trained
            few = f"{len(self.subsets)} trials are too few; at least {FEWEST} are needed"
            return dict.fromkeys(self.columns, few)
        how = {"resamples": self.resamples, "seed": self.seed}
        try:
            found = lds(scored.scores, self.subsets, self.losses, **how)
        except InputError as error:
            return dict.fromkeys(self.columns, str(error))
        made: dict[str, Estimate | str] = {self.label: found.value}
        if len(self.seeds) > 1:
            made[f"{self.label} / ceiling"] = found.share or "the losses are chance: no ceiling"
        return made

    def difference(self, first: Array, other: Array) -> Estimate:
        """LDS of `other` less that of `first`; see `lds_difference`."""
        how = {"resamples": self.resamples, "seed": self.seed}
        return lds_difference(first, other, self.subsets, self.losses, **how)

    def notes(self) -> list[str]:
        """How many trainings, the ceiling, and queries that no training changes."""
        if len(self.subsets) < FEWEST:
            return []
        left = {len(subset) for subset in self.subsets}
        told = f"{min(left)}" if len(left) == 1 else f"{min(left)} to {max(left)}"
        what = (
            f"{self.label}: {len(self.subsets)} trials that leave out {told} of "
            f"{self.bank.trainer.documents} examples"
        )
        if self.kind == "fixed":
            what += " by weighing their loss zero in the same batches, where nothing is chance"
        else:
            what += f", {len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''} each"
        if len(self.seeds) > 1:
            what += f"; noise ceiling {ceiling(self.losses):.3f}"
        still = np.flatnonzero(np.ptp(self.losses.mean(axis=1), axis=0) == 0).tolist()
        notes = [f"{what}."]
        if still:
            notes.append(
                f"{self.label}: the losses of queries {', '.join(map(str, still))} do not vary "
                "over the trials; these queries are not counted."
            )
        return notes

    def describe(self) -> dict[str, Any]:
        """All that decides the figures beside the scores."""
        told = "|".join(",".join(map(str, subset)) for subset in self.subsets)
        return {
            "metric": self.name,
            "bank": self.bank.key,
            "asked": self.bank.trainer.asked(),
            "subsets": hashlib.sha256(told.encode()).hexdigest()[:16],
            "seeds": self.seeds,
            "kind": self.kind,
            "resamples": self.resamples,
            "seed": self.seed,
        }


def summed(scores: Array, left_out: Sequence[Sequence[int]]) -> Array:
    """The score that each trial leaves out, float64 [trials, queries]."""
    known = np.nan_to_num(np.asarray(scores, np.float64), nan=0.0)
    return np.stack([known[:, list(out)].sum(axis=1) for out in left_out])


def correlations(first: Array, other: Array) -> Array:
    """Spearman's rank correlation of each column, NaN where one does not vary; [columns]."""
    a, b = (rankdata(one, axis=0) for one in (first, other))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm > 0, (a * b).sum(axis=0) / norm, np.nan)


def ceiling(losses: Array) -> float:
    """The LDS of whoever knew the expected loss, from losses [trials, seeds, queries].

    The reliability of a mean over all seeds from the correlation r of two halves is 2 r / (1 + r)
    (an odd seed is left out); the correlation with the truth is its root. 0 where r is not
    positive.
    """
    return float(_limit(np.array([_mean(correlations(*_halves(losses)))]))[0])


def _halves(losses: Array) -> tuple[Array, Array]:
    """Mean losses of half the seeds, and of as many others."""
    half = losses.shape[1] // 2
    return losses[:, :half].mean(axis=1), losses[:, half : 2 * half].mean(axis=1)


def _limit(r: Array) -> Array:
    """The ceiling from correlations of two halves."""
    known = np.clip(np.nan_to_num(r), 0, None)
    return np.sqrt(2 * known / (1 + known))


def _drawn(trials: int, queries: int, resamples: int, seed: int) -> tuple[Array, Array]:
    """How often each trial and each query is drawn again, [resamples, trials] and [.., queries]."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, some = np.zeros((resamples, trials)), np.zeros((resamples, queries))
    for draw in range(resamples):
        rows[draw] = np.bincount(random.integers(0, trials, trials), minlength=trials)
        some[draw] = np.bincount(random.integers(0, queries, queries), minlength=queries)
    return rows, some


def _redrawn(first: Array, other: Array, counts: Array) -> Array:
    """`correlations` of each column where row i counts `counts[draw, i]` times: [draws, columns].

    A rank among drawn rows is how many drawn ones stand below, so nothing is sorted again.
    """
    made = np.empty((len(counts), first.shape[1]))
    total = counts.sum(axis=1, keepdims=True)
    for column in range(first.shape[1]):
        a, b = (_ranks(one[:, column], counts) for one in (first, other))
        a = a - (a * counts).sum(axis=1, keepdims=True) / total
        b = b - (b * counts).sum(axis=1, keepdims=True) / total
        norm = np.sqrt((a**2 * counts).sum(axis=1) * (b**2 * counts).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            made[:, column] = np.where(norm > 0, (a * b * counts).sum(axis=1) / norm, np.nan)
    return made


def _ranks(values: Array, counts: Array) -> Array:
    """Mean ranks of values that count so often, [draws, values]."""
    _, place = np.unique(values, return_inverse=True)
    weight = counts @ np.eye(place.max() + 1)[place]
    return (weight.cumsum(axis=1) - (weight - 1) / 2)[:, place]


def _weighted(values: Array, counts: Array) -> Array:
    """Means of each draw over the queries drawn, without NaN; [draws]."""
    there = counts * ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.nan_to_num(values) * there).sum(axis=1) / there.sum(axis=1)


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _estimate(value: float, draws: Array) -> Estimate:
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Estimate(value, math.nan, math.nan)
    low, high = interval(known[:, None])
    return Estimate(value, float(low[0]), float(high[0]))


def _check(scores: Array, left_out: Sequence[Sequence[int]], losses: Array) -> None:
    if losses.ndim != 3 or losses.shape[0] != len(left_out) or losses.shape[2] != len(scores):
        raise InputError(
            "Losses and scores do not fit",
            expected=f"[{len(left_out)} trials, seeds, {len(scores)} queries]",
            found=losses.shape,
        )
    if len(left_out) < FEWEST:
        raise InputError(
            "There are too few trials for a rank correlation",
            expected=f"at least {FEWEST}",
            found=len(left_out),
        )
    if not np.isfinite(losses).all():
        raise InputError("Losses of retrained models are not finite", found="NaN or infinity")
