"""The inverse of R by its leading eigenpairs, found while features stream past (LoRIF, 2026).

    (R + l I)^-1  ~  V diag(1 / (s + l)) V^T + (I - V V^T) / (t + l),      l = damping * mean of all

R itself is never formed, so blocks may be wide: randomised subspace iteration multiplies it by a
few vectors a pass over the rows. With t = 0 this is the paper's Woodbury identity. But l is far
below the eigenvalues just left out, whose directions then outweigh all that were kept, the more so
the more are kept; so t is the mean of those left out (of examples fewer than dimensions, only as
many as can be other than zero).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headwater.curvature.metric import Root
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress

if TYPE_CHECKING:
    from headwater.gradients.layout import Block

EXTRA = 8  # vectors beyond the rank that are carried along, for the last ones' precision
SINGULAR = 1e-12  # of the largest eigenvalue
Rows = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True)
class Eigenpairs:
    """Of each block's R: `values` [k] descending, `vectors` [d, k]; means of all d and of the rest.

    Blocks no wider than the vectors carried along have theirs from R itself, in float64.
    """

    names: tuple[str, ...]
    values: tuple[torch.Tensor, ...]
    vectors: tuple[torch.Tensor, ...]
    means: tuple[float, ...]
    rests: tuple[float, ...]

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a safetensors file, by block number."""
        values = {f"values.{i}": value for i, value in enumerate(self.values)}
        vectors = {f"vectors.{i}": v.contiguous() for i, v in enumerate(self.vectors)}
        means = {"means": self.means, "rests": self.rests}
        numbers = {n: torch.tensor(v, dtype=torch.float64) for n, v in means.items()}
        return values | vectors | numbers

    @classmethod
    def from_tensors(cls, names: Sequence[str], tensors: dict[str, torch.Tensor]) -> Eigenpairs:
        """The inverse of `tensors`; raises KeyError where some are missing."""
        return cls(
            tuple(names),
            tuple(tensors[f"values.{i}"] for i in range(len(names))),
            tuple(tensors[f"vectors.{i}"] for i in range(len(names))),
            tuple(tensors["means"].tolist()),
            tuple(tensors["rests"].tolist()),
        )


@dataclass(frozen=True)
class Sought:
    """How eigenpairs are sought: how many of a block, by how many passes, from which start."""

    rank: int
    passes: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("rank", "passes"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} is a count", expected="1 or more", found=getattr(self, name)
                )


def leading_eigenpairs(blocks: Sequence[Block], rows: Rows, count: int, how: Sought) -> Eigenpairs:
    """Leading eigenpairs of each block's `R = sum of u u^T / count`.

    Args:
        rows: gives the rows again for each pass, as pieces [n, size]; `count` of them count.

    Raises:
        NumericError: when a block's R is not finite.
    """
    generator = torch.Generator().manual_seed(how.seed)
    made = [_Sketch(block, how, generator) for block in blocks]
    passes = how.passes if any(not one.exact for one in made) else 1
    with Progress("eigenvectors of the curvature", passes * count, "examples") as progress:
        for number in range(passes):
            for u in rows():
                for one in made:
                    one.add(u, first=number == 0)
                progress.advance(len(u))
            for one in made:
                one.turn(count, last=number == passes - 1)
    return Eigenpairs(
        tuple(block.name for block in blocks),
        tuple(one.values for one in made),
        tuple(one.vectors for one in made),
        tuple(one.trace / max(count, 1) / one.block.size for one in made),
        tuple(one.rest(count) for one in made),
    )


class _Sketch:
    """A block's subspace: `R Q` for the orthonormal Q [d, k] of the pass before."""

    def __init__(self, block: Block, how: Sought, generator: torch.Generator) -> None:
        self.block, self.rank = block, min(how.rank, block.size)
        width = how.rank + EXTRA
        self.exact = block.size <= width
        self.trace = 0.0
        self.values = self.vectors = torch.zeros(0)
        shape = (block.size, min(width, block.size))
        self._total = torch.zeros(shape, dtype=torch.float64)
        self._q = torch.zeros(0)
        if not self.exact:
            self._q = torch.linalg.qr(torch.randn(shape, generator=generator))[0]

    def add(self, u: torch.Tensor, *, first: bool) -> None:
        """Add rows u [n, size]."""
        part = u[:, self.block.part]
        if first:
            self.trace += float(part.double().square().sum())
        if not self.exact:
            self._total += part.T @ (part @ self._q)
        elif first:
            part = part.double()
            self._total += part.T @ part

    def rest(self, count: int) -> float:
        """Mean of the eigenvalues that were left out, of those that may be other than zero."""
        others = min(count, self.block.size) - len(self.values)
        left = self.trace / max(count, 1) - float(self.values.sum())
        return max(0.0, left) / others if others > 0 else 0.0

    def turn(self, count: int, *, last: bool) -> None:
        """The end of a pass: the next Q, or the eigenpairs."""
        if not math.isfinite(self.trace):
            raise NumericError(f"The autocorrelation of block {self.block.name} is not finite")
        total = self._total / max(count, 1)
        if last and self.exact:
            values, vectors = torch.linalg.eigh(total)
            self.values = values.flip(0)[: self.rank].clamp(min=0)
            self.vectors = vectors.flip(1)[:, : self.rank].contiguous()
        elif last:
            # The singular pairs of R Q are closer to R's eigenpairs than those of Q^T R Q.
            vectors, values, _ = torch.linalg.svd(total, full_matrices=False)
            self.values = values[: self.rank]
            self.vectors = vectors[:, : self.rank].float().contiguous()
        elif not self.exact:
            self._q = torch.linalg.qr(total)[0].float()
            self._total.zero_()


@dataclass(frozen=True)
class TruncatedInverse:
    """`(R + l I)^-1` of each block with R cut down to its leading eigenpairs; a `Metric`."""

    pairs: Eigenpairs
    damping: tuple[float, ...]
    outside: tuple[float, ...]
    digest: str

    def apply(self, blocks: Sequence[Block], v: torch.Tensor) -> torch.Tensor:
        """M v for rows v [n, size], float64."""
        out = torch.empty(v.shape, dtype=torch.float64)
        for number, block in enumerate(blocks):
            part = v[:, block.part].double()
            vectors = self.pairs.vectors[number].double()
            inside = part @ vectors
            made = (inside / (self.pairs.values[number] + self.damping[number])) @ vectors.T
            if not self._whole(number):
                made += (part - inside @ vectors.T) / self.outside[number]
            out[:, block.part] = made
        return out

    def _whole(self, number: int) -> bool:
        """Whether all of a block's directions are among its eigenvectors."""
        return len(set(self.pairs.vectors[number].shape)) == 1

    def roots(self, backs: Sequence[torch.Tensor | None]) -> list[Root]:
        """See `Metric`: what lies within V and what lies outside, side by side."""
        return [self._root(number, back) for number, back in enumerate(backs)]

    def _root(self, number: int, back: torch.Tensor | None) -> Root:
        vectors = self.pairs.vectors[number].float()
        weights = (self.pairs.values[number] + self.damping[number]).rsqrt().float()
        outside = 0.0 if self._whole(number) else self.outside[number] ** -0.5

        def root(z: torch.Tensor) -> torch.Tensor:
            u = z if back is None else z @ back.T
            inside = u @ vectors
            if not outside:
                return inside * weights
            return torch.cat([inside * weights, (u - inside @ vectors.T) * outside], dim=1)

        return root


def truncated_inverse(
    pairs: Eigenpairs, damping: float, digest: str, *, rest: bool = True
) -> TruncatedInverse:
    """M from eigenpairs.

    Args:
        damping: relative to a block's mean eigenvalue. digest: names the pairs.
        rest: whether t is the mean of what was left out; False = 0, as in the paper.

    Raises:
        InputError: for a damping that is negative or not finite.
        NumericError: when M would be infinite somewhere.
    """
    if not 0 <= damping < math.inf:
        raise InputError("damping is out of range", expected="0 or more", found=damping)
    floors: list[float] = []
    outside: list[float] = []
    for number, (name, values, mean) in enumerate(
        zip(pairs.names, pairs.values, pairs.means, strict=True)
    ):
        floor = damping * mean if mean > 0 else 1.0  # a block without any gradient stays zero
        outer = floor + (pairs.rests[number] if rest else 0)
        whole = len(set(pairs.vectors[number].shape)) == 1
        least = min(floor + float(values.min()), math.inf if whole else outer)
        if not least > SINGULAR * float(values.max()):
            raise NumericError(
                f"The autocorrelation of block {name}, cut down to rank {len(values)}, is singular",
                expected="damping above 0",
                found=f"damping {damping}",
                do="use a positive damping (0.1 is the default)",
            )
        floors.append(floor)
        outside.append(outer)
    named = hashlib.sha256(f"truncated|{digest}|{damping!r}|{rest}".encode())
    return TruncatedInverse(pairs, tuple(floors), tuple(outside), named.hexdigest()[:24])
