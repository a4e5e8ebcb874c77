"""Kronecker-factored curvature of layers: K-FAC, and EK-FAC's eigenvalues corrected in its basis.

    F  ~=  (Q_A kron Q_S) diag(lambda) (Q_A kron Q_S)^T,      G -> Q_S f(lambda * ...) Q_A^T

A = sum a a^T and S = sum d d^T over tokens; Q_A and Q_S are their eigenvectors. K-FAC takes lambda
from their eigenvalues, EK-FAC measures it: lambda_ij = mean over examples of (Q_S^T G Q_A)_ij
squared, with G summed over the example's tokens first (George et al. 2018; Grosse et al. 2023).
Layers that share an input share A, and its decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from headwater.curvature.sides import Covariance, eigenbasis, rotate, rotate_back
from headwater.engine.progress import Progress
from headwater.gradients.matrices import Layer, MatrixSink, slabs, wide

if TYPE_CHECKING:
    Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class LayerCurvature:
    """One layer's factors.

    Args:
        out, inn: eigenvectors of S and A, blocks of columns.
        values: eigenvalues of the layer's curvature, float [out, in + bias].
    """

    out: Sequence[torch.Tensor]
    inn: Sequence[torch.Tensor]
    values: torch.Tensor

    def turn(self, matrices: torch.Tensor) -> torch.Tensor:
        """Q_S^T G Q_A of gradients [..., out, in]."""
        half = rotate(matrices, self.inn)
        return rotate(half.transpose(-1, -2), self.out).transpose(-1, -2)

    def turn_back(self, matrices: torch.Tensor) -> torch.Tensor:
        """Q_S M Q_A^T: the inverse of `turn`."""
        half = rotate_back(matrices, self.inn)
        return rotate_back(half.transpose(-1, -2), self.out).transpose(-1, -2)

    def apply(self, matrices: torch.Tensor, function: Function) -> torch.Tensor:
        """f(F) of gradients [..., out, in], f taken of the eigenvalues."""
        turned = self.turn(matrices.to(self.values.dtype))
        return self.turn_back(turned * function(self.values)).contiguous()


class CovarianceSink(MatrixSink):
    """Sums a a^T for every input and d d^T for every layer, padding left out.

    `input_of` tells whose A a layer uses: that of the first layer with the same input.
    """

    def __init__(self, layers: Mapping[str, Layer], widest: int) -> None:
        super().__init__(layers)
        self.widest = widest
        self.inn: dict[str, Covariance] = {}
        self.out: dict[str, Covariance] = {}
        self.input_of: dict[str, str] = {}
        self.examples = self._batch = 0

    def joint(self, names: Sequence[str], a: torch.Tensor) -> Any:
        """A += sum a a^T, once for the layers that share the input."""
        leader = names[0]
        for name in names:
            self.input_of[name] = leader
        self._into(self.inn, leader, a).add(self.real(a))
        return a

    def layer(self, layer: Layer, kept: Any, d: torch.Tensor) -> None:
        """S += sum d d^T."""
        self._into(self.out, layer.name, d).add(self.real(d))
        self._batch = len(d)

    def close(self) -> None:
        """End of a batch."""
        super().close()
        self.examples += self._batch

    def _into(self, held: dict[str, Covariance], name: str, x: torch.Tensor) -> Covariance:
        if name not in held:
            held[name] = Covariance(x.shape[-1], self.widest, wide(x.dtype), x.device)
        return held[name]


@dataclass
class Eigenbases:
    """Eigenvectors of every side with K-FAC's own eigenvalues; layers may share an input side.

    Args:
        out, inn: by layer; blocks of columns. values: K-FAC's lambda [out, in], float.
    """

    out: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    inn: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    values: dict[str, torch.Tensor] = field(default_factory=dict)


def decompose(sums: CovarianceSink, examples: int) -> Eigenbases:
    """Eigenbases of all layers; the sums are let go as they are used.

    K-FAC's eigenvalues are those of (S / examples) kron (A / tokens): the mean over examples of a
    sum over tokens, were tokens and sides independent.
    """
    made = Eigenbases()
    sides = {f"the input of {name}": side for name, side in sums.inn.items()}
    sides |= {f"the output gradient of {name}": side for name, side in sums.out.items()}
    found = _eigenbases(sides)
    for name in sums.out:
        leader = sums.input_of[name]
        made.inn[name], inputs = found[f"the input of {leader}"]
        made.out[name], outputs = found[f"the output gradient of {name}"]
        outer = torch.outer(outputs / max(examples, 1), inputs / max(sums.inn[leader].count, 1))
        made.values[name] = outer.to(made.out[name][0].dtype)
    return made


Decomposed = tuple[list[torch.Tensor], torch.Tensor]


def _eigenbases(sides: Mapping[str, Covariance]) -> dict[str, Decomposed]:
    """Eigenvectors and eigenvalues of each side, several sides at a time.

    Half of a decomposition runs at the speed of memory and gains nothing from threads of its own;
    side by side, one thread each, they take nearly all of every core.
    """
    threads = torch.get_num_threads()

    def one(name: str) -> Decomposed:
        done = eigenbasis(name, sides[name].sums)
        sides[name].sums.clear()
        progress.advance()
        return done

    torch.set_num_threads(1)
    try:
        with (
            Progress("eigenbases", len(sides), "matrices") as progress,
            ThreadPoolExecutor(threads) as pool,
        ):
            return dict(zip(sides, pool.map(one, sides), strict=True))
    finally:
        torch.set_num_threads(threads)


class EigenvalueSink(MatrixSink):
    """Sums (Q_S^T G Q_A)^2 over examples, by layer."""

    def __init__(self, layers: Mapping[str, Layer], bases: Eigenbases) -> None:
        super().__init__(layers)
        self.bases = bases
        self.total: dict[str, torch.Tensor] = {}

    def joint(self, names: Sequence[str], a: torch.Tensor) -> torch.Tensor:
        """Q_A^T a, once for the layers that share the input."""
        basis = self.bases.inn[names[0]]
        return rotate(a.to(basis[0].dtype), basis)

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """total += sum over examples of (sum_t d' a'^T)^2."""
        basis = self.bases.out[layer.name]
        turned = rotate(d.to(basis[0].dtype), basis)
        for part in slabs(len(d), layer.rows, layer.columns, turned.element_size()):
            made = torch.bmm(turned[part].transpose(1, 2), kept[part]).square_().sum(dim=0)
            held = self.total.get(layer.name)
            self.total[layer.name] = made if held is None else held.add_(made)
