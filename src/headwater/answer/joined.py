"""Several kinds of evidence in one answer, kept apart: each example with its rank in every kind.

Every kind scores all examples. One alone shows them in its own order, by its own score; of several
a fused order (reciprocal ranks) decides which are shown. What the picture names is shown in any
case. A score that is not telling (a turn of phrase that stands here and there) has no vote in that
order: it orders only what nothing else does. The opponents are influence's alone, since no other
kind knows of any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.answer.answer import Answer, Evidence, Judgement, Kind, Place
from headwater.answer.kinds import NOTES, VerbatimReader
from headwater.answer.reproduce import reproduce
from headwater.answer.shown import prompt_words, query_words
from headwater.answer.verdict import COPIED_TOKENS, STATED_RANK, picture
from headwater.evidence.fusion import best_first, reciprocal_ranks
from headwater.evidence.support import Entailment, Statement, statement, support
from headwater.evidence.texts import document_text, prompt_text
from headwater.index.first_texts import Shown, first_texts

if TYPE_CHECKING:
    from headwater.answer.influence import Scored
    from headwater.answer.kinds import Reader
    from headwater.answer.near import Near
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.methods.method import Method
    from headwater.tasks.query import Query

Array = np.ndarray[Any, Any]
Rows = dict[str, Array]  # scores of all documents by kind
UNTOLD = 1e-3  # weight of a rank that is not telling: below any difference that counts
UNASKED = "Influence was not asked for."
NO_CANDIDATE = "Influence has no candidate: no example has evidence of the kind that names them."


@dataclass
class Joined:
    """Kinds of evidence made ready for an index, answering one query after another.

    Args:
        method: of influence; None = not asked for.
        near: gives influence for a query and what the other kinds found; None where it has no
            candidate.
        readers: the other kinds. among: the examples that take part; None = all.
        fusion: "rrf" (of several kinds), or the kind whose order is taken.
        options: of `ask`, to say how to get the answer again.
    """

    index: Index
    method: Method | None
    near: Callable[[Query, Rows], Near | None]
    readers: Sequence[Reader]
    among: Mask | None
    fusion: str
    top: int
    entailment: Entailment | None
    options: dict[str, Any]

    def answer(self, query: Query) -> Answer:
        """Score by every kind, fuse, show, and say what it comes down to."""
        seconds: dict[str, float] = {}
        rows: Rows = {}
        for one in self.readers:
            clock = time.perf_counter()
            rows[one.kind] = one.scores(query)
            seconds[one.kind] = round(time.perf_counter() - clock, 4)
        near = scored = None
        if self.method is not None:
            near = self.near(query, rows)
            scored = None if near is None else near.influence.start(query)
            rows = {"influence": self._spread(near, scored), **rows}
        points = self._points(rows)
        best = first_texts(self.index, self._order(points), self.top)
        if near is not None and scored is not None:
            answer = self._with_influence(near, scored, best)
        else:
            answer = self._without(query, best)
        answer.seconds |= seconds
        self._complete(answer, query, rows, points)
        return answer

    def _spread(self, near: Near | None, scored: Scored | None) -> Array:
        """Influence of all documents; NaN for those that it was not computed for."""
        row = np.full(len(self.index), np.nan, dtype=np.float32)
        if near is not None and scored is not None:
            near.spread(scored, row)
        return row

    def _points(self, rows: Rows) -> Array:
        """What decides the order in which examples are shown [documents]."""
        leading = self._leading()
        if leading is not None:
            return rows[leading]
        order, total = self.index.examples.id_order, np.zeros(len(self.index))
        telling = {one.kind: one.telling for one in self.readers}
        for kind, row in rows.items():
            told = telling.get(kind)
            if told is None:
                total += reciprocal_ranks(row, order)
            else:
                total += reciprocal_ranks(np.where(told, row, 0), order)
                total += UNTOLD * reciprocal_ranks(np.where(told, 0, row), order)
        return total

    def _order(self, points: Array) -> Array:
        """Positions to show, best first. Influence alone ranks what tells against the output."""
        if self.fusion != "influence":
            points = np.where(points > 0, points, np.nan)
        return best_first(points, self.index.examples.id_order, len(points))

    def _with_influence(self, near: Near, scored: Scored, best: list[Shown]) -> Answer:
        """Influence explains the shown examples that it has a score for."""
        _, worst = near.influence.best_and_worst(scored)
        known, others = near.known(scored, best)
        answer = near.influence.finish(scored, known, worst)
        # What is asked again is the whole index, not a small one.
        answer.reproduce = reproduce(self.index.path, scored.query, self.method, self.options)
        near.restore([*answer.proponents, *answer.opponents])
        if near.candidates:
            answer.notes.append(f"influence was computed for {answer.examples:,} candidates")
            answer.candidates_of = self._taking_part()
        made = {item.id: item for item in answer.proponents}
        made |= {one.document.id: _plain(one) for one in others}
        answer.proponents = [made[one.document.id] for one in best]
        return answer

    def _without(self, query: Query, best: list[Shown]) -> Answer:
        """Influence was not asked for, or has no candidate."""
        why = UNASKED if self.method is None else NO_CANDIDATE
        asked = [self.method] if self.method is not None and not self.readers else self.readers
        return Answer(
            query=query_words(query),
            prompt=prompt_words(query),
            completion=query.completion or "",
            target=[],
            probability=None,
            method={},
            title=" + ".join(one.title for one in asked),
            unit=self._unit(),
            additive=False,
            examples=self._taking_part(),
            proponents=[_plain(one) for one in best],
            opponents=[],
            judgement=Judgement(0.0, [], None, None, why),
            notes=[] if self.method is None else [why],
            reproduce=reproduce(self.index.path, query, self.method, self.options),
            name=query.name,
            instead_of=query.other,
        )

    def _taking_part(self) -> int:
        return len(self.index) if self.among is None else int(self.among.sum())

    def _asked(self) -> dict[str, Method | Reader]:
        """What each kind is asked of."""
        influence = {} if self.method is None else {"influence": self.method}
        return influence | {one.kind: one for one in self.readers}

    def _leading(self) -> str | None:
        """The kind whose own scores make the order; None where several are fused."""
        asked = list(self._asked())
        if self.fusion != "rrf":
            return self.fusion
        return asked[0] if len(asked) == 1 else None

    def _unit(self) -> str:
        leading = self._leading()
        return "sum of reciprocal ranks" if leading is None else self._asked()[leading].unit

    def _complete(self, answer: Answer, query: Query, rows: Rows, points: Array) -> None:
        """Places, support, words and spans of the shown examples; the kinds; the picture."""
        before, said = query.said
        stated = statement(prompt_text(query) + before, said)
        items = [*answer.proponents, *answer.opponents]
        for item in items:
            self._place(item, stated, rows)
        for kind, one in self._asked().items():
            count = int(np.count_nonzero(rows[kind] > 0))
            answer.kinds[kind] = Kind(one.title, one.unit, NOTES[kind], count)
        answer.title = " + ".join(one.title for one in answer.kinds.values())
        answer.fusion = self._leading() or "rrf"
        self._note(answer, rows)
        if query.words is not None and {"lexical", "semantic"} & set(rows):
            answer.notes.append(
                "shared words, meaning and support are of the output up to the chosen words, "
                "without what follows them"
            )
        tokens = 0  # of the corpus; they matter to its spans only
        for one in self.readers:
            if isinstance(one, VerbatimReader):
                answer.spans, tokens = one.spans, one.verbatim.tokens
        further = self._further(answer, stated, rows)
        shown = answer.proponents
        answer.picture = picture(answer.spans, shown, answer.judgement, tokens, further)
        named = answer.picture.figures.get("id")
        answer.proponents = [*shown, *(item for item in further if item.id == named)]
        for item in {id(item): item for item in [*answer.proponents, *items]}.values():
            self._explain(item, rows, points)

    def _note(self, answer: Answer, rows: Rows) -> None:
        """Say which matches have no vote in a fused order."""
        for one in self.readers:
            if one.telling is None or self._leading() is not None:
                continue
            if bool(((rows[one.kind] > 0) & ~one.telling).any()):
                answer.notes.append(
                    f"{one.kind} matches that are short or common (below {COPIED_TOKENS} tokens of "
                    "the output, or likely by chance) have no vote in the fused order"
                )

    def _place(self, item: Evidence, stated: Statement, rows: Rows) -> None:
        """Its rank in every kind, and how it supports the output."""
        item.kinds = {kind: p for kind, row in rows.items() if (p := _place(row, item))}
        usual = self._leading() or next(iter(rows))
        item.kind = min(item.kinds, key=lambda k: item.kinds[k].rank, default=usual)
        item.support = support(stated, item.text, self.entailment)

    def _explain(self, item: Evidence, rows: Rows, points: Array) -> None:
        """Score and percentile where they are still missing; words and spans by each kind."""
        row = points if self.method is None else rows["influence"]
        taking = row if self.among is None else row[self.among]
        if item.score is None and not np.isnan(row[item.position]):
            item.score = float(row[item.position])
            below = np.count_nonzero(taking < row[item.position])
            item.percentile = float(below / np.count_nonzero(~np.isnan(taking)) * 100)
        for one in self.readers:
            one.mark(item)

    def _further(self, answer: Answer, stated: Statement, rows: Rows) -> list[Evidence]:
        """The first by words and by meaning that are not shown: one of them may state it."""
        order = self.index.examples.id_order
        shown = {item.position for item in answer.proponents}
        near: list[int] = []
        for kind in ("lexical", "semantic"):
            if kind in rows:
                some = np.flatnonzero(rows[kind] > 0)
                best = some[best_first(rows[kind][some], order[some], STATED_RANK)]
                near += [p for p in best.tolist() if p not in shown]
        positions = list(dict.fromkeys(near))
        made: list[Evidence] = []
        for position, document in zip(positions, self.index.documents(positions), strict=True):
            item = _plain(Shown(position, document, []))
            item.out_of_turn = True
            self._place(item, stated, rows)
            made.append(item)
        return made


def _plain(one: Shown) -> Evidence:
    """An example that influence has no score for."""
    return Evidence(
        id=one.document.id,
        text=document_text(one.document),
        score=None,
        percentile=None,
        position=one.position,
        metadata=one.document.metadata,
        duplicates=one.duplicates,
    )


def _place(row: Array, item: Evidence) -> Place | None:
    """The example's rank in a kind; none where it has no score, or (besides influence) no match.

    Equal scores share the best of their ranks.
    """
    score = float(row[item.position])
    if np.isnan(score) or score == 0:
        return None
    return Place(int(np.count_nonzero(row > score)) + 1, score)
