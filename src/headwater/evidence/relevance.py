"""How relevant retrieved documents are to an output: OLMoTrace's BM25 among what was retrieved.

The retrieved pieces are the corpus; words are what stands between white space, case and all; the
query is prompt and output, each word as often as it stands there. The formula is Okapi's with the
constants of the `rank_bm25` package, which OLMoTrace's open API used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVELS = ("high", "medium", "low")


@dataclass(frozen=True)
class Relevance:
    """BM25 and its levels (arXiv 2504.07096, section 4).

    Attributes:
        k1, b: BM25's saturation and length normalisation.
        epsilon: words in more than half of the pieces have a negative weight by Okapi's formula;
            they get this share of the mean weight instead.
        per_character: score that a character of the output makes likely; scores are divided by
            this times its length. high, medium: least shares of these levels.
    """

    k1: float = 1.5
    b: float = 0.75
    epsilon: float = 0.25
    per_character: float = 0.18
    high: float = 0.7
    medium: float = 0.5

    def level(self, score: float) -> str:
        """ "high", "medium" or "low"."""
        return LEVELS[0] if score >= self.high else LEVELS[1] if score >= self.medium else LEVELS[2]

    def scores(self, pieces: Sequence[str], prompt: str, output: str) -> list[float]:
        """The normalised score of each retrieved piece.

        Args:
            pieces: the text of each document around its matches.
        """
        if not pieces:
            return []
        query = Counter(f"{prompt} {output}".split())
        counts = [Counter(piece.split()) for piece in pieces]
        words = list(query)
        frequency = np.array([[count[word] for word in words] for count in counts], dtype=float)
        lengths = np.array([count.total() for count in counts], dtype=float)
        weights = dict(zip(*self._weights(counts), strict=True))
        weight = np.array([weights.get(word, 0.0) * query[word] for word in words])
        share = lengths / max(float(lengths.mean()), 1.0)
        saturated = frequency + (self.k1 * (1 - self.b + self.b * share))[:, None]
        made = (frequency * (self.k1 + 1) / saturated) @ weight
        return (made / (self.per_character * max(len(output), 1))).tolist()

    def _weights(self, counts: Sequence[Counter[str]]) -> tuple[list[str], list[float]]:
        """The words of the pieces with their inverse document frequencies.

        In one or two pieces every word is in half of them, and the mean has no meaning either; the
        form that is never negative, log(1 + ...), then keeps the order of the pieces right.
        """
        holders = Counter(word for count in counts for word in count)
        n = np.array(list(holders.values()), dtype=float)
        ratio = (len(counts) - n + 0.5) / (n + 0.5)
        idf = np.log(ratio)
        mean = float(idf.mean()) if len(idf) else 0.0
        idf = np.where(idf < 0, self.epsilon * mean, idf) if mean > 0 else np.log1p(ratio)
        return list(holders), idf.tolist()
