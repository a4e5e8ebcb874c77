"""What the tokens of a tokenizer spell, byte by byte, and where words begin and end inside them.

The same words are cut into other tokens after a space, after a bracket, at the beginning of a text,
and marks that stand together are often one token. To find words wherever they stand one has to know
which tokens can hold their first and last letters, and what else those tokens hold.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

# Written without spaces between words, so that any of their characters may begin one: Thai, Lao,
# Myanmar, Khmer and other scripts of South East Asia, Chinese and Japanese.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f"
    "\u2e80-\u2fff\u3001-\u312f\u3190-\u9fff\ua980-\ua9ff\uaa60-\uaadf\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_BEYOND = re.compile(rb"[A-Za-z][^A-Za-z\x80-\xff]|. [A-Za-z]", re.DOTALL)
_UNSPACED = re.compile(f"[{UNSPACED}]")

NO, YES, PERHAPS = 0, 1, 2  # whether a token's first, or last, character joins what it touches

Array = np.ndarray[Any, Any]
Piece = tuple[int, int, int]  # a token, and the range of its bytes that is meant


@lru_cache(maxsize=1 << 12)
def joins(character: str) -> bool:
    """Whether a character is part of a word that goes on beside it: a letter, digit or accent."""
    if not character or _UNSPACED.match(character):
        return False
    return character.isalnum() or unicodedata.category(character).startswith("M")


def first_joins(data: bytes) -> int:
    """Of bytes that begin with a character, or with a part of one: `NO`, `YES` or `PERHAPS`."""
    if not data or 0x80 <= data[0] < 0xC0:  # the rest of a character whose beginning is not here
        return PERHAPS
    size = 1 if data[0] < 0x80 else 2 if data[0] < 0xE0 else 3 if data[0] < 0xF0 else 4
    if len(data) < size - 1:
        return PERHAPS
    # Where one byte is missing, all that it can be often say the same: those of curly quotes do.
    ends = [b""] if len(data) >= size else [bytes([byte]) for byte in range(0x80, 0xC0)]
    found = {joins((data[:size] + end).decode("utf-8", "replace")[:1]) for end in ends}
    return int(found.pop()) if len(found) == 1 else PERHAPS


def last_joins(data: bytes) -> int:
    """Of bytes that end with a character, or with a part of one."""
    for size in range(1, min(4, len(data)) + 1):
        if data[-size] & 0xC0 != 0x80:  # here a character begins
            try:
                return int(joins(data[-size:].decode()))
            except UnicodeDecodeError:
                return PERHAPS
    return PERHAPS


class Spelling:
    """The bytes of each token of a tokenizer whose tokens, one after the other, are the text.

    Args:
        pieces: what each token spells [vocabulary]. special: tokens that are found in a text as
            they are, before it is cut into others.

    Attributes:
        words_end: whether every other token ends where a word in Latin letters does, and none
            begins before the space before one.
    """

    def __init__(self, pieces: Sequence[bytes], special: Collection[int] = ()) -> None:
        self.pieces = list(pieces)
        self.words_end = True
        self.first = _table(self.pieces, slice(0, 1), slice(0, 4), first_joins)
        self.last = _table(self.pieces, slice(-1, None), slice(-4, None), last_joins)
        # A vocabulary has some hundred thousand tokens: what is done for each is done in bulk.
        self._whole = dict(zip(self.pieces, range(len(self.pieces)), strict=True))
        self._whole.pop(b"", None)
        self._also: dict[bytes, list[int]] = {}  # other tokens of the same bytes
        if len(self._whole) < len(self.pieces):
            for token, data in enumerate(self.pieces):
                if data and self._whole[data] != token:
                    self._also.setdefault(data, []).append(token)
        self._inside: dict[bytes, list[Piece]] = {}
        for token, data in enumerate(self.pieces):
            if not data.removeprefix(b" ").isalpha():
                if self.words_end and token not in special:
                    self.words_end = _BEYOND.search(data) is None
                for start, end in _parts(data):
                    self._inside.setdefault(data[start:end], []).append((token, start, end))
        every = [*self._whole, *self._inside]
        every += [data[1:] for data in self._whole if data[0] == 32 and len(data) > 1]
        self._longest: dict[bytes, int] = {}  # by the first two bytes: few begin with the same
        for data in sorted(every, key=len):
            self._longest[data[:2]] = len(data)

    def text(self, tokens: Sequence[int]) -> bytes:
        """What the tokens spell; what is no token spells nothing."""
        return b"".join(self.pieces[t] if t < len(self.pieces) else b"" for t in tokens)

    def openings(self, query: bytes) -> Iterator[Piece]:
        """Tokens that hold a text's beginning, or all of it, and the bytes of them that do."""
        for data in self._beginnings(query):
            yield from ((token, 0, len(data)) for token in self.spelled(data))
            yield from ((token, 1, len(data) + 1) for token in self.spelled(b" " + data))
        yield from self.inner_openings(query)

    def inner_openings(self, query: bytes) -> Iterator[Piece]:
        """Those of them that hold more than the text and a space before it."""
        for data in self._beginnings(query):
            for token, start, end in self._inside.get(data, ()):
                if end == len(self.pieces[token]) or len(data) == len(query):
                    yield token, start, end

    def following(self, rest: bytes) -> list[tuple[int, int]]:
        """Tokens with which a text can go on whose rest this is, and how much of it they hold."""
        whole, also = self._whole, self._also
        found = [(whole[data], len(data)) for data in self._beginnings(rest) if data in whole]
        if also:
            found += [(t, n) for _, n in found[:] for t in also.get(rest[:n], ())]
        return found + [(t, end) for t, start, end in self._inside.get(rest, ()) if start == 0]

    def ends_in(self, token: int, rest: bytes) -> bool:
        """Whether a text with this rest may end inside the token."""
        return any(piece == (token, 0, len(rest)) for piece in self._inside.get(rest, ()))

    def spelled(self, data: bytes) -> Sequence[int]:
        """The tokens that spell this, and nothing else."""
        token = self._whole.get(data)
        return () if token is None else (token, *self._also.get(data, ()))

    def _beginnings(self, data: bytes) -> list[bytes]:
        """As far as there are tokens that long; the first byte alone may be one, too."""
        most = max(self._longest.get(data[:2], 0), 1)
        return [data[:size] for size in range(1, min(most, len(data)) + 1)]


def _table(pieces: Sequence[bytes], near: slice, far: slice, rule: Callable[[bytes], int]) -> Array:
    """The rule for each token; one more, for what is no token (the end of a document).

    Of a token that begins (ends) with ASCII, the one byte `near`; of others those up to `far`.
    """
    kept: dict[bytes, int] = {}
    made: list[int] = []
    for data in pieces:
        key = data[near] if data[near].isascii() else data[far]
        found = kept.get(key)
        if found is None:
            found = kept[key] = rule(key)
        made.append(found)
    return np.array([*made, NO], dtype=np.uint8)


def _parts(data: bytes) -> Iterator[tuple[int, int]]:
    """Parts of a token in which a text may stand: from where a word may begin to where one may end.

    The whole token is left out, and what comes after a first space: most tokens have no other part,
    and `openings` looks these up without a table.
    """
    text = data.decode("utf-8", "surrogateescape")
    if text.isspace() or (text.removeprefix(" ").isalnum() and not _UNSPACED.search(text)):
        return
    places, at = [0], 0  # bytes at which a word may begin or end
    for before, after in pairwise(text):
        at += len(before.encode("utf-8", "surrogateescape"))
        # Half a character may be any; the second half of one begins nothing.
        if not (joins(before) and joins(after)) and not 0xDC80 <= ord(after) < 0xDCC0:
            places.append(at)
    places.append(len(data))
    for number, start in enumerate(places):
        if start and data[start : start + 1].isspace():
            continue
        for end in places[number + 1 :]:
            if end < len(data) and data[end - 1 : end].isspace():
                continue
            if end < len(data) or start > (data[:1] == b" "):
                yield start, end
