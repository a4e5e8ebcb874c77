"""DataInf (Kwon et al. 2024, arXiv 2310.00902): the mean and the inverse swapped, layer by layer.

    score(q, z) = sum_l 1/lambda_l (<g_q, g_z> - 1/n sum_i <g_q, g_i> <g_i, g_z> / c_i)
    c_i = lambda_l + |g_i|^2

The mean over examples of (g_i g_i^T + lambda)^-1 in place of the inverse of the mean: closed form,
no decomposition. Its error grows with a layer's size: it is meant for the matrices of adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from headwater.corpus.batches import batches_by_length
from headwater.corpus.halving import whole as begun_again
from headwater.engine.checks import positive, whole
from headwater.engine.errors import NumericError
from headwater.engine.progress import Progress
from headwater.gradients.matrices import Layer, MatrixSink, slabs, wide
from headwater.index.factors import sample
from headwater.index.passes import budget_of, sampled_chunks
from headwater.methods.corpus_pass import CorpusPass, Directions, query_matrices, told

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.tasks.query import Query

Sink = TypeVar("Sink", bound=MatrixSink)


class DataInf(CorpusPass):
    """Influence by the swapped inverse.

    Args:
        damping: lambda_l as a share of the mean squared gradient norm per parameter of the layer
            (the paper: 0.1).
        examples: documents that the mean is over, chosen by a hash of their ids; None = all.
        parameters: "linear" (of a model with an adapter, the adapter's) or a filter of modules.
        seed: of the sample.
    """

    name, title, unit = "datainf", "DataInf", "change of the loss, times the examples"
    needs = "a model"
    costs = "two passes over a sample, and one over the corpus"

    def __init__(
        self,
        damping: float = 0.1,
        examples: int | None = 1000,
        parameters: str | ModuleFilter = "linear",
        seed: int = 0,
    ) -> None:
        self.damping, self.parameters = positive("DataInf's damping", damping), parameters
        self.examples = None if examples is None else whole("examples", examples)
        self.seed = seed

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """The bracket of the formula, as a matrix for each query and layer."""
        made = query_matrices(layers, queries)
        norms, count = self._over(
            index, layers, lambda: NormSink(layers.layers), "norms of gradients"
        )
        lambdas = {
            name: self.damping
            * total
            / (count * layers.layers[name].rows)
            / layers.layers[name].columns
            for name, total in norms.total.items()
            if total > 0  # a layer in which no example has a gradient has nothing to say
        }
        if not lambdas:
            raise NumericError(
                "No example of the sample has a gradient", expected="one in some attributed layer"
            )
        made = {name: made[name] for name in lambdas}
        swapped, _ = self._over(
            index, layers, lambda: SwappedSink(layers.layers, made, lambdas), "swapped inverse"
        )
        return {
            name: (matrices - swapped.total[name] / count) / lambdas[name]
            for name, matrices in made.items()
        }

    def _over(
        self, index: Index, layers: Layers, make: Callable[[], Sink], label: str
    ) -> tuple[Sink, int]:
        """The sample's chunks in a sink, and how many; begun again where memory runs out."""
        chosen = sample(index, self.examples, self.seed)

        def attempt(budget: int) -> tuple[Sink, int]:
            sink, count = make(), 0
            with Progress(label, len(chosen), "examples") as progress:
                for some, flat, _ in sampled_chunks(index, chosen):
                    for part in batches_by_length([chunk.length for chunk in flat], budget):
                        layers.run(sink, [flat[i] for i in part])
                    count += len(flat)
                    progress.advance(len(some))
            return sink, count

        return begun_again(budget_of(index), attempt, label)

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "damping": self.damping,
            "examples": self.examples,
            "parameters": told(self.parameters),
            "seed": self.seed,
        }


class NormSink(MatrixSink):
    """Sums of squared gradient norms by layer, float."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        super().__init__(layers)
        self.total: dict[str, float] = {}

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """|sum_t d_t a_t^T|^2 = sum_{s,t} <d_s, d_t> <a_s, a_t>: no matrix is built."""
        dtype = wide(d.dtype)
        a, d = kept.to(dtype), d.to(dtype)
        inner = torch.bmm(a, a.transpose(1, 2)) * torch.bmm(d, d.transpose(1, 2))
        self.total[layer.name] = self.total.get(layer.name, 0.0) + float(inner.sum())


class SwappedSink(MatrixSink):
    """sum_i <g_q, g_i> g_i / (lambda + |g_i|^2) by layer: [queries, out, in + bias]."""

    def __init__(
        self, layers: Mapping[str, Layer], queries: Directions, lambdas: Mapping[str, float]
    ) -> None:
        super().__init__(layers)
        self.queries, self.lambdas = queries, lambdas
        self.total = {name: torch.zeros_like(value) for name, value in queries.items()}

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """A slab of examples at a time."""
        q = self.queries.get(layer.name)
        if q is None:
            return
        for part in slabs(len(d), layer.rows, layer.columns, q.element_size()):
            rows = d[part].to(q.dtype).transpose(1, 2)
            built = torch.bmm(rows, kept[part].to(q.dtype)).flatten(1)
            weights = (q.flatten(1) @ built.T) / (
                self.lambdas[layer.name] + built.square().sum(dim=1)
            )
            self.total[layer.name] += (weights @ built).view_as(q)
