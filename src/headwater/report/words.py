"""Which words of an example carry its score, as character ranges of its text.

Tokens are laid along the text one after the other; what a tokenizer added (special tokens, pieces
of one character) takes no room. Long texts are cut to the stretch in which most of the score lies.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

STRONG = 0.3  # of the strongest share: weaker words are not marked
MOST = 6  # marked words of one sign
AHEAD = 60  # characters searched for a token that does not follow at once

LONGEST_WORD = 40  # characters; what is longer (a script without spaces) is no word

_WORD = re.compile(r"\w+")
# Control characters, marks of direction, and halves of surrogate pairs, which have no UTF-8 form.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Mark:
    """Characters [start, end) of a text, and the share of the score they carry."""

    start: int
    end: int
    share: float


def printable(text: str) -> str:
    """`text`, as long as before, without control characters: no example may drive a terminal."""
    return _CONTROL.sub("\ufffd", text)


def place(text: str, tokens: Sequence[tuple[str, float]]) -> list[Mark]:
    """Where each token stands in `text`; tokens that cannot be found are left out."""
    marks: list[Mark] = []
    at = 0
    for token, share in tokens:
        start = text.find(token, at, at + len(token)) if token else -1
        if start < 0 and token.strip():
            token = token.strip()
            start = text.find(token, at, at + AHEAD + len(token))
        if start >= 0:
            at = start + len(token)
            marks.append(Mark(start, at, share))
    return marks


def words(text: str, marks: Sequence[Mark]) -> list[Mark]:
    """Marks of tokens summed over words; a token in no word, or in a very long one, by itself."""
    ends = {m.start(): m.end() for m in _WORD.finditer(text) if m.end() - m.start() <= LONGEST_WORD}
    owner = {at: start for start, end in ends.items() for at in range(start, end)}
    shares: dict[tuple[int, int], float] = {}
    for mark in (_trimmed(text, mark) for mark in marks):
        start = owner.get(mark.start)
        key = (mark.start, mark.end) if start is None else (start, max(ends[start], mark.end))
        shares[key] = shares.get(key, 0.0) + mark.share
    return [Mark(start, end, share) for (start, end), share in sorted(shares.items())]


def strongest(text: str, marks: Sequence[Mark]) -> list[Mark]:
    """The few strongest words of either sign, in their order; those that touch are joined."""
    by_word = words(text, marks)
    limit = STRONG * max((abs(mark.share) for mark in by_word), default=0.0)
    chosen: list[Mark] = []
    for sign in (1, -1):
        own = sorted((m for m in by_word if m.share * sign > 0), key=lambda m: -abs(m.share))
        chosen += [mark for mark in own[:MOST] if abs(mark.share) >= limit]
    joined: list[Mark] = []
    for mark in sorted(chosen, key=lambda m: m.start):
        last = joined[-1] if joined else Mark(0, 0, 0.0)
        if last.share * mark.share > 0 and not text[last.end : mark.start].strip():
            joined[-1] = Mark(last.start, max(last.end, mark.end), last.share + mark.share)
        elif mark.start >= last.end and mark.end > mark.start:
            joined.append(mark)
    return joined


def _trimmed(text: str, mark: Mark) -> Mark:
    start, end = mark.start, mark.end
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Mark(start, end, mark.share)


def excerpt(text: str, marks: Sequence[Mark], limit: int) -> tuple[int, int]:
    """The stretch [start, end) of at most about `limit` characters with the most of the score."""
    if len(text) <= limit:
        return 0, len(text)
    starts, sums = [mark.start for mark in marks], [0.0]
    for mark in marks:
        sums.append(sums[-1] + abs(mark.share))
    best, start = 0.0, 0
    for first in starts:
        # What counts is the middle half, so that there is something to read on either side.
        weight = sums[bisect_left(starts, first + limit // 2)] - sums[bisect_left(starts, first)]
        if weight > best:
            best, start = weight, max(0, min(first - limit // 4, len(text) - limit))
    return at_words(text, start, start + limit)


def at_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Move both ends inwards to white space, where some is near."""
    if start > 0:
        space = re.search(r"\s", text[start : start + 30])
        start += space.end() if space else 0
    if end < len(text):
        cut = max(text.rfind(" ", end - 30, end), text.rfind("\n", end - 30, end))
        end = cut if cut > start else end
    return start, end
