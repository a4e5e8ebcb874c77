"""Exact search for phrases in tokens that lie in sorted shards: what every such index can do.

`Verbatim` (a corpus of ours) and `InfiniGram` (a folder of others) differ in where their files come
from and in what they know of a document; counting, finding and matching are here, once. All numbers
are exact sums over the shards, and no match crosses the border of a document.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.evidence.characters import Characters
from headwater.evidence.shard import Match, Shard
from headwater.evidence.suffix_array import Array
from headwater.evidence.text_places import TextMatch, TextPlaces
from headwater.evidence.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from headwater.index.selection import Mask

SAMPLE_IN_ORDER = 1 << 20  # of more occurrences, a sample is drawn before they are sorted
SHORT = 64

Tokens = Sequence[int] | np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class InfinityGram:
    """What followed the longest suffix of a context that occurs (infini-gram, arXiv 2401.17377).

    Attributes:
        length: tokens of that suffix; 0 when the last token alone does not occur.
        count: how often it occurs. next: counts of the tokens after it; they sum to less than
            `count` where it stands at the end of documents.
    """

    length: int
    count: int
    next: dict[int, int]


class PhraseIndex(ABC):
    """A tokenised corpus in which any phrase is counted and found exactly."""

    def __init__(self, tokenizer: TextTokenizer, shards: list[Shard]) -> None:
        self.tokenizer, self.shards = tokenizer, shards
        self.texts = TextPlaces(shards, tokenizer)

    # -- what a kind of index knows of its documents --------------------------------------

    @abstractmethod
    def source(self, position: int) -> tuple[str, dict[str, Any]]:
        """Id and metadata of a document."""

    @abstractmethod
    def characters(self, position: int) -> Characters:
        """The text of a document, and which of its characters each token is."""

    def prefetch(self, positions: Sequence[int]) -> None:
        """Get ready to be asked about these documents, where that is faster for many at once."""
        del positions

    @cached_property
    @abstractmethod
    def unigrams(self) -> Array:
        """How often each token stands in the corpus, int64 [vocabulary]."""

    # -- numbers --------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Tokens of the corpus, separators left out."""
        return sum(shard.end - shard.documents for shard in self.shards)

    def count(self, tokens: Tokens, among: Mask | None = None) -> int:
        """How often the phrase occurs.

        Args:
            tokens: its token ids [n], n >= 1. One with an unknown word occurs nowhere.
            among: the documents that count, bool [documents]; None = all. With it, every
                occurrence is looked at.

        Raises:
            InputError: for an empty phrase, or ids that are not the tokenizer's.
        """
        intervals = self._intervals(self._phrase(tokens))
        if among is None:
            return sum(high - low for low, high in intervals)
        mask = self._mask(among)
        return sum(len(block) for block in self._blocks(intervals, mask))

    def _blocks(self, intervals: list[tuple[int, int]], among: Mask) -> Iterator[Array]:
        for shard, interval in zip(self.shards, intervals, strict=True):
            yield from shard.places(*interval, among)

    def find(self, tokens: Tokens, limit: int | None = None) -> list[Match]:
        """Where the phrase occurs, in corpus order; at most `limit` first ones (None = all).

        Raises:
            InputError: see `count`.
        """
        found: list[Match] = []
        _check_limit(limit)
        for shard, (low, high) in zip(
            self.shards, self._intervals(self._phrase(tokens)), strict=True
        ):
            left = None if limit is None else limit - len(found)
            if left is not None and left <= 0:
                break
            positions = shard.suffixes.positions(low, high)
            if left is not None and left < len(positions):
                positions = np.partition(positions, left)[:left]
            found += shard.matches(np.sort(positions))
        return found

    def sample(
        self, tokens: Tokens, limit: int, seed: int = 0, among: Mask | None = None
    ) -> list[Match]:
        """A random `limit` of the occurrences (all, when there are no more), in corpus order.

        The same for any division into shards up to a million occurrences; beyond, it is drawn by
        rank in the sorted suffixes, so that not all places need to be held.

        Args:
            among: the documents that are drawn from, as in `count`.
        """
        intervals = self._intervals(self._phrase(tokens))
        _check_limit(limit)
        among = self._checked(among)
        counts = [
            high - low if among is None else sum(len(b) for b in shard.places(low, high, among))
            for shard, (low, high) in zip(self.shards, intervals, strict=True)
        ]
        total = sum(counts)
        chosen = np.arange(total)
        if total > limit:
            chosen = np.sort(np.random.default_rng(seed).choice(total, limit, replace=False))
        in_order = total <= SAMPLE_IN_ORDER
        found: list[Match] = []
        for shard, interval, count in zip(self.shards, intervals, counts, strict=True):
            mine = chosen[(chosen >= 0) & (chosen < count)]
            chosen = chosen - count
            if len(mine):
                found += shard.matches(shard.picked(*interval, among, mine, in_order=in_order))
        return found

    def longest_match(self, tokens: Tokens) -> tuple[int, int]:
        """Length of the longest start of `tokens` that occurs, and how often; (0, 0) for none."""
        ids = self._ids(tokens)
        length = int(self.longest_matches(ids, np.zeros(1, dtype=np.int64))[0]) if len(ids) else 0
        return length, self.count(ids[:length]) if length else 0

    def longest_matches(
        self, tokens: Tokens, starts: Array | None = None, among: Mask | None = None
    ) -> Array:
        """For each start, how many tokens from there occur together in one document.

        Args:
            tokens: token ids [n]. starts: ascending, int64 [k]; None = every token's.
            among: the documents that are looked at, bool [documents]; None = all.

        Returns:
            int64 [k]; all searched at once.
        """
        return self.longest_at(tokens, starts, among)[0]

    def longest_at(
        self,
        tokens: Tokens,
        starts: Array | None = None,
        among: Mask | None = None,
        most: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """Like `longest_matches`, with a place of each match: the shard's number and the token in
        its text, int64 [k]; -1 where none is at hand, as for matches in chosen documents.

        Args:
            most: tokens that are looked at from each start, int64 [k]; None = all that follow.
        """
        ids = self._ids(tokens)
        among = self._checked(among)
        starts = np.arange(len(ids)) if starts is None else np.asarray(starts, dtype=np.int64)
        barriers = np.append(np.flatnonzero(ids == self._unknown), len(ids))
        limits = barriers[np.searchsorted(barriers, starts)] - starts
        limits = limits if most is None else np.minimum(limits, most)
        best = np.zeros(len(starts), dtype=np.int64)
        held, place = (np.full(len(starts), -1, dtype=np.int64) for _ in range(2))
        for number, shard in enumerate(self.shards if len(starts) else []):
            lengths, at = shard.suffixes.longest_at(ids, starts, limits)
            better = (lengths > best) | ((lengths == best) & (place < 0))
            held, place = np.where(better, number, held), np.where(better, at, place)
            best = np.maximum(best, lengths)
        if among is None:
            return best, held, place
        none = np.full(len(starts), -1, dtype=np.int64)
        return self._shortened(ids, starts, best, among), none, none

    def _shortened(self, ids: Array, starts: Array, lengths: Array, among: Mask) -> Array:
        """How much of each match stands in the chosen documents; by bisection, from the left.

        What begins later and ends no later than a match that does stand there, does too.
        """
        made = np.zeros(len(starts), dtype=np.int64)
        reached = 0
        for number, (start, length) in enumerate(
            zip(starts.tolist(), lengths.tolist(), strict=True)
        ):
            known, over = max(reached - start, 0), length + 1
            tried = length  # most of the time all of it does
            while over - known > 1:
                occurs = self._occurs(ids[start : start + tried], among)
                known, over = (tried, over) if occurs else (known, tried)
                tried = (known + over) // 2
            made[number] = known
            reached = max(reached, start + known)
        return made

    def _occurs(self, ids: Array, among: Mask) -> bool:
        return any(len(block) for block in self._blocks(self._intervals(ids), among))

    def next_tokens(self, tokens: Tokens) -> dict[int, int]:
        """How often each token follows the phrase in the same document, by token id.

        For the empty phrase, the unigram counts.
        """
        ids = self._ids(tokens)
        if not len(ids):
            every = self.unigrams
            return {token: int(every[token]) for token in np.flatnonzero(every).tolist()}
        counts: dict[int, int] = {}
        for shard, (low, high) in zip(self.shards, self._intervals(ids), strict=True):
            for token, count in shard.suffixes.following(low, high, len(ids)):
                counts[token] = counts.get(token, 0) + count
        return dict(sorted(counts.items()))

    def infinity_gram(self, tokens: Tokens) -> InfinityGram:
        """Back off to the longest suffix of `tokens` that occurs, and count what followed it."""
        ids = self._ids(tokens)
        length, over = 0, len(ids) + 1  # a suffix of `length` occurs, one of `over` does not
        while over - length > 1:
            middle = (length + over) // 2
            occurs = any(low < high for low, high in self._intervals(ids[len(ids) - middle :]))
            length, over = (middle, over) if occurs else (length, middle)
        suffix = ids[len(ids) - length :]
        total = self.count(suffix) if length else self.tokens
        return InfinityGram(length, total, self.next_tokens(suffix))

    def log_probabilities(self, tokens: Tokens) -> Array:
        """Natural logarithms of the unigram probabilities, float64 [n]; -inf for unseen ones."""
        with np.errstate(divide="ignore"):
            return np.log(self.unigrams[self._ids(tokens)]) - np.log(max(self.tokens, 1))

    # -- text -----------------------------------------------------------------------------

    def count_text(self, text: str, among: Mask | None = None) -> int:
        """At how many places a text stands, whatever stands before and after it.

        White space around the text is left out; inside, it counts as it is. A place begins and ends
        where words do: `art` does not stand in `part`, nor in `arts`. A tokenizer that changes
        texts (to lower case, say) finds what it makes of them.

        Args:
            among: the documents that are looked at, bool [documents]; None = all.

        Raises:
            InputError: when there is no text to look for.
        """
        among = self._checked(among)
        return self.texts.count(text, among)

    def find_text(self, text: str, limit: int | None = None) -> list[Match]:
        """Where a text stands (see `count_text`), in corpus order: `limit` first ones, or all.

        A match is the token that the text begins in: at its first letter, at the space before it,
        or within, after marks that the tokenizer has joined to it.
        """
        return [Match(one.position, one.offset) for one in self.text_matches(text, limit)]

    def text_matches(self, text: str, limit: int | None = None) -> list[TextMatch]:
        """Like `find_text`, with what `range_of` needs to tell the characters."""
        _check_limit(limit)
        return self.texts.matches(text, limit)

    def sample_text(
        self, text: str, limit: int, seed: int = 0, among: Mask | None = None
    ) -> tuple[int, list[TextMatch]]:
        """How many places a text has, and a random `limit` of them (all, when there are no more).

        In corpus order, and the same for any division into shards up to a million places; beyond,
        they are drawn by rank in the sorted suffixes.
        """
        _check_limit(limit)
        among = self._checked(among)
        return self.texts.sample(text, limit, seed, among)

    def range_of(self, match: TextMatch, text: str | None = None) -> tuple[int, int]:
        """The characters [start, end) of the document that a place is, without white space around.

        Args:
            text: that stands there; None = all that the tokens are.
        """
        characters = self.characters(match.position)
        start, end = characters.range(match.offset, match.offset + match.tokens)
        part = characters.text[start:end]
        at = -1 if text is None else part.find(text.strip(), match.shift)
        if text is not None and at >= 0:
            return start + at, start + at + len(text.strip())
        return start + len(part) - len(part.lstrip()), start + len(part.rstrip())

    def locate(self, match: Match, length: int) -> tuple[int, int]:
        """The characters [start, end) of the document that `length` tokens of a match are."""
        return self.characters(match.position).range(match.offset, match.offset + length)

    def document_tokens(self, position: int) -> Array:
        """The token ids of a document, int32 [n].

        Raises:
            InputError: when there is no such document.
        """
        for shard in self.shards:
            if shard.first <= position < shard.first + shard.documents:
                return shard.document(position - shard.first)
        raise InputError("No such document", expected=f"below {len(self)}", found=position)

    # -- phrases --------------------------------------------------------------------------

    def _checked(self, among: Mask | None) -> Mask | None:
        """A mask that says of each document whether it takes part; None stays so."""
        return None if among is None else self._mask(among)

    def _mask(self, among: Mask) -> Mask:
        made = np.asarray(among)
        if made.dtype != np.bool_ or made.shape != (len(self),):
            raise InputError(
                "The documents to look in are not told by such a mask",
                expected=f"bool [{len(self)}]",
                found=f"{made.dtype} {list(made.shape)}",
            )
        return made

    def _ids(self, tokens: Tokens) -> Array:
        ids = np.asarray(tokens)
        if ids.size == 0:
            return np.zeros(0, dtype=np.int64)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise InputError(
                "A phrase is a list of token ids",
                expected="integers",
                found=f"{ids.dtype} {list(ids.shape)}",
            )
        # Of a short phrase, Python finds the extremes in a tenth of the time.
        few: Any = ids.tolist() if ids.size <= SHORT else (ids.min(), ids.max())
        if min(few) < 0 or max(few) >= self.tokenizer.vocabulary:
            wrong = ids[(ids < 0) | (ids >= self.tokenizer.vocabulary)]
            raise InputError(
                f"A token of the phrase is not of the tokenizer {self.tokenizer.name}",
                expected=f"ids from 0 to {self.tokenizer.vocabulary - 1}",
                found=int(wrong[0]),
                do="tokenise it with the tokenizer that the corpus was tokenised with",
            )
        return ids

    def _phrase(self, tokens: Tokens) -> Array:
        ids = self._ids(tokens)
        if not len(ids):
            raise InputError("An empty phrase occurs everywhere", expected="at least one token")
        return ids

    @cached_property
    def _unknown(self) -> int:
        """The unknown word, which equals nothing, not even itself; -1 where there is none."""
        return -1 if self.tokenizer.unknown is None else self.tokenizer.unknown

    def _intervals(self, ids: Array) -> list[tuple[int, int]]:
        if self._unknown >= 0 and (ids == self._unknown).any():
            return [(0, 0)] * len(self.shards)
        if not self.shards:
            return []
        phrase = self.shards[0].suffixes.bytes_of(ids)
        return [shard.suffixes.interval(phrase) for shard in self.shards]


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 0:
        raise InputError("There is no such number of places", expected="0 or more", found=limit)
