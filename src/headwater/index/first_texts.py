"""The first texts of an order of documents, copies folded into one: to show, or to take away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.document import content_hash, plain_text

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.index.index import Index

Array = np.ndarray[Any, Any]


@dataclass
class Shown:
    """A shown document and the ids of others with the same text."""

    position: int
    document: Document
    duplicates: list[str]


def first_texts(index: Index, order: Array, top: int) -> list[Shown]:
    """The first `top` texts of an order; further down as long as there are fewer, or one goes on.

    Args:
        index: whose documents they are. order: positions [n], best first. top: how many.
    """
    count = 4 * top
    while True:
        near = order[:count].tolist()
        documents = index.documents(near) if near else []
        groups = _folded(list(zip(near, documents, strict=True)), top)
        enough = len(groups) == top and _key(documents[-1]) not in groups
        if enough or count >= len(order):
            return list(groups.values())
        count *= 4


def _folded(found: Sequence[tuple[int, Document]], count: int) -> dict[str, Shown]:
    groups: dict[str, Shown] = {}
    for position, document in found:
        key = _key(document)
        if key in groups:
            groups[key].duplicates.append(document.id)
        elif len(groups) < count:
            groups[key] = Shown(position, document, [])
    return groups


def _key(document: Document) -> str:
    """Documents of one key have the same text, or, where there is none, the same content."""
    content = document.content
    if "text" in content or "completion" in content or "messages" in content:
        return " ".join(plain_text(document).split())
    return content_hash(content)
