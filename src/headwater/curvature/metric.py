"""What a view needs of its M: to apply it to a query, and the norms of examples under it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from headwater.gradients.layout import Block

Root = Callable[["torch.Tensor"], "torch.Tensor"]


class Metric(Protocol):
    """A symmetric, positive M, block by block, by whatever factors it has."""

    @property
    def digest(self) -> str:
        """Names M among others, for what is kept of it."""
        ...

    def apply(self, blocks: Sequence[Block], v: torch.Tensor) -> torch.Tensor:
        """M v for rows v [n, size], float64."""
        ...

    def roots(self, backs: Sequence[torch.Tensor | None]) -> list[Root]:
        """Of each block a function y of rows z [n, d] with `<y(z), y(z')> = u^T M u'`.

        Args:
            backs: of each block what takes z to u, float32 [d, d]; None = they are the same.
        """
        ...
