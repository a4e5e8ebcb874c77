"""Passes over an index's corpus with the model: its chunks again, some hundred documents at a time.

What cannot be a view of stored features runs the model over the documents once more. Batches are by
length within a range of documents, so that they, and with them the sums, do not depend on anything
but the corpus and the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headwater.corpus.halving import in_batches
from headwater.engine.progress import Progress
from headwater.engine.seeds import own_seeds
from headwater.index.build import CPU_BUDGET, GPU_BUDGET

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.task import Chunk

RANGE = 256  # documents whose chunks are in memory at a time

Made = TypeVar("Made")
Array = np.ndarray[Any, Any]


def budget_of(index: Index) -> int:
    """Tokens of a batch: what the index was built with, or the device's usual."""
    stored = index.manifest["budget"]
    if stored:
        return int(stored)
    return GPU_BUDGET if index.task.device.type == "cuda" else CPU_BUDGET


def document_ranges(
    index: Index, among: Mask | None = None, size: int = RANGE
) -> Iterator[tuple[int, list[int], list[list[Chunk]]]]:
    """(first position, positions that take part, their chunks) of runs of `size` documents."""
    for first in range(0, len(index), size):
        positions = [
            p for p in range(first, min(first + size, len(index))) if among is None or among[p]
        ]
        if positions:
            yield first, positions, index.chunks(positions)


def over_documents(
    index: Index,
    label: str,
    rows: int,
    compute: Callable[[list[Chunk]], Array],
    among: Mask | None = None,
) -> Iterator[tuple[int, Array]]:
    """Numbers of every document, summed over its chunks: (first position, float64 [rows, m]).

    Args:
        label: of the progress. rows: numbers of a document.
        compute: a batch of chunks to numbers [rows, batch].
        among: the documents that take part; the others are NaN.
    """
    total = len(index) if among is None else int(among.sum())
    with Progress(label, total, "examples") as progress:
        for first, positions, chunks in document_ranges(index, among):
            count = min(RANGE, len(index) - first)
            block = np.full((rows, count), np.nan)
            block[:, [p - first for p in positions]] = 0.0
            owners = [p - first for p, mine in zip(positions, chunks, strict=True) for _ in mine]
            flat = [chunk for mine in chunks for chunk in mine]
            for part, made, _ in in_batches(
                [chunk.length for chunk in flat],
                budget_of(index),
                lambda part, flat=flat: compute([flat[i] for i in part]),
            ):
                for number, column in zip(part, made.T, strict=True):
                    block[:, owners[number]] += column
            yield first, block
            progress.advance(len(positions))


def sampled_chunks(
    index: Index, positions: Sequence[int], seed: int | None = None
) -> Iterator[tuple[Sequence[int], list[Chunk], list[int] | None]]:
    """Runs of these positions with their chunks, and for each chunk a seed of its own.

    Args:
        seed: of labels that are drawn; None = none are. A chunk's seed depends on its place in the
            corpus alone.
    """
    for start in range(0, len(positions), RANGE):
        some = positions[start : start + RANGE]
        chunks = index.chunks(some)
        flat = [chunk for mine in chunks for chunk in mine]
        numbers = [(p << 32) + i for p, m in zip(some, chunks, strict=True) for i in range(len(m))]
        yield some, flat, None if seed is None else own_seeds(seed, numbers)
