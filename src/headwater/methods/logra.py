"""LoGra: influence in the projected space (Choe et al. 2024).

    score(q, z) = u_z^T (R + c I)^-1 u_q

R is the autocorrelation of the projected gradients, block by block; the damping c is relative to
the block's mean eigenvalue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.curvature.autocorrelation import Inverse, inverse
from headwater.methods.view import View

if TYPE_CHECKING:
    from headwater.index.index import Index

DAMPING = 0.1  # of the mean eigenvalue; LogIX's own default (1e-10) is none


class LoGra(View):
    """Influence with the projected gradients' autocorrelation as curvature."""

    name, title, additive = "logra", "LoGra", True
    unit = "influence (loss change, up to the scale of the curvature)"
    needs = "loss features"
    costs = "a factorisation once, a scan"

    def __init__(self, damping: float = DAMPING) -> None:
        self.damping = damping

    def fit(self, index: Index) -> tuple[Inverse | None, list[str]]:
        """M = (R + c I)^-1."""
        names = [block.name for block in index.blocks]
        return inverse(names, index.autocorrelation().means(), self.damping), []

    def describe(self) -> dict[str, Any]:
        """Name and damping."""
        return {"method": self.name, "damping": self.damping}
