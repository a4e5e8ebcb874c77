"""Do scores find the rows that were planted, altered or mislabelled? AUROC, AUPRC, share found.

The rows that are looked for are few, so their AUROC says how well they are ranked against all
others, AUPRC how many of the first places they take. Intervals come from drawing rows again, those
looked for and the others apart, so that every draw has as many of either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headwater.engine.bootstrap import RESAMPLES, interval
from headwater.engine.errors import InputError
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Scored

Array = np.ndarray[Any, Any]

INSPECTED = 0.1  # of the rows, best scores first: how many of those looked for are among them


@dataclass(frozen=True)
class Detection:
    """How well scores find rows.

    Attributes:
        auroc: chance that a row looked for scores above another row (ties count half).
        auprc: mean precision over the rows looked for, as they come (ties by their mean place).
        found: share of those looked for among the rows that are inspected first.
        rows, wanted: how many took part, and how many of them were looked for.
    """

    auroc: Estimate
    auprc: Estimate
    found: Estimate
    rows: int
    wanted: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def detection(
    scores: Sequence[Array] | Array,
    wanted: Sequence[Array] | Array,
    *,
    inspected: float = INSPECTED,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Detection:
    """How well scores find the wanted rows; of several searches, the mean.

    Args:
        scores: [rows], or several such; high = found. Rows of NaN take no part.
        wanted: bool [rows], or several. inspected: share of all rows for `found`, best first.
        resamples, seed: of the bootstrap; several searches are drawn independently.

    Raises:
        InputError: when they do not fit, or a search has no row of one kind.
    """
    many = isinstance(scores, (list, tuple))
    pairs = list(zip(scores, wanted, strict=True)) if many else [(scores, wanted)]
    searches = [_split(np.asarray(s, np.float64), np.asarray(w, bool)) for s, w in pairs]
    if not searches:
        raise InputError("There is no search to measure", expected="at least one")
    random = np.random.Generator(np.random.PCG64(seed))
    values = np.mean([figures(*one, inspected) for one in searches], axis=0)

    def again() -> list[tuple[float, float, float]]:
        drawn = [[random.choice(part, len(part)) for part in one] for one in searches]
        return [figures(mine, others, inspected) for mine, others in drawn]

    draws = np.stack([np.mean(again(), axis=0) for _ in range(resamples)])
    low, high = interval(draws)
    auroc, auprc, found = (
        Estimate(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)
    )
    wanted_rows = sum(len(mine) for mine, _ in searches)
    rows = wanted_rows + sum(len(others) for _, others in searches)
    return Detection(auroc, auprc, found, rows, wanted_rows)


def _split(scores: Array, wanted: Array) -> tuple[Array, Array]:
    """Scores of the wanted rows and of the others."""
    if scores.shape != wanted.shape or scores.ndim != 1:
        raise InputError(
            "Scores and wanted rows do not fit",
            expected="one score and one yes or no for each row",
            found=f"{scores.shape} and {wanted.shape}",
        )
    there = ~np.isnan(scores)
    mine, others = scores[there & wanted], scores[there & ~wanted]
    if not len(mine) or not len(others):
        raise InputError(
            "A search needs rows of both kinds",
            expected="at least one row that is looked for, and one that is not",
            found=f"{len(mine)} and {len(others)}",
        )
    return mine, others


def figures(mine: Array, others: Array, inspected: float = INSPECTED) -> tuple[float, float, float]:
    """AUROC, AUPRC and share found, of scores of the rows looked for and of the others."""
    both = np.concatenate([mine, others])
    order = np.argsort(both, kind="stable")
    values, counts = np.unique(both[order], return_counts=True)
    ends = np.cumsum(counts)
    places = (ends - (counts - 1) / 2)[np.searchsorted(values, mine)]  # ties share their mean
    auroc = (places.sum() - len(mine) * (len(mine) + 1) / 2) / (len(mine) * len(others))
    hits = np.zeros(len(values))
    np.add.at(hits, np.searchsorted(values, mine), 1)
    hits, counts = hits[::-1], counts[::-1]  # the best first
    found, seen = np.cumsum(hits), np.cumsum(counts)
    auprc = float((hits * found / seen).sum() / len(mine))
    budget = max(1, round(inspected * len(both)))
    # of a tie that the budget cuts, the share that is expected within it
    whole = np.clip((budget - (seen - counts)) / counts, 0, 1)
    return float(auroc), auprc, float((hits * whole).sum() / len(mine))


class DetectionMetric:
    """Whether self-influence finds wanted rows (wrong labels), for a board.

    Args:
        wanted: bool [documents]. shares: of the rows that are inspected.
        resamples, seed: of the bootstrap.
    """

    name = "detection"

    def __init__(
        self,
        wanted: Array,
        shares: Sequence[float] = (0.1, 0.2),
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.wanted, self.shares = np.asarray(wanted, dtype=bool), tuple(shares)
        self.resamples, self.seed = resamples, seed

    @property
    def columns(self) -> Mapping[str, str]:
        """AUROC, AUPRC, and the share found among the first so many."""
        made = {
            "AUROC": "chance that a wanted row has more self-influence; 0.5 is chance",
            "AUPRC": f"mean precision over the wanted rows; {self.wanted.mean():.3g} is chance",
        }
        for share in self.shares:
            made[_found(share)] = f"share of the wanted rows in the first {share:.0%} inspected"
        return made

    def measure(self, scored: Scored) -> Figures:
        """The figures, or in words why there are none."""
        if scored.own is None:
            return dict.fromkeys(self.columns, "has no self-influence")
        how = {"resamples": self.resamples, "seed": self.seed}
        made: dict[str, Estimate | str] = {}
        try:
            own = scored.own()
            for share in self.shares:
                found = detection(own, self.wanted, inspected=share, **how)
                made["AUROC"], made["AUPRC"] = found.auroc, found.auprc
                made[_found(share)] = found.found
        except InputError as error:
            return dict.fromkeys(self.columns, str(error))
        return made

    def notes(self) -> list[str]:
        """How many are looked for."""
        return [f"Detection: {int(self.wanted.sum())} of {len(self.wanted)} rows are looked for."]

    def describe(self) -> dict[str, Any]:
        """All that decides the figures beside the scores."""
        told = hashlib.sha256(np.packbits(self.wanted).tobytes()).hexdigest()[:16]
        how = {"shares": self.shares, "resamples": self.resamples, "seed": self.seed}
        return {"metric": self.name, "wanted": told, "rows": len(self.wanted), **how}


def _found(share: float) -> str:
    return f"found in {share:.0%}"
