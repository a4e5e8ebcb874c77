"""A corpus without a model: all that lexical, semantic and verbatim evidence needs.

An index of `Texts` holds its examples and no features; no model is loaded for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.tasks.task import Chunk

if TYPE_CHECKING:
    from headwater.corpus.document import Document


class Texts:
    """The obligations of a Task towards a corpus, without those towards a model."""

    kind = "text"

    def __init__(self) -> None:
        self.notes: list[str] = []

    def chunks(self, document: Document) -> list[Chunk]:
        """The document, whole; raises InputError for what holds no text and no tokens."""
        content = document.content
        if not content.keys() & {"text", "prompt", "messages", "input_ids"}:
            raise InputError(
                f"Document {document.id} holds no text",
                expected="text, prompt and completion, messages, or input_ids",
                found=", ".join(content) or "nothing",
            )
        return [Chunk({}, 0, 1)]

    def chunk_many(self, documents: Sequence[Document]) -> list[list[Chunk]]:
        """`chunks` of several documents."""
        return [self.chunks(document) for document in documents]

    def describe(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"kind": self.kind}


def encodable(text: str) -> str:
    """`text`, as long as before; half of a surrogate pair, which has no UTF-8 form, becomes `?`.

    A command line that is no UTF-8 holds such halves, and tokenizers refuse them.
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
