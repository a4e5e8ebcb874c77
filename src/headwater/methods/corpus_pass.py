"""Methods in full dimension: directions of the queries meet every example's gradient in one pass.

    score(q, z) = <V_q, G_z>,   summed over layers and over the document's chunks

G_z is a layer's gradient as a matrix, V_q what a method makes of the query's own (EK-FAC: the
inverse curvature applied to it). The pass costs about a training step for each example, however
many queries there are; the directions are as large as the model for each query, and are taken in
groups that fit in memory.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from headwater.engine.errors import InputError, NumericError
from headwater.gradients.matrices import DotSink, Layers, SumSink, wide
from headwater.index.passes import over_documents
from headwater.methods.method import Method, Scores

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk

DIRECTION_BYTES = 3 << 30  # of directions that are held at a time

Array = np.ndarray[Any, Any]
Directions = dict[str, torch.Tensor]  # [queries, out, in + bias] by weight name


class CorpusPass(Method):
    """A method that streams over the corpus; a subclass says what the directions are.

    Args:
        parameters: "linear" or a filter of modules, as in `Features`.
    """

    additive: ClassVar[bool] = True
    parameters: str | ModuleFilter = "linear"

    @abstractmethod
    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """V_q of every query."""

    def layers(self, index: Index, modules: Sequence[str] | None = None) -> Layers:
        """The layers that take part, with their biases.

        Raises:
            InputError: when none does.
        """
        if modules is None:
            return Layers(index.task, self.parameters)
        patterns = [modules] if isinstance(modules, str) else list(modules)

        def wanted(name: str, _: torch.nn.Module) -> bool:
            return any(fnmatchcase(f"{name}.weight", p) or fnmatchcase(name, p) for p in patterns)

        return Layers(index.task, wanted)

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`."""
        layers = self.layers(index, modules)
        groups = list(query_groups(queries, layers))
        if len(groups) == 1:
            v = self.directions(index, layers, queries)
            yield from dots(index, layers, v, len(queries), among)
            return
        rows = np.full((len(queries), len(index)), np.nan, dtype=np.float32)
        for part in groups:
            v = self.directions(index, layers, queries[part])
            for first, block in dots(index, layers, v, part.stop - part.start, among):
                rows[part, first : first + block.shape[1]] = block
        yield 0, rows


def query_groups(queries: Sequence[Query], layers: Layers) -> Iterator[slice]:
    """Runs of queries whose directions fit in memory together."""
    dtype = next(layers.task.model.parameters()).dtype
    bytes_each = layers.size * (8 if dtype == torch.float64 else 4)
    count = max(1, DIRECTION_BYTES // max(1, bytes_each))
    for start in range(0, len(queries), count):
        yield slice(start, min(start + count, len(queries)))


def query_matrices(layers: Layers, queries: Sequence[Query]) -> Directions:
    """The queries' own gradients of their measurements, [queries, out, in + bias] by layer.

    Raises:
        NumericError: when one is not finite.
    """
    task = layers.task
    held: list[Directions] = []
    for query in queries:
        total: Directions = {}
        for weight, chunk in task.query_chunks(query):
            sink = SumSink(layers.layers, torch.tensor([weight]))
            layers.run(sink, [chunk], "query")
            for name, matrix in sink.total.items():
                total[name] = total[name] + matrix if name in total else matrix
        if not all(bool(torch.isfinite(matrix).all()) for matrix in total.values()):
            raise NumericError(
                f"The gradient of query {query.describe()} is not finite",
                do="check the query, the model's weights and its dtype",
            )
        held.append(total)
    names = list(dict.fromkeys(name for total in held for name in total))
    return {name: torch.stack([total[name] for total in held]) for name in names}


def dots(
    index: Index, layers: Layers, directions: Directions, queries: int, among: Mask | None = None
) -> Scores:
    """<V_q, G_z> of every document: (first position, float32 [queries, documents]).

    Documents whose gradient is not finite score NaN.
    """
    if not directions:
        raise InputError("No layer of the queries has a gradient", expected="at least one")
    some = next(iter(directions.values()))

    def compute(chunks: list[Chunk]) -> Array:
        out = torch.zeros((queries, len(chunks)), dtype=wide(some.dtype), device=some.device)
        layers.run(DotSink(layers.layers, directions, out), chunks)
        return out.double().cpu().numpy()

    for first, block in over_documents(index, "examples' gradients", queries, compute, among):
        yield first, block.astype(np.float32)
