"""Features of some documents in memory that are read as an index is.

For what is looked at once: the same documents under other projections. Curvature is that of some of
the rows, so that documents which were picked for their scores need not take part in it.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.curvature.autocorrelation import Autocorrelation, pooled_spectrum
from headwater.index.calibration import Calibration
from headwater.index.encoding import Basis
from headwater.index.index import Index, Shard

if TYPE_CHECKING:
    from headwater.gradients.compute import Gradients


class InMemory(Index):
    """Some documents of an index under other features.

    Args:
        of: the index. gradients: what gave the features, and gives those of queries.
        u: float32 [rows, size]. owners: int64 [rows], the documents counted from 0, ascending.
        weight: 1 - p of each row, or None. spread: bool [rows], those that curvature is of.
    """

    def __init__(
        self,
        of: Index,
        gradients: Gradients,
        u: torch.Tensor,
        owners: torch.Tensor,
        weight: torch.Tensor | None,
        spread: torch.Tensor,
    ) -> None:
        held = tempfile.TemporaryDirectory(prefix="headwater-")  # for what a method keeps
        features = replace(gradients.features, storage="float32")
        documents = int(owners[-1]) + 1
        manifest = {
            **of.manifest,
            "features": {**of.manifest["features"], "storage": "float32", "seed": features.seed},
            "corpus": {**of.manifest["corpus"], "documents": documents, "shards": []},
            "shards": [],
        }
        super().__init__(Path(held.name), manifest, of.task)
        self._temporary, self._gradients = held, gradients
        self._rows, self._spread = u, spread
        norm = torch.stack([u[:, block.part].norm(dim=1) for block in of.blocks], dim=1)
        self.__dict__["_shards"] = [Shard(0, documents, u, None, norm, owners.int(), weight)]

    @cached_property
    def calibration(self) -> Calibration:
        """No change of basis, and no reference queries."""
        nothing = np.zeros((0, self.size), dtype=np.float32)
        moment = None if self._gradients is None else self._gradients.moment
        return Calibration(Basis.identity(self.blocks), nothing, moment)

    def autocorrelation(self) -> Autocorrelation:
        """R of the rows that it is to be of."""
        made = Autocorrelation(self.blocks)
        made.add(self._rows[self._spread].double())
        return made

    def spectrum(self) -> np.ndarray[Any, Any]:
        """Eigenvalues of R, all blocks pooled, descending."""
        return pooled_spectrum(self.autocorrelation().means())
