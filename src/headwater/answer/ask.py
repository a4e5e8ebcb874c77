"""ask: a query in, an Answer out.

The query, the stored reference queries and the random completions of the null are scored in one
scan; then only the few examples that are shown are looked at token by token.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.answer.answer import Answer, Evidence
from headwater.answer.calibration import NULLS, judge, random_completions, specificity
from headwater.answer.reproduce import reproduce
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
from headwater.corpus.document import content_hash, plain_text
from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.index.index import QUERY_BUDGET
from headwater.index.selection import selected
from headwater.methods.scoring import as_list
from headwater.methods.trackstar import TrackStar
from headwater.methods.view import View
from headwater.tasks.query import Query

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.index.index import Index
    from headwater.index.selection import Groups, Mask
    from headwater.methods.method import Method
    from headwater.methods.view import Prepared
    from headwater.tasks.task import Chunk

SURE = 0.99  # probability above which gradients say little

Array = np.ndarray[Any, Any]
Parts = list[tuple[float, "Chunk"]]


def ask(
    index: Index,
    queries: Query | Sequence[Query],
    *,
    method: Method | None = None,
    top: int = 10,
    calibrate: bool = True,
    tokens: bool = True,
    by: Sequence[str] = (),
    modules: Sequence[str] | None = None,
    ids: Collection[str] | None = None,
    groups: Groups | None = None,
) -> Any:
    """The training examples behind an output.

    Args:
        index: the index. queries: one (gives an Answer) or several (give a list).
        method: TrackStar when left out.
        top: proponents and opponents shown.
        calibrate: score the nulls too (19 short extra gradients a query).
        tokens: find the words that carry each shown example's score (a pass over each).
        by: metadata columns to total by, for additive methods.
        modules: name patterns of the modules that take part.
        ids: only examples with these ids.
        groups: (metadata column, values): only examples of these groups.

    Raises:
        InputError: for a query, a column, ids, groups or a method that does not fit the index.
    """
    wanted = as_list(queries)
    if top < 1:
        raise InputError("top must be positive", found=top)
    used = method or TrackStar()
    if by and not used.additive:
        raise InputError(
            f"Scores of {used.title} may not be summed by {', '.join(by)}",
            expected="an additive method: GradDot, LoGra or TRAK",
        )
    columns = {column: index.metadata(column) for column in by}
    if not isinstance(used, View):
        raise InputError(f"ask explains views; {used.title} gives scores only", do="use hw.scores")
    prepared = used.prepare(index, modules)
    given: dict[str, Any] = {
        "top": top,
        "by": list(by),
        "modules": None if modules is None else list(modules),
        "ids": None if ids is None else sorted(ids),
        "groups": None if groups is None else (groups[0], list(groups[1])),
    }
    options = {name: value for name, value in given.items() if value}
    options |= {} if calibrate else {"calibrate": False}
    options |= {} if tokens else {"tokens": False}
    among = selected(index, ids, groups)
    asker = Asker(index, used, prepared, top, calibrate, tokens, columns, options, among)
    answers: list[Answer] = []
    with Progress("answering", len(wanted), "queries") as progress:
        for query in wanted:
            answers.append(asker.answer(query))
            progress.advance()
    return answers[0] if isinstance(queries, Query) else answers


@dataclass
class Asker:
    """A method prepared for an index, answering one query after another."""

    index: Index
    method: View
    prepared: Prepared
    top: int
    calibrate: bool
    tokens: bool
    columns: dict[str, list[Any]]
    options: dict[str, Any]  # of `ask`, as given, to say how to get an answer again
    among: Mask | None  # the examples that take part
    _reference_directions: Array | None = None

    def answer(self, query: Query) -> Answer:
        """Score, rank, judge, explain."""
        index, seconds = self.index, dict[str, float]()
        clock = time.perf_counter()
        parts, notes = _chunks(index, query)
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
        clock = time.perf_counter()
        best, worst = self._shown(scores)
        explain = _Explain(self, u[0], u[1 + len(nulls) :])
        proponents = [self._evidence(e, scores, explain) for e in best]
        opponents = [self._evidence(e, scores, explain) for e in worst]
        notes += explain.notes
        seconds["tokens"] = time.perf_counter() - clock
        probability = _probability(index, parts, float(values[0]))
        return Answer(
            query=query.describe(),
            prompt=_prompt(query),
            completion=query.completion or "",
            target=text_of(index, [token for token, _ in split]) if split else [],
            probability=probability,
            method=self.method.describe(),
            title=self.method.title,
            unit=self.method.unit,
            additive=self.method.additive,
            examples=int(np.isfinite(scores).sum()),
            proponents=proponents,
            opponents=opponents,
            judgement=judge(float(np.nanmax(scores)), null, self.method.unit),
            groups={name: _totals(groups, scores) for name, groups in self.columns.items()},
            notes=[*self.prepared.notes, *notes, *_sure(probability)],
            seconds={name: round(value, 4) for name, value in seconds.items()},
            reproduce=reproduce(index.path, query, self.method, self.options),
            name=query.name,
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

    def _shown(self, scores: Array) -> tuple[list[_Group], list[_Group]]:
        """The best and worst examples, those of equal text folded into one."""
        there = np.flatnonzero(np.isfinite(scores))
        ids, scores = np.asarray(self.index.ids)[there], scores[there]
        orders = np.lexsort((ids, -scores)), np.lexsort((ids, scores))
        return self._first(there[orders[0]]), self._first(there[orders[1]])

    def _first(self, order: Array) -> list[_Group]:
        """The first `top` texts; further down as long as there are fewer, or one goes on."""
        count = 4 * self.top
        while True:
            near = order[:count].tolist()
            documents = self.index.documents(near)
            groups = _folded(list(zip(near, documents, strict=True)), self.top)
            enough = len(groups) == self.top and _key(documents[-1]) not in groups
            if enough or count >= len(order):
                return list(groups.values())
            count *= 4

    def _evidence(self, group: _Group, scores: Array, explain: _Explain) -> Evidence:
        position = group.position
        score = float(scores[position])
        shares, targets = explain.example(position)
        return Evidence(
            id=group.document.id,
            text=plain_text(group.document) or decoded(self.index, position),
            score=score,
            percentile=float((scores < score).sum() / np.isfinite(scores).sum() * 100),
            position=position,
            metadata=group.document.metadata,
            specificity=specificity(score, self._references(position)),
            tokens=shares,
            by_target=targets,
            duplicates=group.duplicates,
        )

    def _references(self, position: int) -> Array:
        """Scores of one example under the stored reference queries."""
        references = self.index.calibration.references
        if not self.calibrate or not len(references):
            return np.zeros(0)
        if self._reference_directions is None:
            made = self.method.directions(self.index, self.prepared, references)
            self._reference_directions = made.numpy()
        u = stored_features(self.index, [position], self.method.weighted)[0]
        scale = 1.0 if self.prepared.scale is None else float(self.prepared.scale[position])
        return (self._reference_directions @ u) * scale


@dataclass
class _Group:
    """A shown document and the ids of others with the same text."""

    position: int
    document: Document
    duplicates: list[str]


class _Explain:
    """Token by token accounts of shown examples for one query."""

    def __init__(self, asker: Asker, whole: Array, split: Array) -> None:
        self.asker, self.whole, self.split = asker, whole, split
        self.v: Array | None = None
        self.notes: list[str] = []

    def example(self, position: int) -> tuple[list[tuple[str, float]], list[float]]:
        """(token, share) of the example, and its score by target token."""
        asker = self.asker
        if not asker.tokens:
            return [], []
        index, method, prepared = asker.index, asker.method, asker.prepared
        if self.v is None:
            self.v = method.directions(index, prepared, self.whole[None])[0].numpy()
        factor = 1.0 if prepared.scale is None else float(prepared.scale[position])
        shares: list[tuple[str, float]] = []
        if not method.weighted:
            chunks = index.chunks([position])[0]
            shares = example_shares(index, chunks, self.v, factor)
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


def _folded(found: Sequence[tuple[int, Document]], count: int) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for position, document in found:
        key = _key(document)
        if key in groups:
            groups[key].duplicates.append(document.id)
        elif len(groups) < count:
            groups[key] = _Group(position, document, [])
    return groups


def _key(document: Document) -> str:
    """Documents of one key have the same text, or, where there is none, the same content."""
    content = document.content
    if "text" in content or "completion" in content or "messages" in content:
        return " ".join(plain_text(document).split())
    return content_hash(content)


def _chunks(index: Index, query: Query) -> tuple[Parts, list[str]]:
    """The query's chunks, and what the task notes of this query, be it noted before or not."""
    task = index.task
    held, task.notes = task.notes, []
    try:
        parts = task.query_chunks(query)
    finally:
        notes, task.notes = task.notes, held
    task.notes += [note for note in notes if note not in held]
    return parts, notes


def _totals(groups: Sequence[Any], scores: Array) -> list[tuple[str, float, int]]:
    from headwater.methods.scoring import group_sums

    sums = group_sums(groups, scores.astype(np.float64))
    return sorted(sums, key=lambda item: (-item[1], item[0]))


def _prompt(query: Query) -> str:
    if isinstance(query.prompt, str) or query.prompt is None:
        return query.prompt or ""
    return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in query.prompt)


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
    if index.manifest["task"]["kind"] != "causal_lm" or index.features.output != "loss":
        return None
    return math.exp(-loss)
