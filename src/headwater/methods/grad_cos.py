"""GradCos: the cosine of two gradients.

    score(q, z) = <u_z, u_q> / (|u_z| |u_q|)

Without the norms no long or badly predicted example can outshine the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.methods.view import Norm, View

if TYPE_CHECKING:
    from headwater.curvature.autocorrelation import Inverse
    from headwater.index.index import Index


class GradCos(View):
    """Cosine of gradients."""

    name, title, additive = "gradcos", "GradCos", False
    unit = "cosine"
    needs = "loss features"
    costs = "a scan"
    norm: Norm = "both"

    def fit(self, index: Index) -> tuple[Inverse | None, list[str]]:
        """M = I."""
        return None, []
