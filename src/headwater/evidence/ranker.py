"""What the rankers share: a query is a weighted sum of things that are compared with documents.

A ranker says what it compares (texts, chunks of tokens) and how a block of documents scores; a
contrast, a mean, a mask and the order of ties are then the same for all of them. What was opened
once is held by the ranker itself, never in a global.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from headwater.engine.errors import InputError
from headwater.evidence.fusion import best_first
from headwater.methods.method import Method, Scores

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.manifest import Manifest
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query

Array = np.ndarray[Any, Any]
Blocks = Iterator[tuple[int, Array]]


class Ranker(Method):
    """A method that compares each query with each document, without gradients."""

    additive = False
    influence = False

    def __init__(self) -> None:
        self._held: WeakKeyDictionary[Index, tuple[Manifest, Any]] = WeakKeyDictionary()

    @abstractmethod
    def _parts(self, index: Index, query: Query) -> Sequence[tuple[float, Any]]:
        """A query as weighted items."""

    @abstractmethod
    def _blocks(self, index: Index, items: Sequence[Any]) -> Blocks:
        """(position of the first document, float32 [items, documents]) over all documents."""

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of all documents, float32 [queries, documents] a block; NaN outside `among`.

        Raises:
            InputError: when modules are asked for, or a query does not fit.
        """
        refuse_modules(self, modules)
        parts = [self._parts(index, query) for query in queries]
        weights = [[weight for weight, _ in part] for part in parts]
        items = [item for part in parts for _, item in part]
        for first, rows in self._blocks(index, items):
            block = weighted(weights, rows)
            if among is not None:
                part = among[first : first + block.shape[1]]
                block = np.where(part, block, np.float32(np.nan))
            yield first, block

    @abstractmethod
    def _read(self, index: Index) -> Any:
        """The ranker's store for this index, open; built first where it is not there yet."""

    def _opened(self, index: Index) -> Any:
        """`_read`, once for each index object and state of its corpus."""
        held = self._held.get(index)
        if held is None or held[0] is not index.manifest:  # an append replaces the manifest
            held = self._held[index] = (index.manifest, self._read(index))
        return held[1]


class TextRanker(Ranker):
    """A ranker that reads texts: what is explained with its prompt."""

    def _parts(self, index: Index, query: Query) -> Sequence[tuple[float, str]]:
        from headwater.evidence.texts import query_texts

        return query_texts(query, decoder(index))

    def top(
        self, index: Index, text: str, k: int = 10, among: Mask | None = None
    ) -> tuple[Array, Array]:
        """The best k documents for a text: positions int64 [k] and scores float32 [k], best first.

        The same documents in the same order as from `hw.top`, ties by id.

        Args:
            index, text: what is asked of what.
            k: how many; fewer come back when fewer documents take part, or score other than 0.
            among: bool [documents]; None = all take part.
        """
        row = np.concatenate([rows[0] for _, rows in self._blocks(index, [text])])
        positions = np.flatnonzero(row if among is None else row * among)
        return best(index, positions, row[positions], k)


def refuse_modules(method: Method, modules: Sequence[str] | None) -> None:
    """Raise InputError when modules are chosen for a method that has none."""
    if modules is not None:
        raise InputError(
            f"{method.title} has no modules to choose from",
            found=modules if isinstance(modules, str) else ", ".join(modules),
            do="leave the modules out",
        )


def weighted(weights: Sequence[Sequence[float]], rows: Array) -> Array:
    """Each query's weighted sum of its own rows, float32 [queries, documents]."""
    if all(list(part) == [1.0] for part in weights):
        return rows
    total = np.zeros((len(weights), rows.shape[1]), dtype=np.float32)
    at = 0
    for query, part in zip(total, weights, strict=True):
        for weight in part:
            query += np.float32(weight) * rows[at]
            at += 1
    return total


def best(index: Index, positions: Array, scores: Array, k: int) -> tuple[Array, Array]:
    """The k best of these documents, best first; equal scores in the order of their ids.

    NaN takes no part.

    Raises:
        InputError: when k is not positive.
    """
    if k < 1:
        raise InputError("k must be positive", found=k)
    chosen = best_first(scores, index.examples.id_order[positions], k)
    return positions[chosen], scores[chosen]


def decoder(index: Index) -> Callable[[Sequence[int]], str]:
    """Tokens to text by the tokenizer of the index's task, which is loaded when it is called."""

    def decode(ids: Sequence[int]) -> str:
        tokenizer: Any = getattr(index.task, "tokenizer", None)
        if tokenizer is None:
            raise InputError(
                "The corpus holds tokens, and its task has no tokenizer to read them with",
                expected="texts, or a language model's task",
            )
        return tokenizer.decode(list(ids))

    return decode
