"""SOURCE (Bae et al. 2024, arXiv 2405.12186): influence by approximate unrolling of a training.

    score(q, z) = 1/N g_q^T sum over segments l of S_L ... S_{l+1} r_l(z)
    S_l = exp(-eta_l K_l H_l),      r_l(z) = (1 - exp(-eta_l K_l H_l)) H_l^-1 g_l(z)

A training is cut into segments in each of which curvature and gradients are taken as constant:
their means over the segment's checkpoints, H_l by EK-FAC in one eigenbasis. What a training was too
short to learn then counts little, where an inverse Hessian would weigh it most. The walk is from
the end: the query's gradient meets the last segment first.

Adam steps by eta P g. In the coordinates theta = P^1/2 theta' that is plain descent again, on the
gradients P^1/2 g and the curvature P^1/2 H P^1/2: the layers are scaled, and nothing else changes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from headwater.engine.checks import at_least_zero, positive, whole
from headwater.engine.errors import InputError
from headwater.index.factors import Factors, Fisher, Fit, fit_factors, sample
from headwater.index.kept_factors import factors_for
from headwater.index.passes import RANGE, document_ranges
from headwater.index.selection import selected
from headwater.methods.corpus_pass import CorpusPass, Directions, dots, query_groups, query_matrices
from headwater.methods.method import Scores
from headwater.training.loop import labelled_rows
from headwater.training.preconditioner import adam_scales
from headwater.training.run import Checkpoint, TrainingRun
from headwater.training.schedule import given_or_known
from headwater.training.visit import at, averaged, run_of

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task
    from headwater.training.visit import Run

Visit = Callable[[], Any]

MEASURED = 1000  # documents whose tokens are counted
LISTED = 100  # ids of a segment that a description names


@dataclass(frozen=True)
class Segment:
    """A stretch of a training within which curvature and gradients are taken as constant.

    Args:
        checkpoints: of the stretch. rate: the sum of the learning rates of its steps.
        ids: the examples that were trained on in it; None = all. The segment's curvature, its
            number of examples and their tokens are of these alone, and others gain nothing from it.
        task: of the same model, whose loss was trained on in it; None = the index's. It is given
            the index's examples, as the index cut them.
        scale: of this loss, as in `SOURCE`; None = the method's.

    Raises:
        InputError: for a segment without checkpoints or ids, or a rate or a scale out of range.
    """

    checkpoints: Sequence[Checkpoint]
    rate: float
    ids: Collection[str] | None = None
    task: Task | None = None
    scale: float | str | None = None

    def __post_init__(self) -> None:
        """Check what needs no index."""
        if not _are_checkpoints(self.checkpoints):
            raise InputError(
                "A segment has no checkpoint",
                expected="at least one in each, in a list",
                found=repr(self.checkpoints),
            )
        object.__setattr__(self, "rate", at_least_zero("The rate of a segment", self.rate))
        if self.scale is not None:
            object.__setattr__(self, "scale", _scale(self.scale))
        if self.ids is not None and not len(self.ids):
            raise InputError("A segment has no examples", expected="ids, or None for all")

    def describe(self) -> dict[str, Any]:
        """What it is, JSON-serialisable; many ids are told by their number and a digest."""
        made: dict[str, Any] = {"checkpoints": [str(c.path) for c in self.checkpoints]}
        made["rate"] = self.rate
        if self.ids is not None:
            names = sorted({self.ids} if isinstance(self.ids, str) else set(self.ids))
            digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
            many = {"count": len(names), "digest": digest}
            made["ids"] = names if len(names) <= LISTED else many
        if self.task is not None:
            made["loss"] = "its own"
        if self.scale is not None:
            made["scale"] = self.scale
        return made


@dataclass
class _Stage:
    """What the walk needs of a segment; `layers` are of its loss and in its coordinates.

    `among` are the documents that were trained on in it (None = all), `examples` their chunks.
    """

    segment: Segment
    layers: Layers
    factors: Factors
    visits: list[Visit]
    scale: float
    among: Mask | None
    examples: int

    def through(self, v: Directions, function: Any) -> Directions:
        """f(eta K P^1/2 H P^1/2) of directions that are in these coordinates; f(0) elsewhere."""
        function = partial(function, rate=self.segment.rate, scale=self.scale)
        return {
            name: self.factors[name].apply(matrices, function)
            if name in self.factors
            else matrices * float(function(torch.zeros(())))
            for name, matrices in v.items()
        }

    def scaled(self, v: Directions) -> Directions:
        """P^1/2 v."""
        scales = self.layers.scales
        return {n: scales[n].apply(one) if n in scales else one for n, one in v.items()}

    def unscaled(self, v: Directions) -> Directions:
        """P^-1/2 v."""
        scales = self.layers.scales
        return {n: scales[n].undo(one) if n in scales else one for n, one in v.items()}


class SOURCE(CorpusPass):
    """Approximate unrolled differentiation.

    Args:
        run: the training (a run, its folder, or checkpoints), at least one checkpoint a segment; or
            the segments themselves, in order, where stages of a training differ in their data.
        segments: into how many the run's checkpoints are cut (the paper: 3 of 2 each).
        fast: one visit to the mean of a segment's weights in place of one to each checkpoint.
            Buffers (a batch norm's running means) are the last checkpoint's there.
        momentum: of the training's SGD: the rates count 1 / (1 - momentum) times.
        optimizer: "sgd", or "adam": its preconditioner is read from the checkpoints' states. What
            an example does to the preconditioner itself, and weight decay, are not modelled.
        eps: Adam's own.
        scale: what the training's loss divides an example's summed loss by; "tokens" = the mean
            number of labelled tokens of an example, for losses that are means over tokens.
        fisher, examples, seed: as in `EKFAC`. rates: as in `TracInCP`.
        parameters: "linear" or a filter of modules, as in `hw.Features`.
    """

    name, title, unit = "source", "SOURCE", "change of the loss"
    needs = "a model; a training run with checkpoints and learning rates"
    costs = "what EK-FAC costs, for each checkpoint"

    def __init__(
        self,
        run: Run | Sequence[Segment],
        segments: int = 3,
        *,
        fast: bool = False,
        momentum: float = 0.0,
        optimizer: Literal["sgd", "adam"] = "sgd",
        eps: float = 1e-8,
        scale: float | str = "tokens",
        fisher: Fisher = "true",
        examples: int | None = 100_000,
        rates: Sequence[float] | None = None,
        parameters: str | ModuleFilter = "linear",
        seed: int = 0,
    ) -> None:
        if not 0 <= momentum < 1:
            raise InputError("momentum is out of range", expected="0 to 1", found=momentum)
        if optimizer not in ("sgd", "adam"):
            raise InputError("Unknown optimizer", expected="sgd or adam", found=optimizer)
        if optimizer == "adam" and momentum:
            raise InputError(
                "momentum is of SGD",
                expected="momentum=0 with Adam, whose first moment lengthens no step",
                found=momentum,
            )
        given = _segments(run, segments, rates)
        self.segments = [replace(one, rate=one.rate / (1 - momentum)) for one in given]
        for checkpoint in (c for one in self.segments for c in one.checkpoints):
            if optimizer == "adam" and checkpoint.optimizer is None:
                raise InputError(
                    f"Adam's preconditioner is in its state, and {checkpoint.path} has none",
                    expected="optimizer.safetensors or optimizer.pt beside the weights",
                )
        self.fast, self.scale, self.parameters = fast, _scale(scale), parameters
        self.optimizer, self.eps = optimizer, positive("eps", eps)
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
        if any(s.task is not None and s.task.model is not index.task.model for s in self.segments):
            raise InputError(
                "A segment's task is of another model",
                expected="Task(index.task.model, loss=...), the very same model with another loss",
            )
        layers = self.layers(index, modules)
        total = np.zeros((len(queries), len(index)))
        stages = [self._stage(index, modules, segment) for segment in self.segments]
        for part in query_groups(queries, layers):
            v = self.directions(index, layers, queries[part])
            for stage in stages[::-1]:
                v = stage.scaled(v)
                w = stage.through(v, _gained)
                for first, block in _shares(index, stage, w, part.stop - part.start, among):
                    total[part, first : first + block.shape[1]] += block
                v = stage.unscaled(stage.through(v, _left))
        if among is not None:
            total[:, ~np.asarray(among, dtype=bool)] = np.nan
        yield 0, total.astype(np.float32)

    def _stage(self, index: Index, modules: Sequence[str] | None, segment: Segment) -> _Stage:
        """A segment with its curvature, over its checkpoints, in one basis."""
        layers = self.layers(index, modules, segment.task)
        if self.optimizer == "adam":
            layers = layers.scaled(adam_scales(segment.checkpoints, layers, self.eps))
        visits = self._visits(index, segment)
        among = selected(index, segment.ids)
        if among is not None and among.all():
            among = None
        if segment.task is None:
            factors = factors_for(index, layers, self.fit, visits, among)
        else:  # nothing that could be a key tells one loss from another, so these are not kept
            factors = fit_factors(index, layers, self.fit, visits, among=among)
        asked = self.scale if segment.scale is None else segment.scale
        scale = mean_tokens(index, layers.task, among) if asked == "tokens" else float(asked)
        return _Stage(segment, layers, factors, visits, scale, among, _chunks(index, among))

    def _visits(self, index: Index, segment: Segment) -> list[Visit]:
        if self.fast:
            return [partial(averaged, index.task, list(segment.checkpoints))]
        return [partial(at, index.task, checkpoint) for checkpoint in segment.checkpoints]

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "segments": [one.describe() for one in self.segments],
            "optimizer": self.optimizer,
            **({"eps": self.eps} if self.optimizer == "adam" else {}),
            "fast": self.fast,
            "scale": self.scale,
            **{name: getattr(self.fit, name) for name in ("fisher", "examples", "seed")},
            "parameters": self.parameters if isinstance(self.parameters, str) else "filter",
        }


def _segments(
    run: Run | Sequence[Segment], segments: int, rates: Sequence[float] | None
) -> list[Segment]:
    """The segments as they are given, or those of a run."""
    if isinstance(run, Sequence) and not isinstance(run, str):
        given = [one for one in run if isinstance(one, Segment)]
        if given and len(given) == len(run):
            return given
    return cut(run_of(run), segments, rates)


def _are_checkpoints(given: object) -> bool:
    return (
        isinstance(given, Sequence)
        and bool(given)
        and all(isinstance(c, Checkpoint) for c in given)
    )


def _scale(given: object) -> float | str:
    if isinstance(given, str) and given == "tokens":
        return given
    return positive("scale", given, "a finite number above 0, or tokens")


def cut(run: TrainingRun, segments: int, rates: Sequence[float] | None = None) -> list[Segment]:
    """A run's checkpoints in `segments` runs as equal as can be, with their sums of rates.

    Raises:
        InputError: when there are fewer checkpoints than segments, or no learning rates.
    """
    count = len(run.checkpoints)
    if not 1 <= whole("segments", segments, 0) <= count:
        raise InputError(
            "The run cannot be cut into these segments",
            expected=f"1 to {count}" if count > 1 else "1, since it has one checkpoint",
            found=segments,
            do=f"give segments={count} (--set segments={count})",
        )
    sums = given_or_known(run, rates)
    edges = [count * i // segments for i in range(segments + 1)]
    return [Segment(run.checkpoints[a:b], sum(sums[a:b])) for a, b in itertools.pairwise(edges)]


def _shares(index: Index, stage: _Stage, w: Directions, queries: int, among: Mask | None) -> Scores:
    """What the documents gain in a segment: <w, mean gradient over its checkpoints> / N."""
    mask = among if stage.among is None else stage.among
    if among is not None and stage.among is not None:
        mask = stage.among & among
    share = 1 / (stage.examples * stage.scale * len(stage.visits))
    for visit in stage.visits:
        with visit():
            for first, block in dots(index, stage.layers, w, queries, mask):
                wide = block.astype(np.float64) * share
                if stage.among is not None:  # whoever takes no part in the segment gains nothing
                    wide[:, ~stage.among[first : first + wide.shape[1]]] = 0.0
                yield first, wide


def _left(values: torch.Tensor, *, rate: float, scale: float) -> torch.Tensor:
    """exp(-eta K sigma)."""
    return torch.exp(-rate * values / scale)


def _gained(values: torch.Tensor, *, rate: float, scale: float) -> torch.Tensor:
    """(1 - exp(-eta K sigma)) / sigma, which is eta K where sigma is 0."""
    x = rate * values / scale
    small = x < 1e-6
    return rate * torch.where(small, 1 - x / 2, -torch.expm1(-x) / torch.where(small, 1.0, x))


def _chunks(index: Index, among: Mask | None) -> int:
    """Training examples (chunks) of these documents."""
    if among is None:
        return int(index.manifest["corpus"]["rows"])
    return sum(len(mine) for _, _, made in document_ranges(index, among) for mine in made)


def mean_tokens(index: Index, task: Task, among: Mask | None = None) -> float:
    """Labelled tokens of an example (chunk) on average; 1 for tasks without labels by token.

    Args:
        task: whose batches say what is labelled. among: the documents that are meant; a sample of
            them is counted.
    """
    positions = sample(index, MEASURED, 0, among)
    counts: list[int] = []
    for start in range(0, len(positions), RANGE):
        for chunk in itertools.chain.from_iterable(index.chunks(positions[start : start + RANGE])):
            rows = labelled_rows(task.collate([chunk]))
            if rows is None:
                return 1.0
            counts.append(int(rows.sum()))
    return float(np.mean(counts)) if any(counts) else 1.0
