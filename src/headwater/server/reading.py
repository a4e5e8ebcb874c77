"""The examples of an index, to read: one with its neighbours, or those that pass a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.evidence.passing import passing
from headwater.evidence.texts import document_text
from headwater.server.jobs import Missing

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.server.served import Served
    from headwater.server.workbench import Workbench

SHORT = 400  # characters of a text in a list
MOST_ROWS = 1000
MOST_AROUND = 20


def document(workbench: Workbench, name: str, position: int, around: int) -> dict[str, Any]:
    """One example with its neighbours in the corpus.

    Raises:
        Missing: for a position that is not there.
    """
    index = workbench.index(name)
    if not 0 <= position < len(index):
        raise Missing("There is no such example", expected=f"0 to {len(index) - 1}", found=position)
    around = max(0, min(around, MOST_AROUND))
    before = range(max(0, position - around), position)
    after = range(position + 1, min(len(index), position + 1 + around))
    found = _rows(index, [*before, position, *after], None)
    return {
        **found[len(before)],
        "before": found[: len(before)],
        "after": found[len(before) + 1 :],
    }


def documents(
    workbench: Workbench, name: str, wanted: str, offset: int, limit: int
) -> dict[str, Any]:
    """Some of the examples that pass a filter ("" = all), in the order of the corpus.

    Raises:
        InputError: for a filter that is not understood, or asks for a column that is not there.
    """
    index = workbench.index(name)
    positions = np.flatnonzero(passing(index, wanted))
    part = positions[max(0, offset) : max(0, offset) + max(0, min(limit, MOST_ROWS))]
    return {"total": len(positions), "rows": _rows(index, part.tolist(), SHORT)}


def _rows(index: Served, positions: Sequence[int], most: int | None) -> list[dict[str, Any]]:
    found = index.documents(positions)
    return [_row(p, one, most) for p, one in zip(positions, found, strict=True)]


def _row(position: int, one: Document, most: int | None) -> dict[str, Any]:
    text = document_text(one)[:most]
    return {"id": one.id, "position": position, "text": text, "metadata": one.metadata}
