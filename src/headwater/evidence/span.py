"""What tracing an output gives: spans of it that stand in the corpus, and the documents of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One maximal matching span: it stands in the corpus as it is.

    Attributes:
        start, end: characters of the output, white space around left out. text: those.
        tokens: how many it is in the output.
        count: how often it stands in the corpus, as `count_text` says.
        log_probability: sum over its tokens by their frequencies, natural logarithm; the first word
            counts as it stands after a space and after none, together.
    """

    start: int
    end: int
    text: str
    tokens: int
    count: int
    log_probability: float


@dataclass(frozen=True)
class Snippet:
    """A piece of a document: its first character's position in the document, and the text."""

    start: int
    text: str


@dataclass(frozen=True)
class SpanDocument:
    """A document that holds a span, or part of a joined one.

    Attributes:
        position, id, metadata, url: which. `url` is that of the metadata, or None.
        start, end: characters of the document that are the span; its first occurrence there.
        matches: all of them that were looked at.
        snippet, snippet_start: the piece around `start`. snippets: all pieces, not overlapping.
        score: BM25, as a share of what the output's length makes likely. relevance: its level,
            "high", "medium" or "low".
    """

    position: int
    id: str
    start: int
    end: int
    matches: list[tuple[int, int]]
    snippet: str
    snippet_start: int
    snippets: list[Snippet]
    score: float
    relevance: str
    url: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Span:
    """A stretch of the output that stands in the corpus, or several that overlap.

    Attributes:
        start, end: characters of the output. text: those.
        count, log_probability: of the least probable part.
        parts: the maximal matches that it is joined of, in order; one when none overlap.
        documents: the most relevant first.
    """

    start: int
    end: int
    text: str
    count: int
    log_probability: float
    parts: list[Part]
    documents: list[SpanDocument]

    @property
    def relevance(self) -> str:
        """That of its best document."""
        return self.documents[0].relevance if self.documents else "low"
