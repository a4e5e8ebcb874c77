"""LESS (Xia et al. 2024, arXiv 2402.04333): which examples Adam would have moved the query by.

    score(q, z) = sum over checkpoints c of eta_c cos(g_q(theta_c), Gamma_z(theta_c))

Gamma_z is the step that Adam would take on example z alone, from its own state at the checkpoint.
It is not linear in the gradient, so each example's matrices are built, a slab at a time, and turned
into steps; and since m and v are in the unit of the training's loss, so must the gradient be.
Nothing is projected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from headwater.corpus.halving import in_batches
from headwater.engine.checks import positive
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.gradients.matrices import Layer, MatrixSink, slabs, wide
from headwater.index.passes import budget_of, document_ranges
from headwater.methods.corpus_pass import CorpusPass, Directions, query_groups, query_matrices
from headwater.methods.method import Scores
from headwater.training.first_moment import read_adam_state
from headwater.training.loop import labelled_rows
from headwater.training.schedule import mean_rates
from headwater.training.second_moment import as_trained
from headwater.training.visit import at, run_of

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk
    from headwater.training.run import Checkpoint
    from headwater.training.visit import Run

Epsilon = Literal["inside", "outside"]
Array = np.ndarray[Any, Any]


class LESS(CorpusPass):
    """Cosines of the queries' gradients with the examples' Adam steps, along a run.

    Args:
        run: a run, its folder, or checkpoints in their order, each with Adam's state.
        epsilon: "inside" the root, (b1 m + (1 - b1) g) / sqrt(b2 v + (1 - b2) g^2 + eps), without
            bias correction, as the authors' code has it; "outside", Adam as written, which is
            corrected for its bias: that decides how much eps is worth beside sqrt(v), and
            otherwise only scales the step, which a cosine does not see.
        rates: as in `TracInCP`. parameters: "linear" or a filter of modules, as in `hw.Features`.
        eps, betas: Adam's own; the betas as the state tells them, when left out.
        scale: what the training's loss divides an example's summed loss by; "tokens" = by its own
            labelled tokens, for losses that are means over tokens.
    """

    name, title, unit = "less", "LESS", "cosine, times the learning rate"
    needs = "a model; a training run with checkpoints and Adam's states"
    costs = "a slow pass for each checkpoint"
    additive = False

    def __init__(
        self,
        run: Run,
        epsilon: Epsilon = "inside",
        rates: Sequence[float] | None = None,
        parameters: str | ModuleFilter = "linear",
        eps: float = 1e-8,
        betas: tuple[float, float] | None = None,
        scale: float | str = "tokens",
    ) -> None:
        if epsilon not in ("inside", "outside"):
            raise InputError("Unknown epsilon", expected="inside or outside", found=epsilon)
        if betas is not None and not (len(betas) == 2 and all(0 <= b < 1 for b in betas)):
            raise InputError("betas are out of range", expected="two from 0 to 1", found=betas)
        if not (isinstance(scale, str) and scale == "tokens"):
            scale = positive("scale", scale, "a finite number above 0, or tokens")
        self.run, self.epsilon, self.parameters = run_of(run), epsilon, parameters
        self.eps, self.betas, self.scale = positive("eps", eps), betas, scale
        self.rates = mean_rates(self.run, rates)
        for checkpoint in self.run.checkpoints:
            if checkpoint.optimizer is None:
                raise InputError(
                    f"LESS needs Adam's state, and {checkpoint.path} has none",
                    expected="optimizer.safetensors or optimizer.pt beside the weights",
                    do="train with the optimizer's states kept, or take TracInCP",
                )

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """The queries' gradients at length 1; of a mean query, the mean of its parts' so."""
        units = [_unit(layers, query) for query in queries]
        some = next(iter(units[0].values()))
        made: Directions = {}
        for name, layer in layers.layers.items():
            none = some.new_zeros((layer.rows, layer.columns))
            made[name] = torch.stack([unit.get(name, none) for unit in units])
        return made

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`. A document has its best chunk's."""
        layers = self.layers(index, modules)
        owners: list[int] = []
        total: list[Array] = []  # [queries, chunks] of each range of documents
        for number, checkpoint in enumerate(self.run.checkpoints):
            state = self._state(checkpoint, layers)
            with at(index.task, checkpoint):
                for part in query_groups(queries, layers):
                    v = self.directions(index, layers, queries[part])
                    passed = self._pass(index, layers, v, state, among)
                    for place, (of, block) in enumerate(passed):
                        if place == len(total):
                            owners += of
                            total.append(np.zeros((len(queries), len(of))))
                        total[place][part] += self.rates[number] * block
        best = np.full((len(queries), len(index)), np.nan)
        best[:, owners] = -np.inf
        for owner, scores in zip(owners, (row for block in total for row in block.T), strict=True):
            best[:, owner] = np.maximum(best[:, owner], scores)  # NaN where one is
        yield 0, best.astype(np.float32)

    def _state(self, checkpoint: Checkpoint, layers: Layers) -> Step:
        """Adam's state at a checkpoint, laid out as the layers' matrices."""
        with as_trained(layers.task.model):
            state = read_adam_state(checkpoint, layers.task.model)
        betas = self.betas or state.betas
        if betas is None:
            raise InputError(
                f"The optimizer's state of {checkpoint.path} does not tell its betas",
                do="give them: betas=(0.9, 0.999)",
            )
        step = Step(layers.laid_out(state.first), layers.laid_out(state.second), *betas, self.eps)
        if self.epsilon == "inside":
            return step
        # m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) up to a number that all examples share
        share = (1 - betas[1] ** (state.step + 1)) ** 0.5
        return replace(step, eps=self.eps * share, inside=False)

    def _pass(
        self, index: Index, layers: Layers, v: Directions, state: Step, among: Mask | None
    ) -> Iterator[tuple[list[int], Array]]:
        """Cosines of every chunk: (positions of their documents, float64 [queries, chunks])."""
        total = len(index) if among is None else int(np.sum(among))
        some = next(iter(v.values()))
        with Progress("examples' Adam steps", total, "examples") as progress:
            for _, positions, chunks in document_ranges(index, among):
                owners = [p for p, mine in zip(positions, chunks, strict=True) for _ in mine]
                flat = [chunk for mine in chunks for chunk in mine]

                def compute(part: list[int], flat: list[Chunk] = flat) -> Array:
                    chunks = [flat[i] for i in part]
                    divisors = some.new_tensor(self._divisors(layers, chunks))
                    sink = StepSink(layers.layers, v, state, divisors)
                    layers.run(sink, chunks)
                    return sink.cosines()

                block = np.zeros((len(some), len(flat)))
                lengths = [chunk.length for chunk in flat]
                for part, made, _ in in_batches(lengths, budget_of(index), compute):
                    block[:, part] = made
                yield owners, block
                progress.advance(len(positions))

    def _divisors(self, layers: Layers, chunks: Sequence[Chunk]) -> list[float]:
        """What each chunk's loss is divided by."""
        if self.scale != "tokens":
            return [float(self.scale)] * len(chunks)
        rows = labelled_rows(layers.task.collate(chunks))
        return [1.0] * len(chunks) if rows is None else rows.clamp(min=1).double().tolist()

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "checkpoints": [str(checkpoint.path) for checkpoint in self.run.checkpoints],
            "rates": self.rates,
            "epsilon": self.epsilon,
            "eps": self.eps,
            "betas": None if self.betas is None else list(self.betas),
            "scale": self.scale,
            "parameters": self.parameters if isinstance(self.parameters, str) else "filter",
        }


@dataclass(frozen=True)
class Step:
    """Adam's next step from its running means, [out, in + bias] by layer."""

    first: Mapping[str, torch.Tensor]
    second: Mapping[str, torch.Tensor]
    beta1: float
    beta2: float
    eps: float
    inside: bool = True

    def of(self, name: str, g: torch.Tensor) -> torch.Tensor:
        """Gamma of gradients [..., out, in + bias], up to a factor that all examples share."""
        m, v = self.first[name].to(g.dtype), self.second[name].to(g.dtype)
        mean = self.beta1 * m + (1 - self.beta1) * g
        square = self.beta2 * v + (1 - self.beta2) * g.square()
        return mean / ((square + self.eps).sqrt() if self.inside else square.sqrt() + self.eps)


class StepSink(MatrixSink):
    """Products of Adam's steps with the directions, and the steps' lengths.

    Args:
        directions: [queries, out, in + bias] by layer. step: makes a gradient a step.
        tokens: what each example's gradient is divided by, [batch].
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        directions: Directions,
        step: Step,
        tokens: torch.Tensor,
    ) -> None:
        super().__init__(layers)
        self.directions, self.step, self.tokens = directions, step, tokens
        some = next(iter(directions.values()))
        self.products = tokens.new_zeros((len(some), len(tokens)), dtype=torch.float64)
        self.squares = tokens.new_zeros(len(tokens), dtype=torch.float64)
        self._seen: set[str] = set()

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """The layer's gradients, a slab at a time, as steps."""
        self._seen.add(layer.name)
        dtype = wide(d.dtype)
        a, d = kept.to(dtype), d.to(dtype) / self.tokens.to(dtype)[:, None, None]
        for part in slabs(len(d), layer.rows, layer.columns, d.element_size()):
            self._add(layer, part, torch.bmm(d[part].transpose(1, 2), a[part]))

    def close(self) -> None:
        """A layer that the loss did not reach has no gradient, but a step by its mean."""
        super().close()
        for name in self.layers.keys() - self._seen:
            layer, some = self.layers[name], self.directions[name]
            self._add(layer, slice(None), some.new_zeros((1, layer.rows, layer.columns)))

    def cosines(self) -> Array:
        """Of every direction with every example, float64 [queries, batch]."""
        return (self.products / self.squares.sqrt()).cpu().numpy()

    def _add(self, layer: Layer, part: slice, gradients: torch.Tensor) -> None:
        gamma = self.step.of(layer.name, gradients).flatten(1)
        flat = self.directions[layer.name].to(gamma.dtype).flatten(1)
        self.products[:, part] += (flat @ gamma.T).double()
        self.squares[part] += gamma.square().sum(dim=1).double()


def _unit(layers: Layers, query: Query) -> dict[str, torch.Tensor]:
    """The query's gradient at length 1, [out, in + bias] by layer; the mean of its parts'."""
    if query.parts:
        parts = [_unit(layers, part) for part in query.parts]
        names = dict.fromkeys(name for part in parts for name in part)
        return {
            n: torch.stack([p[n] for p in parts if n in p]).sum(dim=0) / len(parts) for n in names
        }
    made = {name: one[0] for name, one in query_matrices(layers, [query]).items()}
    length = float(sum(one.double().square().sum() for one in made.values())) ** 0.5
    if not length > 0:
        raise NumericError(
            f"The gradient of query {query.describe()} is zero, so it has no direction",
            do="ask for something the model is not yet sure of",
        )
    return {name: one / length for name, one in made.items()}
