"""What is measured of the queries under a retrained model: its loss, its margin, its answer.

Weights are not kept. What is wanted of a model is therefore declared before it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError, NumericError
from headwater.evaluation.answers import Answerer, Greedy, answerer_name, told, worded
from headwater.evidence.random_scores import digest

if TYPE_CHECKING:
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task

MEASURES = ("loss", "margin", "answer")
LARGEST = 1e30  # a margin beyond it is as good as infinite, which JSON does not know


class Measured:
    """Queries, and what is measured of them.

    Args:
        task: whose model is measured, at the weights that it has then.
        queries: what is measured.
        measures: of "loss", "margin", "answer"; the loss always is.
        answer: what gives the model's answer to a query; greedy words when left out.

    Raises:
        InputError: for an unknown measure, or a task that has no margin or no words where they
            are wanted: better now than after a training.
    """

    def __init__(
        self,
        task: Task,
        queries: Sequence[Query],
        measures: Sequence[str] = ("loss",),
        answer: Answerer | None = None,
    ) -> None:
        unknown = [str(one) for one in measures if one not in MEASURES]
        if isinstance(measures, str) or unknown:
            raise InputError(
                "Unknown measure", expected=f"some of {MEASURES}", found=unknown or repr(measures)
            )
        self.task, self.queries = task, list(queries)
        self.answer: Answerer = Greedy() if answer is None else answer
        self._chunks = [task.query_chunks(query) for query in self.queries]
        places = {"loss": "losses", "margin": "margins"}
        places["answer"] = f"answers ({answerer_name(self.answer)})"
        self.fields: Mapping[str, str] = {
            name: places[name] for name in MEASURES if name == "loss" or name in measures
        }
        if "margin" in self.fields and self._chunks:
            margins(task, self._chunks[:1])
        if "answer" in self.fields and isinstance(self.answer, Greedy):
            for query in self.queries:
                worded(task, query)

    def names(self) -> list[str]:
        """A name for each query, by what it asks."""
        return [digest(query)[:16] for query in self.queries]

    def now(self) -> dict[str, list[Any]]:
        """By measure, one value for each query, at the model's present weights."""
        found: dict[str, list[Any]] = {"loss": losses(self.task, self._chunks)}
        if "margin" in self.fields:
            found["margin"] = margins(self.task, self._chunks)
        if "answer" in self.fields:
            found["answer"] = [told(one, self.answer(self.task, one)) for one in self.queries]
        return found


def losses(task: Task, queries: Sequence[Sequence[tuple[float, Any]]]) -> list[float]:
    """The measurement of each query, a weighted sum over its chunks, at the model's weights.

    Raises:
        NumericError: when one is not finite: the model has diverged.
    """
    import torch

    found: list[float] = []
    with task.running(), torch.no_grad():
        for chunks in queries:
            value = sum(w * float(task.measurement(task.collate([c]))[0]) for w, c in chunks)
            if not math.isfinite(value):
                raise NumericError(
                    "A query's loss under a retrained model is not finite",
                    do="lower the learning rate: the training diverges without some examples",
                )
            found.append(value)
    return found


def margins(task: Task, queries: Sequence[Sequence[tuple[float, Any]]]) -> list[float]:
    """The log-odds of each query's target; of a contrast, by how much they exceed the other's.

    Raises:
        InputError: when the task has no margin. NumericError: when one is NaN.
    """
    import torch

    found: list[float] = []
    with task.running(), torch.no_grad():
        for chunks in queries:
            # The task gives log-odds as a loss, negated.
            value = sum(-w * float(task.margin(task.collate([c]))[0][0]) for w, c in chunks)
            if math.isnan(value):
                raise NumericError("A query's margin under a retrained model is not a number")
            found.append(max(-LARGEST, min(LARGEST, value)))
    return found
