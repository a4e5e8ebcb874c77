"""(F + damping)^-1 g by conjugate gradients, with EK-FAC as the preconditioner.

EK-FAC's inverse is of a matrix that is only like the Fisher: block by block, and diagonal in an
eigenbasis of Kronecker form. Solving with the Fisher itself, as a product with it costs one pass
over the examples, starts from EK-FAC's answer and ends at the exact one (Hestenes and Stiefel 1952;
the preconditioned form). All queries share every pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from headwater.corpus.batches import batches_by_length
from headwater.corpus.halving import whole
from headwater.curvature.fisher import FisherSink
from headwater.engine.errors import NumericError
from headwater.engine.progress import Progress
from headwater.index.factors import Fit, sample
from headwater.index.passes import budget_of, sampled_chunks

if TYPE_CHECKING:
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index

logger = logging.getLogger(__name__)

Vectors = dict[str, torch.Tensor]  # [queries, out, in + bias] by layer
CLOSE = 1e-6  # of the right side's norm: nearer than float32 gradients are known


def refined(
    index: Index,
    layers: Layers,
    fit: Fit,
    damping: Mapping[str, float],
    right: Vectors,
    precondition: Callable[[Vectors], Vectors],
    steps: int,
) -> tuple[Vectors, list[float]]:
    """x with (F + damping) x = right, and the residuals |right - (F + damping) x| / |right|.

    Args:
        fit: whose examples and labels F is of. damping: what is added, by layer.
        right: the queries' gradients. precondition: EK-FAC's damped inverse.
        steps: at most; each is a pass over the examples, and so is the first residual.

    Raises:
        NumericError: when F turns out not to be positive.
    """
    curved = Curved(index, layers, fit, damping)
    scale = _norms(right).clamp(min=1e-30)
    x = precondition(right)
    r = _combined(right, -1.0, curved.times(x))
    z = precondition(r)
    p, rz = z, _dots(r, z)
    residuals = (_norms(r) / scale).tolist()
    for step in range(steps):
        if max(residuals) <= CLOSE:
            break
        ap = curved.times(p)
        below = _dots(p, ap)
        if bool(((below <= 0) & (rz > 0)).any()):
            raise NumericError(
                "The damped Fisher is not positive along a direction",
                expected="damping above the noise of the gradients",
                found=f"{float(below.min()):.3g} at step {step + 1}",
                do="raise the damping, or leave the refinement out",
            )
        alpha = torch.where(below > 0, rz / below.clamp(min=1e-300), 0.0)
        x, r = _combined(x, alpha, p), _combined(r, -alpha, ap)
        residuals = (_norms(r) / scale).tolist()
        logger.info("refinement, step %d: residual %.3g", step + 1, max(residuals))
        z = precondition(r)
        before, rz = rz, _dots(r, z)
        p = _combined(z, torch.where(before > 0, rz / before.clamp(min=1e-300), 0.0), p)
    return x, residuals


class Curved:
    """Products with F + damping, F being the mean of g g^T over the fit's examples."""

    def __init__(
        self, index: Index, layers: Layers, fit: Fit, damping: Mapping[str, float]
    ) -> None:
        self.index, self.layers, self.fit, self.damping = index, layers, fit, damping
        self.positions = sample(index, fit.examples, fit.seed)

    def times(self, v: Vectors) -> Vectors:
        """(F + damping) v."""
        return whole(
            budget_of(self.index), lambda budget: self._once(v, budget), "Fisher's product"
        )

    def _once(self, v: Vectors, budget: int) -> Vectors:
        total = {name: torch.zeros_like(one) for name, one in v.items()}
        seed = self.fit.seed if self.fit.fisher == "true" else None
        count = 0
        with Progress("refining", len(self.positions), "examples") as progress:
            for some, flat, seeds in sampled_chunks(self.index, self.positions, seed):
                for part in batches_by_length([chunk.length for chunk in flat], budget):
                    sink = FisherSink(self.layers.layers, v, total, len(part))
                    drawn = None if seeds is None else [seeds[i] for i in part]
                    self.layers.run(sink, [flat[i] for i in part], seeds=drawn)
                count += len(flat)
                progress.advance(len(some))
        return {n: total[n].div_(max(1, count)).add_(v[n], alpha=self.damping[n]) for n in v}


def _dots(a: Vectors, b: Vectors) -> torch.Tensor:
    """<a_q, b_q>, float64 [queries]."""
    parts = [(a[n].flatten(1).double() * b[n].flatten(1).double()).sum(dim=1) for n in a]
    return torch.stack(parts).sum(dim=0)


def _norms(a: Vectors) -> torch.Tensor:
    return _dots(a, a).sqrt()


def _combined(a: Vectors, factor: float | torch.Tensor, b: Vectors) -> Vectors:
    """a + factor b, the factor of each query its own."""
    if not isinstance(factor, torch.Tensor):
        return {n: torch.add(a[n], b[n], alpha=factor) for n in a}
    return {n: a[n] + factor.to(a[n])[:, None, None] * b[n] for n in a}
