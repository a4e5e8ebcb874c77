"""EK-FAC influence as a view: only the directions of most curvature that the index stores.

    score(q, z) = sum over layers and kept directions ij of u_q,ij u_z,ij / (lambda_ij + damping)

u are gradients in EK-FAC's eigenbasis (`Features(projection=hw.TopEigenvectors(...))`). The
inverse weighs most what is left out here; `headwater inspect` tells how well the kept directions
agreed with all of them on the calibration sample.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import torch

from headwater.curvature.autocorrelation import Inverse
from headwater.curvature.damping import Damping, RelativeDamping, damping_of
from headwater.engine.errors import InputError, NumericError
from headwater.methods.view import View

if TYPE_CHECKING:
    from headwater.index.index import Index


class ProjectedEKFAC(View):
    """EK-FAC influence within the directions of most curvature.

    Args:
        measured: where the eigenvalues come from: "sample", the calibration sample with labels as
            the projection took them (drawn from the model by default); or "corpus", the mean
            squares of the stored features.
        damping: as in `hw.EKFAC`; relative damping is of the mean over all of a layer's
            directions, kept or not.
    """

    name, title, additive = "ekfac-view", "EK-FAC (projected)", True
    unit = "change of the loss, times the examples"
    needs = "loss features onto eigenvectors (projection eigen:16x16, hw.TopEigenvectors)"
    costs = "a scan"

    def __init__(
        self,
        measured: Literal["sample", "corpus"] = "sample",
        damping: float | Damping = RelativeDamping(),  # noqa: B008 - frozen
    ) -> None:
        if measured not in ("sample", "corpus"):
            raise InputError("Unknown source", expected="sample or corpus", found=measured)
        self.measured, self.damping = measured, damping_of(damping)

    def fit(self, index: Index) -> tuple[Inverse | None, list[str]]:
        """M = diag(1 / (lambda + damping)), by its square root."""
        top = index.calibration.top
        if not top.bases:
            raise InputError(
                f"{self.title} needs features in EK-FAC's eigenbasis",
                expected="an index built with projection=hw.TopEigenvectors() (eigen:16x16)",
                found=str(index.features.describe()["projection"]),
            )
        digest = hashlib.sha256(repr(self.describe()).encode())
        means = index.autocorrelation().means() if self.measured == "corpus" else None
        factors: list[torch.Tensor] = []
        for number, block in enumerate(index.blocks):
            values = top.values[block.name].double().flatten()
            if means is not None:
                own = means[number]
                if own is None:
                    raise NumericError(f"Block {block.name} is too wide for its autocorrelation")
                values = own.diagonal()
            damped = values + self.damping.of(top.means[block.name])
            if not damped.any():
                damped = torch.ones_like(damped)  # a layer without any gradient stays zero
            if float(damped.min()) <= 0:
                raise NumericError(
                    f"The curvature of {block.name} has directions of zero curvature",
                    expected="damping above 0",
                )
            digest.update(damped.numpy().tobytes())
            factors.append(torch.diag(damped.sqrt()))
        return Inverse(tuple(factors), digest.hexdigest()[:24]), _notes(index)

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {"method": self.name, "measured": self.measured, "damping": repr(self.damping)}


def _notes(index: Index) -> list[str]:
    found = index.manifest["calibration"].get("eigenvectors") or {}
    if found.get("correlation") is None:
        return []
    return [
        f"the stored directions agree with all of EK-FAC's to a correlation of "
        f"{found['correlation']:.2f} (relative error {found['relative_error']:.2f}) on the "
        "calibration sample"
    ]
