"""The longest stretches of whole words of an output that stand in a corpus, wherever they do.

The first word of a stretch is another token after a space than at the beginning of a line or after
a bracket, so it is sought in both forms; behind it, tokens are the same. What is found may end (or,
without a space, begin) inside a word of the corpus: then it is looked at, and shortened.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.evidence.phrases import PhraseIndex
from headwater.evidence.spelling import NO, joins

if TYPE_CHECKING:
    from headwater.evidence.tokenizer import Encoded
    from headwater.index.selection import Mask

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Form:
    """One way of spelling the stretches: as they stand in the output, or with another first word.

    Attributes:
        first: the tokens of the first word by its start; () = there is no such form.
        ends: where the match ends, at a border; the start itself where there is none, int64 [k].
        sure: whether it certainly stands there as words, bool [k].
    """

    first: list[tuple[int, ...]]
    ends: Array
    sure: Array


def word_spans(
    phrases: PhraseIndex,
    text: str,
    encoded: Encoded,
    stops: Array,
    minimum: int,
    among: Mask | None = None,
) -> list[tuple[int, int]]:
    """Token ranges [first, end) of the maximal stretches, in order; none within another.

    Args:
        text, encoded: the output, and its tokens [n]. stops: bool [n]; a stretch goes on behind
            no such token. minimum: least tokens of a stretch. among: the documents to search.
    """
    words = _Words(phrases, text, encoded, stops, among)
    own = words.own()
    other = words.other(own)
    spans: list[tuple[int, int]] = []
    reached = 0
    for number, start in enumerate(words.starts.tolist()):
        least = max(reached + 1, start + minimum)
        end = words.end(number, (own, other), least)
        if end >= least:
            spans.append((start, end))
            reached = end
    return spans


class _Words:
    """An output's words: where they begin, and how far the corpus goes with them from there."""

    def __init__(
        self,
        phrases: PhraseIndex,
        text: str,
        encoded: Encoded,
        stops: Array,
        among: Mask | None,
    ) -> None:
        self._phrases, self._among = phrases, among
        self._ids = encoded.ids
        ids = encoded.ids
        self._borders = _borders(phrases, text, encoded)
        places = encoded.offsets.tolist()
        blank = np.array([text[first:end].isspace() for first, end in places], dtype=bool)
        self.starts = self._borders[:-1][~blank[self._borders[:-1]]]
        cuts = np.append(np.flatnonzero(stops), len(ids) - 1) + 1
        self._cuts = cuts[np.searchsorted(cuts, self.starts, side="right")]
        self._words = self._borders[np.searchsorted(self._borders, self.starts, side="right")]
        self._written = _written(text, encoded, self.starts, self._words)
        # The end of a stretch, without white space behind it.
        solid = np.maximum.accumulate(np.where(blank, 0, np.arange(1, len(ids) + 1)))
        self._solid = np.append(0, solid)

    def own(self) -> _Form:
        """The stretches as they stand in the output."""
        ids, starts = self._ids, self.starts
        lengths, shards, places = self._phrases.longest_at(ids, starts, self._among)
        ends = self._at_border(np.minimum(starts + lengths, self._cuts))
        sure = self._sure(ids, starts, ends, lengths, (shards, places))
        pairs = zip(starts.tolist(), self._words.tolist(), strict=True)
        return _Form([tuple(ids[first:end].tolist()) for first, end in pairs], ends, sure)

    def other(self, own: _Form) -> _Form:
        """The same with the other form of the first word, where that may go further."""
        known = np.maximum.accumulate(np.where(own.sure, own.ends, 0))
        sought = np.flatnonzero((self._cuts > known) & (self._cuts >= self._words)).tolist()
        forms = self._phrases.tokenizer.forms([self._written[number] for number in sought])
        found = [_another(own.first[n], forms_) for n, forms_ in zip(sought, forms, strict=True)]
        made = _Form([()] * len(self.starts), self.starts.copy(), np.ones(len(self.starts), bool))
        chosen = [(number, form) for number, form in zip(sought, found, strict=True) if form]
        if not chosen:
            return made
        numbers = np.array([number for number, _ in chosen])
        parts = [
            np.append(form, self._ids[self._words[number] : self._cuts[number]])
            for number, form in chosen
        ]
        most = np.array([len(part) for part in parts])
        heads = np.array([len(form) for _, form in chosen])
        begins = np.cumsum(most) - most
        run = np.concatenate(parts).astype(np.int64)
        lengths, shards, places = self._phrases.longest_at(run, begins, self._among, most)
        # As if they stood in the output, where the first word may be more tokens, or fewer.
        reach = self._words[numbers] + lengths - heads
        ends = self._at_border(np.where(lengths >= heads, reach, self.starts[numbers]))
        made.ends[numbers] = ends
        inside = begins + np.maximum(ends - self._words[numbers] + heads, 1)
        made.sure[numbers] = self._sure(run, begins, inside, lengths, (shards, places))
        for number, form in chosen:
            made.first[number] = form
        return made

    def end(self, number: int, forms: tuple[_Form, ...], least: int) -> int:
        """Where the stretch from a start ends; below `least` when it is not so long."""
        last = max(int(form.ends[number]) for form in forms)
        if self._solid[last] < least:
            return 0
        if any(form.sure[number] and form.ends[number] == last for form in forms):
            return int(self._solid[last])
        first = int(np.searchsorted(self._borders, self.starts[number], side="right"))
        tried = self._borders[first : int(np.searchsorted(self._borders, last, "right"))].tolist()
        # What stands as words does so up to each word before, most of the time up to the last one.
        for end in tried[:-3:-1]:
            if self._solid[end] < least:
                return 0
            if self._stands(number, forms, end):
                return int(self._solid[end])
        known = bisect_left(tried[:-2], True, key=lambda end: not self._stands(number, forms, end))
        return int(self._solid[tried[known - 1]]) if known else 0

    def _stands(self, number: int, forms: tuple[_Form, ...], end: int) -> bool:
        """Whether a stretch stands in the corpus as words, in any of its forms."""
        if any(form.sure[number] and end <= form.ends[number] for form in forms):
            return True
        covers = self._phrases.texts.covers
        end = int(self._solid[end])
        for form in forms:
            if form.first[number] and end <= form.ends[number]:
                rest = self._ids[self._words[number] : end].tolist()
                if covers.stands(covers.cover_of([*form.first[number], *rest]), self._among):
                    return True
        return False

    def _at_border(self, ends: Array) -> Array:
        return self._borders[np.searchsorted(self._borders, ends, side="right") - 1]

    def _sure(
        self, ids: Array, starts: Array, ends: Array, lengths: Array, at: tuple[Array, Array]
    ) -> Array:
        """Whether words begin and end around tokens [start, end) where they stand in the corpus:
        no word could go on there, or the tokens do as in the output, or where one match is they do.

        Args:
            lengths: of the longest matches from the starts. at: shard and place of one of each.
        """
        spelling = self._phrases.tokenizer.spelling
        if spelling is None:
            return np.ones(len(starts), dtype=bool)
        left = spelling.first[ids[starts]] == NO
        right = (starts + lengths > ends) | (spelling.last[ids[ends - 1]] == NO)
        for number, shard in enumerate(self._phrases.shards):
            mine = np.flatnonzero((at[0] == number) & (at[1] >= 0))
            tokens, end = shard.suffixes.tokens, len(spelling.pieces)
            before = tokens[np.maximum(at[1][mine] - 1, 0)].astype(np.int64)
            after = tokens[np.minimum(at[1][mine] + lengths[mine], len(tokens) - 1)]
            left[mine] |= spelling.last[np.minimum(before, end)] == NO
            right[mine] |= spelling.first[np.minimum(after.astype(np.int64), end)] == NO
        return left & right


def first_words(
    phrases: PhraseIndex, text: str, encoded: Encoded, spans: Sequence[tuple[int, int]]
) -> list[tuple[int, tuple[int, ...]]]:
    """Where the first word of each stretch ends, and the tokens of its other form, if any."""
    starts = np.array([first for first, _ in spans], dtype=np.int64)
    borders = _borders(phrases, text, encoded)
    ends = borders[np.searchsorted(borders, starts, side="right")]
    forms = phrases.tokenizer.forms(_written(text, encoded, starts, ends))
    return [
        (end, _another(tuple(encoded.ids[start:end].tolist()), form))
        for start, end, form in zip(starts.tolist(), ends.tolist(), forms, strict=True)
    ]


def _borders(phrases: PhraseIndex, text: str, encoded: Encoded) -> Array:
    """The tokens at which words begin, or what is none, and the end of all of them."""
    begins = np.append(phrases.tokenizer.word_starts[encoded.ids], True)
    begins[0] = True  # whatever the output begins with
    begins[1:-1] |= np.array(_apart(text, encoded.offsets.tolist()), dtype=bool)
    return np.flatnonzero(begins)


def _written(text: str, encoded: Encoded, starts: Array, ends: Array) -> list[str]:
    """The text of tokens [start, end), without white space around."""
    # Of a character that is several tokens, each has the place of all.
    firsts, lasts = encoded.offsets[starts, 0].tolist(), encoded.offsets[ends - 1, 1].tolist()
    return [text[first:last].strip() for first, last in zip(firsts, lasts, strict=True)]


def _another(
    own: tuple[int, ...], forms: tuple[tuple[int, ...], tuple[int, ...]]
) -> tuple[int, ...]:
    """The form of a word that the output does not have; empty where that finds nothing else."""
    for form in forms:
        if form and form != own and form[-len(own) :] != own:
            return form
    return ()


def _apart(text: str, places: list[tuple[int, int]]) -> list[bool]:
    """For each token but the first: whether its first character is of another word than the one
    before it, or of none [n - 1]."""
    inside = [start < before for (_, before), (start, _) in pairwise(places)]
    within = [joins(text[start]) and joins(text[start - 1 : start]) for start, _ in places[1:]]
    return [not (one or other) for one, other in zip(inside, within, strict=True)]
