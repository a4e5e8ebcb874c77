"""EK-FAC's pass over the corpus in the eigenbases: examples are turned, and not the queries back.

    score(q, z) = sum_ij (Q_S^T G_q Q_A)_ij (Q_S^T G_z Q_A)_ij / (lambda_ij + damping)

Preconditioned directions are as large as the model for each query and take four products with the
eigenvectors; turned factors are as large as a query's tokens, and take half of one. In exchange
every example's tokens are turned, too. Of many queries, or of a corpus that is not much longer than
they are, that is less work and several times less memory; of few on a long corpus it is more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.curvature.kronecker import bases_of
from headwater.curvature.turned import TurnedDots, TurnedQueries, TurnedQuerySink
from headwater.engine.errors import InputError
from headwater.engine.memory import MUCH, give_back
from headwater.gradients.matrices import SLAB_BYTES, wide
from headwater.index.passes import budget_of, over_documents
from headwater.methods.corpus_pass import (
    DIRECTION_BYTES,
    finite_or_nan,
    query_groups,
    require_finite,
    summed,
)

if TYPE_CHECKING:
    from headwater.gradients.matrices import Layers
    from headwater.index.factors import Factors
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.methods.method import Scores
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk

Array = np.ndarray[Any, Any]


def turned_groups(layers: Layers, queries: Sequence[Query]) -> list[slice]:
    """Runs of queries whose turned gradients fit in memory together."""
    width = 8 if next(layers.task.model.parameters()).dtype == torch.float64 else 4
    groups: list[slice] = []
    start = held = 0
    for number, tokens in enumerate(_tokens(layers, queries)):
        size = width * _numbers(layers, tokens)
        if held and held + size > DIRECTION_BYTES:
            groups.append(slice(start, number))
            start, held = number, 0
        held += size
    return [*groups, slice(start, len(queries))]


def turning_is_less(
    index: Index, layers: Layers, queries: Sequence[Query], among: Mask | None = None
) -> bool:
    """Whether turning every example takes fewer operations than turning the queries back.

    Multiply-adds by layer of m rows and n columns: a token costs 3 m n of a forward and a backward
    pass and m n of its gradient; turning it m^2 + n^2; preconditioning a query
    2 (m^2 n + m n^2); multiplying a query's T tokens out T m n, for every batch of examples, or
    for every few of them where a layer's gradients are large.
    """
    share = 1.0 if among is None else float(among.mean())
    corpus = share * index.manifest["corpus"]["tokens"]
    asked = sum(_tokens(layers, queries))
    batches = max(1.0, corpus / budget_of(index))
    back = len(list(query_groups(queries, layers)))
    turned = len(turned_groups(layers, queries))
    cost = 0.0  # of turning, less that of turning back
    for layer in layers.layers.values():
        m, n = layer.rows, layer.columns
        times = max(batches, share * len(index) / max(1, SLAB_BYTES // (4 * m * n)))
        cost += turned * corpus * (4 * m * n + m * m + n * n) + times * asked * m * n
        cost -= back * corpus * 4 * m * n + len(queries) * 2 * (m * m * n + m * n * n)
    return cost < 0


def turned_scores(
    index: Index,
    layers: Layers,
    factors: Factors,
    damping: Mapping[str, float],
    queries: Sequence[Query],
    among: Mask | None = None,
) -> Scores:
    """Scores of the documents, as `Method.stream` gives them.

    Args:
        factors: of every layer. damping: by layer; layers that are not there have nothing to say.

    Raises:
        NumericError: when a query's gradient is not finite.
    """
    groups = turned_groups(layers, queries)
    if len(groups) == 1:
        yield from _pass(index, layers, factors, damping, queries, among)
        return
    rows = np.full((len(queries), len(index)), np.nan, dtype=np.float32)
    for part in groups:
        for first, block in _pass(index, layers, factors, damping, queries[part], among):
            rows[part, first : first + block.shape[1]] = block
    yield 0, rows


def _pass(
    index: Index,
    layers: Layers,
    factors: Factors,
    damping: Mapping[str, float],
    queries: Sequence[Query],
    among: Mask | None,
) -> Iterator[tuple[int, Array]]:
    bases = bases_of(factors)
    made = summed(layers, queries, lambda: TurnedQuerySink(layers.layers, bases, len(queries))).made
    give_back(MUCH)
    require_finite(queries, lambda number: all(one[number].finite for one in made.values()))
    held: TurnedQueries = {name: one for name, one in made.items() if name in damping}
    if not held:
        raise InputError("No layer of the queries has a gradient", expected="at least one")
    values = {name: factors[name].values for name in held}
    some = next(iter(values.values()))

    def compute(chunks: list[Chunk]) -> Array:
        size = (len(queries), len(chunks))
        out = torch.zeros(size, dtype=wide(some.dtype), device=some.device)
        layers.run(TurnedDots(layers.layers, bases, values, damping, held, out), chunks)
        return out.double().cpu().numpy()

    for first, block in over_documents(index, "examples' gradients", len(queries), compute, among):
        yield first, finite_or_nan(block)


def _tokens(layers: Layers, queries: Sequence[Query]) -> list[int]:
    """Of each query's chunks together."""
    task = layers.task
    return [sum(chunk.length for _, chunk in task.query_chunks(query)) for query in queries]


def _numbers(layers: Layers, tokens: int) -> int:
    """Of a turned gradient: its factors, or the matrix where that is smaller."""
    return sum(
        min(tokens * (layer.rows + layer.columns), layer.rows * layer.columns)
        for layer in layers.layers.values()
    )
