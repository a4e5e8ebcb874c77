"""GradDot: the inner product of two gradients; one checkpoint's term of TracIn.

    score(q, z) = <u_z, u_q>

Training one step on z lowers the query's loss by this much per unit of learning rate, to first
order. (Pruthi et al. 2020, eq. 1, for a single checkpoint.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.methods.view import View

if TYPE_CHECKING:
    from headwater.curvature.autocorrelation import Inverse
    from headwater.index.index import Index


class GradDot(View):
    """Inner product of gradients."""

    name, title, additive = "graddot", "GradDot", True
    unit = "loss decrease per unit of learning rate"
    needs = "loss features"
    costs = "a scan"

    def fit(self, index: Index) -> tuple[Inverse | None, list[str]]:
        """M = I."""
        return None, []
