"""One side of a Kronecker factor: a symmetric matrix, in diagonal blocks where it is too wide.

A vocabulary-wide side as one matrix would need its square in memory and its cube in time. Split
into blocks of at most `widest`, it loses what its distant coordinates have in common.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from headwater.engine.errors import NumericError

WIDEST = 8192  # columns of a block


def block_slices(width: int, widest: int = WIDEST) -> list[slice]:
    """Slices of at most `widest` columns, as equal as can be."""
    count = max(1, -(-width // widest))
    edges = [width * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


class Covariance:
    """Sums of outer products of rows, by diagonal blocks.

    Args:
        width: of the rows. widest: columns of a block.
        dtype, device: of the sums.
    """

    def __init__(
        self, width: int, widest: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.parts = block_slices(width, widest)
        sizes = [part.stop - part.start for part in self.parts]
        self.sums = [torch.zeros((n, n), dtype=dtype, device=device) for n in sizes]
        self.count = 0

    def add(self, rows: torch.Tensor) -> None:
        """Take in rows [n, width]."""
        rows = rows.to(self.sums[0].dtype)
        for part, total in zip(self.parts, self.sums, strict=True):
            total.addmm_(rows[:, part].T, rows[:, part])
        self.count += len(rows)


def eigenbasis(name: str, sums: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Eigenvectors (float32, one matrix a block, in columns) and all eigenvalues (float64).

    Decomposed in float64, for float32 loses the small eigenvalues that an inverse weighs most.

    Args:
        name: of the layer and side, for the error.
        sums: symmetric matrices.

    Raises:
        NumericError: when a matrix is not finite, or will not be decomposed; names the layer.
    """
    vectors: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    for matrix in sums:
        wide = matrix.double()
        if not bool(torch.isfinite(wide).all()):
            raise NumericError(
                f"The covariance of {name} is not finite",
                expected="finite activations and gradients",
                do="use a wider dtype (float32), or leave the layer out",
            )
        try:
            found, turned = torch.linalg.eigh((wide + wide.T) / 2)
        except RuntimeError as error:
            raise NumericError(
                f"The covariance of {name} cannot be decomposed",
                found=str(error).splitlines()[0],
                do="leave the layer out, or take more examples",
            ) from error
        values.append(found.clamp(min=0).cpu())
        vectors.append(turned.to(matrix.dtype).contiguous())
    return vectors, torch.cat(values)


def rotate(rows: torch.Tensor, basis: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows [..., width] in the coordinates of the basis: `rows @ U`, block by block."""
    if len(basis) == 1:
        return rows @ basis[0]
    return torch.cat(
        [
            part @ u
            for part, u in zip(rows.split([len(u) for u in basis], dim=-1), basis, strict=True)
        ],
        dim=-1,
    )


def rotate_back(rows: torch.Tensor, basis: Sequence[torch.Tensor]) -> torch.Tensor:
    """The inverse of `rotate`: `rows @ U^T`."""
    return rotate(rows, [u.T for u in basis])
