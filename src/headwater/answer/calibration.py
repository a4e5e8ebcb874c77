"""Two nulls that tell a score from nothing.

The example's own: its score here against its scores under stored reference queries (continuations
of training text). The query's own: its best score against the best scores of the same prompt with
random completions, each token replaced by one about as frequent in the corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from headwater.answer.answer import Judgement
from headwater.tasks.task import Chunk

Array = np.ndarray[Any, Any]

NULLS = 19  # random completions: with all of them below, p = 0.05
NEIGHBOURS = 200  # tokens of nearest frequency rank to draw from
LEVEL = 0.05


def random_completions(
    parts: Sequence[tuple[float, Chunk]], unigrams: Array, count: int = NULLS
) -> list[list[tuple[float, Chunk]]]:
    """The query's chunks with every target token replaced, `count` times; seeded by the query.

    Args:
        parts: (weight, chunk) pairs of the query. unigrams: int64 [vocabulary].
    """
    order = np.lexsort((np.arange(len(unigrams)), unigrams))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    digest = hashlib.sha256()
    for _, chunk in parts:
        digest.update(np.asarray(chunk.content["input_ids"], dtype="<i4").tobytes())
    generator = np.random.default_rng(np.frombuffer(digest.digest()[:8], dtype="<u8"))
    made: list[list[tuple[float, Chunk]]] = []
    for _ in range(count):
        made.append([(w, _replaced(chunk, order, rank, generator)) for w, chunk in parts])
    return made


def _replaced(chunk: Chunk, order: Array, rank: Array, generator: np.random.Generator) -> Chunk:
    ids, labels = chunk.content["input_ids"].copy(), chunk.content["labels"].copy()
    for position in np.flatnonzero(labels >= 0):
        token = int(labels[position])
        centre = int(rank[token])
        low = max(0, min(centre - NEIGHBOURS // 2, len(order) - NEIGHBOURS - 1))
        near = order[low : low + NEIGHBOURS + 1]
        ids[position] = labels[position] = generator.choice(near[near != token])
    return Chunk({**chunk.content, "input_ids": ids, "labels": labels}, 0, chunk.length)


def judge(best: float, null: Sequence[float], unit: str) -> Judgement:
    """Whether `best` stands out from the best scores of random completions."""
    if not null:
        summary = "No null to judge by: read the scores relative to each other only."
        return Judgement(best, [], None, None, summary)
    above = sum(value >= best for value in null)
    p_value = (1 + above) / (1 + len(null))
    out = p_value <= LEVEL
    figures = (
        f"best score {best:.4g} ({unit}), {len(null)} random completions as frequent: "
        f"best {max(null):.4g}, median {float(np.median(null)):.4g}; p = {p_value:.2f}"
    )
    verdict = "Something stands out" if out else "Nothing stands out"
    return Judgement(best, [float(v) for v in null], p_value, out, f"{verdict}: {figures}.")


def specificity(score: float, references: Array) -> float | None:
    """Share (percent) of reference queries under which the example scores lower."""
    if not len(references):
        return None
    return float((references < score).mean() * 100)
