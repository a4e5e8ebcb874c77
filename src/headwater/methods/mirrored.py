"""Mirrored influence (Ko et al. 2024, Forward-INF): train on the query, watch the examples.

    score(q, z) = l(z; theta - dq) - l(z; theta + dq)    halved; "two-sided"
                = l(z; theta)      - l(z; theta + dq)    one-sided

theta + dq is the model after a few steps that lower the query's measurement, theta - dq after as
many that raise it. What would training on z do to q? To first order the same as what training on q
does to z, and that takes only losses: no gradient of an example exists, so the model need not be
differentiable one example at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.progress import Progress
from headwater.index.losses import Losses
from headwater.methods.method import Method, Scores
from headwater.training.further import Further, further, trained_parameters

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.training.recipe import Optimizer


class Mirrored(Method):
    """How much an example's loss falls when the model is trained on the query.

    Args:
        learning_rate, steps, optimizer: of the further training; see `training.further.Further`.
        two_sided: also train the other way, which takes out the even orders.
        parameters: name patterns of the parameters that are trained; None = all.
        budget: tokens of a batch of examples; None = by the device.
    """

    name, title, additive = "mirrored", "Mirrored influence", True
    unit = "nats (fall of the example's loss)"
    needs = "the model, in float32"
    costs = "two passes without gradients for each query"

    def __init__(
        self,
        *,
        learning_rate: float = 5e-6,
        steps: int = 3,
        optimizer: Optimizer = "adamw",
        two_sided: bool = True,
        parameters: Sequence[str] | None = None,
        budget: int | None = None,
    ) -> None:
        self.how = Further(learning_rate, steps, optimizer)
        self.two_sided, self.parameters, self.budget = two_sided, parameters, budget

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`. `modules` narrows what is trained."""
        task = index.task
        parameters = trained_parameters(task.model, self.parameters, modules)
        asked = [task.query_chunks(query) for query in queries]
        losses = Losses(index, among, self.budget)
        passes = len(asked) * 2 if self.two_sided else len(asked) + 1
        scores = np.zeros((len(asked), len(index)), dtype=np.float32)
        with Progress("mirrored", passes * len(losses), "documents") as progress:
            before = None if self.two_sided else losses.now(progress)
            for row, pairs in enumerate(asked):
                with further(task, pairs, self.how, parameters):
                    descended = losses.now(progress)
                if before is not None:
                    scores[row] = before - descended
                    continue
                with further(task, pairs, self.how, parameters, ascend=True):
                    scores[row] = (losses.now(progress) - descended) / 2
        yield 0, scores

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            **vars(self.how),
            "two_sided": self.two_sided,
            "parameters": None if self.parameters is None else list(self.parameters),
        }
