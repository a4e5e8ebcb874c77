"""R = mean of u u^T, block by block: gathered while features pass, factored when a method asks.

`|R^-1/2 u|^2 = u^T R^-1 u`, so one Cholesky factorisation of each block serves both the whitened
norm and the whitened inner product; no matrix square root is ever formed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.curvature.metric import Root
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.gradients.features import stored_rank

if TYPE_CHECKING:
    from headwater.gradients.layout import Block

WIDEST = 8192  # dimensions of a block whose autocorrelation is gathered (0.5 GB in float64)
WIDEST_LOW_RANK = 1024  # the same under low-rank storage, which is meant for wide blocks
FLUSH = 256  # rows summed in float32 before they are added up in float64


def widest_gathered(storage: str) -> int:
    """Dimensions of the widest block whose autocorrelation is gathered with such features."""
    return WIDEST if stored_rank(storage) is None else min(WIDEST, WIDEST_LOW_RANK)


class Autocorrelation:
    """Running sums of u u^T per block, float64 [d, d]; None for blocks wider than `widest`."""

    def __init__(self, blocks: Sequence[Block], widest: int | None = None) -> None:
        """`widest`: see `widest_gathered`; None = `WIDEST`."""
        limit = WIDEST if widest is None else widest
        self.blocks = tuple(blocks)
        self.count = 0
        self.sums: list[torch.Tensor | None] = [
            torch.zeros((b.size, b.size), dtype=torch.float64) if b.size <= limit else None
            for b in blocks
        ]

    def add(self, u: torch.Tensor) -> None:
        """Add rows u [n, size]; a multiple of `FLUSH` rows at a time is fastest."""
        self.count += len(u)
        for start in range(0, len(u), FLUSH):
            rows = u[start : start + FLUSH]
            for block, total in zip(self.blocks, self.sums, strict=True):
                if total is not None:
                    part = rows[:, block.part]
                    total += part.T @ part

    def merge(self, other: Autocorrelation) -> None:
        """Add another's sums; the order of merging is the caller's to keep."""
        self.count += other.count
        for mine, theirs in zip(self.sums, other.sums, strict=True):
            if mine is not None and theirs is not None:
                mine += theirs

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a safetensors file, by block number."""
        named = {f"sum.{i}": s for i, s in enumerate(self.sums) if s is not None}
        return named | {"count": torch.tensor([self.count])}

    @classmethod
    def from_tensors(
        cls, blocks: Sequence[Block], tensors: dict[str, torch.Tensor]
    ) -> Autocorrelation:
        """The inverse of `tensors`."""
        made = cls.__new__(cls)
        made.blocks = tuple(blocks)
        made.count = int(tensors["count"][0])
        made.sums = [tensors.get(f"sum.{i}") for i in range(len(blocks))]
        return made

    def means(self) -> list[torch.Tensor | None]:
        """R of each block, float64 [d, d]."""
        return [None if s is None else s / max(self.count, 1) for s in self.sums]


@dataclass(frozen=True)
class Inverse:
    """`(R + c I)^-1` per block by its Cholesky factor L (float64), R + c I = L L^T."""

    factors: tuple[torch.Tensor, ...]
    digest: str

    def apply(self, blocks: Sequence[Block], v: torch.Tensor) -> torch.Tensor:
        """(R + c I)^-1 v for rows v [n, size], float64."""
        out = torch.empty(v.shape, dtype=torch.float64)
        for block, factor in zip(blocks, self.factors, strict=True):
            part = v[:, block.part].double().T
            out[:, block.part] = torch.cholesky_solve(part, factor).T
        return out

    def roots(self, backs: Sequence[torch.Tensor | None]) -> list[Root]:
        """See `Metric`: by L^-1."""
        turns = [
            (whitener if back is None else whitener @ back.double()).float()
            for whitener, back in zip(self.whiteners(), backs, strict=True)
        ]
        return [lambda z, turn=turn: z @ turn.T for turn in turns]

    def whiteners(self) -> list[torch.Tensor]:
        """L^-1 of each block, float64 [d, d]: `|L^-1 u|` is the whitened norm."""
        return [
            torch.linalg.solve_triangular(
                factor, torch.eye(len(factor), dtype=torch.float64), upper=False
            )
            for factor in self.factors
        ]


def inverse(
    names: Sequence[str], matrices: Sequence[torch.Tensor | None], damping: float
) -> Inverse:
    """Factor `R + damping * mean eigenvalue(R) * I` of each block.

    Args:
        names: of the blocks, for messages.
        matrices: R of each block, float64 [d, d].
        damping: relative to the block's mean eigenvalue.

    Raises:
        InputError: for a damping that is negative or not finite.
        NumericError: when a block's R was not gathered, is not finite, or stays singular.
    """
    if not 0 <= damping < math.inf:
        raise InputError("damping is out of range", expected="0 or more", found=damping)
    digest = hashlib.sha256(f"{damping!r}".encode())
    factors: list[torch.Tensor] = []
    with Progress("factoring the curvature", len(names), "blocks") as progress:
        for name, matrix in zip(names, matrices, strict=True):
            factors.append(_factor(name, matrix, damping))
            if matrix is not None:
                digest.update(matrix.numpy().tobytes())
            progress.advance()
    return Inverse(tuple(factors), digest.hexdigest()[:24])


def _factor(name: str, matrix: torch.Tensor | None, damping: float) -> torch.Tensor:
    """Cholesky factor of a block's damped R."""
    if matrix is None:
        raise NumericError(
            f"Block {name} is too wide for its autocorrelation",
            expected=f"at most {WIDEST} dimensions ({WIDEST_LOW_RANK} under low-rank storage)",
            do="use LoRIF, GradDot or GradCos, or build with a narrower projection",
        )
    if not bool(torch.isfinite(matrix).all()):
        raise NumericError(f"The autocorrelation of block {name} is not finite")
    mean = float(matrix.diagonal().mean())
    floor = damping * mean if mean > 0 else 1.0  # a block without any gradient stays zero
    damped = matrix + floor * torch.eye(len(matrix), dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed):
        raise NumericError(
            f"The autocorrelation of block {name} is singular",
            expected=f"at least {len(matrix)} independent examples, or damping",
            found=f"damping {damping}",
            do="use a positive damping (0.1 is the default)",
        )
    return factor


def pooled_spectrum(matrices: Sequence[torch.Tensor | None]) -> np.ndarray[Any, Any]:
    """Eigenvalues of all blocks together, descending, float64."""
    values: list[torch.Tensor] = []
    with Progress("spectrum of the curvature", len(matrices), "blocks") as progress:
        for matrix in matrices:
            if matrix is not None:
                values.append(torch.linalg.eigvalsh(matrix))
            progress.advance()
    joined = torch.cat(values).clamp(min=0).numpy()
    return np.sort(joined)[::-1].copy()
