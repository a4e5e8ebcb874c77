"""Exact inner products of stored features with directions: streaming, in bounded memory.

A few queries over fp16 are one matrix-vector product at the speed of memory. Many over int8 are
integer matrix products band by band, each scaled once as it is added up: the integers are exact, so
the result does not depend on how rows are grouped. Rows of rank c go by their factors
(`low_rank.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headwater.gradients.features import stored_rank
from headwater.index.encoding import bands
from headwater.index.low_rank import LowRankProducts

if TYPE_CHECKING:
    from headwater.gradients.layout import Block

FEW = 4  # queries up to which fp16 goes through matrix-vector products
ROWS = 1024  # rows taken at a time
HALF_COLUMNS = 32768  # of an fp16 product: no entry exceeds 1, so no sum exceeds 65,504
INT_COLUMNS = 131072  # of an int8 product; beyond 133,144 its int32 sums would wrap


@dataclass(frozen=True)
class Directions:
    """Query-side vectors in the stored coordinates.

    Args:
        w: float32 [queries, size]. blocks: of the layout. chosen: numbers of the blocks that
            take part; the others count as zero.
    """

    w: torch.Tensor
    blocks: Sequence[Block]
    chosen: Sequence[int]

    @property
    def whole(self) -> bool:
        """Whether every block takes part."""
        return len(self.chosen) == len(self.blocks)


class Products:
    """`<u_z, v_q>` for the rows of stored features; made once for many shards."""

    def __init__(self, directions: Directions, storage: str) -> None:
        self.directions, self.storage = directions, storage
        w = directions.w
        if not directions.whole:
            kept = torch.zeros_like(w)
            for number in directions.chosen:
                part = directions.blocks[number].part
                kept[:, part] = w[:, part]
            w = kept
        self.w = w
        self.count = len(w)
        self._halves = [_half(row) for row in w] if storage == "float16" else []
        self._integers = self._quantised() if storage == "int8" else []
        rank = stored_rank(storage)
        self._factors = None if rank is None else LowRankProducts(directions.blocks, w, rank)

    def _quantised(self) -> list[tuple[int, slice, torch.Tensor, torch.Tensor]]:
        """Per band that takes part: number, columns, int8 [d, queries padded to 8], scale."""
        padded = max(8, -(-self.count // 8) * 8)
        result: list[tuple[int, slice, torch.Tensor, torch.Tensor]] = []
        for number, part in enumerate(bands(self.directions.blocks)):
            w = self.w[:, part]
            top = w.abs().amax(dim=1)
            if not bool(top.any()):
                continue
            scale = top.clamp(min=1e-30) / 127
            q = torch.zeros((w.shape[1], padded), dtype=torch.int8)
            q[:, : self.count] = (w / scale[:, None]).round_().to(torch.int8).T
            wide = torch.zeros(padded)
            wide[: self.count] = scale
            result.append((number, part, q, wide))
        return result

    def rows(self, u: torch.Tensor, scale: torch.Tensor | None) -> Iterator[torch.Tensor]:
        """Products of stored rows u [n, size], `ROWS` at a time: float32 [m, queries] each."""
        for start in range(0, len(u), ROWS):
            part = slice(start, min(start + ROWS, len(u)))
            yield self.some(u[part], None if scale is None else scale[part])

    def some(self, u: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        """Products of these rows, float32 [m, queries]."""
        if self.storage == "int8" and scale is not None:
            return self._int8(u, scale)
        if self.storage == "float16" and scale is not None:
            return self._float16(u) * scale
        if self._factors is not None and scale is not None:
            return self._factors.some(u, scale)
        return u.float() @ self.w.T

    def _float16(self, u: torch.Tensor) -> torch.Tensor:
        if self.count > FEW:
            return u.float() @ self.w.T
        total = torch.zeros((len(u), self.count))
        for number, (half, back) in enumerate(self._halves):
            for start in range(0, len(half), HALF_COLUMNS):
                part = slice(start, start + HALF_COLUMNS)
                total[:, number] += torch.mv(u[:, part], half[part]).float() * back
        return total

    def _int8(self, u: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        rows = len(u)
        if rows < 17:  # the integer kernel wants more rows than that
            u = torch.cat([u, u.new_zeros((17 - rows, u.shape[1]))])
            scale = torch.cat([scale, scale.new_zeros((17 - rows, scale.shape[1]))])
        padded = max(8, -(-self.count // 8) * 8)
        total = torch.zeros((len(u), padded))
        scaled = torch.empty_like(total)
        for number, part, q, back in self._integers:
            for start in range(0, len(q), INT_COLUMNS):
                end = min(start + INT_COLUMNS, len(q))
                rows_part = u[:, part.start + start : part.start + end]
                product = torch._int_mm(rows_part, q[start:end])  # pyright: ignore
                torch.mul(product, back, out=scaled)
                total.addcmul_(scaled, scale[:, number, None])
        return total[:rows, : self.count]


def _half(row: torch.Tensor) -> tuple[torch.Tensor, float]:
    """A direction in fp16 and the factor taken out of it, so that nothing over- or underflows."""
    top = float(row.abs().max().clamp(min=1e-30))
    return (row / top).half(), top
