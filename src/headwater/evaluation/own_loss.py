"""A document's own loss as its score for every query: what hard examples alone would explain.

A control of every board. It knows nothing of the query, so where it does well the figure measures
difficulty and not attribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.evidence.ranker import refuse_modules
from headwater.index.losses import Losses
from headwater.methods.method import Method, Scores

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query


class OwnLoss(Method):
    """The training loss of each document at the model's weights, the same for every query."""

    name, title, additive = "loss", "Loss", False
    influence = False
    unit = "loss of the document itself (a control)"
    needs = "a model"
    costs = "a forward pass over the corpus"

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Losses, float32 [queries, documents]; NaN outside `among`."""
        refuse_modules(self, modules)
        row = self.self_influence(index)
        if among is not None:
            row = np.where(np.asarray(among, dtype=bool), row, np.float32(np.nan))
        yield 0, np.tile(row, (len(queries), 1))

    def self_influence(
        self, index: Index, modules: Sequence[str] | None = None
    ) -> np.ndarray[Any, Any]:
        """The losses again: the simplest detector of wrong labels, float32 [documents]."""
        refuse_modules(self, modules)
        return Losses(index).now().astype(np.float32)
