"""Arnoldi influence (Schioppa et al. 2022, arXiv 2112.03052): the Hessian's own largest directions.

    score(q, z) = sum over the k eigenpairs of largest |lambda| of <v, g_q> <v, g_z> / lambda

Found by Hessian-vector products in a Krylov space that starts at random. All directions of small
curvature, which an inverse would weigh most, are dropped: a truncated Hessian's pseudo-inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from headwater.corpus.batches import batches_by_length
from headwater.engine.checks import whole
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.index.factors import sample
from headwater.index.passes import RANGE, budget_of
from headwater.methods.corpus_pass import CorpusPass, Directions, query_matrices, told

if TYPE_CHECKING:
    from collections.abc import Generator

    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.tasks.query import Query

ENDED = 1e-10  # of the largest product so far: what is left of a new one is rounding
SMALLEST = 1e-12  # of the largest eigenvalue: below it, a direction has no curvature


class Arnoldi(CorpusPass):
    """Influence in the span of the Hessian's leading eigenvectors.

    Args:
        directions_kept: eigenpairs that are kept (the paper: some tens).
        iterations: Hessian-vector products, each a pass over the sample (the paper: about 200).
        examples: documents that the Hessian's mean is over, chosen by a hash of their ids.
        parameters: "linear" or a filter of modules, as in `hw.Features`.
        seed: of the start and the sample.
    """

    name, title, unit = "arnoldi", "Arnoldi", "change of the loss, times the examples"
    needs = "a model that can be differentiated twice"
    costs = "a pass over a sample for each iteration, then one over the corpus"

    def __init__(
        self,
        directions_kept: int = 20,
        iterations: int = 60,
        examples: int | None = 256,
        parameters: str | ModuleFilter = "linear",
        seed: int = 0,
    ) -> None:
        directions_kept = whole("directions_kept", directions_kept)
        iterations = whole("iterations", iterations)
        if directions_kept > iterations:
            raise InputError(
                "directions_kept is out of range",
                expected=f"1 to iterations ({iterations})",
                found=directions_kept,
            )
        self.kept, self.iterations, self.parameters = directions_kept, iterations, parameters
        self.examples = None if examples is None else whole("examples", examples)
        self.seed = seed

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """sum of v <v, g_q> / lambda."""
        made = query_matrices(layers, queries)
        shapes = {name: matrices.shape[1:] for name, matrices in made.items()}
        flat = torch.cat([made[name].flatten(1) for name in shapes], dim=1).double()
        with hessian(index, layers, list(shapes), self._sample(index)) as product:
            values, vectors = lanczos(product, flat.shape[1], self.iterations, self.seed)
        order = values.abs().argsort(descending=True)[: self.kept]
        values, vectors = values[order], vectors[:, order]
        there = values.abs() > SMALLEST * float(values.abs().max())
        values, vectors = values[there], vectors[:, there]
        turned = ((flat @ vectors) / values) @ vectors.T
        result: Directions = {}
        start = 0
        for name, shape in shapes.items():
            size = shape[0] * shape[1]
            part = turned[:, start : start + size].view(-1, *shape)
            result[name] = part.to(made[name].dtype)
            start += size
        return result

    def _sample(self, index: Index) -> list[int]:
        return sample(index, self.examples, self.seed)

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "directions_kept": self.kept,
            "iterations": self.iterations,
            "examples": self.examples,
            "parameters": told(self.parameters),
            "seed": self.seed,
        }


Product = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def hessian(
    index: Index, layers: Layers, names: Sequence[str], chosen: Sequence[int]
) -> Generator[Product]:
    """The product with the mean Hessian of these documents' losses, by layers as flat matrices.

    Float64 vectors [size] in and out: in the order of `names`, each weight with its bias's column.
    """
    task, model = layers.task, layers.task.model
    named = dict(model.named_parameters())
    wanted = [named[n] for name in names for n in (name, layers.layers[name].bias) if n is not None]
    kinds = {use.parameter.name: use.kind for use in layers.uses}
    chunks = [
        chunk
        for start in range(0, len(chosen), RANGE)
        for mine in index.chunks(chosen[start : start + RANGE])
        for chunk in mine
    ]
    parts = batches_by_length([chunk.length for chunk in chunks], budget_of(index))

    def product(v: torch.Tensor) -> torch.Tensor:
        given = _split(v, layers, names, kinds, named)
        total = [torch.zeros_like(p, dtype=torch.float64) for p in wanted]
        for part in parts:
            loss = task.loss(task.collate([chunks[i] for i in part])).sum()
            first = torch.autograd.grad(loss, wanted, create_graph=True, materialize_grads=True)
            pairs = zip(first, given, strict=True)
            along = torch.stack([(g * u.to(g.dtype)).sum() for g, u in pairs]).sum()
            if along.requires_grad:  # a loss linear in the weights has no curvature
                second = torch.autograd.grad(along, wanted, materialize_grads=True)
                for held, h in zip(total, second, strict=True):
                    held += h.double()
        return _join(total, layers, names, kinds) / len(chunks)

    with task.running(), _twice(task, wanted), torch.enable_grad():
        yield product


@contextmanager
def _twice(task: Any, wanted: Sequence[torch.Tensor]) -> Generator[None]:
    """Parameters that require gradients, and kernels that can be differentiated twice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fused = getattr(task, "_fused", None)
    for p in wanted:
        p.requires_grad_(True)
    if hasattr(task, "_fused"):
        task._fused = False  # its backward is written out, and has no backward of its own
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if hasattr(task, "_fused"):
            task._fused = fused
        for p in wanted:
            p.requires_grad_(False)


def _split(
    v: torch.Tensor, layers: Layers, names: Sequence[str], kinds: Any, named: Any
) -> list[torch.Tensor]:
    """A flat vector as tensors in the shapes of weights and biases."""
    made: list[torch.Tensor] = []
    start = 0
    for name in names:
        layer = layers.layers[name]
        matrix = v[start : start + layer.rows * layer.columns].view(layer.rows, layer.columns)
        start += layer.rows * layer.columns
        weight = matrix if layer.bias is None else matrix[:, :-1]
        made.append((weight.T if kinds[name] == "conv1d" else weight).reshape(named[name].shape))
        if layer.bias is not None:
            made.append(matrix[:, -1])
    return made


def _join(
    tensors: Sequence[torch.Tensor], layers: Layers, names: Sequence[str], kinds: Any
) -> torch.Tensor:
    """The inverse of `_split`."""
    made: list[torch.Tensor] = []
    rest = list(tensors)
    for name in names:
        layer, weight = layers.layers[name], rest.pop(0)
        matrix = weight.T if kinds[name] == "conv1d" else weight.reshape(layer.rows, -1)
        if layer.bias is not None:
            matrix = torch.cat([matrix, rest.pop(0)[:, None]], dim=1)
        made.append(matrix.reshape(-1))
    return torch.cat(made)


def lanczos(
    product: Product, size: int, iterations: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ritz values [m] and vectors [size, m] of a symmetric operator, in float64.

    Arnoldi's iteration of a symmetric operator, orthogonalised in full at every step.
    """
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(size, generator=generator, dtype=torch.float64)
    basis = [v / v.norm()]
    count = min(iterations, size)
    small = torch.zeros((count, count), dtype=torch.float64)
    with Progress("Hessian products", count, "iterations") as progress:
        for step in range(count):
            w = product(basis[step])
            if not bool(torch.isfinite(w).all()):
                raise NumericError("A product with the Hessian is not finite")
            held = torch.stack(basis)
            for _ in range(2):  # once more: what rounding left of the others
                along = held @ w
                small[: len(along), step] += along
                w = w - along @ held
            progress.advance()
            norm = float(w.norm())
            largest = float(small[: step + 1, : step + 1].abs().max())  # in the loss's own unit
            if step + 1 == count or norm <= ENDED * largest:
                small = small[: step + 1, : step + 1]
                break
            small[step + 1, step] = norm
            basis.append(w / norm)
    values, vectors = torch.linalg.eigh((small + small.T) / 2)
    return values, torch.stack(basis[: len(small)]).T @ vectors
