"""Scores that few documents have, kept as (query, position, value) and given out as blocks.

A method that must see all documents before it can score one would otherwise hold a score for every
query and every document at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headwater.methods.method import Scores

CELLS = 1 << 22  # scores of a block that is given out: 32 MiB

Array = np.ndarray[Any, Any]


class Sparse:
    """Scores of some documents for some queries."""

    def __init__(self) -> None:
        empty = np.zeros(0, dtype=np.int64)
        self._parts: list[tuple[Array, Array, Array]] = [(empty, empty, np.zeros(0))]

    def add(self, queries: Array | int, positions: Array, values: Array | float) -> None:
        """Take in scores; one query's number, or one value, may stand for all of the positions."""
        rows = np.broadcast_to(np.asarray(queries, dtype=np.int64), positions.shape)
        given = np.broadcast_to(np.asarray(values, dtype=np.float64), positions.shape)
        self._parts.append((rows, positions, given))

    def blocks(self, queries: int, base: Array) -> Scores:
        """All documents, float32 [queries, documents] a block; what was added twice is summed.

        Args:
            base: the score where none was added, float64 [documents].
        """
        rows, positions, values = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        order = np.argsort(positions, kind="stable")
        rows, positions, values = rows[order], positions[order], values[order]
        step = max(1, CELLS // max(1, queries))
        for first in range(0, len(base), step):
            block = np.tile(base[first : first + step], (queries, 1))
            a, b = np.searchsorted(positions, [first, first + step])
            place = rows[a:b], positions[a:b] - first
            block[place] = 0
            np.add.at(block, place, values[a:b])
            yield first, block.astype(np.float32)
