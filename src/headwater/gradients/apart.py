"""Whether layers keep a batch's examples apart: their gradients do not depend on the batch's order.

Shapes cannot tell a layer that sees the tokens of several examples mixed (experts, or a batch in
the second dimension) from one that only flattens them. So a few examples are run in both orders,
and what comes of it is compared. For gradients in full dimension that is a sketch of each layer's:
the matrices of every example would be as large as the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.gradients.parameters import Parameter

APART = 0.5  # of a block's largest gradient; rounding is far below, mixed examples above
NOISE = 0.02  # of a batch's largest gradient; blocks without gradient (key biases) hold only noise
NUMBERS = 64  # of a sketch, for each layer


def require_apart(
    here: Sequence[torch.Tensor], again: Sequence[torch.Tensor], largest: float
) -> None:
    """Raise InputError when examples have other gradients in another order.

    Args:
        here, again: numbers [n, m] of each block's gradients, by the two orders, row for row of the
            same example. largest: norm of the batch's largest gradient.
    """
    off = torch.zeros(len(here[0]), dtype=here[0].dtype, device=here[0].device)
    for one, other in zip(here, again, strict=True):
        difference = (one - other).norm(dim=1)
        off += (difference * (difference > APART * one.norm(dim=1).max())) ** 2
    if float(off.max().sqrt()) > NOISE * largest:
        raise InputError(
            "A captured layer does not keep examples apart",
            expected="the gradients of a batch's examples not to depend on their order",
            found="other gradients in another order",
            do="leave layers that mix examples (mixtures of experts) out with a filter",
        )


def can_tell(rows: torch.Tensor) -> bool:
    """Whether two of these gradients [n, m] differ: equal ones stay so however they are mixed."""
    largest = float(rows.norm(dim=1).max())
    if not 0 < largest < float("inf"):
        return False
    return float((rows - rows[0]).norm(dim=1).max()) > NOISE * largest


class SketchSink:
    """Some numbers of every layer's gradient, [batch, NUMBERS] by weight: sum_t (u d_t)(w a_t).

    u and w are random signs, the same for every layer of a width.
    """

    def __init__(self) -> None:
        self.rows: dict[str, torch.Tensor] = {}

    def inputs(self, parameters: Sequence[Parameter], a: torch.Tensor) -> list[Any]:
        """The inputs as they are."""
        return [a] * len(parameters)

    def linear(self, parameter: Parameter, kept: Any, d: torch.Tensor) -> None:
        """Add a use of the weight."""
        dtype = torch.float64 if d.dtype == torch.float64 else torch.float32
        a, d = kept.to(dtype), d.to(dtype)
        made = ((a @ _signs(a, 0)) * (d @ _signs(d, 1))).sum(dim=1)
        held = self.rows.get(parameter.name)
        self.rows[parameter.name] = made if held is None else held + made

    def bias(self, parameter: Parameter, d: torch.Tensor) -> None:
        """Comes with its layer."""

    def embedding(self, parameter: Parameter, ids: torch.Tensor, d: torch.Tensor) -> None:
        """Is no layer of this kind."""

    def whole(self, parameter: Parameter, gradient: torch.Tensor) -> None:
        """Neither is this."""


def _signs(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Random signs [width, NUMBERS]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 2, (like.shape[-1], NUMBERS), generator=generator)
    return (2 * drawn - 1).to(like.device, like.dtype)
