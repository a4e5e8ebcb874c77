"""One optimizer step on all parameters as one vector, and the same step backwards.

The steps are those of torch.optim, in its order of operations, so that a replay follows the loop.
The reverse is written out by hand, because autograd has no answer where Adam's v is zero (rows of
an embedding that no token has touched): the slope of sqrt(v) is infinite there, and meets a zero.
The update itself is smooth there: as long as every gradient was zero it is a g / (b |g| + eps), of
slope a / eps at zero. That is the path through m; the one through v adds nothing, so it is cut
where v is zero, and no limit has to be taken.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headwater.engine.errors import InputError
from headwater.training.parameter_groups import trainable_groups

if TYPE_CHECKING:
    from headwater.training.recipe import Recipe

Active = tuple[bool, ...]
CLIP_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_


@dataclass(frozen=True, slots=True)
class State:
    """What one step hands to the next.

    Args:
        theta: the trained parameters, [size].
        moments: what the optimizer remembers, each [size].
        counts: steps that each parameter has taken (one without a gradient takes none).
    """

    theta: torch.Tensor
    moments: tuple[torch.Tensor, ...]
    counts: tuple[int, ...]


class Flat:
    """The trained parameters of a model as one vector, in the order of the loop's optimizer.

    Attributes:
        names, shapes, sizes: of each parameter. size: of all. decayed: how many leading
            coordinates the weight decay is for.

    Raises InputError for a model whose trained parameters are none, or differ in dtype or device,
    or are not float32 or float64.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        decayed, plain = trainable_groups(model)
        named = decayed | plain
        kinds = {(p.dtype, str(p.device)) for p in named.values()}
        if len(kinds) != 1 or next(iter(kinds))[0] not in (torch.float32, torch.float64):
            raise InputError(
                "The training of this model cannot be replayed",
                expected="trained parameters of one dtype, float32 or float64, on one device",
                found=", ".join(sorted(f"{d} on {where}" for d, where in kinds)) or "none",
            )
        self.names = list(named)
        self.shapes = [p.shape for p in named.values()]
        self.sizes = [p.numel() for p in named.values()]
        self.size = sum(self.sizes)
        self.decayed = sum(p.numel() for p in decayed.values())

    def gather(self, model: torch.nn.Module) -> torch.Tensor:
        """A copy of the model's own values, [size]."""
        named = dict(model.named_parameters())
        return torch.cat([named[name].detach().reshape(-1) for name in self.names])

    def parts(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Each parameter's part of a vector, in its shape."""
        pieces = vector.split(self.sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def join(self, parts: Sequence[torch.Tensor | None], like: torch.Tensor) -> torch.Tensor:
        """The reverse of `parts`; zeros where there is none."""
        pieces = [
            like.new_zeros(size) if part is None else part.detach().reshape(-1)
            for part, size in zip(parts, self.sizes, strict=True)
        ]
        return torch.cat(pieces)

    def spread(self, values: Sequence[float], like: torch.Tensor) -> float | torch.Tensor:
        """One value for each parameter as one for each coordinate; a number if all are alike."""
        if len(set(values)) == 1:
            return values[0]
        sizes = torch.tensor(self.sizes, device=like.device)
        return torch.repeat_interleave(like.new_tensor(values), sizes)

    def mask(self, active: Active, like: torch.Tensor) -> torch.Tensor | None:
        """Which coordinates take the step, bool [size]; None = all."""
        if all(active):
            return None
        sizes = torch.tensor(self.sizes, device=like.device)
        return torch.repeat_interleave(torch.tensor(active, device=like.device), sizes)


class Update(ABC):
    """An optimizer's step. Parameters without a gradient stay as they are, decay included."""

    slots: int  # vectors that the optimizer remembers

    def __init__(self, recipe: Recipe, flat: Flat) -> None:
        self.recipe, self.flat = recipe, flat

    def start(self, theta: torch.Tensor) -> State:
        """The state before the first step."""
        moments = tuple(torch.zeros_like(theta) for _ in range(self.slots))
        return State(theta, moments, (0,) * len(self.flat.sizes))

    def forward(self, state: State, g: torch.Tensor, active: Active, rate: float) -> State:
        """The state after a step with the (clipped) gradient g [size]."""
        counts = _counted(state.counts, active)
        new = self._forward(state, g, counts, rate)
        mask = self.flat.mask(active, g)
        if mask is not None:
            old = (state.theta, *state.moments)
            new = tuple(torch.where(mask, n, o) for n, o in zip(new, old, strict=True))
        return State(new[0], new[1:], counts)

    def backward(
        self,
        state: State,
        g: torch.Tensor,
        active: Active,
        rate: float,
        adjoint: tuple[torch.Tensor, ...],
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Derivatives by (theta, moments) and by g before a step, from those after it.

        Args:
            state: the state before. g, active, rate: as in `forward`.
            adjoint: by theta and each moment after the step, each [queries, size].
        """
        before, by_g = self._backward(state, g, _counted(state.counts, active), rate, adjoint)
        mask = self.flat.mask(active, g)
        if mask is not None:
            before = tuple(torch.where(mask, b, a) for b, a in zip(before, adjoint, strict=True))
            by_g = by_g * mask
        return before, by_g

    @abstractmethod
    def _forward(
        self, state: State, g: torch.Tensor, counts: tuple[int, ...], rate: float
    ) -> tuple[torch.Tensor, ...]:
        """(theta, *moments) after a step of every parameter."""

    @abstractmethod
    def _backward(
        self,
        state: State,
        g: torch.Tensor,
        counts: tuple[int, ...],
        rate: float,
        adjoint: tuple[torch.Tensor, ...],
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Its reverse."""

    def _decay(self, theta: torch.Tensor, factor: float) -> torch.Tensor:
        """`factor` times the decayed coordinates of theta, the others as they are."""
        if factor == 1.0:
            return theta
        d = self.flat.decayed
        return torch.cat([theta[..., :d] * factor, theta[..., d:]], dim=-1)


class Sgd(Update):
    """b' = mu b + g + wd theta;  theta' = theta - lr b'. Without momentum b is not kept."""

    def __init__(self, recipe: Recipe, flat: Flat) -> None:
        super().__init__(recipe, flat)
        self.slots = 1 if recipe.momentum else 0

    def _coupled(self, of: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        """`to` + weight decay times `of`, on the decayed coordinates."""
        d, decay = self.flat.decayed, self.recipe.weight_decay
        if not decay:
            return to
        return torch.cat([to[..., :d].add(of[..., :d], alpha=decay), to[..., d:]], dim=-1)

    def _forward(
        self, state: State, g: torch.Tensor, counts: tuple[int, ...], rate: float
    ) -> tuple[torch.Tensor, ...]:
        step = self._coupled(state.theta, g)
        if self.slots:
            step = state.moments[0] * self.recipe.momentum + step
        return (state.theta.add(step, alpha=-rate), step)[: 1 + self.slots]

    def _backward(
        self,
        state: State,
        g: torch.Tensor,
        counts: tuple[int, ...],
        rate: float,
        adjoint: tuple[torch.Tensor, ...],
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        by_theta = adjoint[0]
        by_g = by_theta * -rate
        if self.slots:
            by_g = by_g + adjoint[1]
        before = (self._coupled(by_g, by_theta), by_g * self.recipe.momentum)
        return before[: 1 + self.slots], by_g


class AdamW(Update):
    """theta' = (1 - lr wd) theta - lr / c1 * m' / (sqrt(v' / c2 + eps_root) + eps)."""

    def __init__(self, recipe: Recipe, flat: Flat, eps_root: float = 0.0) -> None:
        super().__init__(recipe, flat)
        self.slots, self.eps_root = 2, eps_root

    def _scales(
        self, counts: tuple[int, ...], rate: float, like: torch.Tensor
    ) -> tuple[float | torch.Tensor, float | torch.Tensor]:
        """lr / c1 and sqrt(c2), the bias corrections of parameters that took so many steps."""
        one, two = self.recipe.betas
        steps = [max(count, 1) for count in counts]  # those that took none are masked
        size = self.flat.spread([rate / (1 - one**n) for n in steps], like)
        return size, self.flat.spread([math.sqrt(1 - two**n) for n in steps], like)

    def _moments(self, state: State, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one, two = self.recipe.betas
        m, v = state.moments
        return m.lerp(g, 1 - one), (v * two).addcmul(g, g, value=1 - two)

    def _root(self, v: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
        if not self.eps_root:
            return v.sqrt() / scale
        return (v / scale**2 + self.eps_root).sqrt()

    def _forward(
        self, state: State, g: torch.Tensor, counts: tuple[int, ...], rate: float
    ) -> tuple[torch.Tensor, ...]:
        m, v = self._moments(state, g)
        size, scale = self._scales(counts, rate, g)
        step = m * size / (self._root(v, scale) + self.recipe.eps)
        theta = self._decay(state.theta, 1 - rate * self.recipe.weight_decay)
        return theta - step, m, v

    def _backward(
        self,
        state: State,
        g: torch.Tensor,
        counts: tuple[int, ...],
        rate: float,
        adjoint: tuple[torch.Tensor, ...],
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        by_theta, by_m, by_v = adjoint
        one, two = self.recipe.betas
        m, v = self._moments(state, g)
        size, scale = self._scales(counts, rate, g)
        root = self._root(v, scale)
        below = root + self.recipe.eps
        touched = root > 0
        slope = 1 / (2 * scale**2 * torch.where(touched, root, 1.0))  # of the root, by v
        slope = torch.where(touched, slope, 0.0)
        by_m = by_m - by_theta * (size / below)
        by_v = by_v + by_theta * (size * m / below**2 * slope)
        by_g = by_m * (1 - one) + by_v * (2 * (1 - two) * g)
        by_theta = self._decay(by_theta, 1 - rate * self.recipe.weight_decay)
        return (by_theta, by_m * one, by_v * two), by_g


def make_update(recipe: Recipe, flat: Flat, eps_root: float = 0.0) -> Update:
    """The recipe's optimizer; `eps_root` is AdamW's."""
    if eps_root < 0 or (eps_root and recipe.optimizer != "adamw"):
        raise InputError(
            "eps_root is a number inside AdamW's root",
            expected="0 or more, with optimizer='adamw'",
            found=f"{eps_root} with {recipe.optimizer}",
        )
    return AdamW(recipe, flat, eps_root) if recipe.optimizer == "adamw" else Sgd(recipe, flat)


@dataclass(frozen=True)
class Clip:
    """Global-norm clipping by `factor`: of a gradient of this `norm`, to at most `limit`."""

    norm: float
    limit: float | None

    @property
    def factor(self) -> float:
        """What the gradient is multiplied with."""
        return 1.0 if self.limit is None else min(1.0, self.limit / (self.norm + CLIP_EPS))

    def backward(self, g: torch.Tensor, by_clipped: torch.Tensor) -> torch.Tensor:
        """The derivative by the gradient g [size], from that by the clipped one [queries, size]."""
        if self.limit is None or self.factor == 1.0:
            return by_clipped
        along = (by_clipped @ g)[:, None] / (self.norm * (self.norm + CLIP_EPS))
        return self.factor * (by_clipped - along * g)


def _counted(counts: tuple[int, ...], active: Active) -> tuple[int, ...]:
    return tuple(count + took for count, took in zip(counts, active, strict=True))
