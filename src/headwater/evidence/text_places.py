"""Where a text stands in a corpus, counted, listed or drawn, with its characters to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.evidence.shard import Shard
from headwater.evidence.text_covers import Cover, TextCovers

if TYPE_CHECKING:
    from headwater.evidence.tokenizer import TextTokenizer
    from headwater.index.selection import Mask

SAMPLE_IN_ORDER = 1 << 20  # of more occurrences, a sample is drawn before they are looked at
SHARD_BITS = 40  # more than the tokens of a shard take
DRAWS = 1 << 20  # of ranks, at most: of tokens that stand within words too often, fewer are given

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, order=True)
class TextMatch:
    """One place of a text: its document, the first of the tokens that hold it, how many these are,
    and how many characters stand before it in the first of them (a space left out)."""

    position: int
    offset: int
    tokens: int
    shift: int = 0


class TextPlaces:
    """Looks up texts in sorted shards.

    Args:
        shards: the corpus. tokenizer: of its tokens.
    """

    def __init__(self, shards: Sequence[Shard], tokenizer: TextTokenizer) -> None:
        self.shards, self.tokenizer = shards, tokenizer
        self.covers = TextCovers(shards, tokenizer)

    def count(self, text: str, among: Mask | None = None) -> int:
        """How many places there are."""
        found = self.covers.of(looked_for(text))
        return sum(self.covers.count(cover, among) for cover in found)

    def matches(self, text: str, limit: int | None = None) -> list[TextMatch]:
        """The first `limit` places (None = all), in corpus order."""
        covers = self.covers.of(looked_for(text))
        return self._matches(covers, self._every(covers)[:limit])

    def sample(
        self, text: str, limit: int, seed: int = 0, among: Mask | None = None
    ) -> tuple[int, list[TextMatch]]:
        """How many places there are, and a random `limit` of them, in corpus order."""
        covers = self.covers.of(looked_for(text))
        generator = np.random.default_rng(seed)
        if among is None and sum(c.occurrences for c in covers) > SAMPLE_IN_ORDER:
            total = sum(self.covers.count(cover) for cover in covers)
            return total, self._matches(covers, self._drawn(covers, min(limit, total), generator))
        found = self._every(covers, among)
        total = len(found)
        if total > limit:
            found = found[np.sort(generator.choice(total, limit, replace=False))]
        return total, self._matches(covers, found)

    def _every(self, covers: Sequence[Cover], among: Mask | None = None) -> Array:
        """(shard, place in its text, cover) of every place, in corpus order, int64 [n, 3]."""
        parts = [np.zeros((0, 3), dtype=np.int64)]
        for number, cover in enumerate(covers):
            for shard, found in self.covers.places(cover, among):
                part = np.empty((len(found), 3), dtype=np.int64)
                part[:, 0], part[:, 1], part[:, 2] = shard, found, number
                parts.append(part)
        return self._in_order(covers, np.concatenate(parts))

    def _drawn(self, covers: Sequence[Cover], limit: int, generator: np.random.Generator) -> Array:
        """Places of random ranks, until there are enough: the tokens may stand within words."""
        ranges = [
            (number, shard, high)
            for number, cover in enumerate(covers)
            for shard, (_, high) in enumerate(cover.intervals)
        ]
        ends = np.cumsum([high - low for cover in covers for low, high in cover.intervals])
        found: list[tuple[int, int, int]] = []
        draws = min(DRAWS, int(ends[-1]))
        for draw in generator.permutation(draws).tolist():
            if len(found) == limit:
                break
            drawn = draw * int(ends[-1]) // draws
            at = int(np.searchsorted(ends, drawn, side="right"))
            number, shard, high = ranges[at]
            rank = high - int(ends[at]) + drawn
            place = self.shards[shard].suffixes.positions(rank, rank + 1)
            kept = self.covers.kept(covers[number], shard, place)
            found += [(shard, one, number) for one in kept.tolist()]
        return self._in_order(covers, np.array(found, dtype=np.int64).reshape(-1, 3))

    @staticmethod
    def _in_order(covers: Sequence[Cover], places: Array) -> Array:
        at = (places[:, 0] << SHARD_BITS) + places[:, 1]
        if len(covers) == 1:
            return places[np.argsort(at)]
        begins = np.array([cover.begin for cover in covers] or [0])[places[:, 2]]
        return places[np.lexsort((begins, at))]

    def _matches(self, covers: Sequence[Cover], places: Array) -> list[TextMatch]:
        about = [(len(cover.tokens), self._shift(cover)) for cover in covers]
        found: list[TextMatch] = []
        for number, shard in enumerate(self.shards):
            mine = places[places[:, 0] == number]
            matches = shard.matches(mine[:, 1])
            for match, cover in zip(matches, mine[:, 2].tolist(), strict=True):
                found.append(TextMatch(match.position, match.offset, *about[cover]))
        return found

    def _shift(self, cover: Cover) -> int:
        spelling = self.tokenizer.spelling
        if spelling is None:
            return 0
        before = spelling.pieces[cover.tokens[0]][: cover.begin]
        return len(before.decode("utf-8", "replace").lstrip(" "))


def looked_for(text: str) -> str:
    """The text, once there is one."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        found = type(text).__name__
        raise InputError("What is looked for is no text", expected="str", found=found)
    if not text.strip():
        raise InputError("The text has no tokens to look for", found=repr(text[:40]))
    return text
