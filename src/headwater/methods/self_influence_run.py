"""TracIn's self-influence over a run: sum over checkpoints of learning rate x |gradient|^2.

    self(z) = sum_k eta_k |g_k(z)|^2                                   (Pruthi et al. 2020)

Gradients are projected as the index has them, |P G Q^T|^2 being |G|^2 in the mean over projections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.gradients.compute import Gradients
from headwater.gradients.features import Features
from headwater.index.passes import document_ranges
from headwater.methods.outcome_scores import Scored
from headwater.training.visit import at

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.tasks.task import Chunk
    from headwater.training.run import Checkpoint

Array = np.ndarray[Any, Any]

BUDGET = 1024  # tokens of a batch
PIECE = 64  # documents whose gradients are held


def self_influence_of_run(
    index: Index,
    checkpoints: Sequence[Checkpoint],
    *,
    features: Features | None = None,
    learning_rates: Sequence[float] | None = None,
) -> Scored:
    """Self-influence summed over the checkpoints; by checkpoint, |g|^2 without the rate.

    Args:
        index, checkpoints: whose gradients, and where.
        features: what is differentiated and how it is projected; the index's when left out, the
            defaults where it has none.
        learning_rates: one for each checkpoint; those of the run when left out, 1 where the run
            does not know them.
    """
    rates, notes = _rates(checkpoints, learning_rates)
    gradients = _gradients(index, features, notes)
    norms = np.zeros((len(checkpoints), len(index)))
    with Progress("gradients", norms.size, "examples") as progress:
        for place, checkpoint in enumerate(checkpoints):
            with at(index.task, checkpoint):
                for _, positions, chunks in document_ranges(index, size=PIECE):
                    norms[place, positions] = _norms(gradients, chunks)
                    progress.advance(len(positions))
    norms[~np.isfinite(norms)] = np.nan
    return Scored(np.asarray(rates) @ norms, norms.astype(np.float32), notes)


def _norms(gradients: Gradients, made: Sequence[Sequence[Chunk]]) -> Array:
    """|sum of the chunks' gradients|^2 of each document, float64 [documents]."""
    pairs = [(row, chunk) for row, chunks in enumerate(made) for chunk in chunks]
    total = np.zeros((len(made), gradients.layout.size))
    for part, found in gradients.stream([chunk for _, chunk in pairs], BUDGET):
        np.add.at(total, [pairs[i][0] for i in part], found.u.double().cpu().numpy())
    return np.einsum("ij,ij->i", total, total)


def _gradients(index: Index, features: Features | None, notes: list[str]) -> Gradients:
    if features is None and index.has_features and index.features.output == "loss":
        gradients = index.gradients
    elif features is None and index.has_features:
        moment = index.calibration.moment
        gradients = Gradients(
            index.task,
            replace(index.features, output="loss", second_moment=moment),
            names=index.manifest["parameters"],
            moment=moment,
        )
    else:
        features = features or Features()
        if features.second_moment == "estimate":
            raise InputError(
                "An estimated second moment belongs to an index",
                expected="an index built with it, or features without it",
                found="second_moment='estimate'",
            )
        gradients = Gradients(index.task, features)
    if gradients.moment is not None:
        notes.append("gradients divided by the root of the second moment")
    if gradients.features.projection is not None:
        notes.append("norms of projected gradients")
    return gradients


def _rates(
    checkpoints: Sequence[Checkpoint], given: Sequence[float] | None
) -> tuple[list[float], list[str]]:
    if given is not None:
        rates = [float(rate) for rate in given]
        if len(rates) != len(checkpoints) or not all(0 <= rate < np.inf for rate in rates):
            raise InputError(
                "Learning rates do not fit the checkpoints",
                expected=f"{len(checkpoints)} finite numbers, none below 0",
                found=rates,
            )
        return rates, []
    known = [checkpoint.learning_rate for checkpoint in checkpoints]
    if None in known:
        return [1.0] * len(known), ["the run does not know its learning rates; each counts as 1"]
    return [rate or 0.0 for rate in known], []
