"""Tail patch: does one training step on what a method found make the output more likely?

    tail patch = mean over queries, over their k best documents z, of P_z(target) - P(target)

P_z is the model's after one optimizer step on z alone, from the end of the training with the
optimizer's state restored (Chang et al., ICLR 2025). In percentage points, and in nats of log P,
which do not saturate. A step moves every output a little, by the moments that are left over if by
nothing else, so the figure to read is the difference to random documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.bootstrap import RESAMPLES
from headwater.engine.errors import InputError
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Scored
from headwater.evaluation.over_queries import mean, rankings
from headwater.evaluation.patches import Patches, require_probability
from headwater.evidence.random_scores import digest
from headwater.index.index import Index

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.corpus.document import Document
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task
    from headwater.training.one_step import Step

Array = np.ndarray[Any, Any]
CUTS = (1, 3, 5, 10)
POINTS, NATS = "points", "nats"


class TailPatch:
    """Tail patch of methods, one after another; steps are shared by all of them.

    Args:
        task: its present weights are stepped from, and left as they were.
        corpus: the documents, positions being their order; an index will do.
        step: how; see `training.next_step`.
        queries: in the order of the scores.
        k: documents stepped on for each query; figures at 1, 3 and 5 come from the same steps.
        random: random documents for each query, the control.
        gold: for each query the ids of documents known to state it, a second control.
        cache: a folder that keeps what was measured; None = in memory only.
        resamples, seed: of the intervals; `seed` also of random documents and of ties.

    Raises:
        InputError: for no query, a contrast, a k that is not there, or unknown gold ids.
    """

    name = "tail-patch"

    def __init__(
        self,
        task: Task,
        corpus: Corpus | Index,
        step: Step,
        queries: Sequence[Query],
        k: int = 5,
        *,
        random: int = 5,
        gold: Sequence[Sequence[str]] | None = None,
        cache: str | Path | None = None,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.corpus, self.queries, self.k = corpus, list(queries), k
        self.resamples, self.seed = resamples, seed
        self.ids = corpus.ids if isinstance(corpus, Index) else [d.id for d in corpus.documents()]
        if not self.queries:
            raise InputError("There is no query", expected="at least one")
        for query in self.queries:
            require_probability(query)
        for name, value in (("k", k), ("random", random)):
            if not 1 <= value <= len(self.ids):
                raise InputError(
                    f"{name} is out of range", expected=f"1 to {len(self.ids)}", found=value
                )
        self.patches = Patches(task, step, cache)
        self.cuts = sorted({cut for cut in CUTS if cut < k} | {k})
        self._random = [self._drawn(query, random) for query in self.queries]
        self._gold = None if gold is None else self._positions(gold)
        self._missing: list[str] = []

    @property
    def columns(self) -> Mapping[str, str]:
        """Points and nats at every cut, and the difference to random documents."""
        made: dict[str, str] = {}
        for cut in self.cuts:
            told = f"after one step on each of a query's {cut} best documents; more is better"
            made[f"tail-patch@{cut} ({POINTS})"] = f"mean rise of P(target) {told}"
            made[f"tail-patch@{cut} ({NATS})"] = f"mean rise of log P(target) {told}"
        for unit in (POINTS, NATS):
            told = "the same less that of random documents, paired by query; above 0 is better"
            made[f"tail-patch@{self.k} less random ({unit})"] = told
        return made

    def measure(self, scored: Scored) -> Figures:
        """All figures of one method; a query without a single score is not counted."""
        scores = np.asarray(scored.scores)
        if scores.shape != (len(self.queries), len(self.ids)):
            raise InputError(
                "Scores do not fit",
                expected=f"[{len(self.queries)} queries, {len(self.ids)} documents]",
                found=scores.shape,
            )
        best = [order[: self.k].tolist() for order in rankings(scores, self.seed)]
        self._missing = [
            f"{scored.title}, query {number}: {len(found)} of {self.k} documents have a score"
            for number, found in enumerate(best)
            if len(found) < self.k
        ]
        rises, random = self._rises(best), self._rises(self._random)
        figures: dict[str, Estimate | str] = {}
        for unit, column in ((POINTS, 0), (NATS, 1)):
            for cut in self.cuts:
                values = [one[:cut, column].mean() for one in rises if len(one)]
                figures[f"tail-patch@{cut} ({unit})"] = self._mean(values)
            above = [
                one[:, column].mean() - other[:, column].mean()
                for one, other in zip(rises, random, strict=True)
                if len(one)
            ]
            figures[f"tail-patch@{self.k} less random ({unit})"] = self._mean(above)
        return {name: figures[name] for name in self.columns}

    def controls(self) -> dict[str, Figures]:
        """Points and nats of random documents, and of gold ones where they were given."""
        made: dict[str, Figures] = {}
        for name, wanted in (("random", self._random), ("gold", self._gold)):
            if wanted is not None:
                rises = self._rises(wanted)
                made[name] = {
                    unit: self._mean([one[:, column].mean() for one in rises if len(one)])
                    for unit, column in ((POINTS, 0), (NATS, 1))
                }
        return made

    def notes(self) -> list[str]:
        """How the step was taken, and what was not counted by the last `measure`."""
        told = f"Tail patch: {self.patches.step.told()}; one step says what a document does here."
        return [told, *self.patches.notes, *self._missing]

    def describe(self) -> dict[str, Any]:
        """All that decides the figures beside the scores."""
        return {
            "metric": self.name,
            "task": self.patches.task.describe(),
            "step": self.patches.step.describe(),
            "queries": [digest(query) for query in self.queries],
            "k": self.k,
            "random": [[self.ids[p] for p in drawn] for drawn in self._random],
            "resamples": self.resamples,
            "seed": self.seed,
        }

    def _mean(self, values: Sequence[float]) -> Estimate | str:
        return mean(np.asarray(values, np.float64), self.resamples, self.seed)

    def _rises(self, wanted: Sequence[Sequence[int]]) -> list[Array]:
        """For each query its documents' rises of P in points and of log P, float64 [documents, 2].

        Every document is stepped on once for all the queries that want it.
        """
        before = self.patches.before(self.queries)
        askers: dict[int, list[int]] = {}
        for number, positions in enumerate(wanted):
            for position in positions:
                askers.setdefault(position, []).append(number)
        documents = self._documents(sorted(askers))
        asked = [[self.queries[i] for i in askers[position]] for position in documents]
        found = self.patches.after(list(documents.values()), asked)
        after: dict[tuple[int, int], float] = {}
        for position, values in zip(documents, found, strict=True):
            after |= {(i, position): v for i, v in zip(askers[position], values, strict=True)}
        made: list[Array] = []
        for number, positions in enumerate(wanted):
            then = np.array([after[number, position] for position in positions])
            made.append(rises(before[number], then))
        return made

    def _documents(self, positions: Sequence[int]) -> dict[int, Document]:
        if isinstance(self.corpus, Index):
            return dict(zip(positions, self.corpus.documents(positions), strict=True))
        wanted = set(positions)
        return {i: one for i, one in enumerate(self.corpus.documents()) if i in wanted}

    def _drawn(self, query: Query, count: int) -> list[int]:
        """Random positions of a query's own."""
        seeds = (self.seed, int(digest(query)[:15], 16))
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))
        return generator.choice(len(self.ids), count, replace=False).tolist()

    def _positions(self, gold: Sequence[Sequence[str]]) -> list[list[int]]:
        if len(gold) != len(self.queries):
            raise InputError(
                "Gold documents do not fit",
                expected=f"a list of ids for each of {len(self.queries)} queries",
                found=len(gold),
            )
        at = {name: position for position, name in enumerate(self.ids)}
        unknown = sorted({name for names in gold for name in names if name not in at})
        if unknown:
            raise InputError(
                "Gold documents are not in the corpus",
                expected=f"ids such as {self.ids[0]}",
                found=", ".join(unknown[:3]),
            )
        return [[at[name] for name in names] for names in gold]


def rises(before: float, after: Array) -> Array:
    """By how much log P and P rose: points and nats, float64 [documents, 2]."""
    points = 100 * (np.exp(after) - np.exp(before))
    return np.stack([points, after - before], axis=1)
