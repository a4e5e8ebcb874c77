"""Influence on one output: scores of all examples, how far to believe them, and the words.

The query and the random completions of the null are scored in one scan; then only the few examples
that are shown are looked at, token by token and under the stored reference queries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.answer.answer import Answer, Distribution, Evidence
from headwater.answer.calibration import NULLS, judge, random_completions, specificity
from headwater.answer.reproduce import reproduce
from headwater.answer.shown import prompt_words, query_words
from headwater.answer.tokens import (
    MOST_CHUNKS,
    MOST_TARGETS,
    by_target,
    decoded,
    example_shares,
    stored_features,
    target_parts,
    text_of,
)
from headwater.corpus.document import plain_text
from headwater.evidence.fusion import best_first
from headwater.index.first_texts import Shown, first_texts
from headwater.index.index import QUERY_BUDGET

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.methods.view import Prepared
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk

BINS = 60  # of a distribution of scores
SURE = 0.99  # probability above which gradients say little

Array = np.ndarray[Any, Any]
Parts = list[tuple[float, "Chunk"]]


@dataclass
class Influence:
    """A method prepared for an index, answering one query after another."""

    index: Index
    method: Any  # a View; of StreamedInfluence, any Method
    prepared: Prepared
    top: int
    calibrate: bool
    tokens: bool
    columns: dict[str, list[Any]]
    options: dict[str, Any]  # of `ask`, as given, to say how to get an answer again
    among: Mask | None  # the examples that take part
    _reference_directions: Array | None = None
    modules: Sequence[str] | None = None
    uncertainty: int = 0  # other projection seeds

    def answer(self, query: Query) -> Answer:
        """The answer by influence alone."""
        scored = self.start(query)
        return self.finish(scored, *self.best_and_worst(scored))

    def start(self, query: Query) -> Scored:
        """Gradients of the query and its nulls, and one scan for all of them."""
        index, seconds = self.index, dict[str, float]()
        clock = time.perf_counter()
        parts, notes = chunks_of(index, query)
        unigrams = index.unigrams() if self.calibrate else None
        nulls: list[Parts] = []
        if unigrams is not None and not query.parts:
            nulls = random_completions(parts, unigrams, NULLS)
        split = target_parts(parts) if self.tokens and not query.parts else []
        if len(split) > MOST_TARGETS:
            notes.append(
                f"the target has {len(split)} tokens: not split by token (at most {MOST_TARGETS})"
            )
            split = []
        names = [query.describe()] * (1 + len(nulls) + len(split))
        u, values = index.gradients.weighted(
            [parts, *nulls, *(part for _, part in split)], QUERY_BUDGET, names
        )
        seconds["query gradients"] = time.perf_counter() - clock
        clock = time.perf_counter()
        scores, null = self._scan(u[: 1 + len(nulls)])
        seconds["scan"] = time.perf_counter() - clock
        probability = _probability(index, parts, float(values[0]))
        target = text_of(index, [token for token, _ in split]) if split else []
        explain = Explain(self, u[0], u[1 + len(nulls) :])
        return Scored(query, scores, null, probability, target, notes, seconds, explain)

    def best_and_worst(self, scored: Scored) -> tuple[list[Shown], list[Shown]]:
        """The best and worst examples, those of equal text folded into one."""
        places, scores = self.index.examples.id_order, scored.scores
        orders = (best_first(signed, places, len(scores)) for signed in (scores, -scores))
        best, worst = (first_texts(self.index, order, self.top) for order in orders)
        return best, worst

    def finish(self, scored: Scored, best: list[Shown], worst: list[Shown]) -> Answer:
        """Judge the scores, and look at the shown examples token by token."""
        clock = time.perf_counter()
        scores, query = scored.scores, scored.query
        proponents = [self._evidence(one, scored) for one in best]
        opponents = [self._evidence(one, scored) for one in worst]
        scored.seconds["tokens"] = time.perf_counter() - clock
        if self.uncertainty:
            self._spread(scored, proponents, opponents)
        notes = [*self.prepared.notes, *scored.notes, *scored.explain.notes]
        return Answer(
            query=query_words(query),
            prompt=prompt_words(query),
            completion=query.completion or "",
            target=scored.target,
            probability=scored.probability,
            method=self.method.describe(),
            title=self.method.title,
            unit=self.method.unit,
            additive=self.method.additive,
            examples=int(np.isfinite(scores).sum()),
            proponents=proponents,
            opponents=opponents,
            judgement=judge(float(np.nanmax(scores)), scored.null, self.method.unit),
            groups={name: _totals(groups, scores) for name, groups in self.columns.items()},
            notes=[*notes, *_sure(scored.probability)],
            seconds={name: round(value, 4) for name, value in scored.seconds.items()},
            reproduce=reproduce(self.index.path, query, self.method, self.options),
            name=query.name,
            instead_of=query.other,
            distribution=distribution(scores),
        )

    def _scan(self, u: Array) -> tuple[Array, list[float]]:
        """Scores of all examples (NaN for those that take no part), and the best of each null.

        Args:
            u: features of the query and its nulls [1 + nulls, size].
        """
        scores = np.full(len(self.index), np.nan, dtype=np.float32)
        best = np.full(len(u) - 1, -np.inf)
        for first, block in self.method.stream_features(self.index, self.prepared, u, self.among):
            scores[first : first + block.shape[1]] = block[0]
            best = np.fmax(best, np.fmax.reduce(block[1:], axis=1))
        return scores, best.tolist()

    def _evidence(self, one: Shown, scored: Scored) -> Evidence:
        position, scores = one.position, scored.scores
        score = float(scores[position])
        shares, targets = scored.explain.example(position)
        return Evidence(
            id=one.document.id,
            text=plain_text(one.document) or decoded(self.index, position),
            score=score,
            percentile=float((scores < score).sum() / np.isfinite(scores).sum() * 100),
            position=position,
            metadata=one.document.metadata,
            specificity=specificity(score, self._references(position)),
            tokens=shares,
            by_target=targets,
            duplicates=one.duplicates,
        )

    def _spread(self, scored: Scored, best: list[Evidence], worst: list[Evidence]) -> None:
        """How uncertain the shown scores are."""
        from headwater.answer.uncertainty import Case, spreads

        clock = time.perf_counter()
        ends = [[item.position for item in items] for items in (best, worst)]
        parts, _ = chunks_of(self.index, scored.query)
        query, scores = scored.query, scored.scores
        case = Case(self.index, self.method, self.modules, query, parts, scores, *ends)
        found, notes = spreads(case, self.uncertainty)
        for item in [*best, *worst]:
            item.spreads = found.get(item.position, [])
        scored.notes += notes
        scored.seconds["uncertainty"] = time.perf_counter() - clock

    def _references(self, position: int) -> Array:
        """Scores of one example under the stored reference queries."""
        if not self.calibrate:
            return np.zeros(0)
        references = self.index.calibration.references
        if not len(references):
            return np.zeros(0)
        if self._reference_directions is None:
            made = self.method.directions(self.index, self.prepared, references)
            self._reference_directions = made.numpy()
        u = stored_features(self.index, [position], self.method.weighted)[0]
        scale = 1.0 if self.prepared.scale is None else float(self.prepared.scale[position])
        return (self._reference_directions @ u) * scale


@dataclass
class Scored:
    """A query with the scores of all examples, before any of them is looked at.

    Args:
        scores: float32 [documents], NaN for those that take no part.
        null: the best score of each random completion. probability: the model's, of the target.
        target: the explained tokens. notes, seconds: for the answer. explain: token by token.
    """

    query: Query
    scores: Array
    null: list[float]
    probability: float | None
    target: list[str]
    notes: list[str]
    seconds: dict[str, float]
    explain: Explain


class Explain:
    """Token by token accounts of shown examples for one query."""

    def __init__(self, asker: Influence, whole: Array, split: Array) -> None:
        self.asker, self.whole, self.split = asker, whole, split
        self.v: Array | None = None
        self.notes: list[str] = []

    def example(self, position: int) -> tuple[list[tuple[str, float]], list[float]]:
        """(token, share) of the example, and its score by target token."""
        asker = self.asker
        if not asker.tokens:
            return [], []
        index, method, prepared = asker.index, asker.method, asker.prepared
        v = self.v
        if v is None:
            v = self.v = np.asarray(method.directions(index, prepared, self.whole[None])[0])
        factor = 1.0 if prepared.scale is None else float(prepared.scale[position])
        shares: list[tuple[str, float]] = []
        if not method.weighted:
            chunks = index.chunks([position])[0]
            shares = example_shares(index, chunks, v, factor)
            if len(chunks) > MOST_CHUNKS:
                self._note(f"words are marked in the first {MOST_CHUNKS} chunks of long examples")
        if not len(self.split):
            return shares, []
        values = by_target(
            index, method, prepared, whole=self.whole, split=self.split, shown=[position]
        )[0]
        return shares, [float(value) for value in values]

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def chunks_of(index: Index, query: Query) -> tuple[Parts, list[str]]:
    """The query's chunks, and what the task notes of this query, be it noted before or not."""
    task = index.task
    held, task.notes = task.notes, []
    try:
        parts = task.query_chunks(query)
    finally:
        notes, task.notes = task.notes, held
    task.notes += [note for note in notes if note not in held]
    return parts, notes


def distribution(scores: Array) -> Distribution:
    """The finite scores in equally wide bins; all in one where they are equal."""
    there = scores[np.isfinite(scores)].astype(np.float64)
    counts, edges = np.histogram(there, bins=BINS if len(there) and np.ptp(there) > 0 else 1)
    return Distribution(edges.tolist(), counts.tolist())


def _totals(groups: Sequence[Any], scores: Array) -> list[tuple[str, float, int]]:
    from headwater.methods.scoring import group_sums

    sums = group_sums(groups, scores.astype(np.float64))
    return sorted(sums, key=lambda item: (-item[1], item[0]))


def _sure(probability: float | None) -> list[str]:
    """A warning where the model has nothing left to learn, so that gradients are mostly noise."""
    if probability is None or probability < SURE:
        return []
    return [
        f"the model is sure of this (p = {probability:.4f}): its gradient is tiny, and a ranking "
        "by it may be noise; an earlier checkpoint tells more"
    ]


def _probability(index: Index, parts: Parts, loss: float) -> float | None:
    """The model's, of the target as a whole; None for contrasts, means and weighted targets."""
    if len(parts) != 1 or parts[0][0] != 1.0:
        return None
    weights = parts[0][1].content.get("weights")
    if weights is not None and not np.isin(weights, (0, 1)).all():
        return None
    if index.manifest["task"]["kind"] != "causal_lm":
        return None
    if index.has_features and index.features.output != "loss":
        return None
    return math.exp(-loss)


def probability_of(index: Index, parts: Parts) -> float | None:
    """The same by a forward pass of its own."""
    import torch

    task = index.task
    with task.running(), torch.no_grad():
        loss = float(task.measurement(task.collate([parts[0][1]])))
    return _probability(index, parts, loss)
