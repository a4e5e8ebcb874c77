"""LoRIF: LoGra's influence where blocks are too wide for their R (Li et al. 2026).

    score(q, z) = u_z^T M u_q,      M = V diag(1 / (s + l)) V^T + (I - V V^T) / (t + l)

V and s are the leading eigenpairs of each block's R, the mean of u u^T over the features as they
are stored; l is the damping, t the mean of the eigenvalues left out (0 in the paper). With all
eigenpairs this is LoGra. It is made for features of storage "rank1", "rank2", ..., but takes any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from headwater.curvature.truncated import (
    EXTRA,
    Eigenpairs,
    Sought,
    leading_eigenpairs,
    truncated_inverse,
)
from headwater.index.encoding import decode
from headwater.index.kept_tensors import recall, remember
from headwater.methods.logra import DAMPING
from headwater.methods.view import View, rows_at_a_time

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.curvature.metric import Metric
    from headwater.index.index import Index

RANK, PASSES = 64, 3


class LoRIF(View):
    """Influence with a truncated inverse of the features' autocorrelation.

    Args:
        rank: eigenpairs of a block.
        damping: relative to a block's mean eigenvalue.
        rest: whether t is the mean of the eigenvalues left out; False = 0, as in the paper.
        passes: over the features, once for all queries: more give eigenpairs closer to exact.
        seed: of the iteration's start.
    """

    name, title, additive = "lorif", "LoRIF", True
    unit = "influence (loss change, up to the scale of the curvature)"
    needs = "loss features, of any width; made for storage rank1"
    costs = "three readings of the index once, a scan"

    def __init__(
        self,
        rank: int = RANK,
        damping: float = DAMPING,
        *,
        rest: bool = True,
        passes: int = PASSES,
        seed: int = 0,
    ) -> None:
        self.sought = Sought(rank, passes, seed)
        self.damping, self.rest = damping, rest

    def fit(self, index: Index) -> tuple[Metric | None, list[str]]:
        """M by the leading eigenpairs, which are found once and kept beside the index."""
        pairs, digest = _eigenpairs(index, self.sought)
        return truncated_inverse(pairs, self.damping, digest, rest=self.rest), []

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "rank": self.sought.rank,
            "damping": self.damping,
            "rest": self.rest,
            "passes": self.sought.passes,
            "seed": self.sought.seed,
        }


def stored_rows(index: Index) -> Iterator[torch.Tensor]:
    """All rows of features in their own coordinates, float32 [n, size], some at a time."""
    basis, storage = index.calibration.basis, index.features.storage
    step = rows_at_a_time(index.size)
    for shard in index.shards():
        for start in range(0, len(shard.u), step):
            rows = slice(start, start + step)
            scale = None if shard.scale is None else shard.scale[rows]
            yield decode(index.blocks, basis, shard.u[rows], scale, storage)


def _eigenpairs(index: Index, how: Sought) -> tuple[Eigenpairs, str]:
    """Eigenpairs kept earlier or found now, with a name for them: that of all they depend on."""
    held = [shard["checksum"] for shard in index.manifest["shards"]]
    described = [held, index.manifest["calibration"]["checksum"], vars(how), EXTRA]
    digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]
    path = index.path / "views" / f"eigenpairs-{digest}.safetensors"
    pairs = _kept(path, index)
    if pairs is None:
        count = index.autocorrelation().count
        pairs = leading_eigenpairs(index.blocks, lambda: stored_rows(index), count, how)
        remember(path, pairs.tensors(), "eigenpairs")
    return pairs, digest


def _kept(path: Path, index: Index) -> Eigenpairs | None:
    """Eigenpairs kept earlier; None where there are none, or they are damaged."""
    try:
        pairs = Eigenpairs.from_tensors([b.name for b in index.blocks], recall(path))
    except KeyError:
        return None
    finite = all(bool(torch.isfinite(one).all()) for one in (*pairs.values, *pairs.vectors))
    fits = all(len(v) == b.size for v, b in zip(pairs.vectors, index.blocks, strict=True))
    return pairs if finite and fits else None
