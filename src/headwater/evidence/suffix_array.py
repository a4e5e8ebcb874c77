"""A suffix array over tokens: sorted once by divsufsort, then searched where it lies on disk.

Everything compares bytes. Suffixes are sorted by the bytes of their tokens, so one search serves
big-endian tokens (ours) and little-endian ones (infini-gram's): only how a place in the text is
written differs. A phrase takes two bisections over the memory map; all suffixes of an output are
searched at once, in lock step, by comparing windows of the text.
"""

from __future__ import annotations

import mmap
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from headwater.engine.errors import DamageError

Array = np.ndarray[Any, Any]

WINDOW = 32  # tokens compared at a time in the search of all suffixes
BLOCK = 1 << 22  # occurrences that are read one by one; more are leapt over
PIECE = 1 << 18  # entries that are written at a time


def separator_of(dtype: np.dtype[Any]) -> int:
    """What stands around documents: the largest number of the type, which is no token."""
    return (1 << 8 * dtype.itemsize) - 1


# -- building -------------------------------------------------------------------------------------


def write_suffix_array(tokens: Path, width: int, out: Path) -> None:
    """Sort all suffixes of a file of big-endian tokens of `width` bytes.

    divsufsort sorts bytes. The order of the bytes of big-endian tokens is the order of the tokens,
    so its entries at multiples of `width`, divided by it, are the suffix array of the tokens.
    Writes little-endian int32 [tokens], int64 for 2^31 tokens or more.
    """
    from pydivsufsort import divsufsort

    size = tokens.stat().st_size
    text = np.memmap(tokens, dtype=np.uint8, mode="c")  # divsufsort takes no read-only memory
    order = divsufsort(text)
    kind = "<i4" if size // width < 1 << 31 else "<i8"
    shift = width.bit_length() - 1
    with out.open("wb") as file:
        for start in range(0, len(order), PIECE):
            block = order[start : start + PIECE]
            block = block[block & (width - 1) == 0]
            (block >> shift).astype(kind, copy=False).tofile(file)


# -- where a suffix starts ------------------------------------------------------------------------


class Pointers(Protocol):
    """The sorted suffixes: for each rank, where in the text its suffix starts."""

    sequence: Sequence[int]  # what bisection walks over
    scale: int  # bytes of the text that one step of `sequence` stands for

    def __len__(self) -> int: ...

    def places(self, ranks: Array | slice) -> Array:
        """Bytes of the text where the suffixes of these ranks start, int64."""
        ...


class WholePointers:
    """Pointers that are int32 or int64 and count tokens."""

    def __init__(self, data: mmap.mmap, width: int, size: int) -> None:
        # Unsigned: a damaged entry is far outside of the text, and not counted from its end.
        self._array = np.frombuffer(data, dtype=f"<u{size}")
        self.scale = width
        little = sys.byteorder == "little"
        native: Any = memoryview(data).cast("I" if size == 4 else "Q") if little else self._array
        self.sequence: Sequence[int] = native

    def __len__(self) -> int:
        return len(self._array)

    def places(self, ranks: Array | slice) -> Array:
        """Bytes of the text where the suffixes of these ranks start, int64."""
        return self._array[ranks].astype(np.int64) * self.scale


class PackedPointers:
    """Pointers of any number of bytes, little-endian, that count bytes: infini-gram's."""

    scale = 1

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data, self._size = data, size
        self._bytes = np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
        self.sequence: Sequence[int] = self  # pyright: ignore[reportAttributeAccessIssue]

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, rank: int) -> int:
        start = rank * self._size
        return int.from_bytes(self._data[start : start + self._size], "little")

    def places(self, ranks: Array | slice) -> Array:
        """Bytes of the text where the suffixes of these ranks start, int64."""
        digits = self._bytes[ranks].astype(np.int64)
        return digits @ (1 << np.arange(0, 8 * self._size, 8, dtype=np.int64))


# -- searching ------------------------------------------------------------------------------------


class SortedSuffixes:
    """The tokens of one shard and their suffixes in order, both memory-mapped.

    Args:
        text: the file of tokens. pointers: their suffix array.
        dtype: type of a token, with its byte order; its largest number is the separator.
        name, remedy: what is damaged where a suffix starts outside of the text, and what to do.
    """

    def __init__(
        self,
        text: mmap.mmap,
        pointers: Pointers,
        dtype: np.dtype[Any],
        name: object = "The suffix array",
        remedy: str | None = None,
    ) -> None:
        self._name, self._remedy = name, remedy
        self.dtype, self.width = dtype, dtype.itemsize
        self.order: Literal["big", "little"] = "big" if dtype.str[0] == ">" else "little"
        self._separator = separator_of(dtype)
        self.tokens = np.frombuffer(text, dtype=dtype)
        self._text, self._pointers = text, pointers
        # Windows that begin near the end are read from a copy of it that zeros follow.
        window = WINDOW * self.width
        self._window = np.dtype(f"S{window}")
        self._whole = max(len(self.tokens) - WINDOW + 1, 0)
        tail = np.zeros(2 * WINDOW, dtype=dtype)
        rest = self.tokens[self._whole :]
        tail[: len(rest)] = rest
        self._windows = _sliding(text, self._whole, self._window, self.width)
        self._tail = _sliding(tail.tobytes(), WINDOW, self._window, self.width)

    def __len__(self) -> int:
        return len(self.tokens)

    def bytes_of(self, tokens: Array) -> bytes:
        """Token ids as they are written in the text."""
        return tokens.astype(self.dtype).tobytes()

    def interval(self, phrase: bytes, low: int = 0, high: int | None = None) -> tuple[int, int]:
        """Ranks [low, high) of the suffixes that begin with `phrase`; empty when none does."""
        sequence = self._pointers.sequence
        end = len(sequence) if high is None else high
        head = self._head(len(phrase))
        low = bisect_left(sequence, phrase, low, end, key=head)
        return low, self._leap(phrase, head, low, end)

    def _head(self, length: int) -> Callable[[int], bytes]:
        """What reads the first bytes of the suffix at a pointer."""
        text, scale = self._text, self._pointers.scale
        if scale == 1:
            return lambda pointer: text[pointer : pointer + length]
        return lambda pointer: text[(start := pointer * scale) : start + length]

    def _leap(self, phrase: bytes, head: Callable[[int], bytes], low: int, end: int) -> int:
        """The first rank from `low` on that does not begin with `phrase`.

        Most phrases are rare, so it is sought in leaps that double, not in the whole array.
        """
        sequence = self._pointers.sequence
        high, leap = low, 1
        while high < end and head(sequence[high]) == phrase:
            low, high, leap = high, high + leap, 2 * leap
        return bisect_right(sequence, phrase, low, min(high, end), key=head)

    def positions(self, low: int, high: int) -> Array:
        """Where in the text, in tokens, the suffixes of these ranks start, int64, unsorted."""
        found = self._pointers.places(slice(low, high)) // self.width
        if len(found) and not 0 <= int(found.min()) <= int(found.max()) < len(self):
            raise self._damage(int(found.max()))
        return found

    def check(self) -> None:
        """Read all entries once: each token of the text has one.

        Raises:
            DamageError: when they are not the numbers of all tokens.
        """
        total = 0
        for first in range(0, len(self._pointers), 1 << 20):
            total += int(self.positions(first, first + (1 << 20)).sum())
        if total != len(self) * (len(self) - 1) // 2:
            raise self._damage("other numbers")

    def _damage(self, found: object) -> DamageError:
        return DamageError(
            f"{self._name} is damaged",
            expected=f"the numbers below {len(self)}, each once",
            found=found,
            do=self._remedy,
        )

    def longest(self, phrase: Array, starts: Array, limits: Array) -> Array:
        """How many tokens of the phrase, from each start, occur together in the text.

        Args:
            phrase: token ids [n]. starts: where to begin, ascending, int64 [k]. limits: tokens
                that are looked at from there, int64 [k]; none of these may be the separator.

        Returns:
            int64 [k].
        """
        return self.longest_at(phrase, starts, limits)[0]

    def longest_at(self, phrase: Array, starts: Array, limits: Array) -> tuple[Array, Array]:
        """The same, and where in the text, in tokens, one of these longest matches stands; -1 where
        there is none, or it is longer than what was compared at once."""
        padded = np.zeros(len(phrase) + WINDOW, dtype=self.dtype)
        padded[: len(phrase)] = phrase
        near = np.minimum(limits, WINDOW)
        sought = _sliding(padded.tobytes(), len(phrase) + 1, self._window, self.width)[starts]
        found = sought.view(self.dtype).reshape(len(starts), WINDOW)
        found[np.arange(WINDOW) >= near[:, None]] = 0  # zeros sort before every continuation
        try:
            low = self._lower_bounds(sought, near)
        except IndexError as error:  # to check each of them would take as long as to read them
            raise self._damage("a larger one") from error
        best = np.zeros(len(starts), dtype=np.int64)
        at = np.full(len(starts), -1, dtype=np.int64)
        for rank in (low - 1, low):
            inside = (rank >= 0) & (rank < len(self))
            places = self._pointers.places(np.clip(rank, 0, len(self) - 1))
            if places.max() >= len(self) * self.width:
                raise self._damage(int(places.max()) // self.width)
            same = self._read(places).view(self.dtype).reshape(found.shape) == found
            common = np.where(same.all(axis=1), WINDOW, same.argmin(axis=1))
            left = len(self) - places // self.width
            common = np.minimum(np.minimum(common, near), left)
            better = inside & (common > best)
            best, at = np.where(better, common, best), np.where(better, places // self.width, at)
        data, reached = self.bytes_of(phrase), 0
        for number in np.flatnonzero((best == WINDOW) & (limits > WINDOW)).tolist():
            start, stop = int(starts[number]), int(starts[number] + limits[number])
            if reached < stop:  # else an earlier match goes as far as this one may
                rest = data[start * self.width : stop * self.width]
                reached = start + self._longest(rest, int(low[number]))
            best[number], at[number] = min(reached, stop) - start, -1
        return best, at

    def _lower_bounds(self, sought: Array, lengths: Array) -> Array:
        """The first rank whose suffix is not below each window, int64; all in lock step."""
        low = np.zeros(len(sought), dtype=np.int64)
        high = np.full(len(sought), len(self), dtype=np.int64)
        for _ in range(len(self).bit_length()):
            middle = (low + high) // 2
            places = self._pointers.places(np.minimum(middle, len(self) - 1))
            windows = self._read(places)
            below = windows < sought
            short = len(self) - places // self.width < lengths
            if short.any():  # a suffix that ends is below what goes on, which the zeros hide
                below |= (windows == sought) & short
            open_ = low < high
            low = np.where(open_ & below, middle + 1, low)
            high = np.where(open_ & ~below, middle, high)
        return low

    def _read(self, places: Array) -> Array:
        """The windows at these bytes of the text, zeros after its end."""
        at = places // self.width
        late = at >= self._whole
        if not late.any():
            return self._windows[at]
        out = np.empty(len(at), dtype=self._window)
        out[late] = self._tail[at[late] - self._whole]
        out[~late] = self._windows[at[~late]]
        return out

    def _longest(self, phrase: bytes, low: int) -> int:
        """Tokens of the longest start of a phrase that occurs; its first window does, at `low`."""
        sequence = self._pointers.sequence
        window = phrase[: WINDOW * self.width]
        high = self._leap(window, self._head(len(window)), low, len(sequence))
        head = self._head(len(phrase))
        rank = bisect_left(sequence, phrase, low, high, key=head)
        near = [head(sequence[r]) for r in (rank - 1, rank) if low <= r < high]
        return max(_common(one, phrase) for one in near) // self.width

    def following(self, low: int, high: int, length: int) -> Iterator[tuple[int, int]]:
        """(token, count) of what follows a phrase of `length` tokens whose interval this is.

        Separators and the end of the text are left out. Few occurrences are read one by one; of
        many, the ranges that share the next token are leapt over.
        """
        if high - low > BLOCK:
            yield from self._leaps(low, high, length)
            return
        after = self.positions(low, high) + length
        tokens, counts = np.unique(self.tokens[after[after < len(self)]], return_counts=True)
        for token, count in zip(tokens.tolist(), counts.tolist(), strict=True):
            if token != self._separator:
                yield token, count

    def _leaps(self, low: int, high: int, length: int) -> Iterator[tuple[int, int]]:
        size = (length + 1) * self.width
        while low < high:
            start = self._pointers.sequence[low] * self._pointers.scale
            head = self._text[start : start + size]
            first, low = self.interval(head, low, high)
            if len(head) == size:  # shorter only at the end of the text
                token = int(np.frombuffer(head[-self.width :], dtype=self.dtype)[0])
                if token != self._separator:
                    yield token, low - first
            else:
                low = first + 1


def map_file(path: Path) -> mmap.mmap:
    """A file as read-only memory; raises DamageError for a missing or empty one."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DamageError(f"{path} is damaged or missing", found=str(error)) from error


def _sliding(data: Any, count: int, kind: np.dtype[Any], step: int) -> Array:
    """`count` overlapping windows over a buffer, a token apart."""
    if not count:
        return np.zeros(0, dtype=kind)
    return np.ndarray((count,), dtype=kind, buffer=data, strides=(step,))


def _common(one: bytes, other: bytes) -> int:
    """How many first bytes are the same."""
    length = min(len(one), len(other))
    differ = int.from_bytes(one[:length], "big") ^ int.from_bytes(other[:length], "big")
    return length - (differ.bit_length() + 7) // 8
