"""How features are kept on disk: int8, fp16 or fp32, and the basis in which rounding is harmless.

A method that whitens magnifies quiet directions, and with them the rounding error there. So int8
and fp16 are taken in a basis that is white already: per block, the eigenvectors of the calibration
sample's autocorrelation, scaled by `eigenvalue^-1/2`, `z = D V^T u`. One scale per example and block
(int8) or per example (fp16) makes up for heavy tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.gradients.layout import Block

WHITENED_LIMIT = 4096  # dimensions; wider blocks are stored in their own coordinates
RIDGE = 0.01  # of a block's mean eigenvalue, so that unseen directions are not blown up


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
    def whitened(cls, blocks: Sequence[Block], sample: torch.Tensor) -> Basis:
        """From a calibration sample of features, float [n, size]."""
        matrices: list[torch.Tensor | None] = []
        inverses: list[torch.Tensor | None] = []
        for block in blocks:
            if block.size > WHITENED_LIMIT or len(sample) < 2:
                matrices.append(None)
                inverses.append(None)
                continue
            u = sample[:, block.part].double()
            values, vectors = torch.linalg.eigh(u.T @ u / len(u))
            values = values.clamp(min=0)
            values = values + RIDGE * values.mean() + 1e-30
            matrices.append((vectors / values.sqrt()).T.float().contiguous())
            inverses.append((vectors * values.sqrt()).float().contiguous())
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
        storage: "int8", "float16" or "float32".

    Returns:
        `u` in the storage's dtype [n, size]; `norm` float32 [n, blocks], of the exact gradient;
        `scale` float32 [n, blocks] for int8, [n, 1] for float16, absent for float32.
    """
    norms = torch.stack([u[:, block.part].norm(dim=1) for block in blocks], dim=1)
    result = {"norm": norms.float()}
    if storage == "float32":
        return {"u": u.float().contiguous(), **result}
    z = basis.forward(blocks, u)
    if storage == "float16":
        scale = z.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 1024
        return {"u": (z / scale).half(), "scale": scale, **result}
    tops = [z[:, block.part].abs().amax(dim=1) for block in blocks]
    scale = torch.stack(tops, dim=1).clamp(min=1e-30) / 127
    stored = torch.empty(z.shape, dtype=torch.int8)
    for number, block in enumerate(blocks):
        stored[:, block.part] = (z[:, block.part] / scale[:, number, None]).round_().to(torch.int8)
    return {"u": stored, "scale": scale, **result}


def decode(
    blocks: Sequence[Block], basis: Basis, stored: torch.Tensor, scale: torch.Tensor | None
) -> torch.Tensor:
    """Features in their own coordinates, float32 [n, size]."""
    return basis.backward(blocks, coordinates(blocks, stored, scale)) if scale is not None else (
        stored.float()
    )


def coordinates(
    blocks: Sequence[Block], stored: torch.Tensor, scale: torch.Tensor | None
) -> torch.Tensor:
    """Stored numbers times their scales, float32 [n, size], still in the stored basis."""
    z = stored.float()
    if scale is None:
        return z
    if scale.shape[1] == 1:
        return z.mul_(scale)
    for number, block in enumerate(blocks):
        z[:, block.part] *= scale[:, number, None]
    return z


def bytes_per_row(size: int, blocks: int, storage: str) -> int:
    """Feature bytes of one row: numbers, scales and norms."""
    width = {"int8": 1, "float16": 2, "float32": 4}[storage]
    scales = {"int8": blocks, "float16": 1, "float32": 0}[storage]
    return size * width + 4 * (scales + blocks)


def as_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A CPU tensor as numpy, without a copy."""
    return tensor.detach().cpu().numpy()
