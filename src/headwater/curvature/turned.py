"""Gradients in eigenbases, where a function of the curvature is a number for each entry.

    <f(F) G_q, G_z> = sum_ij f(lambda_ij) (Q_S^T G_q Q_A)_ij (Q_S^T G_z Q_A)_ij

Turning the tokens' factors instead of the matrices that they make up is most of the saving: of T
tokens and sides of m and n it is T (m^2 + n^2) operations against m^2 n + m n^2. A query of few
tokens is held as its turned factors, too, T (m + n) numbers instead of m n, and is multiplied out
where it meets the examples. Nothing is rounded: a low rank is what such a gradient has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from headwater.curvature.sides import rotate, turn_rows
from headwater.gradients.matrices import SLAB_BYTES, MatrixSink, slabs, wide

if TYPE_CHECKING:
    from headwater.gradients.matrices import Layer

Basis = Sequence[torch.Tensor]  # blocks of columns; none = the layer's own coordinates


@dataclass
class Eigenbases:
    """Eigenvectors of every side; layers may share an input side.

    Args:
        out, inn: by layer; blocks of columns.
    """

    out: dict[str, Basis]
    inn: dict[str, Basis]


class TurnedSink(MatrixSink):
    """Builds examples' gradients in their layers' eigenbases, some at a time, for `turned`.

    A side is turned token by token, or once the gradient is built, whichever takes fewer
    operations: of T tokens and a block of n columns that is T n^2 against n^2 for each of the other
    side's rows.
    """

    def __init__(self, layers: Mapping[str, Layer], bases: Eigenbases) -> None:
        super().__init__(layers)
        self.bases = bases
        self._inn: dict[str, Basis] = {}  # of each layer's input
        self._later: set[str] = set()  # layers whose input is not turned yet

    def joint(self, names: Sequence[str], a: torch.Tensor) -> torch.Tensor:
        """Q_A^T a, once for the layers that share the input; or a itself, to be turned later."""
        basis = next((self.bases.inn[name] for name in names if self.bases.inn[name]), ())
        self._inn.update(dict.fromkeys(names, basis))
        a = a.to(wide(a.dtype))
        rows = sum(self.layers[name].rows for name in names)
        if a.shape[1] > rows and self.summed.isdisjoint(names):
            self._later.update(names)
            return a
        self._later.difference_update(names)
        return rotate(a, basis) if basis else a

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """Build sum_t d' a'^T of some examples after the other."""
        out, d = self.bases.out[layer.name], d.to(wide(d.dtype))
        first = d.shape[1] <= layer.columns
        if out and first:
            d = rotate(d, out)
        for part in slabs(len(d), layer.rows, layer.columns, d.element_size()):
            built = torch.bmm(d[part].transpose(1, 2), kept[part])
            if layer.name in self._later and self._inn[layer.name]:
                built = rotate(built, self._inn[layer.name])
            if out and not first:
                built = turn_rows(built, out)
            self.turned(layer, part, built)

    def turned(self, layer: Layer, part: slice, built: torch.Tensor) -> None:
        """Gradients [part, out, in + bias] of a batch's examples, turned; they may be changed."""
        raise TypeError(f"{type(self).__name__} takes no gradients")


class EigenvalueSink(TurnedSink):
    """Sums (Q_S^T G Q_A)^2 over examples, by layer."""

    def __init__(self, layers: Mapping[str, Layer], bases: Eigenbases) -> None:
        super().__init__(layers, bases)
        self.total: dict[str, torch.Tensor] = {}

    def turned(self, layer: Layer, part: slice, built: torch.Tensor) -> None:
        """total += sum over examples of their squares."""
        made = built.square_().sum(dim=0)
        held = self.total.get(layer.name)
        self.total[layer.name] = made if held is None else held.add_(made)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The sums by name."""
        return {f"values.{name}": total for name, total in self.total.items()}


@dataclass
class TurnedGradient:
    """One query's turned gradient of a layer [rows, columns]: factors of tokens, plus a matrix."""

    rows: int
    columns: int
    factors: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list[Any])
    matrix: torch.Tensor | None = None

    def add_factors(self, d: torch.Tensor, a: torch.Tensor) -> None:
        """+= d^T a, of [tokens, rows] and [tokens, columns]; as a matrix once that is smaller."""
        self.factors.append((d, a))
        tokens = sum(len(one) for one, _ in self.factors)
        if tokens * (self.rows + self.columns) >= self.rows * self.columns:
            made = d.new_empty((self.rows, self.columns))
            self.write(made)
            self.factors, self.matrix = [], made

    def add_matrix(self, made: torch.Tensor) -> None:
        """+= a matrix."""
        self.matrix = made.clone() if self.matrix is None else self.matrix.add_(made)

    def write(self, out: torch.Tensor) -> None:
        """The matrix, into `out` [rows, columns]."""
        started = self.matrix is not None
        if self.matrix is not None:
            out.copy_(self.matrix)
        elif not self.factors:
            out.zero_()
        for d, a in self.factors:
            torch.addmm(out, d.T, a, beta=float(started), out=out)  # 0 reads nothing
            started = True

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        parts = [one for pair in self.factors for one in pair]
        parts += [] if self.matrix is None else [self.matrix]
        return all(bool(torch.isfinite(e)) for one in parts for e in torch.aminmax(one))


TurnedQueries = dict[str, list[TurnedGradient]]  # by layer, one for each query


class TurnedQuerySink(TurnedSink):
    """Adds each chunk's weighted gradient to its query's, in `made`, of layers they reach."""

    def __init__(self, layers: Mapping[str, Layer], bases: Eigenbases, queries: int) -> None:
        super().__init__(layers, bases)
        self.queries = queries
        self.made: TurnedQueries = {}

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """As factors where the tokens are few; what pads a chunk is left out."""
        if layer.name not in self.made:
            size = (layer.rows, layer.columns)
            self.made[layer.name] = [TurnedGradient(*size) for _ in range(self.queries)]
        tokens = d.shape[1]
        many = tokens * (layer.rows + layer.columns) >= layer.rows * layer.columns
        if many or layer.name in self._later:
            super().layer(layer, kept, d)
            return
        out, d = self.bases.out[layer.name], d.to(wide(d.dtype))
        d = rotate(d, out) if out else d
        spans = [tokens] * len(d)
        if self.lengths is not None and tokens == int(self.lengths.max()):
            spans = self.lengths.tolist()
        for (query, weight), span, own, a in zip(self.owners, spans, d, kept, strict=True):
            self.made[layer.name][query].add_factors(own[:span] * weight, a[:span])

    def turned(self, layer: Layer, part: slice, built: torch.Tensor) -> None:
        """Of many tokens: as matrices."""
        for (query, weight), one in zip(self.owners[part], built, strict=True):
            self.made[layer.name][query].add_matrix(one.mul_(weight))


class TurnedDots(TurnedSink):
    """out [queries, batch] += sum_ij G_q' G_z' / (lambda + damping), over layers.

    Args:
        values: lambda [out, in + bias] by layer. damping: what is added to it, by layer.
        queries: by layer; layers that are not there count as zero.
        out: one sink for each batch.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        bases: Eigenbases,
        values: Mapping[str, torch.Tensor],
        damping: Mapping[str, float],
        queries: TurnedQueries,
        out: torch.Tensor,
    ) -> None:
        super().__init__(layers, bases)
        self.values, self.damping = values, damping
        self.queries, self.out = queries, out

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """Leave out the layers in which no query has a gradient."""
        if layer.name in self.queries:
            super().layer(layer, kept, d)

    def turned(self, layer: Layer, part: slice, built: torch.Tensor) -> None:
        """Divide the examples, and multiply them with some queries after the other."""
        name = layer.name
        flat = built.div_(self.values[name] + self.damping[name]).flatten(1)
        mine = self.queries[name]
        most = max(1, SLAB_BYTES // (layer.rows * layer.columns * built.element_size()))
        held = built.new_empty((min(most, len(mine)), layer.rows, layer.columns))
        for start in range(0, len(mine), most):
            some = mine[start : start + most]
            for one, out in zip(some, held, strict=False):
                one.write(out)
            g = held[: len(some)].flatten(1)
            swap = len(g) >= len(flat)  # the same product, faster the longer side first
            self.out[start : start + most, part] += (flat @ g.T).T if swap else g @ flat.T
