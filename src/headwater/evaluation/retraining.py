"""A run of headwater's own loop as a trainer for a bank, on the documents of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.corpus import Corpus
from headwater.engine.errors import InputError
from headwater.evaluation.answers import Greedy
from headwater.evaluation.trainers import LoopTrainer
from headwater.tasks.task import to_array
from headwater.training.run import load_weights
from headwater.training.visit import checkpoint_of, restoring

if TYPE_CHECKING:
    from headwater.evaluation.bank import Bank, Trial
    from headwater.index.index import Index
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task
    from headwater.training.run import TrainingRun
    from headwater.training.visit import Place

MOST_WORDS = 8  # tokens of what a model says


def trainer_of_run(
    index: Index, queries: Sequence[Query], run: TrainingRun, base: Place
) -> LoopTrainer:
    """Trains by the run's recipe from the weights before it, whatever the seed.

    The seed of a trial decides the order of the examples; all begin with the same weights.
    Losses are measured, and of a language model margins and what it answers, too.

    Raises:
        InputError: when the run does not say its recipe, or there are no weights.
        MismatchError: when these are of another model.
    """
    if run.recipe is None:
        raise InputError(
            "The run does not say its recipe", expected="a run of headwater's own training loop"
        )
    task = index.task
    initial = _weights(task, base)
    speaks = task.kind == "causal_lm" and all(query.prompt is not None for query in queries)
    return LoopTrainer(
        task,
        documents_of(index),
        run.recipe,
        queries,
        lambda seed: initial,
        ("loss", "margin", "answer") if speaks else ("loss",),
        Greedy(MOST_WORDS) if speaks else None,
    )


def _weights(task: Task, base: Place) -> dict[str, Any]:
    with restoring(task.model):
        load_weights(task.model, checkpoint_of(base).path)
        return {name: value.clone() for name, value in task.model.state_dict().items()}


def documents_of(index: Index) -> Corpus:
    """The documents of an index in their order, as a corpus in memory."""
    documents = list(index.stream())
    first = documents[0].content
    if any(isinstance(value, np.ndarray | np.generic) for value in first.values()):
        columns = {name: np.stack([to_array(d.content[name]) for d in documents]) for name in first}
        return Corpus.from_columns(columns, ids=[document.id for document in documents])
    return Corpus.from_documents([{"id": one.id, **one.content} for one in documents])


def says(bank: Bank, trials: Sequence[Trial], column: int) -> list[str]:
    """The first words of each trial's model after a query's prompt; none where they are not kept.

    Args:
        column: of the query.
    """
    if "answer" not in bank.fields:
        return []
    told = [row[column] for row in bank.answers(trials)]
    return ["" if one is None else _first(str(one.get("completion", ""))) for one in told]


def _first(text: str) -> str:
    return text.partition(".")[0].strip()
