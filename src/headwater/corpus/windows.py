"""Long documents cut into windows, short ones packed together: positions only, no tokens.

Windows may overlap to give later tokens some context, and still every position is *fresh*, that is
learned, in exactly one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Window(NamedTuple):
    """Positions [start, end) of a document, of which those before `fresh` are only context."""

    start: int
    end: int
    fresh: int


def windows(n: int, max_length: int, overlap: int = 0) -> list[Window]:
    """Windows of at most `max_length` positions that cover [0, n), `overlap` of them repeated.

    Raises:
        InputError: `n` < 0, `max_length` < 1, or `overlap` not in [0, max_length).
    """
    _at_least("max_length", max_length, 1)
    _at_least("the number of tokens", n, 0)
    if not 0 <= overlap < max_length:
        raise InputError(
            "overlap must leave room for new tokens",
            expected=f"from 0 to {max_length - 1}, below max_length",
            found=overlap,
        )
    cut: list[Window] = []
    fresh = 0
    while fresh < n:
        start = max(0, fresh - overlap)
        end = min(start + max_length, n)
        cut.append(Window(start, end, fresh))
        fresh = end
    return cut


def pack(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Indices of consecutive documents, grouped in order into at most `max_length` tokens each.

    Raises:
        InputError: a length is below 1, or above `max_length` (cut it into windows first).
    """
    _at_least("max_length", max_length, 1)
    groups: list[list[int]] = []
    room = 0
    for index, length in enumerate(lengths):
        if not 1 <= length <= max_length:
            raise InputError(
                f"document {index} cannot be packed",
                expected=f"1 to {max_length} tokens",
                found=length,
            )
        if length > room:
            groups.append([])
            room = max_length
        groups[-1].append(index)
        room -= length
    return groups


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is too small", expected=f"at least {least}", found=value)
