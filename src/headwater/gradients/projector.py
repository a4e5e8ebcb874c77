"""One parameter's projections with the optimizer correction folded in.

`P' = P diag(row scale)`, `Q' = Q diag(column scale)`; a side that is left alone is only scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headwater.gradients.projection import signs

if TYPE_CHECKING:
    from headwater.gradients.layout import Place
    from headwater.gradients.parameters import Parameter
    from headwater.gradients.second_moment import SecondMoment


class Side:
    """One side of `P G Q^T`: a matrix [target, size] (random, or given), a scaling, or nothing."""

    def __init__(
        self,
        size: int,
        target: int,
        projected: bool,
        key: tuple[int, str, str],
        scale: torch.Tensor | None,
        device: torch.device,
        dtype: torch.dtype,
        given: torch.Tensor | None = None,
    ) -> None:
        self.size, self.target = size, target
        self.matrix: torch.Tensor | None = None
        self.scale: torch.Tensor | None = None
        if projected:
            made = torch.from_numpy(signs(*key, target, size)) if given is None else given
            matrix = made.to(device, torch.float64)
            if scale is not None:
                matrix = matrix * scale.to(device, torch.float64)
            self.matrix = matrix.to(dtype)
        elif scale is not None:
            self.scale = scale.to(device, dtype)

    def __call__(self, factor: torch.Tensor) -> torch.Tensor:
        """[..., size] -> [..., target]."""
        if self.matrix is not None:
            wide = torch.promote_types(factor.dtype, self.matrix.dtype)
            return torch.nn.functional.linear(factor.to(wide), self.matrix.to(wide))
        return factor if self.scale is None else factor * self.scale

    def rows_of(self, index: torch.Tensor) -> torch.Tensor:
        """The projection of one-hot vectors, [..., target] for int64 [...]."""
        if self.matrix is not None:
            return self.matrix.T[index]
        hot = torch.nn.functional.one_hot(index, self.size)
        like = self.scale if self.scale is not None else torch.ones((), device=index.device)
        return hot.to(like.dtype) * like


class Projector:
    """Both sides of one parameter, and its place in the feature vector; `bases` are P and Q."""

    def __init__(
        self,
        parameter: Parameter,
        place: Place,
        seed: int,
        moment: SecondMoment | None,
        device: torch.device,
        dtype: torch.dtype,
        bases: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        block = place.block
        self.parameter, self.block = parameter, block
        row = column = None
        if moment is not None and not moment.exact:
            row, column = (torch.from_numpy(scale) for scale in moment.scales(parameter))
        self.divisor: torch.Tensor | None = None
        if moment is not None and moment.exact:
            self.divisor = torch.from_numpy(moment.divisor(parameter)).to(device, dtype)
        vector = parameter.columns == 1
        if vector and row is not None and column is not None:
            row, column = row * column[0], None
        out_target = block.size if vector else block.rows
        in_target = 1 if vector else block.columns
        p, q = (None, None) if bases is None else bases
        key = (seed, parameter.name)
        self.out = Side(
            parameter.rows, out_target, place.project_out, (*key, "out"), row, device, dtype, p
        )
        project_in = place.project_in and not vector
        self.inn = Side(
            parameter.columns, in_target, project_in, (*key, "in"), column, device, dtype, q
        )

    def whole(self, gradient: torch.Tensor) -> torch.Tensor:
        """An explicit gradient [batch, rows, columns] -> [batch, block size]."""
        if self.divisor is not None:
            gradient = gradient / self.divisor
        half = self.inn(gradient)
        return self.out(half.transpose(1, 2)).transpose(1, 2).reshape(len(gradient), -1)
