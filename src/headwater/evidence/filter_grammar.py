"""A small filter language, as people type: words, "phrases", column:value, score>0.2, not, or.

    capital peru            both words, anywhere in the text        "capital of Peru"  in this order
    capi*                   a word that begins so                   -peru, not peru    without it
    source:wiki             the column holds the word               source=wiki        is just that
    year>1999  score<=-0.5  numbers                                 source!=wiki       is not that
    peru or (chile -santiago)                                       source:*           has a value

The parser has limits of length, depth and terms, so it always ends soon.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from headwater.engine.errors import InputError
from headwater.evidence.filters import OWN, Compared, Filter, Not, Same, Several, Words, number

LONGEST = 1000  # characters of a filter
DEEPEST = 20  # brackets and nots inside each other
MOST_TERMS = 100
TOLD = 40  # columns that are named where one is not there
COMPARED, MOST_COMPARED = 60, 200  # characters of a column, and columns, a slip is compared with

_OPERATORS = ("!=", ">=", "<=", "=", ">", "<", ":")


@dataclass(frozen=True)
class _Token:
    kind: str  # "word", "phrase", "operator", "(", ")", "-", "end"
    text: str
    start: int


def parse(
    text: str, columns: Collection[str] | None = None, *, own: Sequence[str] = OWN
) -> Filter | None:
    """A filter as typed; None for an empty one, which every row passes.

    Args:
        columns: names that may be asked for besides `own`; None = any.

    Raises:
        InputError: for what is not understood; names the character and what was expected there.
    """
    if len(text) > LONGEST:
        raise InputError(
            "The filter is too long",
            expected=f"at most {LONGEST:,} characters",
            found=f"{len(text):,}",
        )
    return _Parser(_tokens(text), None if columns is None else [*own, *columns]).whole()


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

    def __init__(self, tokens: Sequence[_Token], columns: Sequence[str] | None) -> None:
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
        limit = number(value.text)
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
        if known is None or name.text in known:
            return
        listed = list(dict.fromkeys(known))
        # The time of each comparison is as the product of the two lengths.
        short = [one for one in listed if len(one) <= COMPARED]
        near = get_close_matches(name.text[:COMPARED], short[:MOST_COMPARED], 1)
        told = ", ".join(map(as_typed, listed[:TOLD])) + (", ..." if len(listed) > TOLD else "")
        raise InputError(
            f"The filter asks for the column {as_typed(name.text)} at character {name.start + 1}, "
            "and there is none",
            expected=f"one of {told}",
            found=as_typed(name.text),
            do=(f"did you mean {as_typed(near[0])}? " if near else "")
            + "To look for the words themselves, put them in quotes",
        )


def as_typed(name: str) -> str:
    """A column's name as a filter takes it: in quotes where it is not one word."""
    if re.fullmatch(r"\w+", name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
