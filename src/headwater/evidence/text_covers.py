"""At how many of the places of its tokens a text stands, as words: what lies beside is looked at.

A text begins and ends where words do: neither its first nor its last letter goes on in the letter
beside it. Where the tokens that hold it do not say so, those before and after them do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.evidence.cover_search import FEW, Cover, CoverSearch, Interval
from headwater.evidence.spelling import NO, PERHAPS, YES, Spelling, first_joins, last_joins

if TYPE_CHECKING:
    from headwater.evidence.shard import Shard
    from headwater.evidence.tokenizer import TextTokenizer
    from headwater.index.selection import Mask

MANY = 1 << 22  # of more occurrences, not each is looked at

Array = np.ndarray[Any, Any]


class TextCovers:
    """The covers of texts, and which of their occurrences count.

    Args:
        shards: the corpus. tokenizer: of its tokens.
    """

    def __init__(self, shards: Sequence[Shard], tokenizer: TextTokenizer) -> None:
        self.shards, self.tokenizer = shards, tokenizer
        self._search = CoverSearch(shards, tokenizer)

    def of(self, text: str) -> list[Cover]:
        """The covers of a text that the corpus holds."""
        return self._search.of(text)

    def cover_of(self, tokens: Sequence[int]) -> Cover:
        """Tokens whose text is meant but for a space before it: what lies beside is looked at."""
        return self._search.cover_of(tokens)

    def count(self, cover: Cover, among: Mask | None = None) -> int:
        """How often the text stands there."""
        if among is None and cover.left == cover.right == NO:
            return cover.occurrences
        if among is None and cover.left == NO and cover.occurrences > MANY:
            goes_on = [self._going_on(n, cover.tokens, i) for n, i in enumerate(cover.intervals)]
            return cover.occurrences - sum(goes_on)
        return sum(len(found) for _, found in self.places(cover, among))

    def _going_on(
        self, number: int, tokens: tuple[int, ...], interval: Interval, after: bytes = b""
    ) -> int:
        """How often the word goes on after these tokens, by what follows them and how often."""
        spelling, suffixes = self.tokenizer.spelling, self.shards[number].suffixes
        total = 0
        for token, count in suffixes.following(*interval, len(tokens)) if spelling else ():
            data = after + (spelling.text([token]) if spelling else b"")
            state = first_joins(data) if data else NO
            total += count * (state == YES)
            if state == PERHAPS:
                longer = (*tokens, token)
                within = suffixes.interval(self._search.written(longer), *interval)
                total += self._going_on(number, longer, within, data)
        return total

    def stands(self, cover: Cover, among: Mask | None = None) -> bool:
        """Whether the text stands there at all."""
        if among is None and cover.left == cover.right == NO:
            return cover.occurrences > 0
        if among is None:  # most of the time one of the first does
            for number, (low, high) in enumerate(cover.intervals):
                for first, end in ((low, low + FEW), (low + FEW, low + FEW**3)):
                    found = self.shards[number].suffixes.positions(first, min(end, high))
                    if len(self.kept(cover, number, found)):
                        return True
            if all(high - low <= FEW**3 for low, high in cover.intervals):
                return False
        return any(len(found) for _, found in self.places(cover, among))

    def places(self, cover: Cover, among: Mask | None = None) -> Iterator[tuple[int, Array]]:
        """(number of the shard, where in its text the first tokens stand), block by block."""
        for number, (shard, (low, high)) in enumerate(
            zip(self.shards, cover.intervals, strict=True)
        ):
            for found in shard.places(low, high, among):
                yield number, self.kept(cover, number, found)

    def kept(self, cover: Cover, number: int, found: Array) -> Array:
        """Of these occurrences in a shard, those where words begin and end around the text."""
        spelling = self.tokenizer.spelling
        if spelling is None or not len(found) or cover.left == cover.right == NO:
            return found
        tokens = self.shards[number].suffixes.tokens
        if len(found) <= FEW:
            fits = [self._fits(spelling, cover, tokens, place) for place in found.tolist()]
            return found[np.array(fits, dtype=bool)]
        state = np.zeros(len(found), dtype=np.uint8)
        if cover.left != NO:
            state = self._beside(spelling.last, tokens, found - 1, cover.left)
        if cover.right != NO:
            after = self._beside(spelling.first, tokens, found + len(cover.tokens), cover.right)
            state = np.where((state == YES) | (after == YES), YES, np.maximum(state, after))
        for at in np.flatnonzero(state == PERHAPS).tolist():
            state[at] = self._looked_at(spelling, cover, tokens, int(found[at]))
        return found[state == NO]

    @staticmethod
    def _beside(table: Array, tokens: Array, places: Array, how: int) -> Array:
        """What the tokens at these places say; the end of a document joins nothing."""
        if how == PERHAPS:
            return np.full(len(places), PERHAPS, dtype=np.uint8)
        inside = np.minimum(places, len(tokens) - 1)  # infini-gram's shards end with a token
        ids = np.minimum(tokens[inside].astype(np.int64), len(table) - 1)
        return np.where(places < len(tokens), table[ids], NO)

    def _fits(self, spelling: Spelling, cover: Cover, tokens: Array, place: int) -> bool:
        """The same for one occurrence."""
        end, last = place + len(cover.tokens), len(spelling.pieces)
        left, right = cover.left, cover.right
        if left == YES:
            left = spelling.last[min(int(tokens[place - 1]), last)]
        if right == YES:
            right = spelling.first[min(int(tokens[end]), last)] if end < len(tokens) else NO
        if YES in (left, right):
            return False
        if left == right == NO:
            return True
        return self._looked_at(spelling, cover, tokens, place) == NO

    @staticmethod
    def _looked_at(spelling: Spelling, cover: Cover, tokens: Array, place: int) -> int:
        """The same for one occurrence, from the characters beside it."""

        def pieces(step: int, at: int) -> Iterator[bytes]:
            while 0 <= at < len(tokens) and tokens[at] < len(spelling.pieces):
                yield spelling.pieces[int(tokens[at])]
                at += step

        before = spelling.pieces[cover.tokens[0]][: cover.begin]
        for data in pieces(-1, place - 1):
            if len(before) >= 4:
                break
            before = data + before
        after = spelling.pieces[cover.tokens[-1]][cover.end :]
        for data in pieces(1, place + len(cover.tokens)):
            if len(after) >= 4:
                break
            after += data
        left = cover.left != NO and before and last_joins(before) == YES
        right = cover.right != NO and after and first_joins(after) == YES
        return YES if left or right else NO
