"""ask: a query in, an Answer out.

The query, the stored reference queries and the random completions of the null are scored in one
scan; then only the few examples that are shown are looked at token by token.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.answer.answer import Answer, Evidence
from headwater.answer.calibration import NULLS, judge, random_completions, specificity
from headwater.answer.tokens import by_target, decoded, example_shares, target_parts, text_of
from headwater.corpus.document import content_hash, plain_text
from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.index.index import QUERY_BUDGET
from headwater.methods.registry import METHODS
from headwater.methods.scoring import as_list
from headwater.methods.trackstar import TrackStar
from headwater.methods.view import View
from headwater.tasks.query import Query

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.index.index import Index
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

    Raises:
        InputError: for a query, a column or a method that does not fit the index.
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
    asked = {"modules": list(modules) if modules is not None else None, "by": list(by)}
    options = {name: value for name, value in asked.items() if value}
    prepared = used.prepare(index, modules)
    asker = Asker(index, used, prepared, top, calibrate, tokens, columns, options)
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
        names = [query.describe()] * (1 + len(nulls) + len(split))
        u, values = index.gradients.weighted(
            [parts, *nulls, *(part for _, part in split)], QUERY_BUDGET, names
        )
        seconds["query gradients"] = time.perf_counter() - clock
        clock = time.perf_counter()
        references = index.calibration.references if self.calibrate else u[:0]
        asked = np.concatenate([u[: 1 + len(nulls)], references])
        table = np.zeros((len(asked), len(index)), dtype=np.float32)
        for first, block in self.method.stream_features(index, self.prepared, asked):
            table[:, first : first + block.shape[1]] = block
        scores, null = table[0], table[1 : 1 + len(nulls)]
        seconds["scan"] = time.perf_counter() - clock
        clock = time.perf_counter()
        best, worst = self._shown(scores)
        held = table[1 + len(nulls) :]
        explain = _Explain(self, u[0], u[1 + len(nulls) :])
        proponents = [self._evidence(e, scores, held, explain) for e in best]
        opponents = [self._evidence(e, scores, held, explain) for e in worst]
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
            examples=len(index),
            proponents=proponents,
            opponents=opponents,
            judgement=judge(float(scores.max()), null.max(axis=1).tolist(), self.method.unit),
            groups={name: _totals(groups, scores) for name, groups in self.columns.items()},
            notes=[*self.prepared.notes, *notes, *_sure(probability)],
            seconds={name: round(value, 4) for name, value in seconds.items()},
            reproduce=self._reproduce(query),
            name=query.name,
        )

    def _shown(self, scores: Array) -> tuple[list[_Group], list[_Group]]:
        """The best and worst examples, those of equal text folded into one."""
        ids = np.asarray(self.index.ids)
        return self._first(np.lexsort((ids, -scores))), self._first(np.lexsort((ids, scores)))

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

    def _evidence(
        self, group: _Group, scores: Array, references: Array, explain: _Explain
    ) -> Evidence:
        position = group.position
        score = float(scores[position])
        shares, targets = explain.example(position)
        return Evidence(
            id=group.document.id,
            text=plain_text(group.document) or decoded(self.index, position),
            score=score,
            percentile=float((scores < score).mean() * 100),
            position=position,
            metadata=group.document.metadata,
            specificity=specificity(score, references[:, position]),
            tokens=shares,
            by_target=targets,
            duplicates=group.duplicates,
        )

    def _reproduce(self, query: Query) -> dict[str, str]:
        if query.completion is None or not isinstance(query.prompt, str):
            return {}
        path = str(self.index.path)
        words = ["headwater", "ask", path, query.prompt, query.completion]
        if query.instead_of is not None:
            words += ["--instead-of", query.instead_of]
        words += ["--method", self.method.name, "--top", str(self.top)]
        other = f", instead_of={query.instead_of!r}" if query.instead_of is not None else ""
        asked = f"hw.Query({query.prompt!r}, {query.completion!r}{other})"
        return {
            "command": shlex.join(words),
            "python": f"hw.ask(hw.Index.open({path!r}), {asked}, {', '.join(self._arguments())})",
        }

    def _arguments(self) -> list[str]:
        """The arguments of `ask` that are not left at their defaults, as Python."""
        kind, told = type(self.method), self.method.describe()
        usual: dict[str, Any] = kind().describe() if kind.name in METHODS else {}
        given = [
            f"{name}={'held_out' if name == 'eval_queries' else repr(value)}"
            for name, value in told.items()
            if name != "method" and value != usual.get(name)
        ]
        arguments = [f"method=hw.{kind.__name__}({', '.join(given)})", f"top={self.top}"]
        arguments += [f"{name}={value!r}" for name, value in self.options.items()]
        switches = {"calibrate": self.calibrate, "tokens": self.tokens}
        return arguments + [f"{name}=False" for name, on in switches.items() if not on]


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
            shares = example_shares(index, index.chunks([position])[0], self.v, factor)
        if not len(self.split):
            return shares, []
        values = by_target(
            index, method, prepared, whole=self.whole, split=self.split, shown=[position]
        )[0]
        return shares, [float(value) for value in values]


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
