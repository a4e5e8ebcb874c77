"""What trains the models of a bank: headwater's own loop by a recipe, or a function of the user's.

The loop leaves examples out in both ways: it trains on the others alone, or keeps every batch as it
was and weighs their loss zero. A function of the user's is given the ids that remain.

A bank keeps no weights, so a trainer declares what it measures of a model: `measures=("loss",
"margin", "answer")`. What was not declared can only be had by training again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.evaluation.bank import Trial
from headwater.evaluation.measured import Measured
from headwater.tasks.task import model_fingerprint
from headwater.training.loop import train
from headwater.training.visit import restoring

if TYPE_CHECKING:
    import torch

    from headwater.corpus.corpus import Corpus
    from headwater.evaluation.answers import Answerer
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task
    from headwater.training.recipe import Recipe

State = Mapping[str, "torch.Tensor"]


class LoopTrainer:
    """Trains by `training.loop.train` from the task's present weights.

    Args:
        task: its model holds the weights before the training, and is given back with them.
        corpus: the documents, positions being their order.
        recipe: how; the trial's seed takes the place of its own.
        queries: what is measured under every model.
        initial: other weights to begin with, by seed: a model that is trained from nothing begins
            with other ones for every seed. None = the present ones for all.
    """

    def __init__(
        self,
        task: Task,
        corpus: Corpus,
        recipe: Recipe,
        queries: Sequence[Query],
        initial: Callable[[int], State] | None = None,
        measures: Sequence[str] = ("loss",),
        answer: Answerer | None = None,
    ) -> None:
        self.task, self.recipe, self.queries, self.initial = task, recipe, list(queries), initial
        self.ids = [document.id for document in corpus.documents()]
        self.corpus = corpus
        self._measured = Measured(task, self.queries, measures, answer)
        self.fields: Mapping[str, str] = self._measured.fields

    @property
    def documents(self) -> int:
        """How many there are to leave out."""
        return len(self.ids)

    def describe(self) -> dict[str, Any]:
        """Recipe, data, task, and the weights that seeds 0 and 1 begin with."""
        from headwater.index.corpus_shards import fingerprint

        begun = [self._begun(seed) for seed in (0, 1)] if self.initial is not None else []
        recipe = {name: v for name, v in self.recipe.to_json().items() if name != "seed"}
        return {
            "trainer": "loop",
            "recipe": recipe,
            "corpus": fingerprint(self.corpus),
            "task": self.task.describe(),
            "initial": begun,
        }

    def _begun(self, seed: int) -> str:
        with self._at_start(seed):
            return model_fingerprint(self.task.model)

    @contextmanager
    def _at_start(self, seed: int) -> Generator[None]:
        """The model with the weights that this seed begins with, and back again."""
        with restoring(self.task.model):
            if self.initial is not None:
                self.task.model.load_state_dict(dict(self.initial(seed)))
            yield

    def asked(self) -> list[str]:
        """A name for each query, by what it asks."""
        return self._measured.names()

    def losses(self, trial: Trial) -> list[float]:
        """The queries' losses under the model of this trial."""
        return self.measured(trial)["loss"]

    def measured(self, trial: Trial) -> dict[str, list[Any]]:
        """Train, and measure every query."""
        out = {self.ids[position] for position in trial.left_out}
        recipe = replace(self.recipe, seed=trial.seed, checkpoints=1, save_every=None)
        with self._at_start(trial.seed):
            if trial.kind == "fixed":
                weights = dict.fromkeys(out, 0.0)
                train(self.task, self.corpus, recipe, progress=False, weights=weights)
            else:
                kept = self.corpus.select(without=out)
                train(self.task, kept, recipe, progress=False)
            return self._measured.now()


class FunctionTrainer:
    """Trains by a function of the user's.

    Args:
        retrain: `retrain(ids that remain, seed) -> model`, a model like the task's.
        task: measures the queries; its own weights are not used and not changed.
        ids: of all documents, in order. queries: what is measured.
        name: says what the function trains: entries of another name are other entries.
        measures, answer: as of `LoopTrainer`.
    """

    def __init__(
        self,
        retrain: Callable[[list[str], int], torch.nn.Module],
        task: Task,
        ids: Sequence[str],
        queries: Sequence[Query],
        name: str,
        measures: Sequence[str] = ("loss",),
        answer: Answerer | None = None,
    ) -> None:
        self.retrain, self.task, self.ids, self.name = retrain, task, list(ids), name
        self.queries = list(queries)
        self._measured = Measured(task, self.queries, measures, answer)
        self.fields: Mapping[str, str] = self._measured.fields

    @property
    def documents(self) -> int:
        """How many there are to leave out."""
        return len(self.ids)

    def describe(self) -> dict[str, Any]:
        """The name, the documents, and the task but for its weights."""
        task = {k: v for k, v in self.task.describe().items() if k != "model"}
        listed = hashlib.sha256("\n".join(self.ids).encode()).hexdigest()[:32]
        return {"trainer": self.name, "ids": listed, "task": task}

    def asked(self) -> list[str]:
        """A name for each query, by what it asks."""
        return self._measured.names()

    def losses(self, trial: Trial) -> list[float]:
        """The queries' losses under the model of this trial."""
        return self.measured(trial)["loss"]

    def measured(self, trial: Trial) -> dict[str, list[Any]]:
        """Retrain, and measure every query with the weights that come back.

        Raises:
            InputError: for a fixed trial: what is inside a batch is the function's own business.
        """
        if trial.kind == "fixed":
            raise InputError(
                "A function retrains on the examples that remain",
                expected="resampled trials",
                found="a fixed one",
            )
        out = set(trial.left_out)
        kept = [name for position, name in enumerate(self.ids) if position not in out]
        model = self.retrain(kept, trial.seed)
        with restoring(self.task.model):
            self.task.model.load_state_dict(model.state_dict())
            return self._measured.now()
