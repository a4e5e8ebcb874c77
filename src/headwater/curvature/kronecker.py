"""Kronecker-factored curvature of layers: K-FAC, and EK-FAC's eigenvalues corrected in its basis.

    F  ~=  (Q_A kron Q_S) diag(lambda) (Q_A kron Q_S)^T,      G -> Q_S f(lambda * ...) Q_A^T

A = sum a a^T and S = sum d d^T over tokens; Q_A and Q_S are their eigenvectors. K-FAC takes lambda
from their eigenvalues, EK-FAC measures it: lambda_ij = mean over examples of (Q_S^T G Q_A)_ij
squared, with G summed over the example's tokens first (George et al. 2018; Grosse et al. 2023).
Layers that share an input share A, and its decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headwater.curvature.sides import (
    Covariance,
    eigenbasis,
    rotate,
    rotate_back,
    turn_rows,
    turn_rows_back,
)
from headwater.curvature.turned import Eigenbases
from headwater.engine.progress import Progress
from headwater.gradients.matrices import Layer, MatrixSink, wide

if TYPE_CHECKING:
    Function = Callable[[torch.Tensor], torch.Tensor]

DECOMPOSED_BYTES = 2 << 30  # of the matrices that are decomposed at a time, with what that takes
COPIES = 4  # of a matrix: itself, its eigenvectors, and twice that to work in


@dataclass
class LayerCurvature:
    """One layer's factors.

    Args:
        out, inn: eigenvectors of S and A, blocks of columns; none = the layer's own coordinates.
        values: eigenvalues of the layer's curvature, float [out, in + bias].
    """

    out: Sequence[torch.Tensor]
    inn: Sequence[torch.Tensor]
    values: torch.Tensor

    def turn(self, matrices: torch.Tensor) -> torch.Tensor:
        """Q_S^T G Q_A of gradients [..., out, in]."""
        if not self.out:
            return matrices.clone()
        return turn_rows(rotate(matrices, self.inn), self.out)

    def turn_back(self, matrices: torch.Tensor) -> torch.Tensor:
        """Q_S M Q_A^T: the inverse of `turn`."""
        if not self.out:
            return matrices.clone()
        return rotate_back(turn_rows_back(matrices, self.out), self.inn)

    def apply(self, matrices: torch.Tensor, function: Function) -> torch.Tensor:
        """f(F) of gradients [..., out, in], f taken of the eigenvalues.

        One gradient at a time: of many, each of the four products would be a copy of them all.
        """
        scale = function(self.values)
        made = torch.empty(matrices.shape, dtype=scale.dtype, device=scale.device)
        rows, columns = self.values.shape
        for one, out in zip(
            matrices.reshape(-1, rows, columns), made.view(-1, rows, columns), strict=True
        ):
            out.copy_(self.turn_back(self.turn(one.to(scale.dtype)).mul_(scale)))
        return made


def uncurved(layer: Layer, like: torch.Tensor) -> LayerCurvature:
    """Of a layer that no example reached: no curvature in any direction."""
    return LayerCurvature((), (), like.new_zeros(()).expand(layer.rows, layer.columns))


def bases_of(curvature: Mapping[str, LayerCurvature]) -> Eigenbases:
    """The eigenvectors of all layers."""
    return Eigenbases(
        {name: one.out for name, one in curvature.items()},
        {name: one.inn for name, one in curvature.items()},
    )


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

    def tensors(self) -> dict[str, torch.Tensor]:
        """The sums by name, and how many examples and tokens are in them."""
        made = {"examples": torch.tensor([self.examples])}
        for name, leader in self.input_of.items():
            made[f"input_of.{name}"] = torch.tensor(list(leader.encode()), dtype=torch.int32)
        for kind, sides in (("inn", self.inn), ("out", self.out)):
            for name, side in sides.items():
                made[f"count.{kind}.{name}"] = torch.tensor([side.count])
                for number, panel in enumerate(side.panels):
                    made[f"{kind}.{name}.{number}"] = panel
        return made

    def _into(self, held: dict[str, Covariance], name: str, x: torch.Tensor) -> Covariance:
        if name not in held:
            held[name] = Covariance(x.shape[-1], self.widest, wide(x.dtype), x.device)
        return held[name]


@dataclass
class Side:
    """A side that waits to be decomposed.

    Args:
        name: for errors. width: of its widest block.
        blocks: reads them, float64 [n, n], one after the other. dtype: of the eigenvectors.
    """

    name: str
    width: int
    blocks: Callable[[], Iterator[torch.Tensor]]
    dtype: torch.dtype


Decomposed = tuple[list[torch.Tensor], torch.Tensor]


def decompose(sides: Mapping[str, Side]) -> dict[str, Decomposed]:
    """Eigenvectors and eigenvalues of each side, as many sides at a time as memory lets.

    Half of a decomposition runs at the speed of memory and gains nothing from threads of its own;
    side by side, one thread each, they take nearly all of every core.
    """
    threads = torch.get_num_threads()
    made: dict[str, Decomposed] = {}

    def one(key: str) -> Decomposed:
        side = sides[key]
        return eigenbasis(side.name, side.blocks(), side.dtype)

    try:
        with Progress("eigenbases", len(sides), "matrices") as progress:
            for width in sorted({side.width for side in sides.values()}, reverse=True):
                keys = [key for key, side in sides.items() if side.width == width]
                each = COPIES * 8 * width**2
                together = min(threads, len(keys), max(1, DECOMPOSED_BYTES // each))
                torch.set_num_threads(max(1, threads // together))
                with ThreadPoolExecutor(together) as pool:
                    waiting = {key: pool.submit(one, key) for key in keys}
                    try:
                        for key, done in waiting.items():
                            made[key] = done.result()
                            progress.advance()  # here: a thread of the pool has no watcher
                    except BaseException:
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise
    finally:
        torch.set_num_threads(threads)
    return made
