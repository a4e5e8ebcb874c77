"""TrackStar (Chang et al. 2025): a cosine of optimizer-corrected, whitened gradients.

    G(z) = R^-1/2 P (grad L(z) / sqrt(V)),    score(q, z) = <G(z), G(q)> / (|G(z)| |G(q)|)

R is R_train, or with `eval_queries` the task-mixed R = lambda R_eval + (1 - lambda) R_train, which
turns down the directions that all queries of one template share. lambda is the paper's: both pooled
spectra sorted, lambda = s_train[k] / (s_eval[k] + s_train[k]), so that the k largest directions of
R_eval dominate. The paper's k (about 1,000 of 65,536) is scaled with the dimensions here and capped
by the rank of R_eval. Whether V is in the features was decided when the index was built.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.curvature.autocorrelation import Inverse, inverse
from headwater.engine.errors import InputError, NumericError
from headwater.methods.logra import DAMPING
from headwater.methods.view import Norm, View

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.tasks.query import Query

logger = logging.getLogger(__name__)

PAPER_K, PAPER_SIZE = 1000, 65536
FEWEST = 8  # held-out queries below which R_eval is not worth having


class TrackStar(View):
    """Unit-norm, whitened, optimizer-corrected gradient similarity.

    Args:
        eval_queries: held-out queries of the same template as those to come (never the queries
            themselves); None = R_train only.
        damping: relative to each block's mean eigenvalue.
        mixing: lambda, fixed; None = the paper's rule.
    """

    name, title, additive = "trackstar", "TrackStar", False
    unit = "cosine"
    needs = "loss features; second_moment as the paper has it"
    costs = "a factorisation and norms once, a scan"
    norm: Norm = "both"

    def __init__(
        self,
        eval_queries: Sequence[Query] | None = None,
        *,
        damping: float = DAMPING,
        mixing: float | None = None,
    ) -> None:
        if mixing is not None and not 0 <= mixing <= 1:
            raise InputError("mixing is a share", expected="0 to 1", found=mixing)
        self.eval_queries = list(eval_queries) if eval_queries is not None else None
        self.damping, self.mixing = damping, mixing

    def fit(self, index: Index) -> tuple[Inverse | None, list[str]]:
        """M = (R + c I)^-1; R^-1/2 on both sides of a cosine needs no more than that."""
        train = index.autocorrelation().means()
        names = [block.name for block in index.blocks]
        notes: list[str] = []
        if index.manifest["calibration"]["second_moment"] is None:
            notes.append("features without optimizer correction")
        if self.eval_queries is None:
            return inverse(names, train, self.damping), notes
        if len(self.eval_queries) < FEWEST and self.mixing is None:
            note = (
                f"{len(self.eval_queries)} evaluation queries are too few for a task Hessian "
                f"(at least {FEWEST}); R_train is used"
            )
            logger.warning(note)
            return inverse(names, train, self.damping), [*notes, note]
        u = torch.from_numpy(index.query_features(self.eval_queries)).double()
        share = self.mixing if self.mixing is not None else mixing_weight(index, u)
        notes.append(f"mixed Hessian of {len(u)} held-out queries, lambda {share:.3f}")
        mixed: list[torch.Tensor | None] = []
        for block, matrix in zip(index.blocks, train, strict=True):
            part = u[:, block.part]
            mixed.append(
                None if matrix is None else share * (part.T @ part / len(u)) + (1 - share) * matrix
            )
        return inverse(names, mixed, self.damping), notes

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        count = None if self.eval_queries is None else len(self.eval_queries)
        return {
            "method": self.name,
            "damping": self.damping,
            "mixing": self.mixing,
            "eval_queries": count,
        }


def mixing_weight(index: Index, u: torch.Tensor) -> float:
    """lambda by the paper's rule (section A.1.3), from evaluation features u [n, size]."""
    return crossing(index.spectrum(), eval_spectrum(index, u), index.size)


def eval_spectrum(index: Index, u: torch.Tensor) -> np.ndarray[Any, Any]:
    """Non-zero eigenvalues of R_eval, all blocks pooled, descending; by Gram matrices [n, n]."""
    values = [
        torch.linalg.eigvalsh(u[:, block.part] @ u[:, block.part].T / len(u))
        for block in index.blocks
    ]
    joined = torch.cat(values).numpy()
    if not joined.max() > 0:
        raise NumericError(
            "The evaluation queries have no gradient",
            expected="held-out queries whose loss depends on the attributed parameters",
        )
    return np.sort(joined[joined > 1e-10 * joined.max()])[::-1]


def crossing(train: np.ndarray[Any, Any], evaluation: np.ndarray[Any, Any], size: int) -> float:
    """lambda at which the k-th eigenvalues of both scaled spectra are equal."""
    k = max(1, round(PAPER_K * size / PAPER_SIZE))
    k = min(k, len(evaluation), len(train))
    return float(train[k - 1] / (evaluation[k - 1] + train[k - 1]))
