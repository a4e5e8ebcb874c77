"""Methods in full dimension: directions of the queries meet every example's gradient in one pass.

    score(q, z) = <V_q, G_z>,   summed over layers and over the document's chunks

G_z is a layer's gradient as a matrix, V_q what a method makes of the query's own (EK-FAC: the
inverse curvature applied to it). The pass costs about a training step for each example, however
many queries there are; the directions are as large as the model for each query, and are taken in
groups that fit in memory.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch

from headwater.corpus.batches import batches_by_length
from headwater.corpus.halving import whole
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.gradients.held import Held, hold, joined
from headwater.gradients.matrices import DotSink, Layer, Layers, MatrixSink, wide
from headwater.index.build import CPU_BUDGET, GPU_BUDGET
from headwater.index.passes import over_documents
from headwater.methods.method import Method, Scores

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk, Task

Sunk = TypeVar("Sunk", bound=MatrixSink)

DIRECTION_BYTES = 3 << 30  # of directions that are held at a time
FEW = 8  # queries for which their order in memory makes no difference

Array = np.ndarray[Any, Any]
Directions = dict[str, torch.Tensor]  # [queries, out, in + bias] by weight name


class CorpusPass(Method):
    """A method that streams over the corpus; a subclass says what the directions are.

    Args:
        parameters: "linear" or a filter of modules, as in `Features`.
    """

    additive: ClassVar[bool] = True
    parameters: str | ModuleFilter = "linear"
    hold: str = "full"  # in which form directions are held; see `gradients/held.py`

    @property
    def copies(self) -> int:
        """Gradients of a query that are in memory at a time while its direction is made."""
        return 1

    @abstractmethod
    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """V_q of every query."""

    def layers(
        self, index: Index, modules: Sequence[str] | None = None, task: Task | None = None
    ) -> Layers:
        """The layers that take part, with their biases.

        Args:
            modules: name patterns, of the layers that `parameters` chose; None = all of them.
            task: whose loss is meant, where it is not the index's.

        Raises:
            InputError: when none does.
        """
        return Layers(task or index.task, self.parameters, modules=modules)

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`."""
        layers = self.layers(index, modules)
        groups = list(query_groups(queries, layers, self.copies))
        if len(groups) == 1 or self.hold != "full":
            held = (hold(self.directions(index, layers, queries[g]), self.hold) for g in groups)
            yield from dots(index, layers, joined(list(held)), len(queries), among)
            return
        rows = np.full((len(queries), len(index)), np.nan, dtype=np.float32)
        for part in groups:
            v = self.directions(index, layers, queries[part])
            for first, block in dots(index, layers, v, part.stop - part.start, among):
                rows[part, first : first + block.shape[1]] = block
        yield 0, rows


def query_groups(queries: Sequence[Query], layers: Layers, copies: int = 1) -> Iterator[slice]:
    """Runs of queries whose directions, so many copies of each, fit in memory together."""
    dtype = next(layers.task.model.parameters()).dtype
    bytes_each = copies * layers.size * (8 if dtype == torch.float64 else 4)
    count = max(1, DIRECTION_BYTES // max(1, bytes_each))
    for start in range(0, len(queries), count):
        yield slice(start, min(start + count, len(queries)))


class QuerySink(MatrixSink):
    """Adds each chunk's weighted matrix to its query's: no other matrix is built.

    Args:
        queries: how many. `made` is [queries, out, in + bias] by layer, of those that were reached.
    """

    def __init__(self, layers: Mapping[str, Layer], queries: int) -> None:
        super().__init__(layers)
        self.queries = queries
        self.made: Directions = {}

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """made[query] += weight sum_t d_t a_t^T."""
        dtype = wide(d.dtype)
        if layer.name not in self.made:
            size = (self.queries, layer.rows, layer.columns)
            self.made[layer.name] = torch.zeros(size, dtype=dtype, device=d.device)
        held, d, kept = self.made[layer.name], d.to(dtype), kept.to(dtype)
        for (query, weight), own, a in zip(self.owners, d, kept, strict=True):
            held[query].addmm_(own.T, a, alpha=weight)


def query_matrices(layers: Layers, queries: Sequence[Query]) -> Directions:
    """The queries' own gradients of their measurements, [queries, out, in + bias] by layer.

    Every layer has one: zeros where no measurement reaches it, for curvature may still tie it to
    those that are reached.

    Raises:
        NumericError: when one is not finite.
    """
    made = summed(layers, queries, lambda: QuerySink(layers.layers, len(queries))).made
    require_finite(queries, lambda i: all(_finite(one[i]) for one in made.values()))
    some = next(iter(made.values()), None)
    for name, layer in layers.layers.items():
        if some is not None and name not in made:
            made[name] = some.new_zeros((len(queries), layer.rows, layer.columns))
    return made


def _finite(matrix: torch.Tensor) -> bool:
    """Whether all numbers are; their extremes tell, and take no memory."""
    return all(bool(torch.isfinite(one)) for one in torch.aminmax(matrix))


def summed(layers: Layers, queries: Sequence[Query], make: Callable[[], Sunk]) -> Sunk:
    """A sink of `make` with the weighted chunks of all queries; begun again if memory runs out."""
    owned = [
        (number, weight, chunk)
        for number, query in enumerate(queries)
        for weight, chunk in layers.task.query_chunks(query)
    ]
    lengths = [chunk.length for _, _, chunk in owned]

    def attempt(budget: int) -> Sunk:
        sink = make()
        with Progress("query gradients", len(owned), "texts") as progress:
            for part in batches_by_length(lengths, budget):
                some = [owned[i] for i in part]
                sink.owners = [(number, weight) for number, weight, _ in some]
                sink.lengths = torch.tensor([chunk.length for _, _, chunk in some])
                layers.run(sink, [chunk for _, _, chunk in some], "query")
                progress.advance(len(some))
        return sink

    usual = GPU_BUDGET if layers.task.device.type == "cuda" else CPU_BUDGET
    return whole(usual, attempt, "gradients of the queries")


def require_finite(queries: Sequence[Query], finite: Callable[[int], bool]) -> None:
    """Raises NumericError with the first query of whose number `finite` is false."""
    for number, query in enumerate(queries):
        if not finite(number):
            raise NumericError(
                f"The gradient of query {query.describe()} is not finite",
                do="check the query, the model's weights and its dtype",
            )


def dots(
    index: Index,
    layers: Layers,
    directions: Directions | dict[str, Held],
    queries: int,
    among: Mask | None = None,
) -> Scores:
    """<V_q, G_z> of every document: (first position, float32 [queries, documents]).

    Documents whose gradient is not finite score NaN.
    """
    if not directions:
        raise InputError("No layer of the queries has a gradient", expected="at least one")
    for name, v in directions.items():  # the same numbers, in place of what the caller held
        if isinstance(v, torch.Tensor):
            directions[name] = _queries_last(v)
    held: Mapping[str, Held] = directions
    some = next(iter(held.values()))

    def compute(chunks: list[Chunk]) -> Array:
        out = torch.zeros((queries, len(chunks)), dtype=wide(some.dtype), device=some.device)
        layers.run(DotSink(layers.layers, held, out), chunks)
        return out.double().cpu().numpy()

    for first, block in over_documents(index, "examples' gradients", queries, compute, among):
        yield first, finite_or_nan(block)


def finite_or_nan(scores: Array) -> Array:
    """Scores as float32; NaN, which is none, where one is not finite or too large for that."""
    with np.errstate(over="ignore"):
        made = scores.astype(np.float32)
    made[~np.isfinite(made)] = np.nan
    return made


def told(parameters: str | ModuleFilter) -> str:
    """The choice of layers as `describe` has it: a filter has no words."""
    return parameters if isinstance(parameters, str) else "filter"


def _queries_last(v: torch.Tensor) -> torch.Tensor:
    """Directions [queries, out, in] that lie in memory as [out, in, queries].

    The product of a few examples with many queries over millions of numbers is then two to four
    times as fast on a CPU; for a few queries it makes no difference.
    """
    if v.device.type != "cpu" or len(v) < FEW:
        return v
    return v.permute(1, 2, 0).contiguous().permute(2, 0, 1)
