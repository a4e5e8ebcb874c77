"""What a filter looks at and what its terms mean; `filter_grammar.py` reads what people type.

Each term looks at a row once: texts are brought into a form in which a word or a phrase is a plain
string. No regular expression is ever made of what was typed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

from headwater.evidence.spelling import UNSPACED

ID, TEXT, SCORE = "id", "text", "score"
OWN = (ID, TEXT, SCORE)  # what every row has besides its columns

_GAP = re.compile(r"[\W_]+")
_ALONE = re.compile(f"[{UNSPACED}]")  # scripts without spaces: each character is a word


@dataclass
class Row:
    """What a filter looks at.

    Args:
        id, text, score: of an example (or a query); None = no score. columns: everything else.
    """

    id: str
    text: str
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])
    score: float | None = None

    @cached_property
    def folded(self) -> str:
        """The text in lower case."""
        return self.text.casefold()

    @cached_property
    def words(self) -> str:
        """The text as `plain` has it, made when the first term asks for it."""
        return plain(self.text)

    def value(self, column: str) -> Any:
        """A column's value; None where there is none. The row's own names come before metadata."""
        own = getattr(self, column) if column in OWN else None
        return self.columns.get(column) if own is None else own


def plain(text: str) -> str:
    """Words in lower case, a space before and after each; marks are gaps."""
    spaced = _ALONE.sub(r" \g<0> ", text.casefold())
    return f" {' '.join(_GAP.sub(' ', spaced).split())} "


class Filter(Protocol):
    """Something that a row passes or does not."""

    def matches(self, row: Row) -> bool:
        """Whether the row passes."""
        ...


@dataclass(frozen=True)
class Words:
    """Words in this order in one stretch; `begins`: the last of them may go on.

    Args:
        text: as typed. column: None = the row's text.
    """

    text: str
    begins: bool = False
    column: str | None = None

    @cached_property
    def needle(self) -> str:
        """What is sought: in words, or as typed where that has no word (marks alone)."""
        made = plain(self.text)
        if not made.strip():
            return self.text.strip().casefold()
        return made.rstrip() if self.begins else made

    def matches(self, row: Row) -> bool:
        """Whether the words stand in the text, or in the column's value."""
        if self.column is None or self.column == "text":
            return self._stands_in(row)
        value = row.value(self.column)
        if not self.text:
            return value is not None if self.begins else value == ""
        return any(self._stands_in(Row("", one)) for one in _texts(value))

    @cached_property
    def _parts(self) -> list[str]:
        return self.needle.split()

    def _stands_in(self, row: Row) -> bool:
        # Most texts lack the letters, and need not be brought into words.
        if not self.needle.startswith(" "):
            return self.needle in row.folded
        return all(part in row.folded for part in self._parts) and self.needle in row.words


@dataclass(frozen=True)
class Same:
    """A column's value is just that: as a number where both are, else letter by letter."""

    column: str
    text: str

    def matches(self, row: Row) -> bool:
        """Whether the value, or one of a list of values, is it."""
        wanted, figure = self.text.casefold(), number(self.text)
        return any(
            one.casefold() == wanted or (figure is not None and number(one) == figure)
            for one in _texts(row.value(self.column))
        )


@dataclass(frozen=True)
class Compared:
    """A column's number against a limit; what has no number passes none."""

    column: str
    operator: str
    limit: float

    def matches(self, row: Row) -> bool:
        """Whether the number is on the right side."""
        found = number(row.value(self.column))
        if found is None:
            return False
        if found == self.limit:
            return "=" in self.operator
        return (found > self.limit) == self.operator.startswith(">")


@dataclass(frozen=True)
class Not:
    """What does not pass the other."""

    part: Filter

    def matches(self, row: Row) -> bool:
        """Whether it does not."""
        return not self.part.matches(row)


@dataclass(frozen=True)
class Several:
    """All of these, or any of them."""

    parts: tuple[Filter, ...]
    every: bool

    def matches(self, row: Row) -> bool:
        """Whether all pass, or one does."""
        passed = (part.matches(row) for part in self.parts)
        return all(passed) if self.every else any(passed)


def _texts(value: Any) -> list[str]:
    """A value as texts to compare with; a list stands for each of its values."""
    if value is None:
        return []
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in values]


def number(value: Any) -> float | None:
    """A value, or a text that is one, as a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        made = float(value)
    except (ValueError, OverflowError):
        return None
    return made if math.isfinite(made) else None
