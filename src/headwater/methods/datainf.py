"""DataInf (Kwon et al. 2024, arXiv 2310.00902): the mean and the inverse swapped, layer by layer.

    score(q, z) = sum_l 1/lambda_l (<g_q, g_z> - 1/n sum_i <g_q, g_i> <g_i, g_z> / c_i)
    c_i = lambda_l + |g_i|^2

The mean over examples of (g_i g_i^T + lambda)^-1 in place of the inverse of the mean: closed form,
no decomposition. Its error grows with a layer's size: it is meant for the matrices of adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from headwater.corpus.halving import in_batches
from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.gradients.matrices import Layer, MatrixSink, slabs, wide
from headwater.index.factors import sample
from headwater.index.passes import RANGE, budget_of
from headwater.methods.corpus_pass import CorpusPass, Directions, query_matrices

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.tasks.query import Query


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
        if not damping > 0:
            raise InputError("DataInf needs damping", expected="above 0", found=damping)
        self.damping, self.parameters = damping, parameters
        self.examples, self.seed = examples, seed

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """The bracket of the formula, as a matrix for each query and layer."""
        made = query_matrices(layers, queries)
        norms = NormSink(layers.layers)
        count = self._over(index, layers, norms, "norms of gradients")
        lambdas = {
            name: self.damping
            * total
            / count
            / (layers.layers[name].rows * layers.layers[name].columns)
            for name, total in norms.total.items()
        }
        if not all(value > 0 for value in lambdas.values()):
            raise InputError(
                "A layer has no gradient in the sample",
                expected="gradients above 0 in every layer",
                found=", ".join(name for name, value in lambdas.items() if not value > 0),
            )
        swapped = SwappedSink(layers.layers, made, lambdas)
        self._over(index, layers, swapped, "swapped inverse")
        return {
            name: (matrices - swapped.total[name] / count) / lambdas[name]
            for name, matrices in made.items()
        }

    def _over(self, index: Index, layers: Layers, sink: MatrixSink, label: str) -> int:
        """The sample's chunks into a sink; how many there were."""
        chosen, count = sample(index, self.examples, self.seed), 0
        with Progress(label, len(chosen), "examples") as progress:
            for start in range(0, len(chosen), RANGE):
                positions = chosen[start : start + RANGE]
                flat = [chunk for mine in index.chunks(positions) for chunk in mine]
                count += len(flat)

                def compute(part: list[int], flat: list[Any] = flat) -> None:
                    layers.run(sink, [flat[i] for i in part])

                for _ in in_batches([chunk.length for chunk in flat], budget_of(index), compute):
                    pass
                progress.advance(len(positions))
        return count

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "damping": self.damping,
            "examples": self.examples,
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
