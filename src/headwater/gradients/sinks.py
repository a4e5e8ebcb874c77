"""What is made of captured factors: features, contributions by position, or second moments."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from headwater.gradients.parameters import Parameter
    from headwater.gradients.projector import Projector


class FeatureSink:
    """Projected gradients u [batch, size], summed over tokens in at least float32."""

    def __init__(self, projectors: Mapping[str, Projector], u: torch.Tensor) -> None:
        self.projectors, self.u = projectors, u
        self._stacks: dict[tuple[str, ...], torch.Tensor] = {}

    def inputs(self, parameters: Sequence[Parameter], a: torch.Tensor) -> list[Any]:
        """`Q a` for each parameter; one product for all of them when all are projected."""
        if any(self.projectors[p.name].divisor is not None for p in parameters):
            return [a for _ in parameters]
        if len(parameters) > 1:
            sides = [self.projectors[p.name].inn for p in parameters]
            matrices = [side.matrix for side in sides if side.matrix is not None]
            if len(matrices) == len(sides):
                key = tuple(p.name for p in parameters)
                if key not in self._stacks:
                    self._stacks[key] = torch.cat(matrices)
                both = torch.nn.functional.linear(a, self._stacks[key])
                return list(both.split([side.target for side in sides], dim=-1))
        return [self.projectors[p.name].inn(a) for p in parameters]

    def linear(self, parameter: Parameter, kept: Any, d: torch.Tensor) -> None:
        """u += (P d)^T (Q a), or by way of the whole gradient where it is divided first."""
        projector = self.projectors[parameter.name]
        if projector.divisor is not None:
            self.whole(parameter, _outer(d, kept, self.u.dtype))
            return
        if parameter.columns == 1:
            self._add(projector, (projector.out(d) * kept).sum(dim=1).to(self.u.dtype))
            return
        self._add(projector, _outer(projector.out(d), kept, self.u.dtype).flatten(1))

    def bias(self, parameter: Parameter, d: torch.Tensor) -> None:
        """u += P sum_t d_t."""
        self.whole(parameter, d.to(self.u.dtype).sum(dim=1)[:, :, None])

    def embedding(self, parameter: Parameter, ids: torch.Tensor, d: torch.Tensor) -> None:
        """u += sum_t (P e_id) (Q d_t)^T."""
        projector = self.projectors[parameter.name]
        rows = projector.out.rows_of(ids)
        if projector.divisor is not None:
            hot = torch.nn.functional.one_hot(ids, parameter.rows).to(d.dtype)
            self.whole(parameter, _outer(hot, d, self.u.dtype))
            return
        self._add(projector, _outer(rows, projector.inn(d), self.u.dtype).flatten(1))

    def whole(self, parameter: Parameter, gradient: torch.Tensor) -> None:
        """u += P G Q^T of an explicit gradient."""
        projector = self.projectors[parameter.name]
        self._add(projector, projector.whole(gradient).to(self.u.dtype))

    def _add(self, projector: Projector, value: torch.Tensor) -> None:
        self.u[:, projector.block.part].add_(value)


class PositionSink(FeatureSink):
    """Each position's share of `<v, u>`: out [batch, tokens], for one direction v [size].

    Exact for what factors by token (linear layers, embeddings); what does not (norms, and exact
    optimizer correction) is left out of the shares.
    """

    def __init__(
        self, projectors: Mapping[str, Projector], v: torch.Tensor, out: torch.Tensor
    ) -> None:
        super().__init__(projectors, v[None])
        self.v, self.out = v, out

    def linear(self, parameter: Parameter, kept: Any, d: torch.Tensor) -> None:
        """out_t += (P d_t)^T V (Q a_t)."""
        projector = self.projectors[parameter.name]
        if projector.divisor is None:
            self._share(projector, projector.out(d), kept)

    def embedding(self, parameter: Parameter, ids: torch.Tensor, d: torch.Tensor) -> None:
        """The same for a looked-up row."""
        projector = self.projectors[parameter.name]
        if projector.divisor is None:
            self._share(projector, projector.out.rows_of(ids), projector.inn(d))

    def bias(self, parameter: Parameter, d: torch.Tensor) -> None:
        """out_t += <v, P d_t>."""
        projector = self.projectors[parameter.name]
        if projector.divisor is None:
            value = projector.out(d).to(self.v.dtype) @ self.v[projector.block.part]
            self.out[:, : value.shape[1]] += value

    def whole(self, parameter: Parameter, gradient: torch.Tensor) -> None:
        """Has no positions."""

    def _share(self, projector: Projector, left: torch.Tensor, right: torch.Tensor) -> None:
        block = projector.block
        v = self.v[block.part].view(-1, right.shape[-1])
        value = ((left.to(v.dtype) @ v) * right.to(v.dtype)).sum(dim=-1)
        self.out[:, : value.shape[1]] += value


class MomentSink:
    """Sums over examples of the row and column means of the squared gradient, float64."""

    def __init__(self, tied: Collection[str] = ()) -> None:
        self.tied = frozenset(tied)
        self.rows: dict[str, torch.Tensor] = {}
        self.columns: dict[str, torch.Tensor] = {}
        self._pending: dict[str, torch.Tensor] = {}

    def inputs(self, parameters: Sequence[Parameter], a: torch.Tensor) -> list[Any]:
        """Inputs as they are."""
        return [a for _ in parameters]

    def linear(self, parameter: Parameter, kept: Any, d: torch.Tensor) -> None:
        """The gradient itself is needed, and built."""
        self.whole(parameter, _outer(d, kept, _wide(d)))

    def bias(self, parameter: Parameter, d: torch.Tensor) -> None:
        """Sum over tokens."""
        self.whole(parameter, d.to(_wide(d)).sum(dim=1)[:, :, None])

    def embedding(self, parameter: Parameter, ids: torch.Tensor, d: torch.Tensor) -> None:
        """Rows of each example summed where they are looked up."""
        gradient = d.new_zeros((len(ids), parameter.rows, parameter.columns), dtype=_wide(d))
        for one, index, value in zip(gradient, ids, d, strict=True):
            one.index_add_(0, index, value.to(one.dtype))
        self.whole(parameter, gradient)

    def whole(self, parameter: Parameter, gradient: torch.Tensor) -> None:
        """Squared and reduced; the uses of tied weights are first added up, until `close`."""
        if parameter.name not in self.tied:
            self._reduce(parameter.name, gradient)
            return
        held = self._pending.get(parameter.name)
        self._pending[parameter.name] = gradient if held is None else held + gradient

    def close(self) -> None:
        """End of a batch."""
        for name, gradient in self._pending.items():
            self._reduce(name, gradient)
        self._pending.clear()

    def merge(self, other: MomentSink) -> None:
        """Add the sums of other examples."""
        for mine, theirs in ((self.rows, other.rows), (self.columns, other.columns)):
            for name, value in theirs.items():
                mine[name] = mine[name] + value if name in mine else value

    def _reduce(self, name: str, gradient: torch.Tensor) -> None:
        squared = gradient.double().square_()
        for store, dim in ((self.rows, 2), (self.columns, 1)):
            value = squared.mean(dim=dim).sum(dim=0)
            store[name] = store[name] + value if name in store else value


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _outer(left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """sum_t left_t right_t^T: [batch, tokens, m], [batch, tokens, n] -> [batch, m, n]."""
    return torch.bmm(left.to(dtype).transpose(1, 2), right.to(dtype))
