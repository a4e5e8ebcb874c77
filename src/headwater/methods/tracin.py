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

from headwater.engine.checks import positive
from headwater.engine.errors import InputError
from headwater.methods.corpus_pass import (
    CorpusPass,
    Directions,
    dots,
    query_groups,
    query_matrices,
)
from headwater.methods.method import Scores
from headwater.training.preconditioner import adam_weights
from headwater.training.schedule import mean_rates
from headwater.training.visit import at, run_of

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.training.visit import Run


class TracInCP(CorpusPass):
    """Gradient products summed over a run's checkpoints.

    Args:
        run: a run, its folder, or checkpoints in their order; three to five with a real fall of the
            loss between them do best.
        rates: the sum of the learning rates that led to each checkpoint; as the run tells, when
            left out. Where it does not tell the steps either, the sums stand for the mean rates.
        optimizer: "sgd", or "adam", whose second moment is read from the checkpoints' states.
        eps: Adam's own.
        parameters: "linear" or a filter of modules, as in `hw.Features`.
    """

    name, title, unit = "tracin", "TracInCP", "change of the loss"
    needs = "a model; a training run with checkpoints"
    costs = "a pass for each checkpoint"

    def __init__(
        self,
        run: Run,
        rates: Sequence[float] | None = None,
        parameters: str | ModuleFilter = "linear",
        *,
        optimizer: Literal["sgd", "adam"] = "sgd",
        eps: float = 1e-8,
    ) -> None:
        if optimizer not in ("sgd", "adam"):
            raise InputError("Unknown optimizer", expected="sgd or adam", found=optimizer)
        self.run, self.parameters = run_of(run), parameters
        self.optimizer, self.eps = optimizer, positive("eps", eps)
        self.rates = mean_rates(self.run, rates)

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """The queries' own gradients at the model's present weights."""
        return query_matrices(layers, queries)

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`."""
        layers = self.layers(index, modules)
        total = np.zeros((len(queries), len(index)))
        for checkpoint, rate in zip(self.run.checkpoints, self.rates, strict=True):
            adam = self.optimizer == "adam"
            weights = adam_weights(checkpoint, layers, self.eps) if adam else {}
            with at(index.task, checkpoint):
                for part in query_groups(queries, layers):
                    v = self.directions(index, layers, queries[part])
                    for name in weights.keys() & v.keys():  # of both the loss and the measurement
                        v[name] *= weights[name].to(v[name])
                    for first, block in dots(index, layers, v, part.stop - part.start, among):
                        total[part, first : first + block.shape[1]] += rate * block
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
            **({"eps": self.eps} if self.optimizer == "adam" else {}),
            "parameters": self.parameters if isinstance(self.parameters, str) else "filter",
        }
