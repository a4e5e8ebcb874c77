"""A query as a person reads it: its prompt, and all of it in one line with “quotation marks”.

Messages show a query as Python writes it, exactly; a heading is read, and shows it as text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.tasks.query import Query

MOST = 200  # characters of a prompt or a completion in a heading
# Control characters, marks of direction, halves of characters.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def prompt_words(query: Query) -> str:
    """The prompt as a person reads it."""
    if isinstance(query.prompt, str) or query.prompt is None:
        return query.prompt or ""
    return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in query.prompt)


def query_words(query: Query) -> str:
    """The query as a heading: “The capital of Peru is” → “Lima”.

    Of a long prompt its end is shown, of a long completion its beginning: where they meet.
    """
    if query.completion is None:
        return query.describe()
    prompt, said = one_line(prompt_words(query)), query.completion
    before = prompt if len(prompt) <= MOST else f"…{prompt[-MOST:]}"
    told = f"“{before}” → {_quoted(said)}" if prompt else _quoted(said)
    if query.words is not None:
        chosen = ", ".join(_quoted(said[start:end]) for start, end in query.chosen)
        return f"{told} (only {chosen})"
    return told if query.other is None else f"{told} instead of {_quoted(query.other)}"


def one_line(text: str) -> str:
    """Text on one line, with a sign in place of what cannot be seen."""
    return _HIDDEN.sub("\ufffd", " ".join(text.split()))


def _quoted(text: str) -> str:
    line = one_line(text)
    return f"“{line}”" if len(line) <= MOST else f"“{line[:MOST]}…”"
