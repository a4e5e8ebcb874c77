"""Projected gradients of chunks: the one way through task, capture and projection.

Training examples and queries go through the same code with the same projections; only the output
differs (the loss or the margin of an example, the measurement of a query).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch

from headwater.corpus.halving import in_batches
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.gradients.apart import can_tell, require_apart
from headwater.gradients.capture import Capture
from headwater.gradients.layout import make_layout
from headwater.gradients.parameters import choose
from headwater.gradients.projector import Projector
from headwater.gradients.second_moment import SecondMoment
from headwater.gradients.sinks import FeatureSink, MomentSink, PositionSink

if TYPE_CHECKING:
    from headwater.gradients.features import Features
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk, Task

logger = logging.getLogger(__name__)

Role = Literal["example", "query"]
Made = TypeVar("Made")
Bases = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # P [rows, out], Q [columns, in]


@dataclass
class Projected:
    """Projected gradients of a batch.

    Args:
        u: [n, size], float32 (float64 for float64 models).
        loss: [n]. weight: 1 - p of each example [n] under margin features, else None.
    """

    u: torch.Tensor
    loss: torch.Tensor
    weight: torch.Tensor | None


class Gradients:
    """A task's projected gradients under some `Features`.

    Args:
        task: the task.
        features: what is captured and how it is projected.
        names: parameter names fixed by a manifest, in place of `features.parameters`.
        moment: the second moment in use, once it is known.
        bases: P and Q by parameter name, where they are not random, once they are known.
    """

    def __init__(
        self,
        task: Task,
        features: Features,
        *,
        names: list[str] | None = None,
        moment: SecondMoment | None = None,
        bases: Bases | None = None,
    ) -> None:
        self.task, self.features, self.bases = task, features, bases or {}
        self.uses, self.coverage = choose(task, features.parameters, names)
        self.layout = make_layout(self.uses, features.projection)
        self.capture = Capture(task, self.uses)
        self.parameters = {use.parameter.name: use.parameter for use in self.uses}
        if moment is None and isinstance(features.second_moment, SecondMoment):
            moment = features.second_moment
        self.moment = moment
        self._projectors: dict[str, Projector] | None = None
        self._ready = self._apart = False

    @property
    def projectors(self) -> dict[str, Projector]:
        """Each parameter's projections, made at first use."""
        if self._projectors is None:
            dtypes = {name: p.dtype for name, p in self.task.model.named_parameters()}
            self._projectors = {
                name: Projector(
                    parameter,
                    self.layout.places[name],
                    self.features.seed,
                    self.moment,
                    self.task.device,
                    dtypes[name],
                    self.bases.get(name),
                )
                for name, parameter in self.parameters.items()
            }
        return self._projectors

    def set_moment(self, moment: SecondMoment | None) -> None:
        """Use this second moment from now on."""
        self.moment, self._projectors = moment, None

    def set_bases(self, bases: Bases) -> None:
        """Project onto these from now on."""
        self.bases, self._projectors = bases, None

    def learn_sharing(self, chunk: Chunk) -> None:
        """Find out how the layers are called (which share inputs), once, on a first chunk."""
        if self._ready:
            return
        batch = self.task.collate([chunk])
        margin = self.features.output == "margin"
        with self.task.running():
            self.capture.learn_sharing(
                lambda: (self.task.margin if margin else self.task.loss)(batch)
            )
        self._ready = True
        unused = self.capture.unused
        if unused:
            names = ", ".join(unused[:3]) + (" ..." if len(unused) > 3 else "")
            note = (
                f"{len(unused)} attributed modules were not called for a first example, and count "
                f"as zero where they are not: {names}"
            )
            self.task.notes.append(note)
            logger.warning(note)

    def batch(self, chunks: Sequence[Chunk], role: Role = "example") -> Projected:
        """Projected gradients of these chunks, in one forward and one backward pass."""
        dtype = next(self.task.model.parameters()).dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        u = torch.zeros((len(chunks), self.layout.size), dtype=wide, device=self.task.device)
        sink = FeatureSink(self.projectors, u)
        loss, weight = self._run(sink, chunks, role)
        return Projected(u, loss, weight)

    def _run(
        self, sink: Any, chunks: Sequence[Chunk], role: Role
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.learn_sharing(chunks[0])
        batch = self.task.collate(chunks)
        weight = None
        with self.task.running(), self.capture.on(sink, len(chunks)), torch.enable_grad():
            if self.features.output == "margin":
                loss, weight = self.task.margin(batch)
            elif role == "query":
                loss = self.task.measurement(batch)
            else:
                loss = self.task.loss(batch)
            if not loss.requires_grad:
                raise InputError(
                    "The loss does not depend on the attributed parameters",
                    expected="a loss that is differentiable in the outputs of their modules",
                    found="a loss without a graph",
                    do="leave detach() and no_grad() out of the loss, or choose other parameters",
                )
            loss.sum().backward()
        return loss.detach(), weight

    def queries(self, queries: Sequence[Query], budget: int) -> np.ndarray[Any, Any]:
        """Gradients of queries' measurements, float32 [queries, size].

        Raises:
            NumericError: when a query's measurement or gradient is not finite.
        """
        parts = [self.task.query_chunks(query) for query in queries]
        u, _ = self.weighted(parts, budget, [query.describe() for query in queries])
        return u

    def weighted(
        self,
        sums: Sequence[Sequence[tuple[float, Chunk]]],
        budget: int,
        names: Sequence[str] | None = None,
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Weighted sums of measurements: features float32 [sums, size], values float64 [sums].

        Args:
            sums: for each result its (weight, chunk) pairs. budget: tokens of a batch.
            names: what to call each one in an error.
        """
        flat = [(row, *pair) for row, pairs in enumerate(sums) for pair in pairs]
        total = np.zeros((len(sums), self.layout.size), dtype=np.float64)
        values = np.zeros(len(sums), dtype=np.float64)
        with Progress("query gradients", len(flat), "texts") as progress:
            for part, made in self.stream([chunk for _, _, chunk in flat], budget, "query"):
                u, loss = made.u.double().cpu().numpy(), made.loss.double().cpu().numpy()
                for one, value, index in zip(u, loss, part, strict=True):
                    row, weight, _ = flat[index]
                    if not (np.isfinite(value) and np.isfinite(one).all()):
                        name = names[row] if names is not None else f"number {row}"
                        raise NumericError(
                            f"The measurement or gradient of query {name} is not finite",
                            do="check the query, the model's weights and its dtype",
                        )
                    total[row] += weight * one
                    values[row] += weight * value
                progress.advance(len(part))
        return total.astype(np.float32), values

    def stream(
        self, chunks: Sequence[Chunk], budget: int, role: Role = "example"
    ) -> Iterator[tuple[list[int], Projected]]:
        """Batches by length under a token budget: (indices into `chunks`, their gradients).

        When memory runs out the budget is halved and the batch tried again; `self.budget_used`
        tells what was used in the end.

        Raises:
            ResourceError: when a single chunk does not fit.
        """
        if chunks:
            self.learn_sharing(chunks[0])

        def compute(part: list[int]) -> Projected:
            return self.batch([chunks[i] for i in part], role)

        for part, made in self._halving(chunks, budget, compute):
            self._check_apart([chunks[i] for i in part], made, role)
            yield part, made

    def _halving(
        self, chunks: Sequence[Chunk], budget: int, compute: Callable[[list[int]], Made]
    ) -> Iterator[tuple[list[int], Made]]:
        """`compute` of batches under a budget that is halved as often as memory runs out."""
        lengths = [chunk.length for chunk in chunks]
        self.budget_used = budget
        for part, made, used in in_batches(lengths, budget, compute):
            self.budget_used = used
            yield part, made

    def _check_apart(self, chunks: Sequence[Chunk], made: Projected, role: Role) -> None:
        """Once, on the first batch whose first two differ: in the other order they are the same."""
        largest = float(made.u.norm(dim=1).max())
        if self._apart or role == "query" or not 0 < largest < float("inf"):
            return
        here = made.u[:2]
        if not can_tell(here):
            return
        self._apart = True
        again = self.batch([chunks[1], chunks[0]], role).u.flip(0)
        parts = [block.part for block in self.layout.blocks]
        require_apart([here[:, one] for one in parts], [again[:, one] for one in parts], largest)

    def positions(self, chunk: Chunk, v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Each token's share of `<v, u>` for one chunk, float64 [length]; v [size]."""
        direction = torch.from_numpy(np.ascontiguousarray(v)).to(self.task.device, torch.float32)
        out = torch.zeros((1, chunk.length), dtype=torch.float64, device=self.task.device)
        self._run(PositionSink(self.projectors, direction, out), [chunk], "example")
        return out[0].cpu().numpy()

    def estimate_moment(self, chunks: Sequence[Chunk], budget: int) -> SecondMoment:
        """Row and column means of E[g^2] over these chunks, where no optimizer state was kept."""
        users = Counter(use.parameter.name for use in self.uses)
        self.learn_sharing(chunks[0])
        tied = {name for name, number in users.items() if number > 1}
        again = self.capture.repeated
        tied |= {use.parameter.name for use in self.uses if use.module in again}
        total = MomentSink()

        def compute(part: list[int]) -> MomentSink:
            sink = MomentSink(tied)
            self._run(sink, [chunks[i] for i in part], "example")
            sink.close()
            return sink

        with Progress("second moment", len(chunks), "examples") as progress:
            for part, sink in self._halving(chunks, budget, compute):
                total.merge(sink)
                progress.advance(len(part))
        count, sink = len(chunks), total
        factors = {
            name: (
                (sink.rows[name] / count).cpu().numpy(),
                (sink.columns[name] / count).cpu().numpy(),
            )
            for name in sink.rows
        }
        return SecondMoment(f"estimated from {count} examples", factors)
