"""EK-FAC's eigenvectors of most curvature as a projection, and how well it stands for all of them.

On the calibration sample: covariances, their eigenvectors, and EK-FAC's eigenvalues lambda
[out, in] in that basis, labels drawn from the model. A layer keeps the rows and the columns whose
lambda sum to most. An inverse weighs the directions that are left out more than those kept, so the
approximation is measured at once: scores of some continuations for some examples, by all directions
and by the kept ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from headwater.corpus.batches import batches_by_length
from headwater.curvature.damping import RelativeDamping
from headwater.curvature.kronecker import CovarianceSink, LayerCurvature, Side, decompose
from headwater.curvature.sides import WIDEST, Covariance, lower_triangle, panel_rows
from headwater.curvature.turned import Eigenbases, EigenvalueSink
from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.engine.seeds import own_seeds
from headwater.gradients.features import TopEigenvectors
from headwater.gradients.matrices import DotSink, Layers, SumSink

if TYPE_CHECKING:
    from headwater.gradients.compute import Bases, Gradients
    from headwater.gradients.matrices import MatrixSink
    from headwater.tasks.task import Chunk

QUERIES, EXAMPLES = 4, 64  # of the sample, on which the agreement is measured


@dataclass
class Top:
    """The projection.

    Args:
        bases: P [rows, out] and Q [columns, in] by parameter name, float32.
        values: lambda of the kept directions, float32 [rows, columns].
        means: mean lambda over all the layer's directions: what damping is relative to.
        report: how well the kept directions stand for all; empty when it was read back.
    """

    bases: Bases
    values: Mapping[str, torch.Tensor]
    means: Mapping[str, float]
    report: dict[str, Any] = field(default_factory=dict[str, Any])

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a safetensors file."""
        made: dict[str, torch.Tensor] = {}
        for name, (p, q) in self.bases.items():
            made[f"top.out.{name}"] = p.contiguous()
            made[f"top.in.{name}"] = q.contiguous()
            made[f"top.values.{name}"] = self.values[name].contiguous()
            made[f"top.mean.{name}"] = torch.tensor([self.means[name]], dtype=torch.float64)
        return made

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Top:
        """The inverse of `tensors`."""
        prefix = "top.out."
        names = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
        return cls(
            {n: (tensors[prefix + n], tensors[f"top.in.{n}"]) for n in names},
            {n: tensors[f"top.values.{n}"] for n in names},
            {n: float(tensors[f"top.mean.{n}"][0]) for n in names},
        )


def top_eigenvectors(
    gradients: Gradients, chunks: Sequence[Chunk], questions: Sequence[Chunk], budget: int
) -> Top:
    """P and Q of every parameter.

    Args:
        gradients: whose layout says how many directions. chunks: the sample.
        questions: stand for queries where the agreement is measured. budget: tokens of a batch.

    Raises:
        InputError: when a parameter is not the weight of a linear layer.
        NumericError: see `decompose`.
    """
    layers = _layers(gradients)
    projection = gradients.features.projection
    drawn = isinstance(projection, TopEigenvectors) and projection.fisher == "true"
    seeds = own_seeds(gradients.features.seed, range(len(chunks))) if drawn else None
    sums = CovarianceSink(layers.layers, WIDEST)
    _pass(layers, "covariances", sums, chunks, budget, seeds)
    bases = _bases(sums)
    measured = EigenvalueSink(layers.layers, bases)
    _pass(layers, "eigenvalues", measured, chunks, budget, seeds)
    curvature = {
        name: LayerCurvature(bases.out[name], bases.inn[name], total / len(chunks))
        for name, total in measured.total.items()
    }
    kept = {name: _kept(gradients, name, one) for name, one in curvature.items()}
    top = Top(
        {n: (_rows(curvature[n].out, r), _rows(curvature[n].inn, c)) for n, (r, c) in kept.items()},
        {n: curvature[n].values[r][:, c].float().cpu() for n, (r, c) in kept.items()},
        {n: float(one.values.double().mean()) for n, one in curvature.items()},
    )
    total = sum(float(one.values.double().sum()) for one in curvature.values())
    held = sum(float(values.double().sum()) for values in top.values.values())
    top.report = {"curvature": held / total if total > 0 else None} | _agreement(
        layers, curvature, kept, questions[:QUERIES], chunks[:EXAMPLES], budget
    )
    return top


def _layers(gradients: Gradients) -> Layers:
    modules = {use.module for use in gradients.uses}
    layers = Layers(gradients.task, lambda name, _: name in modules, biases=False)
    others = sorted(set(gradients.parameters) - set(layers.layers))
    if others:
        raise InputError(
            "TopEigenvectors project the weights of linear layers",
            expected="Linear, Conv1D and Conv2d weights",
            found=others[0],
        )
    return layers


def _pass(
    layers: Layers,
    label: str,
    sink: MatrixSink,
    chunks: Sequence[Chunk],
    budget: int,
    seeds: Sequence[int] | None = None,
    each: Callable[[list[int]], MatrixSink] | None = None,
) -> None:
    """Run the chunks into `sink`, or each batch into what `each` makes of its numbers."""
    lengths = [chunk.length for chunk in chunks]
    with Progress(label, len(chunks), "examples") as progress:
        for part in batches_by_length(lengths, budget):
            one = sink if each is None else each(part)
            some = [lengths[i] for i in part]
            one.lengths = None if max(some) == 1 else torch.tensor(some)
            drawn = None if seeds is None else [seeds[i] for i in part]
            layers.run(one, [chunks[i] for i in part], seeds=drawn)
            progress.advance(len(part))


def _bases(sums: CovarianceSink) -> Eigenbases:
    """Eigenvectors of every side that was summed."""

    def side(said: str, one: Covariance) -> Side:
        def blocks() -> Iterator[torch.Tensor]:
            panels = iter(one.panels)
            for block in one.blocks:
                own = [next(panels).double() for _ in panel_rows(block.stop - block.start)]
                yield lower_triangle(own)

        width = max(block.stop - block.start for block in one.blocks)
        return Side(said, width, blocks, one.panels[0].dtype)

    sides = {f"out.{n}": side(f"the output gradient of {n}", one) for n, one in sums.out.items()}
    sides |= {f"inn.{n}": side(f"the input of {n}", one) for n, one in sums.inn.items()}
    found = decompose(sides)
    return Eigenbases(
        {name: found[f"out.{name}"][0] for name in sums.out},
        {name: found[f"inn.{sums.input_of[name]}"][0] for name in sums.out},
    )


def _kept(gradients: Gradients, name: str, one: LayerCurvature) -> tuple[Any, Any]:
    """Numbers of the rows and the columns of most curvature, the largest first."""
    block = gradients.layout.places[name].block
    values = one.values.double()
    rows = values.sum(dim=1).argsort(descending=True, stable=True)[: block.rows]
    columns = values.sum(dim=0).argsort(descending=True, stable=True)[: block.columns]
    return rows, columns


def _rows(basis: Sequence[torch.Tensor], numbers: torch.Tensor) -> torch.Tensor:
    """Eigenvectors of these numbers as rows [n, width]; `basis` is a diagonal of blocks."""
    whole = torch.block_diag(*basis) if len(basis) > 1 else basis[0]
    return whole[:, numbers].T.float().cpu().contiguous()


def _agreement(
    layers: Layers,
    curvature: Mapping[str, LayerCurvature],
    kept: Mapping[str, tuple[Any, Any]],
    questions: Sequence[Chunk],
    examples: Sequence[Chunk],
    budget: int,
) -> dict[str, Any]:
    """Influence by all directions against that by the kept ones, damping 0.1 of the mean."""
    damping = RelativeDamping()
    pairs: list[torch.Tensor] = []
    for question in questions:
        sink = SumSink(layers.layers, torch.tensor([1.0]))
        layers.run(sink, [question], "query")
        directions: dict[str, torch.Tensor] = {}
        for name, matrix in sink.total.items():
            one = curvature[name]
            turned = one.turn(matrix.to(one.values.dtype))
            turned = turned / (one.values + damping.of(float(one.values.double().mean())))
            rows, columns = kept[name]
            only = torch.zeros_like(turned)
            only[rows[:, None], columns] = turned[rows[:, None], columns]
            directions[name] = one.turn_back(torch.stack([turned, only])).contiguous()
        pairs.append(_dots(layers, directions, examples, budget))
    if not pairs:
        return {}
    full, part = (torch.stack(pairs)[:, i].double() for i in (0, 1))
    centred = [scores - scores.mean(dim=1, keepdim=True) for scores in (full, part)]
    norm = centred[0].norm() * centred[1].norm()
    return {
        "queries": len(questions),
        "examples": len(examples),
        "correlation": float((centred[0] * centred[1]).sum() / norm) if float(norm) > 0 else None,
        "relative_error": float((part - full).norm() / full.norm()) if full.any() else None,
    }


def _dots(
    layers: Layers, directions: dict[str, torch.Tensor], examples: Sequence[Chunk], budget: int
) -> torch.Tensor:
    """<V, G> of two directions by every example, [2, examples]."""
    some = next(iter(directions.values()))
    made = torch.zeros((2, len(examples)), dtype=some.dtype, device=some.device)
    outs: list[tuple[list[int], torch.Tensor]] = []

    def each(part: list[int]) -> DotSink:
        outs.append((part, torch.zeros((2, len(part)), dtype=some.dtype, device=some.device)))
        return DotSink(layers.layers, directions, outs[-1][1])

    _pass(layers, "agreement", DotSink(layers.layers, {}, made), examples, budget, each=each)
    for part, out in outs:
        made[:, part] = out
    return made.cpu()
