"""TracInCP (Pruthi et al. 2020, arXiv 2002.08484): gradient products along a training, in full.

    score(q, z) = sum over checkpoints c of eta_c <g_q(theta_c), g_z(theta_c)>

eta_c is the mean learning rate of the steps that led to the checkpoint, not the rate at it, which a
schedule may have brought to zero. With `optimizer="adam"` the product is <g_q, P_c g_z>, P_c = 1 /
(sqrt(V_c) + eps) from the state that was saved with the checkpoint: Adam's own step, so far as an
example does not change P nor reach later steps by momentum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headwater.engine.errors import InputError
from headwater.methods.corpus_pass import CorpusPass, Directions, query_matrices
from headwater.methods.method import Scores
from headwater.training.preconditioner import adam_weights
from headwater.training.schedule import given_or_known, intervals
from headwater.training.visit import at

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.training.run import Checkpoint, TrainingRun


class TracInCP(CorpusPass):
    """Gradient products summed over a run's checkpoints.

    Args:
        run: its checkpoints, three to five with a real fall of the loss between them do best.
        rates: the sum of the learning rates that led to each checkpoint; as the run tells, when
            left out.
        optimizer: "sgd", or "adam", whose second moment is read from the checkpoints' states.
        eps: Adam's own.
        parameters: "linear" or a filter of modules, as in `hw.Features`.
    """

    name, title, unit = "tracin", "TracInCP", "change of the loss"
    needs = "a model; a training run with checkpoints"
    costs = "a pass for each checkpoint"

    def __init__(
        self,
        run: TrainingRun,
        rates: Sequence[float] | None = None,
        parameters: str | ModuleFilter = "linear",
        *,
        optimizer: Literal["sgd", "adam"] = "sgd",
        eps: float = 1e-8,
    ) -> None:
        if optimizer not in ("sgd", "adam"):
            raise InputError("Unknown optimizer", expected="sgd or adam", found=optimizer)
        self.run, self.parameters = run, parameters
        self.optimizer, self.eps = optimizer, eps
        self._visited: Checkpoint | None = None
        sums = given_or_known(run, rates, run.checkpoints)
        self.rates = [s / max(1, b - a) for s, (a, b) in zip(sums, intervals(run), strict=True)]

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """The queries' own gradients at the model's present weights, with Adam P times them."""
        made = query_matrices(layers, queries)
        if self.optimizer == "adam" and self._visited is not None:
            for name, weights in adam_weights(self._visited, layers, self.eps).items():
                made[name] *= weights.to(made[name])
        return made

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`."""
        total = np.zeros((len(queries), len(index)))
        for checkpoint, rate in zip(self.run.checkpoints, self.rates, strict=True):
            self._visited = checkpoint
            with at(index.task, checkpoint):
                for first, block in super().stream(index, queries, modules, among):
                    total[:, first : first + block.shape[1]] += rate * block
        if among is not None:  # runs of documents that take no part are not yielded
            total[:, ~np.asarray(among, dtype=bool)] = np.nan
        yield 0, total.astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            "checkpoints": [str(checkpoint.path) for checkpoint in self.run.checkpoints],
            "rates": self.rates,
            "optimizer": self.optimizer,
        }
