"""Losses of all documents of an index at the model's present weights: what needs no gradients.

A method that compares models asks for the same documents again and again, so the chunks stay in
memory while they are small, and every pass takes the same batches: what a batch's shape does to the
rounding is the same on both sides of a difference.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.halving import in_batches
from headwater.engine.errors import NumericError
from headwater.engine.progress import Progress

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.task import Chunk, Task

logger = logging.getLogger(__name__)

TOGETHER = 512  # documents whose chunks are batched together
HELD = 256 << 20  # bytes of chunks that stay in memory between passes
BUDGET_CPU, BUDGET_GPU = 4096, 32768  # tokens of a batch

Array = np.ndarray[Any, Any]
Group = tuple[list[int], list["Chunk"]]


def default_budget(task: Task) -> int:
    """Tokens of a batch where none were asked for."""
    return BUDGET_CPU if task.device.type == "cpu" else BUDGET_GPU


class Losses:
    """Passes over the documents of an index, as many as are asked for.

    Args:
        index: the index, with or without features. among: the documents that take part, bool
            [documents]; None = all.
        budget: tokens of a batch, halved when memory runs out; 1 runs every chunk by itself.
    """

    def __init__(self, index: Index, among: Mask | None = None, budget: int | None = None) -> None:
        self.index = index
        chosen = np.ones(len(index), dtype=bool) if among is None else np.asarray(among, dtype=bool)
        self.positions: list[int] = np.flatnonzero(chosen).tolist()
        self.budget = budget if budget is not None else default_budget(index.task)
        self._held: list[Group] | None = None

    def __len__(self) -> int:
        """How many documents take part."""
        return len(self.positions)

    def now(self, progress: Progress | None = None) -> Array:
        """Loss of each document at the present weights, float64 [documents].

        Summed over its chunks. NaN for documents that take no part, and where it is not finite.

        Args:
            progress: a bar to go on with, counted in documents; one of its own when left out.

        Raises:
            NumericError: when no document has a finite loss.
        """
        if progress is None:
            with Progress("losses", len(self), "documents") as own:
                return self.now(own)
        total = np.full(len(self.index), np.nan)
        total[self.positions] = 0.0
        for owners, chunks in self._groups():
            found = self._run(chunks)
            np.add.at(total, owners, found)
            progress.advance(len(set(owners)))
        finite = np.isfinite(total[self.positions])
        if len(self) and not finite.any():
            raise NumericError(
                "No example of the corpus has a finite loss",
                do="look at the model's weights; after further training, lower the learning rate",
            )
        if not finite.all():
            logger.warning("%d examples have no finite loss and score NaN", (~finite).sum())
            total[~np.isfinite(total)] = np.nan
        return total

    def _groups(self) -> Iterator[Group]:
        """Chunks with the positions of their documents, some hundred documents at a time."""
        if self._held is not None:
            yield from self._held
            return
        held: list[Group] = []
        size = 0
        for start in range(0, len(self), TOGETHER):
            positions = self.positions[start : start + TOGETHER]
            pieces = self.index.chunks(positions)
            owners = [p for p, mine in zip(positions, pieces, strict=True) for _ in mine]
            chunks = [chunk for mine in pieces for chunk in mine]
            size += sum(_bytes(chunk) for chunk in chunks)
            if size <= HELD:
                held.append((owners, chunks))
            else:
                held.clear()
            yield owners, chunks
        if size <= HELD:
            self._held = held

    def _run(self, chunks: list[Chunk]) -> Array:
        """Loss of each chunk, float64 [chunks]."""
        import torch

        task = self.index.task
        made = np.zeros(len(chunks))

        def compute(part: list[int]) -> Array:
            batch = task.collate([chunks[i] for i in part])
            with task.running(), torch.no_grad():
                return task.loss(batch).double().cpu().numpy()

        lengths = [chunk.length for chunk in chunks]
        for part, found, used in in_batches(lengths, self.budget, compute):
            made[part] = found
            self.budget = used
        return made


def _bytes(chunk: Chunk) -> int:
    return sum(int(getattr(value, "nbytes", 64)) for value in chunk.content.values())
