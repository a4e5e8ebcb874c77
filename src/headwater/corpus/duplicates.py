"""Exact duplicates in a stream of documents, told by 8-byte hashes of their content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.corpus.document import content_hash
from headwater.corpus.seen import HashCounter

if TYPE_CHECKING:
    from headwater.corpus.document import Document


class DuplicateCounter:
    """Counts documents whose content was seen before; metadata and ids do not count."""

    def __init__(self, largest: int = 10) -> None:
        self._largest = largest
        self._documents = 0
        self._seen = HashCounter()
        self._examples: dict[int, str] = {}

    def add(self, document: Document) -> bool:
        """Count one document; returns whether its content was seen before."""
        value = int(content_hash(document.content)[:16], 16)
        self._documents += 1
        repeated = self._seen.add(value) > 0
        if repeated:
            self._examples.setdefault(value, document.id)
        return repeated

    def report(self) -> dict[str, Any]:
        """What was found so far, JSON-serialisable.

        Returns:
            `documents`: how many were added; `duplicates`: how many of them repeat an earlier one;
            `largest`: the groups of equal content with most copies, each with `count` (copies, the
            first included), `example` (the id of its second copy) and `hash` (16 hex digits).
        """
        groups = sorted(self._seen.repeats.items(), key=lambda item: (-item[1], item[0]))
        return {
            "documents": self._documents,
            "duplicates": self._documents - len(self._seen),
            "largest": [
                {"count": count, "example": self._examples[value], "hash": f"{value:016x}"}
                for value, count in groups[: self._largest]
            ],
        }
