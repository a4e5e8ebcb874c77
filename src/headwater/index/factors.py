"""Fitting Kronecker factors on an index's corpus: two passes, and the eigenbases between them.

The first pass sums covariances, the second measures the eigenvalues in the basis found. With
several visits (checkpoints of a training) both are means over them: one basis for all, as SOURCE
wants it. An example here is a chunk, which is what a training took its gradients of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from headwater.corpus.batches import batches_by_length
from headwater.curvature.kronecker import (
    CovarianceSink,
    EigenvalueSink,
    LayerCurvature,
    decompose,
)
from headwater.curvature.sides import WIDEST
from headwater.engine.errors import InputError, NumericError, ResourceError
from headwater.engine.memory import out_of_memory
from headwater.engine.progress import Progress
from headwater.index.passes import RANGE, budget_of, chunk_seeds

if TYPE_CHECKING:
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index

Fisher = Literal["true", "empirical"]
Visit = Callable[[], AbstractContextManager[Any]]
Summed = TypeVar("Summed", CovarianceSink, EigenvalueSink)


@dataclass(frozen=True)
class Fit:
    """How factors are fitted.

    Args:
        fisher: "true" draws labels from the model, "empirical" takes those of the corpus.
        corrected: EK-FAC's measured eigenvalues; False keeps K-FAC's.
        examples: documents of the sample, chosen by a hash of their ids; None = all.
        seed: of the sample and of the labels.
        widest: columns of a side that are decomposed together; wider sides go by diagonal blocks.
    """

    fisher: Fisher = "true"
    corrected: bool = True
    examples: int | None = 100_000
    seed: int = 0
    widest: int = WIDEST

    def __post_init__(self) -> None:
        """Check every field."""
        if self.fisher not in ("true", "empirical"):
            raise InputError("Unknown Fisher", expected="true or empirical", found=self.fisher)
        if self.examples is not None and self.examples < 1:
            raise InputError("examples is too small", expected="at least 1", found=self.examples)
        if self.widest < 1:
            raise InputError("widest is too small", expected="at least 1", found=self.widest)


Factors = dict[str, LayerCurvature]


def fit_factors(
    index: Index, layers: Layers, fit: Fit, visits: Sequence[Visit] = (nullcontext,)
) -> Factors:
    """Factors of every layer, by weight name.

    Args:
        index: whose corpus. layers: of its task. fit: how.
        visits: each puts the model into a state (a checkpoint) and back again.

    Raises:
        NumericError: when a covariance or an eigenvalue is not finite; names the layer.
    """
    covariances = _pass(
        index, layers, fit, visits, "covariances", lambda: CovarianceSink(layers.layers, fit.widest)
    )
    count = covariances.examples
    bases = decompose(covariances, count)
    values = bases.values
    if fit.corrected:
        measured = _pass(
            index,
            layers,
            fit,
            visits,
            "eigenvalues",
            lambda: EigenvalueSink(layers.layers, bases),
        )
        values = {name: total / count for name, total in measured.total.items()}
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise NumericError(f"The eigenvalues of {name} are not finite")
    return {
        name: LayerCurvature(bases.out[name], bases.inn[name], value)
        for name, value in values.items()
    }


def sample(index: Index, examples: int | None, seed: int) -> list[int]:
    """Positions of so many documents (None = all), chosen by a hash of their ids, in order."""
    if examples is None or examples >= len(index):
        return list(range(len(index)))

    def key(position: int) -> bytes:
        return hashlib.sha256(f"{seed}:{index.ids[position]}".encode()).digest()

    return sorted(sorted(range(len(index)), key=key)[:examples])


def _pass(
    index: Index,
    layers: Layers,
    fit: Fit,
    visits: Sequence[Visit],
    label: str,
    make: Callable[[], Summed],
) -> Summed:
    """Every visit's pass over the sample into one sink; begun again where memory runs out.

    A batch that failed half way has already added to the sums, so halving it would not do.
    """
    budget, chosen = budget_of(index), sample(index, fit.examples, fit.seed)
    while True:
        sink = make()
        try:
            with Progress(label, len(chosen) * len(visits), "examples") as progress:
                for visit in visits:
                    with visit():
                        _run(index, layers, fit, sink, chosen, budget, progress)
            return sink
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if budget <= 1:
                raise ResourceError(
                    f"Memory ran out on the {label}",
                    do="attribute fewer layers (modules), or use a larger machine",
                ) from error
        budget //= 2


def _run(
    index: Index,
    layers: Layers,
    fit: Fit,
    sink: CovarianceSink | EigenvalueSink,
    chosen: Sequence[int],
    budget: int,
    progress: Progress,
) -> None:
    """One pass over the sample into the sink."""
    number = 0
    for start in range(0, len(chosen), RANGE):
        positions = chosen[start : start + RANGE]
        flat = [chunk for mine in index.chunks(positions) for chunk in mine]
        seeds = chunk_seeds(fit.seed, range(number, number + len(flat)))
        number += len(flat)
        for part in batches_by_length([chunk.length for chunk in flat], budget):
            some = [flat[i] for i in part]
            sink.lengths = _lengths([chunk.length for chunk in some])
            layers.run(sink, some, seeds=[seeds[i] for i in part] if fit.fisher == "true" else None)
        progress.advance(len(positions))


def _lengths(lengths: Sequence[int]) -> torch.Tensor | None:
    """Lengths that tell padding; examples that are no sequences have none."""
    return None if max(lengths) == 1 else torch.as_tensor(list(lengths))
