"""The Fisher matrix itself, never built: its products with directions, and quadratic forms.

    F V = mean over examples of G <G, V>,        quadratic(G) = sum_ij w_ij (Q_S^T G Q_A)_ij^2

F is that of all layers together, so unlike Kronecker factors it knows how layers go with each
other. A product costs one forward and one backward pass over the examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from headwater.curvature.kronecker import bases_of
from headwater.curvature.turned import TurnedSink
from headwater.gradients.matrices import DotSink, Layer

if TYPE_CHECKING:
    from headwater.curvature.kronecker import LayerCurvature

Directions = Mapping[str, torch.Tensor]


class FisherSink(DotSink):
    """total[q] += sum over a batch's examples of <V_q, G> G; one sink for each batch.

    Args:
        directions: V [queries, out, in + bias] by layer. total: likewise, added to.
        batch: examples in the batch.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        directions: Directions,
        total: Mapping[str, torch.Tensor],
        batch: int,
    ) -> None:
        some = next(iter(directions.values()))
        out = torch.zeros((len(some), batch), dtype=some.dtype, device=some.device)
        super().__init__(layers, directions, out)
        self.total = total
        self._factors: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """Add to the products, and keep the factors until all layers have."""
        if layer.name in self.directions:
            super().layer(layer, kept, d)
            self._factors.append((layer.name, kept, d))

    def close(self) -> None:
        """End of the batch: its examples' gradients, weighted by their products."""
        super().close()
        for name, a, d in self._factors:
            total = self.total[name]
            rows = a.to(total.dtype).flatten(0, 1)
            for number, weights in enumerate(self.out):
                scaled = d.to(total.dtype) * weights[:, None, None]
                total[number].addmm_(scaled.flatten(0, 1).T, rows)
        self._factors.clear()


class QuadraticSink(TurnedSink):
    """out += sum_ij w_ij (Q_S^T G Q_A)_ij^2 over layers, for each example of a batch.

    Args:
        curvature: by layer, whose eigenvectors. weights: w [out, in + bias] by layer.
        out: [batch].
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        curvature: Mapping[str, LayerCurvature],
        weights: Mapping[str, torch.Tensor],
        out: torch.Tensor,
    ) -> None:
        super().__init__(layers, bases_of(curvature))
        self.weights, self.out = weights, out

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """Leave out the layers without weights."""
        if layer.name in self.weights:
            super().layer(layer, kept, d)

    def turned(self, layer: Layer, part: slice, built: torch.Tensor) -> None:
        """Sum their weighted squares."""
        self.out[part] += weighted_squares(built, self.weights[layer.name])


def weighted_squares(turned: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The quadratic form of turned gradients [n, out, in + bias] of one layer, [n]; spends them."""
    return (turned.square_() * weights).sum(dim=(1, 2))
