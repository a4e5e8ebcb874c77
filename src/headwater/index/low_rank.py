"""Rank-c storage: each block of a feature vector as c pairs of vectors in int8 (LoRIF, 2026).

A block is a matrix, and an example's gradient is a sum over its tokens of outer products, which a
few singular vectors carry most of. `rankC` storage keeps the C leading pairs: C * (rows + columns)
numbers instead of rows * columns. Each pair's vectors are int8 with one scale, their product's:
beside what truncation drops, that rounding is nothing. A pair is taken from what the ones before
it, rounded as they are, leave over, so later pairs make up for the rounding of earlier ones.
Blocks whose pairs would take more room than their numbers (vectors, small heads) are kept whole,
in int8 with a scale of their own. All in the features' own coordinates.

A row of `u` holds the blocks in order: whole numbers, or the C left vectors and then the C right
ones. A row of `scale` holds a number for each whole block and C for each of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from headwater.gradients.layout import Block

SCALE = 4  # bytes
SQUARINGS = 6  # of a Gram matrix: as good as 64 power iterations, in 6 matrix products
PIECE = 1 << 18  # floats of an intermediate result of a scan: what a core's own cache holds
FEW = 32  # queries times pairs up to which blocks are not written out (measured)


@dataclass(frozen=True)
class Place:
    """Where a block's numbers are in a row of `u` and of `scale`; `pairs` is 0 for a whole one."""

    block: Block
    start: int
    scale: int
    pairs: int

    @property
    def numbers(self) -> int:
        """Stored numbers of the block."""
        if not self.pairs:
            return self.block.size
        return self.pairs * (self.block.rows + self.block.columns)

    @property
    def scales(self) -> slice:
        """The block's columns of `scale`."""
        return slice(self.scale, self.scale + max(self.pairs, 1))

    def whole(self, u: torch.Tensor) -> torch.Tensor:
        """The numbers of a block that is kept whole, [n, size]."""
        return u[:, self.start : self.start + self.numbers]

    def factors(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Left vectors [n, pairs, rows] and right ones [n, pairs, columns] of a block."""
        middle = self.start + self.pairs * self.block.rows
        left, right = u[:, self.start : middle], u[:, middle : self.start + self.numbers]
        return left.unflatten(1, (self.pairs, -1)), right.unflatten(1, (self.pairs, -1))


def places(blocks: Sequence[Block], rank: int) -> list[Place]:
    """Where each block is stored under this rank."""
    made: list[Place] = []
    start = scale = 0
    for block in blocks:
        place = Place(block, start, scale, 0)
        if rank * (block.rows + block.columns + SCALE) < block.size + SCALE:
            place = Place(block, start, scale, rank)
        made.append(place)
        start, scale = start + place.numbers, place.scales.stop
    return made


def widths(blocks: Sequence[Block], rank: int) -> tuple[int, int]:
    """Columns of `u` and of `scale`."""
    last = places(blocks, rank)[-1]
    return last.start + last.numbers, last.scales.stop


def leading(matrices: torch.Tensor) -> torch.Tensor:
    """A unit left vector of the largest singular value of each matrix, [n, rows].

    Zero for a matrix of zeros. Where the largest values are (nearly) equal it is some vector of
    their span, which is as good an approximation.
    """
    top = matrices.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    g = matrices / top
    tall = g.shape[1] > g.shape[2]
    gram = g.transpose(1, 2) @ g if tall else g @ g.transpose(1, 2)
    for _ in range(SQUARINGS):
        trace = gram.diagonal(dim1=1, dim2=2).sum(dim=1).clamp(min=1e-30)
        gram = gram / trace[:, None, None]
        gram = gram @ gram
    column = gram.diagonal(dim1=1, dim2=2).argmax(dim=1)
    found = gram.gather(2, column[:, None, None].expand(-1, gram.shape[1], 1))
    found = found / found.norm(dim=1, keepdim=True).clamp(min=1e-30)
    found = g @ found if tall else g @ (g.transpose(1, 2) @ found)
    return (found / found.norm(dim=1, keepdim=True).clamp(min=1e-30))[:, :, 0]


def encode(
    blocks: Sequence[Block], u: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows u [n, size] as stored: `u` int8 and `scale` float32."""
    numbers, scales = widths(blocks, rank)
    stored = torch.zeros((len(u), numbers), dtype=torch.int8)
    scale = torch.zeros((len(u), scales))
    for place in places(blocks, rank):
        rows = u[:, place.block.part].float()
        if not place.pairs:
            whole, top = _rounded(rows)
            place.whole(stored).copy_(whole)
            scale[:, place.scale] = top
            continue
        left, right = place.factors(stored)
        rest = rows.unflatten(1, (place.block.rows, place.block.columns)).clone()
        for pair in range(place.pairs):
            a, _ = _rounded(leading(rest))
            # The best right vector for the left one as it was rounded.
            exact = (rest.transpose(1, 2) @ a[:, :, None])[:, :, 0]
            exact = exact / (a * a).sum(dim=1, keepdim=True).clamp(min=1)
            b, size = _rounded(exact)
            left[:, pair], right[:, pair] = a.to(torch.int8), b.to(torch.int8)
            scale[:, place.scale + pair] = size
            rest -= (a * size[:, None])[:, :, None] * b[:, None, :]
    return stored, scale


def _rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows x [n, d] in whole numbers from -127 to 127, and what to multiply each row by."""
    top = x.abs().amax(dim=1).clamp(min=1e-30) / 127
    return (x / top[:, None]).round_(), top


def decode(
    blocks: Sequence[Block], stored: torch.Tensor, scale: torch.Tensor, rank: int
) -> torch.Tensor:
    """Stored rows written out, float32 [n, size]."""
    out = torch.empty((len(stored), sum(block.size for block in blocks)))
    for place in places(blocks, rank):
        out[:, place.block.part] = _written_out(place, stored, scale)
    return out


def _written_out(place: Place, stored: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """A block of stored rows, float32 [n, block size]."""
    size = scale[:, place.scales]
    if not place.pairs:
        return place.whole(stored) * size
    left, right = place.factors(stored)
    return torch.bmm((left * size[:, :, None]).transpose(1, 2), right.float()).flatten(1)


class LowRankProducts:
    """`<u_z, v_q>` of stored rows with directions; blocks without direction are left out.

    A pair is multiplied by a direction without writing its block out: `left^T W right`. For many
    queries writing it out is cheaper, since that is done once for all of them.
    """

    def __init__(self, blocks: Sequence[Block], w: torch.Tensor, rank: int) -> None:
        """w: float32 [queries, size]."""
        self.count = len(w)
        self._parts = [
            (place, self._ready(place, w[:, place.block.part]))
            for place in places(blocks, rank)
            if bool(w[:, place.block.part].any())
        ]

    def _by_factors(self, place: Place) -> bool:
        return 0 < self.count * place.pairs <= FEW

    def _ready(self, place: Place, w: torch.Tensor) -> torch.Tensor:
        """A block's directions: [size, queries], or [longer side, queries x shorter side]."""
        if not self._by_factors(place):
            return w.T.contiguous()
        turned = w.unflatten(1, (place.block.rows, place.block.columns))
        if place.block.rows < place.block.columns:
            turned = turned.transpose(1, 2)
        return turned.transpose(0, 1).flatten(1).contiguous()

    def some(self, u: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Products of these rows, float32 [m, queries]."""
        total = torch.zeros((len(u), self.count))
        for place, w in self._parts:
            factored = self._by_factors(place)
            width = place.pairs * w.shape[1] if factored else place.block.size
            step = max(1, PIECE // width)
            for start in range(0, len(u), step):
                rows = slice(start, start + step)
                if factored:
                    total[rows] += self._pairs(place, w, u[rows], scale[rows])
                else:
                    total[rows] += _written_out(place, u[rows], scale[rows]) @ w
        return total

    def _pairs(
        self, place: Place, w: torch.Tensor, u: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """Products of a block by its pairs: the longer side first, so that little is left."""
        long, short = place.factors(u)
        if place.block.rows < place.block.columns:
            long, short = short, long
        half = (long.float() @ w).unflatten(2, (self.count, -1))  # [m, pairs, queries, shorter]
        other = short * scale[:, place.scales, None]
        return (half @ other[:, :, :, None])[:, :, :, 0].sum(dim=1)
