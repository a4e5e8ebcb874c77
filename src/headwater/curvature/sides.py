"""One side of a Kronecker factor: a symmetric matrix, in diagonal blocks where it is too wide.

A vocabulary-wide side as one matrix would need its square in memory and its cube in time. Split
into blocks of at most `widest`, it loses what its distant coordinates have in common. Of a block
only the lower triangle is summed, in panels of rows: five eighths of the work and of the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch

from headwater.engine.errors import NumericError

WIDEST = 8192  # columns of a block
PANELS = 4  # of a block; more save little, and make the products thin
NARROW = 128  # columns of a block that is one panel

Rows = tuple[int, int]  # of a panel, within its block


def block_slices(width: int, widest: int = WIDEST) -> list[slice]:
    """Slices of at most `widest` columns, as equal as can be."""
    count = max(1, -(-width // widest))
    edges = [width * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def panel_rows(width: int) -> list[Rows]:
    """The rows of each panel of a block; it reaches from the first column to its last row's."""
    count = PANELS if width > NARROW else 1
    return list(itertools.pairwise([width * i // count for i in range(count + 1)]))


class Covariance:
    """Sums of outer products of rows: the lower triangle, by blocks and panels.

    Args:
        width: of the rows. widest: columns of a block.
        dtype, device: of the sums.
    """

    def __init__(
        self, width: int, widest: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.blocks = block_slices(width, widest)
        self.panels = [
            torch.zeros((b - a, b), dtype=dtype, device=device)
            for block in self.blocks
            for a, b in panel_rows(block.stop - block.start)
        ]
        self.count = 0

    def add(self, rows: torch.Tensor) -> None:
        """Take in rows [n, width]."""
        rows = rows.to(self.panels[0].dtype)
        panels = iter(self.panels)
        for block in self.blocks:
            x = rows[:, block]
            for a, b in panel_rows(x.shape[1]):
                next(panels).addmm_(x[:, a:b].T, x[:, :b])
        self.count += len(rows)


def lower_triangle(panels: Sequence[torch.Tensor]) -> torch.Tensor:
    """A block [n, n] of these panels, zero above the diagonal's panels."""
    width = panels[-1].shape[1]
    matrix = panels[0].new_zeros((width, width))
    for (a, b), panel in zip(panel_rows(width), panels, strict=True):
        matrix[a:b, :b] = panel
    return matrix


def eigenbasis(
    name: str, matrices: Iterable[torch.Tensor], dtype: torch.dtype
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Eigenvectors (one matrix a block, in columns) and all eigenvalues (float64).

    Decomposed in float64, for float32 loses the small eigenvalues that an inverse weighs most.

    Args:
        name: of the layer and side, for the error.
        matrices: symmetric, float64; only their lower triangles are read.
        dtype: of the eigenvectors.

    Raises:
        NumericError: when a matrix is not finite, or will not be decomposed; names the layer.
    """
    vectors: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    for matrix in matrices:
        if not bool(torch.isfinite(matrix.sum())):
            raise NumericError(
                f"The covariance of {name} is not finite",
                expected="finite activations and gradients",
                do="use a wider dtype (float32), or leave the layer out",
            )
        try:
            found, turned = torch.linalg.eigh(matrix)
        except RuntimeError as error:
            raise NumericError(
                f"The covariance of {name} cannot be decomposed",
                found=str(error).splitlines()[0],
                do="leave the layer out, or take more examples",
            ) from error
        values.append(found.clamp(min=0).cpu())
        vectors.append(turned.to(dtype, memory_format=torch.contiguous_format))
    return vectors, torch.cat(values)


def rotate(rows: torch.Tensor, basis: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows [..., width] in the coordinates of the basis: `rows @ U`, block by block."""
    if len(basis) == 1:
        return rows @ basis[0]
    parts = rows.split([len(u) for u in basis], dim=-1)
    return torch.cat([part @ u for part, u in zip(parts, basis, strict=True)], dim=-1)


def rotate_back(rows: torch.Tensor, basis: Sequence[torch.Tensor]) -> torch.Tensor:
    """The inverse of `rotate`: `rows @ U^T`."""
    return rotate(rows, [u.T for u in basis])


def turn_rows(matrices: torch.Tensor, basis: Sequence[torch.Tensor]) -> torch.Tensor:
    """Columns of matrices [..., width, n] in the basis: `U^T @ matrices`, without transposing."""
    parts = matrices.split([len(u) for u in basis], dim=-2)
    made = [_left(u.T, part) for part, u in zip(parts, basis, strict=True)]
    return made[0] if len(made) == 1 else torch.cat(made, dim=-2)


def turn_rows_back(matrices: torch.Tensor, basis: Sequence[torch.Tensor]) -> torch.Tensor:
    """The inverse of `turn_rows`: `U @ matrices`."""
    return turn_rows(matrices, [u.T for u in basis])


def _left(u: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """`u @ matrices` of one or many; torch would fold the many by copying them transposed."""
    if matrices.dim() == 2:
        return u @ matrices
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    made = torch.bmm(u.expand(len(flat), *u.shape), flat)
    return made.reshape(*matrices.shape[:-2], *made.shape[1:])
