"""A small filter language, as people type: words, "phrases", column:value, score>0.2, not, or.

    capital peru            both words, anywhere in the text        "capital of Peru"  in this order
    capi*                   a word that begins so                   -peru, not peru    without it
    source:wiki             the column holds the word               source=wiki        is just that
    year>1999  score<=-0.5  numbers                                 source!=wiki       is not that
    peru or (chile -santiago)                                       source:*           has a value

The parser has limits, and each term looks at a row once: texts are brought into a form in which a
word or a phrase is a plain string. No regular expression is ever made of what was typed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

from headwater.engine.errors import InputError
from headwater.evidence.spelling import UNSPACED

LONGEST = 1000  # characters of a filter
DEEPEST = 20  # brackets and nots inside each other
MOST_TERMS = 100
OWN = ("id", "text", "score")  # what every row has besides its columns

_OPERATORS = ("!=", ">=", "<=", "=", ">", "<", ":")
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
        return getattr(self, column) if column in OWN else self.columns.get(column)


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
        wanted, number = self.text.casefold(), _number(self.text)
        return any(
            one.casefold() == wanted or (number is not None and _number(one) == number)
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
        found = _number(row.value(self.column))
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


def _number(value: Any) -> float | None:
    """A value, or a text that is one, as a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        made = float(value)
    except (ValueError, OverflowError):
        return None
    return made if math.isfinite(made) else None


# -- reading ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    kind: str  # "word", "phrase", "operator", "(", ")", "-", "end"
    text: str
    start: int


def parse(text: str, columns: Collection[str] | None = None) -> Filter | None:
    """A filter as typed; None for an empty one, which every row passes.

    Args:
        columns: names that may be asked for besides id, text and score; None = any.

    Raises:
        InputError: for what is not understood; names the character and what was expected there.
    """
    if len(text) > LONGEST:
        raise InputError(
            "The filter is too long",
            expected=f"at most {LONGEST:,} characters",
            found=f"{len(text):,}",
        )
    return _Parser(_tokens(text), columns).whole()


def _tokens(text: str) -> list[_Token]:
    made: list[_Token] = []
    at = 0
    while at < len(text):
        one = text[at]
        operator = next((o for o in _OPERATORS if text.startswith(o, at)), None)
        if one.isspace():
            at += 1
            continue
        after = bool(made) and made[-1].kind == "operator"
        if one in "()":
            token, end = _Token(one, one, at), at + 1
        elif one == '"':
            token, end = _phrase(text, at)
        elif after:  # a value: everything up to a space or a bracket, so that links need no quotes
            end = _run(text, at, "()")
            token = _Token("word", text[at:end], at)
        elif operator is not None:
            token, end = _Token("operator", operator, at), at + len(operator)
        elif one == "-":
            token, end = _Token("-", one, at), at + 1
        else:
            end = _run(text, at, '()":=<>', "!=")
            token = _Token("word", text[at:end], at)
        made.append(token)
        at = end
    return [*made, _Token("end", "", len(text))]


def _run(text: str, start: int, stops: str, pair: str | None = None) -> int:
    """Where the run of characters from `start` ends."""
    end = start
    while end < len(text) and not text[end].isspace() and text[end] not in stops:
        if pair is not None and end > start and text.startswith(pair, end):
            break
        end += 1
    return end


def _phrase(text: str, start: int) -> tuple[_Token, int]:
    made: list[str] = []
    at = start + 1
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\"):
            made.append(text[at + 1])
            at += 2
        elif text[at] == '"':
            return _Token("phrase", "".join(made), start), at + 1
        else:
            made.append(text[at])
            at += 1
    raise _wrong(start, 'a closing "', "none")


def _wrong(at: int, expected: str, found: str) -> InputError:
    return InputError(
        f"The filter is not understood at character {at + 1}", expected=expected, found=found
    )


class _Parser:
    """One method for each kind of part, the loosest binding first."""

    def __init__(self, tokens: Sequence[_Token], columns: Collection[str] | None) -> None:
        self.tokens, self.columns = tokens, columns
        self.at = self.terms = self.depth = 0

    @property
    def here(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def keyword(self, word: str) -> bool:
        return self.here.kind == "word" and self.here.text.lower() == word

    def whole(self) -> Filter | None:
        if self.here.kind == "end":
            return None
        made = self.either()
        if self.here.kind != "end":
            raise self.unexpected("the end of the filter, or another term")
        return made

    def unexpected(self, expected: str) -> InputError:
        return _wrong(self.here.start, expected, repr(self.here.text) if self.here.text else "none")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _wrong(self.here.start, f"at most {DEEPEST} brackets in each other", "more")

    def either(self) -> Filter:
        parts = [self.all_of()]
        while self.keyword("or"):
            self.take()
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else Several(tuple(parts), every=False)

    def all_of(self) -> Filter:
        parts = [self.one()]
        while self.here.kind not in ("end", ")") and not self.keyword("or"):
            if self.keyword("and"):
                self.take()
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else Several(tuple(parts), every=True)

    def one(self) -> Filter:
        if self.here.kind == "-" or (self.keyword("not") and not self.is_column()):
            self.take()
            self.deeper()
            part = Not(self.one())
            self.depth -= 1
            return part
        if self.here.kind == "(":
            return self.bracket()
        if self.here.kind not in ("word", "phrase"):
            raise self.unexpected("a word, a phrase in quotes, column:value, or a bracket")
        if not self.is_column() and (self.keyword("and") or self.keyword("or")):
            raise self.unexpected(
                f"a term on both sides of '{self.here.text}' (or put it in quotes)"
            )
        return self.term()

    def is_column(self) -> bool:
        """Whether an operator follows, so that this is a column's name whatever the word is."""
        return self.tokens[self.at + 1].kind == "operator"

    def bracket(self) -> Filter:
        opened = self.take()
        self.deeper()
        made = self.either()
        if self.here.kind != ")":
            raise self.unexpected(f"a closing bracket for the one at character {opened.start + 1}")
        self.take()
        self.depth -= 1
        return made

    def term(self) -> Filter:
        self.terms += 1
        if self.terms > MOST_TERMS:
            raise _wrong(self.here.start, f"at most {MOST_TERMS} terms", "more")
        name = self.take()
        if self.here.kind != "operator":
            return self.words(name, None)
        operator = self.take().text
        self.check(name)
        value = self.here
        if value.kind not in ("word", "phrase"):
            raise self.unexpected(f"a value after {name.text}{operator}")
        self.take()
        if operator == ":":
            return self.words(value, name.text)
        if operator == "=":
            return Same(name.text, value.text)
        if operator == "!=":
            return Not(Same(name.text, value.text))
        limit = _number(value.text)
        if limit is None:
            raise _wrong(value.start, "a number", repr(value.text))
        return Compared(name.text, operator, limit)

    def words(self, token: _Token, column: str | None) -> Words:
        begins = token.kind == "word" and token.text.endswith("*")
        text = token.text[:-1] if begins else token.text
        if column is None and not text.strip():
            raise _wrong(token.start, "a word before the *, or text in the quotes", "none")
        return Words(text, begins, column)

    def check(self, name: _Token) -> None:
        """Refuse a column that is not there: a slip would otherwise just find nothing."""
        known = self.columns
        if known is None or name.text in OWN or name.text in known:
            return
        listed = list(dict.fromkeys([*OWN, *sorted(known)]))
        told = ", ".join(listed[:20]) + (", ..." if len(listed) > 20 else "")
        raise _wrong(name.start, f"one of {told} (or put the words in quotes)", repr(name.text))
