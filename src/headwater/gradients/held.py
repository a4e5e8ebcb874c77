"""Directions held in less memory for a pass over the corpus: in 8 bits, or by low rank.

    "int8"    q_ij s_i, a scale for each row:               a quarter of float32
    "rankN"   L R^T, L [out, N], R [in, N]: the best of its rank,  N (out + in) numbers

<V, sum_t d_t a_t^T> then is sum_t (L^T d_t) . (R^T a_t): a low rank also costs less time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from headwater.engine.errors import InputError

FORMS = re.compile(r"full|int8|rank[1-9]\d*")


def checked_hold(hold: str) -> str:
    """The name of a form, checked."""
    if not FORMS.fullmatch(hold):
        raise InputError("Unknown form of directions", expected="full, int8 or rankN", found=hold)
    return hold


@dataclass
class Rounded:
    """Directions [queries, out, in] as int8 with a scale [queries, out, 1]."""

    numbers: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, v: torch.Tensor) -> Rounded:
        """The nearest, row by row."""
        scale = v.abs().amax(dim=2, keepdim=True).clamp(min=1e-30) / 127
        return cls((v / scale).round_().to(torch.int8), scale)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def dtype(self) -> torch.dtype:
        """Of the directions, once they are whole."""
        return self.scale.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.scale.device

    def full(self) -> torch.Tensor:
        """The directions [queries, out, in]."""
        return self.numbers.to(self.scale.dtype).mul_(self.scale)


@dataclass
class LowRank:
    """Directions [queries, out, in] as left [queries, out, rank] right^T [queries, in, rank]."""

    left: torch.Tensor
    right: torch.Tensor

    @classmethod
    def of(cls, v: torch.Tensor, rank: int) -> LowRank:
        """The best of this rank, one query at a time."""
        lefts: list[torch.Tensor] = []
        rights: list[torch.Tensor] = []
        for one in v:
            u, s, w = torch.linalg.svd(one, full_matrices=False)
            lefts.append(u[:, :rank] * s[:rank])
            rights.append(w[:rank].T)
        return cls(torch.stack(lefts), torch.stack(rights))

    def __len__(self) -> int:
        return len(self.left)

    @property
    def dtype(self) -> torch.dtype:
        """Of the directions."""
        return self.left.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.left.device

    def dots(self, a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """<V_q, sum_t d_t a_t^T>, [queries, batch], of a [batch, tokens, in], d [..., out]."""
        queries, _, rank = self.left.shape
        batch, tokens = d.shape[:2]
        x = d.reshape(batch * tokens, -1) @ self.left.transpose(0, 1).reshape(d.shape[2], -1)
        y = a.reshape(batch * tokens, -1) @ self.right.transpose(0, 1).reshape(a.shape[2], -1)
        return (x * y).view(batch, tokens, queries, rank).sum(dim=(1, 3)).T


Held = torch.Tensor | Rounded | LowRank


def hold(directions: Mapping[str, torch.Tensor], form: str) -> dict[str, Held]:
    """Directions by layer in the form asked for; a low rank only where it is smaller."""
    if form == "int8":
        return {name: Rounded.of(v) for name, v in directions.items()}
    if form.startswith("rank"):
        rank = int(form.removeprefix("rank"))
        return {
            name: LowRank.of(v, rank) if rank * (v.shape[1] + v.shape[2]) < v[0].numel() else v
            for name, v in directions.items()
        }
    return dict(directions)


def joined(parts: Sequence[Mapping[str, Held]]) -> dict[str, Held]:
    """The directions of several runs of queries as those of one."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {name: _cat([part[name] for part in parts]) for name in names}


def _cat(parts: Sequence[Held]) -> Held:
    if len(parts) == 1:
        return parts[0]
    rounded = [one for one in parts if isinstance(one, Rounded)]
    if rounded:
        numbers = torch.cat([one.numbers for one in rounded])
        return Rounded(numbers, torch.cat([one.scale for one in rounded]))
    low = [one for one in parts if isinstance(one, LowRank)]
    if low:
        return LowRank(torch.cat([one.left for one in low]), torch.cat([one.right for one in low]))
    return torch.cat([one for one in parts if isinstance(one, torch.Tensor)])
