"""How features are kept on disk: int8, fp16, fp32, rank c; the basis where rounding is harmless.

A method that whitens magnifies quiet directions, and with them the rounding error there; a plain
inner product lives in the loud ones. So int8 and fp16 are taken about half way: per block
`z = (R + ridge I)^-0.3 u`, with R from the calibration sample, which leaves both kinds of method
about the same precision (`benchmarks/scan.py --index` measures it). It also evens out the sizes of
blocks, so int8 numbers share a scale over a band of neighbouring blocks, wide enough for integer
matrix products to run at full speed; fp16 numbers share one per example. Storage by leading
singular vectors (`low_rank.py`) keeps its own coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headwater.gradients.features import stored_rank
from headwater.index import low_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.gradients.layout import Block

TURNED_LIMIT = 4096  # dimensions; wider blocks are stored in their own coordinates
BAND = 8192  # dimensions that share an int8 scale, unless a single block is wider
POWER = 0.3  # 1/2 would whiten; recall of plain inner products then suffers
RIDGE = 0.2  # of a block's mean eigenvalue: a small sample leaves most directions unseen


def bands(blocks: Sequence[Block]) -> list[slice]:
    """Runs of whole blocks of at most `BAND` dimensions (a wider block is a band of its own)."""
    made: list[slice] = []
    for block in blocks:
        part = block.part
        if made and part.stop - made[-1].start <= BAND:
            made[-1] = slice(made[-1].start, part.stop)
        else:
            made.append(part)
    return made


def _half_whitening(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(R + ridge I)^-POWER and its inverse, float32 [d, d], from rows u [n, d].

    By the singular vectors of the rows: where they are fewer than the dimensions, all the other
    directions have the ridge for eigenvalue, and no [d, d] decomposition is needed.
    """
    _, singular, v = torch.linalg.svd(u / len(u) ** 0.5, full_matrices=False)
    values = singular**2
    ridge = RIDGE * float(values.sum()) / u.shape[1] + 1e-30

    def power(exponent: float) -> torch.Tensor:
        seen = (values + ridge) ** exponent - ridge**exponent
        made = (v.T * seen) @ v
        made.diagonal().add_(ridge**exponent)
        return made.float().contiguous()

    return power(-POWER), power(POWER)


@dataclass(frozen=True)
class Basis:
    """Per block a matrix [d, d] with `z = matrix @ u` and its inverse; None = own coordinates."""

    matrices: tuple[torch.Tensor | None, ...]
    inverses: tuple[torch.Tensor | None, ...]

    @classmethod
    def identity(cls, blocks: Sequence[Block]) -> Basis:
        """No change of coordinates."""
        nothing = (None,) * len(blocks)
        return cls(nothing, nothing)

    @classmethod
    def half_whitened(cls, blocks: Sequence[Block], sample: torch.Tensor) -> Basis:
        """From a calibration sample of features, float [n, size]."""
        matrices: list[torch.Tensor | None] = []
        inverses: list[torch.Tensor | None] = []
        for block in blocks:
            if block.size > TURNED_LIMIT or len(sample) < 2:
                matrices.append(None)
                inverses.append(None)
                continue
            matrix, inverse = _half_whitening(sample[:, block.part].double())
            matrices.append(matrix)
            inverses.append(inverse)
        return cls(tuple(matrices), tuple(inverses))

    def forward(self, blocks: Sequence[Block], u: torch.Tensor) -> torch.Tensor:
        """u [n, size] -> z [n, size], float32."""
        return self._apply(blocks, u, self.matrices)

    def backward(self, blocks: Sequence[Block], z: torch.Tensor) -> torch.Tensor:
        """z [n, size] -> u [n, size], float32."""
        return self._apply(blocks, z, self.inverses)

    def direction(self, blocks: Sequence[Block], v: torch.Tensor) -> torch.Tensor:
        """v [n, size] -> w with `<u, v> = <z, w>`: `w = inverse^T v`."""
        turned = tuple(None if m is None else m.T for m in self.inverses)
        return self._apply(blocks, v, turned)

    def _apply(
        self, blocks: Sequence[Block], x: torch.Tensor, matrices: tuple[torch.Tensor | None, ...]
    ) -> torch.Tensor:
        if all(matrix is None for matrix in matrices):
            return x.float()
        out = torch.empty(x.shape, dtype=torch.float32)
        for block, matrix in zip(blocks, matrices, strict=True):
            part = x[:, block.part].float()
            out[:, block.part] = part if matrix is None else part @ matrix.T
        return out

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a safetensors file, by block number."""
        return {f"basis.{i}": m for i, m in enumerate(self.matrices) if m is not None} | {
            f"inverse.{i}": m for i, m in enumerate(self.inverses) if m is not None
        }

    @classmethod
    def from_tensors(cls, blocks: Sequence[Block], tensors: dict[str, torch.Tensor]) -> Basis:
        """The inverse of `tensors`."""
        numbers = range(len(blocks))
        return cls(
            tuple(tensors.get(f"basis.{i}") for i in numbers),
            tuple(tensors.get(f"inverse.{i}") for i in numbers),
        )


def encode(
    blocks: Sequence[Block], basis: Basis, u: torch.Tensor, storage: str
) -> dict[str, torch.Tensor]:
    """Features as stored.

    Args:
        u: float32 [n, size].
        storage: see `Features`.

    Returns:
        `u` in the storage's dtype [n, size] (rank c: int8, see `low_rank`); `norm` float32
        [n, blocks], of the exact gradient; `scale` float32 [n, bands] for int8, [n, 1] for
        float16, absent for float32.
    """
    norms = torch.stack([u[:, block.part].norm(dim=1) for block in blocks], dim=1)
    result = {"norm": norms.float()}
    if storage == "float32":
        return {"u": u.float().contiguous(), **result}
    rank = stored_rank(storage)
    if rank is not None:
        stored, scale = low_rank.encode(blocks, u, rank)
        return {"u": stored, "scale": scale, **result}
    z = basis.forward(blocks, u)
    if storage == "float16":
        scale = z.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
        return {"u": (z / scale).half(), "scale": scale, **result}
    parts = bands(blocks)
    tops = [z[:, part].abs().amax(dim=1) for part in parts]
    scale = torch.stack(tops, dim=1).clamp(min=1e-30) / 127
    stored = torch.empty(z.shape, dtype=torch.int8)
    for number, part in enumerate(parts):
        stored[:, part] = (z[:, part] / scale[:, number, None]).round_().to(torch.int8)
    return {"u": stored, "scale": scale, **result}


def decode(
    blocks: Sequence[Block],
    basis: Basis,
    stored: torch.Tensor,
    scale: torch.Tensor | None,
    storage: str,
) -> torch.Tensor:
    """Features in their own coordinates, float32 [n, size]."""
    return basis.backward(blocks, coordinates(blocks, stored, scale, storage))


def coordinates(
    blocks: Sequence[Block], stored: torch.Tensor, scale: torch.Tensor | None, storage: str
) -> torch.Tensor:
    """Stored numbers times their scales, float32 [n, size], still in the stored basis."""
    if scale is None:
        return stored.float()
    rank = stored_rank(storage)
    if rank is not None:
        return low_rank.decode(blocks, stored, scale, rank)
    z = stored.float()
    if scale.shape[1] == 1:
        return z.mul_(scale)
    for number, part in enumerate(bands(blocks)):
        z[:, part] *= scale[:, number, None]
    return z


def stored_bytes(blocks: Sequence[Block], storage: str) -> int:
    """Bytes of the stored numbers of one row."""
    rank = stored_rank(storage)
    if rank is not None:
        return low_rank.widths(blocks, rank)[0]
    size = sum(block.size for block in blocks)
    return size * {"int8": 1, "float16": 2, "float32": 4}[storage]


def bytes_per_row(blocks: Sequence[Block], storage: str) -> int:
    """Feature bytes of one row: numbers, scales and norms."""
    rank = stored_rank(storage)
    if rank is not None:
        scales = low_rank.widths(blocks, rank)[1]
    else:
        scales = {"int8": len(bands(blocks)), "float16": 1, "float32": 0}[storage]
    return stored_bytes(blocks, storage) + 4 * (scales + len(blocks))
