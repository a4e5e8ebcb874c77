"""SOURCE (Bae et al. 2024, arXiv 2405.12186): influence by approximate unrolling of a training.

    score(q, z) = 1/N g_q^T sum over segments l of S_L ... S_{l+1} r_l(z)
    S_l = exp(-eta_l K_l H_l),      r_l(z) = (1 - exp(-eta_l K_l H_l)) H_l^-1 g_l(z)

A training is cut into segments in each of which curvature and gradients are taken as constant:
their means over the segment's checkpoints, H_l by EK-FAC in one eigenbasis. What a training was too
short to learn then counts little, where an inverse Hessian would weigh it most. The walk is from
the end: the query's gradient meets the last segment first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.engine.errors import InputError
from headwater.index.factors import Factors, Fisher, Fit
from headwater.index.kept_factors import factors_for
from headwater.methods.corpus_pass import CorpusPass, Directions, dots, query_groups, query_matrices
from headwater.methods.method import Scores
from headwater.training.schedule import given_or_known
from headwater.training.visit import at, averaged

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.training.run import Checkpoint, TrainingRun

Visit = Callable[[], Any]


@dataclass(frozen=True)
class Segment:
    """A stretch of a training within which curvature and gradients are taken as constant.

    Args:
        checkpoints: of the stretch. rate: the sum of the learning rates of its steps.
        ids: the examples that were trained on in it; None = all. Others gain nothing from it.
    """

    checkpoints: Sequence[Checkpoint]
    rate: float
    ids: Collection[str] | None = None


class SOURCE(CorpusPass):
    """Approximate unrolled differentiation.

    Args:
        run: the training, at least one checkpoint a segment; or the segments themselves, in order,
            where stages of a training differ in their data.
        segments: into how many the run's checkpoints are cut (the paper: 3 of 2 each).
        fast: one visit to the mean of a segment's weights in place of one to each checkpoint.
        momentum: of the training's SGD: the rates count 1 / (1 - momentum) times.
        scale: what the training's loss divides an example's summed loss by; "tokens" = the mean
            number of labelled tokens of an example, for losses that are means over tokens.
        fisher, examples, seed: as in `EKFAC`. rates: as in `TracInCP`.
        parameters: "linear" or a filter of modules, as in `hw.Features`.
    """

    name, title, unit = "source", "SOURCE", "change of the loss"
    needs = "a model; a training run with checkpoints and learning rates: EK-FAC's cost for each"

    def __init__(
        self,
        run: TrainingRun | Sequence[Segment],
        segments: int = 3,
        *,
        fast: bool = False,
        momentum: float = 0.0,
        scale: float | str = "tokens",
        fisher: Fisher = "true",
        examples: int | None = 100_000,
        rates: Sequence[float] | None = None,
        parameters: str | ModuleFilter = "linear",
        seed: int = 0,
    ) -> None:
        if not 0 <= momentum < 1:
            raise InputError("momentum is out of range", expected="0 to 1", found=momentum)
        given = cut(run, segments, rates) if not isinstance(run, Sequence) else list(run)
        self.segments = [replace(one, rate=one.rate / (1 - momentum)) for one in given]
        if not self.segments or not all(one.checkpoints for one in self.segments):
            raise InputError("A segment has no checkpoint", expected="at least one in each")
        if isinstance(scale, str) and scale != "tokens":
            raise InputError("Unknown scale", expected="a number, or tokens", found=scale)
        self.fast, self.scale, self.parameters = fast, scale, parameters
        self.fit = Fit(fisher, True, examples, seed)

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """The queries' gradients at the end of the training."""
        with at(index.task, self.segments[-1].checkpoints[-1]):
            return query_matrices(layers, queries)

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`."""
        layers = self.layers(index, modules)
        total = np.zeros((len(queries), len(index)))
        scale = mean_tokens(index) if self.scale == "tokens" else float(self.scale)
        held = [self._factors(index, layers, one) for one in self.segments]
        for part in query_groups(queries, layers):
            v = self.directions(index, layers, queries[part])
            for segment, factors in list(zip(self.segments, held, strict=True))[::-1]:
                w = _apply(factors, v, partial(_gained, rate=segment.rate, scale=scale))
                mask = _mask(index, segment.ids, among)
                count = _examples(index, segment.ids)
                visits = self._visits(index, segment)
                for visit in visits:
                    with visit():
                        for first, block in dots(index, layers, w, part.stop - part.start, mask):
                            share = np.nan_to_num(block, nan=0.0) if mask is not among else block
                            total[part, first : first + block.shape[1]] += share / (
                                count * scale * len(visits)
                            )
                v = _apply(factors, v, partial(_left, rate=segment.rate, scale=scale))
        if among is not None:
            total[:, ~np.asarray(among, dtype=bool)] = np.nan
        yield 0, total.astype(np.float32)

    def _factors(self, index: Index, layers: Layers, segment: Segment) -> Factors:
        """Curvature over the segment's checkpoints, in one basis."""
        return factors_for(index, layers, self.fit, self._visits(index, segment))

    def _visits(self, index: Index, segment: Segment) -> list[Visit]:
        if self.fast:
            return [partial(averaged, index.task, list(segment.checkpoints))]
        return [partial(at, index.task, checkpoint) for checkpoint in segment.checkpoints]

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "segments": [
                {"checkpoints": [str(c.path) for c in one.checkpoints], "rate": one.rate}
                for one in self.segments
            ],
            "fast": self.fast,
            "scale": self.scale,
            "fisher": self.fit.fisher,
        }


def cut(run: TrainingRun, segments: int, rates: Sequence[float] | None = None) -> list[Segment]:
    """A run's checkpoints in `segments` runs as equal as can be, with their sums of rates.

    Raises:
        InputError: when there are fewer checkpoints than segments, or no learning rates.
    """
    count = len(run.checkpoints)
    if not 1 <= segments <= count:
        raise InputError(
            "The run cannot be cut into these segments",
            expected=f"1 to {count} (it has {count} checkpoints)",
            found=segments,
        )
    sums = given_or_known(run, rates, run.checkpoints)
    edges = [count * i // segments for i in range(segments + 1)]
    return [Segment(run.checkpoints[a:b], sum(sums[a:b])) for a, b in itertools.pairwise(edges)]


def _apply(factors: Factors, v: Directions, function: Any) -> Directions:
    return {name: factors[name].apply(matrices, function) for name, matrices in v.items()}


def _left(values: torch.Tensor, *, rate: float, scale: float) -> torch.Tensor:
    """exp(-eta K sigma)."""
    return torch.exp(-rate * values / scale)


def _gained(values: torch.Tensor, *, rate: float, scale: float) -> torch.Tensor:
    """(1 - exp(-eta K sigma)) / sigma, which is eta K where sigma is 0."""
    x = rate * values / scale
    small = x < 1e-6
    return rate * torch.where(small, 1 - x / 2, -torch.expm1(-x) / torch.where(small, 1.0, x))


def _mask(index: Index, ids: Collection[str] | None, among: Mask | None) -> Mask | None:
    if ids is None:
        return among
    wanted = set(ids)
    mask = np.fromiter((name in wanted for name in index.ids), dtype=bool, count=len(index))
    return mask if among is None else mask & np.asarray(among, dtype=bool)


def _examples(index: Index, ids: Collection[str] | None) -> float:
    """Training examples (chunks) of a segment."""
    rows = index.manifest["corpus"]["rows"]
    return rows if ids is None else rows * len(set(ids)) / len(index)


def mean_tokens(index: Index) -> float:
    """Labelled tokens of an example (chunk) on average; 1 for tasks without labels by token."""
    if index.manifest["task"]["kind"] != "causal_lm":
        return 1.0
    chunks = [chunk for mine in index.chunks(range(min(len(index), 1000))) for chunk in mine]
    return float(np.mean([int((chunk.content["labels"][1:] >= 0).sum()) for chunk in chunks]))
