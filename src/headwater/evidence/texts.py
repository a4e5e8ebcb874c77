"""The text of an example and of a query, as the evidence that reads words takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headwater.corpus.document import plain_text
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.tasks.query import Query

    Decode = Callable[[Sequence[int]], str]


def document_text(document: Document, decode: Decode | None = None) -> str:
    """The text of an example; of one given as tokens, what `decode` makes of them, else empty."""
    text = plain_text(document)
    ids: Any = document.content.get("input_ids")
    if not text and ids is not None and decode is not None:
        return decode([int(token) for token in ids])
    return text


def query_texts(query: Query, decode: Decode | None = None) -> list[tuple[float, str]]:
    """A query as weighted texts: what is explained, with what leads there.

    A mean has one text for each of its queries; a contrast counts the other completion as -1.

    Raises:
        InputError: for a query that has no text.
    """
    if query.parts:
        share = 1.0 / len(query.parts)
        return [(share * w, text) for part in query.parts for w, text in query_texts(part, decode)]
    if query.completion is not None:
        prompt = prompt_text(query)
        texts = [(1.0, prompt + "".join(query.said))]
        if isinstance(query.instead_of, str):
            texts.append((-1.0, prompt + query.instead_of))
        return texts
    if query.input_ids is not None and decode is not None:
        return [(1.0, decode([int(token) for token in query.input_ids]))]
    raise InputError(
        "This evidence reads text, and the query has none",
        expected="prompt and completion, or tokens with a tokenizer",
        found=query.describe(),
    )


def prompt_text(query: Query) -> str:
    """The prompt as text; chat messages one to a line."""
    if isinstance(query.prompt, str) or query.prompt is None:
        return query.prompt or ""
    return "".join(f"{message.get('content', '')}\n" for message in query.prompt)
