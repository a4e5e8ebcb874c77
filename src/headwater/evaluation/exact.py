"""Influence with the exact generalised Gauss-Newton matrix of all parameters, for small models.

    score(q, z) = g_q^T (G + C)^-1 g_z,      G = 1/n sum over z of J_z^T (diag(p) - p p^T) J_z

J_z is the Jacobian of the logits, p their softmax, C diagonal. It is what EK-FAC approximates: no
layer is taken by itself, no factor is split. A matrix as wide as the model is inverted in float64,
so a few thousand parameters are the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import functional_call, jacrev, vmap

from headwater.curvature.damping import Damping, RelativeDamping, damping_of
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.evidence.ranker import refuse_modules
from headwater.methods.method import Method, Scores

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.tasks.task import Batch, Chunk, Task

WIDEST = 8000  # parameters: their matrix has 0.5 GB
PIECE = 64  # examples whose Jacobians are in memory

Array = np.ndarray[Any, Any]
Logits = Callable[[torch.nn.Module, "Batch"], torch.Tensor]
OutputCurvature = Callable[[torch.Tensor], torch.Tensor]


def of_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Second derivative of the cross-entropy by the logits, [batch, classes, classes]."""
    p = logits.softmax(dim=1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def of_squares(outputs: torch.Tensor) -> torch.Tensor:
    """Of half the squared error by the outputs: the identity."""
    eye = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
    return eye.expand(len(outputs), -1, -1)


class GaussNewton(Method):
    """Influence by the damped generalised Gauss-Newton matrix, exactly.

    Args:
        logits: `logits(model, batch) -> [batch, classes]`.
        damping: as in `EKFAC`; a share is of the mean eigenvalue of each layer's own part (a weight
            with its bias), as EK-FAC takes it.
        output: the loss's second derivative by the logits.
    """

    name, title, unit = "gauss-newton", "Gauss-Newton", "change of the loss, times the examples"
    additive = True
    needs = "a small model, and its logits"
    costs = "a matrix as wide as the model, inverted"

    def __init__(
        self,
        logits: Logits,
        damping: float | Damping = RelativeDamping(),  # noqa: B008 - frozen
        output: OutputCurvature = of_softmax,
    ) -> None:
        self.logits, self.damping, self.output = logits, damping_of(damping), output

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of all documents in one block; see `Method.stream`."""
        refuse_modules(self, modules)
        g = self._queries(index.task, queries)
        directions = self._solve(index, g)
        scores = (directions @ self._documents(index).T).cpu().numpy().astype(np.float32)
        if among is not None:
            scores[:, ~np.asarray(among, dtype=bool)] = np.nan
        yield 0, scores

    def self_influence(self, index: Index, modules: Sequence[str] | None = None) -> Array:
        """g_z^T (G + C)^-1 g_z, float32 [documents]."""
        refuse_modules(self, modules)
        g = self._documents(index)
        return (g * self._solve(index, g)).sum(dim=1).cpu().numpy().astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "damping": repr(self.damping),
            "output": self.output.__name__,
        }

    def _solve(self, index: Index, g: torch.Tensor) -> torch.Tensor:
        """(G + C)^-1 of rows [n, parameters].

        Raises:
            NumericError: when there is no inverse.
        """
        matrix = self.matrix(index)
        try:
            factor = torch.linalg.cholesky(matrix + torch.diag(self._added(index.task, matrix)))
        except RuntimeError as error:
            raise NumericError(
                "The Gauss-Newton matrix has directions of zero curvature",
                expected="damping above 0",
                found=repr(self.damping),
            ) from error
        return torch.cholesky_solve(g.T, factor).T

    def matrix(self, index: Index) -> torch.Tensor:
        """G, float64 [parameters, parameters]: the mean over chunks, as losses are sums of them."""
        named = _parameters(index.task)
        size = sum(p.numel() for p in named.values())
        total = torch.zeros((size, size), dtype=torch.float64)
        count = 0
        with Progress("Jacobians", len(index), "examples") as progress:
            for positions, chunks in _pieces(index):
                batch = index.task.collate(chunks)
                with index.task.running():
                    jacobian = self._jacobian(index.task, named, batch)
                    curvature = self.output(self.logits(index.task.model, batch)).double()
                total += torch.einsum("bip,bij,bjq->pq", jacobian, curvature, jacobian)
                count += len(chunks)
                progress.advance(positions)
        return total / count

    def _jacobian(self, task: Task, named: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        """Of the logits of each example by all parameters, float64 [batch, classes, parameters]."""

        def logits(parameters: dict[str, torch.Tensor], one: Batch) -> torch.Tensor:
            alone = {name: value[None] for name, value in one.items()}
            stand = _Stand(task.model, lambda model: self.logits(model, alone))
            held = {f"model.{name}": value for name, value in parameters.items()}
            return functional_call(stand, held, ())[0]

        made: Any = vmap(jacrev(logits), in_dims=(None, 0))(named, batch)
        return torch.cat([made[name].flatten(2) for name in named], dim=2).double()

    def _documents(self, index: Index) -> torch.Tensor:
        """Gradients of the documents' losses, float64 [documents, parameters]."""
        rows: list[torch.Tensor] = []
        for number in range(len(index)):
            pieces = index.chunks([number])[0]
            rows.append(_gradient(index.task, [(1.0, chunk) for chunk in pieces], query=False))
        return torch.stack(rows)

    def _queries(self, task: Task, queries: Sequence[Query]) -> torch.Tensor:
        return torch.stack([_gradient(task, task.query_chunks(one), query=True) for one in queries])

    def _added(self, task: Task, matrix: torch.Tensor) -> torch.Tensor:
        """C, layer by layer."""
        added = torch.zeros(len(matrix), dtype=torch.float64)
        place, parts = 0, dict[str, list[slice]]()
        for name, p in _parameters(task).items():
            owner = name.rpartition(".")[0]
            parts.setdefault(owner, []).append(slice(place, place + p.numel()))
            place += p.numel()
        diagonal = matrix.diagonal()
        for mine in parts.values():
            mean = float(torch.cat([diagonal[part] for part in mine]).mean())
            for part in mine:
                added[part] = self.damping.of(mean)
        return added


class _Stand(torch.nn.Module):
    """Holds the model while a function of it runs with other parameters in it."""

    def __init__(self, model: torch.nn.Module, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self) -> torch.Tensor:
        """What the function gives."""
        return self.function(self.model)


def _parameters(task: Task) -> dict[str, torch.Tensor]:
    """All parameters by name, detached.

    Raises:
        InputError: when they are too many for a matrix.
    """
    named = {name: p.detach() for name, p in task.model.named_parameters()}
    size = sum(p.numel() for p in named.values())
    if size > WIDEST:
        raise InputError(
            "The model is too large for its whole Gauss-Newton matrix",
            expected=f"at most {WIDEST:,} parameters",
            found=f"{size:,}",
            do="use EK-FAC",
        )
    return named


def _pieces(index: Index) -> Iterator[tuple[int, list[Chunk]]]:
    """(documents, their chunks), some at a time."""
    for start in range(0, len(index), PIECE):
        positions = range(start, min(start + PIECE, len(index)))
        yield len(positions), [chunk for mine in index.chunks(positions) for chunk in mine]


def _gradient(task: Task, chunks: Sequence[tuple[float, Chunk]], *, query: bool) -> torch.Tensor:
    """Of a weighted sum of losses by all parameters, float64 [parameters]."""
    with task.running(), torch.enable_grad():
        leaves = list(task.model.parameters())
        for p in leaves:
            p.requires_grad_(True)
        total = torch.zeros(())
        for weight, chunk in chunks:
            batch = task.collate([chunk])
            total = total + weight * (task.measurement if query else task.loss)(batch)[0]
        made = torch.autograd.grad(total, leaves)
    return torch.cat([one.reshape(-1) for one in made]).double()
