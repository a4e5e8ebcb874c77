"""One shard of a tokenised corpus: its sorted tokens, and which document each of them is in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwater.evidence.suffix_array import Array, SortedSuffixes

if TYPE_CHECKING:
    from headwater.index.selection import Mask

READ = 1 << 16  # occurrences whose documents are looked up at a time


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """One occurrence: the document's position in the corpus, and the first token in it."""

    position: int
    offset: int


@dataclass(frozen=True)
class Shard:
    """The sorted tokens of a run of documents.

    Args:
        suffixes: text and suffix array. first: position of the first document in the corpus.
        starts: where the separator before each document stands, in `unit`s of a token [documents].
        end: the token after the last document.
    """

    suffixes: SortedSuffixes
    first: int
    starts: Array
    end: int
    unit: int = 1

    @property
    def documents(self) -> int:
        """How many documents it holds."""
        return len(self.starts)

    def document(self, number: int) -> Array:
        """The token ids of a document, counted within the shard."""
        start = int(self.starts[number]) // self.unit + 1
        last = number + 1 == len(self.starts)
        end = self.end if last else int(self.starts[number + 1]) // self.unit
        return self.suffixes.tokens[start:end].astype(np.int32)

    def places(self, low: int, high: int, among: Mask | None = None) -> Iterator[Array]:
        """Where in the text, in tokens, the suffixes of these ranks start, int64, block by block.

        Args:
            among: the documents of the corpus that are looked at; None = all.
        """
        for first in range(low, high, READ):
            found = self.suffixes.positions(first, min(first + READ, high))
            if among is not None:
                found = found[among[self._numbers(found) + self.first]]
            yield found

    def picked(
        self, low: int, high: int, among: Mask | None, numbers: Array, *, in_order: bool
    ) -> Array:
        """Those of these places with these numbers (ascending), ascending.

        Args:
            in_order: they are counted as they stand in the text; else as their suffixes are sorted.
        """
        if in_order:
            return np.sort(np.concatenate(list(self.places(low, high, among))))[numbers]
        if among is None:  # the number is the rank: no other place is read
            ranks = (low + numbers).tolist()
            return np.sort(
                np.concatenate([self.suffixes.positions(rank, rank + 1) for rank in ranks])
            )
        parts: list[Array] = []
        for block in self.places(low, high, among):
            parts.append(block[numbers[(numbers >= 0) & (numbers < len(block))]])
            numbers = numbers - len(block)
        return np.sort(np.concatenate(parts))

    def _numbers(self, positions: Array) -> Array:
        """Which documents places in the text are in, counted within the shard."""
        return np.searchsorted(self.starts, positions * self.unit, side="right") - 1

    def matches(self, positions: Array) -> list[Match]:
        """Places in the text, in tokens, as documents and offsets."""
        numbers = self._numbers(positions)
        offsets = positions - np.asarray(self.starts[numbers], dtype=np.int64) // self.unit - 1
        pairs = zip((numbers + self.first).tolist(), offsets.tolist(), strict=True)
        return [Match(*pair) for pair in pairs]
