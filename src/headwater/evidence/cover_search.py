"""Which tokens can hold a text, in a corpus: its covers.

A place of a text is covered by the tokens from the one with its first letter to the one with its
last. Which covers there can be is found from left to right, each step looked up in the sorted
suffixes, so that only what the corpus holds is followed; or outwards from words inside it that are
rare. A place has one cover, so that sums over covers count none twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.evidence.spelling import NO, YES, Spelling, first_joins, joins, last_joins

if TYPE_CHECKING:
    from headwater.evidence.shard import Shard
    from headwater.evidence.tokenizer import TextTokenizer

FEW = 16  # occurrences whose tokens are read on, instead of being sought

Array = np.ndarray[Any, Any]
Interval = tuple[int, int]
_Way = tuple[tuple[int, ...], int, int, int]
_Anchor = tuple[tuple[int, ...], int, int, tuple[Interval, ...]]
_SPACE = re.compile(rb" (?=[A-Za-z])")


@dataclass(frozen=True)
class Cover:
    """Tokens that hold a text, and where they stand.

    Attributes:
        tokens: ids. intervals: the ranks of their suffixes in each shard.
        begin, end: where the text begins in the bytes of the first token, and ends in the last.
        left, right: `NO` = a word may begin (end) there; `YES` = the token before (after) says so;
            `PERHAPS` = the bytes there do, since the text begins (ends) at half a character.
    """

    tokens: tuple[int, ...]
    intervals: tuple[Interval, ...]
    begin: int = 0
    end: int = 0
    left: int = NO
    right: int = NO

    @property
    def occurrences(self) -> int:
        """How often the tokens stand in the corpus, inside of words, too."""
        return sum(high - low for low, high in self.intervals)


class CoverSearch:
    """Finds covers in sorted shards.

    Args:
        shards: the corpus. tokenizer: of its tokens.
    """

    def __init__(self, shards: Sequence[Shard], tokenizer: TextTokenizer) -> None:
        self.shards, self.tokenizer = shards, tokenizer

    def of(self, text: str) -> list[Cover]:
        """The covers that the corpus holds; by the tokenizer's spellings where it has no bytes."""
        spelling = self.tokenizer.spelling
        if spelling is None:
            found = [Cover(ids, self._sought(ids)) for ids in self.tokenizer.spellings(text)]
            return [cover for cover in found if cover.occurrences]
        query = self.tokenizer.normal(text).encode()
        return list(self._covers(spelling, query)) if query else []

    def cover_of(self, tokens: Sequence[int]) -> Cover:
        """Tokens whose text is meant but for a space before it: what lies beside is looked at."""
        spelling = self.tokenizer.spelling
        left = right = NO
        if spelling is not None:
            left = spelling.first[tokens[0]]
            right = spelling.last[tokens[-1]]
        intervals = self._sought(tokens)
        end = 0 if spelling is None else len(spelling.pieces[tokens[-1]])
        return Cover(tuple(tokens), intervals, 0, end, min(left, YES), min(right, YES))

    def _covers(self, spelling: Spelling, query: bytes) -> Iterator[Cover]:
        """Every way of going on from every opening, as far as the corpus goes with it."""
        everything = tuple((0, len(shard.suffixes)) for shard in self.shards)
        letters = query.decode()
        inner = (joins(letters[0]), joins(letters[-1]))
        rare = self._anchor(spelling, query)
        if rare is not None:
            for tokens, *ends in self._around(spelling, query, *rare):
                ranks = self._intervals(self.written(tokens), everything)
                yield from _covers(spelling, tokens, (ends[0], ends[1]), ranks, inner)
            return
        stack = [(*way, everything) for way in self._openings(spelling, query)]
        while stack:
            tokens, begin, done, end, within = stack.pop()
            written = self.written(tokens)
            intervals = self._intervals(written, within)
            occurrences = sum(high - low for low, high in intervals)
            if not occurrences:
                continue
            if done == len(query):
                yield from _covers(spelling, tokens, (begin, end), intervals, inner)
            elif occurrences <= FEW:
                for rest, last in self._read_on(spelling, len(tokens), intervals, query[done:]):
                    ranks = self._intervals(written + self.written(rest), intervals)
                    yield from _covers(spelling, (*tokens, *rest), (begin, last), ranks, inner)
            else:
                for more, size in self._ways(spelling, tokens[-1], query[done:]):
                    end = size if len(more) == 1 else len(spelling.pieces[more[-1]])
                    stack.append(((*tokens, *more), begin, done + size, end, intervals))

    def _anchor(self, spelling: Spelling, query: bytes) -> _Anchor | None:
        """The longest run of words inside the query whose tokens are the same wherever it stands,
        if it stands at few places: tokens, where it is in the query, and their ranks."""
        best: tuple[tuple[int, ...], int, int] = ((), 0, 0)
        run: tuple[tuple[int, ...], int, int] = ((), 0, 0)
        for found in _SPACE.finditer(query):
            at = found.start()
            word = self.tokenizer.word_at(b"", query[at:])
            before, first, end = run if run[2] == at else ((), at, at)
            run = ((*before, *word), first, end + len(spelling.text(word)) if word else -1)
            best = max(best, run, key=lambda one: len(one[0]))
        if not best[0]:
            return None
        ranks = self._sought(best[0])
        few = sum(high - low for low, high in ranks) <= FEW
        return (best[0], best[1], best[2], ranks) if few else None

    def _around(
        self,
        spelling: Spelling,
        query: bytes,
        anchor: tuple[int, ...],
        start: int,
        end: int,
        ranks: tuple[Interval, ...],
    ) -> set[tuple[tuple[int, ...], int, int]]:
        """Tokens that hold the query around the anchor, and the parts of the first and the last."""
        made: set[tuple[tuple[int, ...], int, int]] = set()
        for shard, (low, high) in zip(self.shards, ranks, strict=True):
            tokens = shard.suffixes.tokens
            for place in shard.suffixes.positions(low, high).tolist():
                after = place + len(anchor)
                before = _read_back(spelling, tokens, place, query[:start])
                rest: tuple[tuple[int, ...], int] | None = (), len(spelling.pieces[anchor[-1]])
                if end < len(query):
                    rest = _read(spelling, tokens[after : after + len(query) - end], query[end:])
                if before is not None and rest is not None:
                    made.add(((*before[0], *anchor, *rest[0]), before[1], rest[1]))
        return made

    def _openings(self, spelling: Spelling, query: bytes) -> Iterator[_Way]:
        """Tokens with which the query may begin; where in the first of them, how much of it they
        hold, and where that ends in the last."""
        words = [self.tokenizer.word_at(b"", data) for data in (query, b" " + query)]
        for begin, word in enumerate(words):
            if word and begin < len(spelling.pieces[word[0]]):  # else the space is its own token
                size = len(spelling.text(word))
                yield word, begin, size - begin, len(spelling.pieces[word[-1]])
        found = spelling.inner_openings(query) if all(words) else spelling.openings(query)
        for token, start, end in found:
            if (token,) not in words:
                yield (token,), start, end - start, end

    def _ways(
        self, spelling: Spelling, last: int, rest: bytes
    ) -> list[tuple[tuple[int, ...], int]]:
        """The tokens with which the rest may go on after the last one, and how much they hold."""
        word = self.tokenizer.word_at(spelling.pieces[last], rest)
        if word:
            return [(word, len(spelling.text(word)))]
        return [((token,), size) for token, size in spelling.following(rest)]

    def _read_on(
        self, spelling: Spelling, length: int, intervals: Sequence[Interval], rest: bytes
    ) -> set[tuple[tuple[int, ...], int]]:
        """The tokens that follow few occurrences and hold the rest, and where it ends in them."""
        found: set[tuple[tuple[int, ...], int]] = set()
        for shard, (low, high) in zip(self.shards, intervals, strict=True):
            tokens = shard.suffixes.tokens
            for place in shard.suffixes.positions(low, high).tolist() if low < high else []:
                read = _read(spelling, tokens[place + length : place + length + len(rest)], rest)
                if read is not None:
                    found.add(read)
        return found

    def written(self, tokens: Sequence[int]) -> bytes:
        """Tokens as the corpus holds them."""
        if not self.shards:
            return b""
        suffixes = self.shards[0].suffixes
        return b"".join(token.to_bytes(suffixes.width, suffixes.order) for token in tokens)

    def _sought(self, tokens: Sequence[int]) -> tuple[Interval, ...]:
        """The ranks of these tokens; an unknown word equals nothing, not even itself."""
        if self.tokenizer.unknown is not None and self.tokenizer.unknown in tokens:
            return ((0, 0),) * len(self.shards)
        everything = [(0, len(shard.suffixes)) for shard in self.shards]
        return self._intervals(self.written(tokens), everything)

    def _intervals(self, written: bytes, within: Sequence[Interval]) -> tuple[Interval, ...]:
        return tuple(
            shard.suffixes.interval(written, low, high) if low < high else (0, 0)
            for shard, (low, high) in zip(self.shards, within, strict=True)
        )


def _covers(
    spelling: Spelling,
    tokens: tuple[int, ...],
    ends: tuple[int, int],
    intervals: tuple[Interval, ...],
    inner: tuple[bool, bool],
) -> Iterator[Cover]:
    """The cover, unless the first token says that the word began before, or the last that it goes
    on; `inner`: whether the first and the last letter could be within a word."""
    before, after = spelling.pieces[tokens[0]][: ends[0]], spelling.pieces[tokens[-1]][ends[1] :]
    left = last_joins(before) if before and inner[0] else NO
    right = first_joins(after) if after and inner[1] else NO
    if YES not in (left, right):
        left = YES if inner[0] and not before else left
        right = YES if inner[1] and not after else right
        yield Cover(tokens, intervals, *ends, left, right)


def _read(spelling: Spelling, tokens: Array, rest: bytes) -> tuple[tuple[int, ...], int] | None:
    """The first of the tokens, which hold `rest`, and where it ends in the last of them."""
    for number, token in enumerate(tokens.tolist()):
        data = spelling.pieces[token] if token < len(spelling.pieces) else b""
        if not data:
            return None
        if rest.startswith(data):
            rest = rest[len(data) :]
            if not rest:
                return tuple(tokens[: number + 1].tolist()), len(data)
        elif data.startswith(rest) and spelling.ends_in(token, rest):
            return tuple(tokens[: number + 1].tolist()), len(rest)
        else:
            return None
    return None


def _read_back(
    spelling: Spelling, tokens: Array, place: int, head: bytes
) -> tuple[tuple[int, ...], int] | None:
    """The tokens before a place, which hold `head`, and where it begins in the first of them."""
    first = place
    while True:
        first -= 1
        token = int(tokens[first]) if first >= 0 else len(spelling.pieces)
        data = spelling.pieces[token] if token < len(spelling.pieces) else b""
        if data and data.endswith(head):
            return tuple(tokens[first:place].tolist()), len(data) - len(head)
        if not data or not head.endswith(data):
            return None
        head = head[: len(head) - len(data)]
