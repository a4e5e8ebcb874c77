"""A query's prompt as it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.tasks.query import Query


def prompt_words(query: Query) -> str:
    """The prompt as a person reads it."""
    if isinstance(query.prompt, str) or query.prompt is None:
        return query.prompt or ""
    return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in query.prompt)
