"""A row of a source as it was read, the bad row it can turn out to be, and what a source is.

Readers yield `Row` or `BadRow` and never stop for a row that is bad: whether to stop is decided in
one place, the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its file, its number there (from 1; a line number in JSON Lines), its values."""

    file: str
    row: int
    values: dict[str, Any]
    unit: str = "row"

    @property
    def place(self) -> str:
        """The row in words, for messages."""
        return f"{self.file}, {self.unit} {self.row}"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: its file, its number there (from 1), and why."""

    file: str
    row: int
    reason: str
    unit: str = "row"

    @property
    def place(self) -> str:
        """The row in words, for messages."""
        return f"{self.file}, {self.unit} {self.row}"


class RowProblem(Exception):
    """Why a row cannot be used; turned into a `BadRow` or an `InputError` by the corpus."""

    def __init__(self, wrong: str, *, expected: object = None, found: object = None) -> None:
        parts = [wrong]
        if expected is not None:
            parts.append(f"expected {expected}")
        if found is not None:
            parts.append(f"found {found}")
        super().__init__("; ".join(parts))


class RowSource(Protocol):
    """Where rows come from: read anew, in the same order, at every call of `rows`."""

    @property
    def name(self) -> str:
        """What the person opened, for messages."""
        ...

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows, streamed."""
        ...

    def describe(self) -> list[dict[str, Any]]:
        """The parts of the source, JSON-serialisable: name, and size and mtime where known."""
        ...


def shown(value: object, limit: int = 60) -> str:
    """A value in a few characters, with its type where the value alone does not tell it."""
    text = repr(value)
    text = text if len(text) <= limit else f"{text[:limit]}..."
    return text if value is None or isinstance(value, str) else f"{type(value).__name__} {text}"
