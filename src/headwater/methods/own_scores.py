"""Self-influence in full dimension: every document's gradient against itself, in one pass.

    score(z) = sum over layers and ij of w_ij (Q_S^T G_z Q_A)_ij^2

A document of several chunks has the sum of their gradients, so its chunks are run together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.corpus.halving import in_batches
from headwater.curvature.fisher import QuadraticSink, weighted_squares
from headwater.engine.progress import Progress
from headwater.gradients.matrices import SumSink
from headwater.index.passes import budget_of, document_ranges
from headwater.methods.corpus_pass import finite_or_nan

if TYPE_CHECKING:
    from headwater.curvature.kronecker import LayerCurvature
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.tasks.task import Chunk

Array = np.ndarray[Any, Any]
Weights = Mapping[str, torch.Tensor]


def own_scores(
    index: Index, layers: Layers, curvature: Mapping[str, LayerCurvature], weights: Weights
) -> Array:
    """The quadratic form of every document's gradient, float32 [documents]; NaN if not finite.

    Args:
        curvature: by layer, whose eigenvectors. weights: w [out, in + bias] by layer.
    """
    made = np.full(len(index), np.nan)
    with Progress("examples' gradients", len(index), "examples") as progress:
        for _, positions, chunks in document_ranges(index):
            alone = [i for i, mine in enumerate(chunks) if len(mine) == 1]
            flat = [chunks[i][0] for i in alone]

            def compute(part: list[int], flat: Sequence[Chunk] = flat) -> Array:
                return _each(layers, curvature, weights, [flat[i] for i in part])

            lengths = [chunk.length for chunk in flat]
            for part, values, _ in in_batches(lengths, budget_of(index), compute):
                made[[positions[alone[i]] for i in part]] = values
            for position, mine in zip(positions, chunks, strict=True):
                if len(mine) > 1:
                    made[position] = _together(layers, curvature, weights, mine)
            progress.advance(len(positions))
    return finite_or_nan(made)


def _each(
    layers: Layers,
    curvature: Mapping[str, LayerCurvature],
    weights: Weights,
    chunks: Sequence[Chunk],
) -> Array:
    some = next(iter(weights.values()))
    out = torch.zeros(len(chunks), dtype=some.dtype, device=some.device)
    layers.run(QuadraticSink(layers.layers, curvature, weights, out), chunks)
    return out.cpu().numpy()


def _together(
    layers: Layers,
    curvature: Mapping[str, LayerCurvature],
    weights: Weights,
    chunks: Sequence[Chunk],
) -> float:
    """Of the sum of these chunks' gradients."""
    total: dict[str, torch.Tensor] = {}
    for chunk in chunks:
        sink = SumSink(layers.layers, torch.ones(1))
        layers.run(sink, [chunk])
        for name, matrix in sink.total.items():
            total[name] = total[name] + matrix if name in total else matrix
    turned = {
        name: curvature[name].turn(matrix.to(weights[name].dtype)[None])
        for name, matrix in total.items()
        if name in weights
    }
    return float(sum(weighted_squares(one, weights[name])[0] for name, one in turned.items()))
