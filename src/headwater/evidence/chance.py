"""The control of a match rate: how often do windows match that only share the others' frequency?

That a corpus holds a window says little by itself: six common words stand somewhere in any large
corpus. So each window is set beside windows of equal unigram probability (the sum of log p of its
tokens, within `TOLERANCE`), of three kinds, from the nearest to the farthest from language:

- other: windows of the same kind of outputs that share no token with a probable window. Fluent text
  by the same model on the same matter; what is left of a difference is the model's being sure.
- replaced: each token exchanged for one of nearly its frequency rank, kept when the sum fits.
- shuffled: the window's own tokens in another order, equal in probability by construction.

The last two break the grammar and so say only what frequency alone would give; the first is the one
to compare with. All draws are seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headwater.evidence.lookup import Phrase

Array = np.ndarray[Any, Any]

DRAWS = 10  # control windows for each window, of each kind
TOLERANCE = 0.25  # nats of the summed unigram log-probability: a factor of 1.28
NEIGHBOURS = 40  # tokens of nearest frequency rank to draw from
TRIES = 256  # exchanged windows among which those of the right sum are taken
KINDS = {
    "other": "windows of these outputs",
    "replaced": "by tokens as frequent",
    "shuffled": "the same tokens",
}


class Unigrams:
    """Log-probabilities of tokens in a corpus, with one added to each count.

    Args:
        counts: int64 [vocabulary]; a token beyond it was never seen.
    """

    def __init__(self, counts: Array) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        total = float(self.counts.sum() + len(self.counts))
        self._log_p = np.log((self.counts + 1) / total)
        self._unseen = -float(np.log(total))
        self.order = np.lexsort((np.arange(len(self.counts)), self.counts))
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(self.order))

    def log_p(self, tokens: Sequence[int] | Array) -> Array:
        """Of each token, float64, in the shape given."""
        ids = np.asarray(tokens, dtype=np.int64)
        known = (ids >= 0) & (ids < len(self._log_p))
        return np.where(known, self._log_p[np.where(known, ids, 0)], self._unseen)

    def total(self, phrase: Sequence[int]) -> float:
        """The summed log-probability of a phrase, nats."""
        return float(self.log_p(phrase).sum())

    def near(self, token: int) -> Array:
        """The tokens of nearest frequency rank, without `token` itself."""
        if not 0 <= token < len(self.order):
            return self.order[:NEIGHBOURS]  # unseen, as the rarest are
        last = max(0, len(self.order) - NEIGHBOURS - 1)
        low = max(0, min(int(self.rank[token]) - NEIGHBOURS // 2, last))
        near = self.order[low : low + NEIGHBOURS + 1]
        return near[near != token]


@dataclass(frozen=True)
class Pool:
    """Windows to draw from, in the order of their summed log-probability.

    Attributes:
        phrases: each window as its corpus may hold it. totals: float64, ascending.
    """

    phrases: list[list[Phrase]]
    totals: Array

    @classmethod
    def of(cls, windows: Sequence[list[Phrase]], unigrams: Unigrams) -> Pool:
        """The pool of these windows; those that cannot be looked up are left out."""
        kept = [phrases for phrases in windows if phrases]
        totals = np.asarray([unigrams.total(phrases[0]) for phrases in kept], dtype=np.float64)
        order = np.argsort(totals, kind="stable")
        return cls([kept[i] for i in order], totals[order])


def other_windows(
    phrase: Phrase, pool: Pool, unigrams: Unigrams, generator: np.random.Generator
) -> list[list[Phrase]]:
    """Up to `DRAWS` windows of the pool within `TOLERANCE` of the phrase, and not the phrase."""
    total = unigrams.total(phrase)
    ends = (total - TOLERANCE, total + TOLERANCE)
    low, high = (
        np.searchsorted(pool.totals, ends[0]),
        np.searchsorted(pool.totals, ends[1], "right"),
    )
    near = [i for i in range(int(low), int(high)) if pool.phrases[i][0] != phrase]
    chosen = generator.permutation(len(near))[:DRAWS]
    return [pool.phrases[near[i]] for i in chosen.tolist()]


def replaced_windows(
    phrase: Phrase, unigrams: Unigrams, generator: np.random.Generator
) -> list[Phrase]:
    """Up to `DRAWS` phrases with every token replaced, whose sum is within `TOLERANCE`."""
    near = [unigrams.near(token) for token in phrase]
    if any(not len(tokens) for tokens in near):
        return []
    drawn = np.stack([generator.choice(tokens, size=TRIES) for tokens in near], axis=1)
    fits = np.abs(unigrams.log_p(drawn).sum(axis=1) - unigrams.total(phrase)) <= TOLERANCE
    return [tuple(row) for row in drawn[fits][:DRAWS].tolist()]


def shuffled_windows(phrase: Phrase, generator: np.random.Generator) -> list[Phrase]:
    """Up to `DRAWS` orders of the phrase's tokens other than its own; they may repeat."""
    drawn = (tuple(generator.permutation(phrase).tolist()) for _ in range(4 * DRAWS))
    return [one for one in drawn if one != phrase][:DRAWS]
