"""ask: a query in, an Answer out.

Influence alone, or several kinds of evidence joined and kept apart. Influence may be computed for
the candidates of another kind only, also in an index that holds no features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headwater.answer.asked import Asked
from headwater.answer.joined import Joined, Near
from headwater.answer.kinds import Reader, reader
from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.evidence.fusion import best_first
from headwater.index.selection import selected
from headwater.methods.scoring import as_list
from headwater.tasks.query import Query

if TYPE_CHECKING:
    from headwater.answer.answer import Answer
    from headwater.answer.influence import Influence
    from headwater.evidence.support import Entailment
    from headwater.index.index import Index
    from headwater.index.selection import Groups, Mask
    from headwater.methods.method import Method
    from headwater.methods.view import View


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
    evidence: Sequence[str] = ("influence",),
    fusion: str = "rrf",
    candidates: tuple[str, int] | None = None,
    lexical: Method | None = None,
    semantic: Method | None = None,
    tokenizer: str | None = None,
    entailment: Entailment | None = None,
) -> Any:
    """The training examples behind an output: of one query an Answer, of several a list.

    Args:
        method: of influence; TrackStar when left out.
        top: proponents and opponents shown.
        calibrate: score the nulls too (19 short extra gradients a query).
        tokens: find the words that carry each shown example's score (a pass over each).
        by: metadata columns to total by, for additive methods.
        modules: name patterns of the modules that take part.
        ids: only examples with these ids. groups: (metadata column, values): only of these.
        evidence: kinds, of "influence", "verbatim", "lexical" and "semantic".
        fusion: "rrf" (reciprocal ranks), or the kind whose order is shown.
        candidates: (kind, count): influence only on the first `count` examples of that kind; in an
            index without features their gradients are computed for this answer.
        lexical, semantic: methods of those kinds; BM25 and Dense when left out.
        tokenizer: of the verbatim search; the model's own when left out.
        entailment: says how likely an example entails the output, for `support`.

    Raises:
        InputError: for a query, a column, ids, groups or a method that does not fit the index.
    """
    given = {name: value for name, value in locals().items() if name not in ("index", "queries")}
    wanted = as_list(queries)
    answer = _answerer(index, Asked(**given))
    answers: list[Answer] = []
    with Progress("answering", len(wanted), "queries") as progress:
        for query in wanted:
            answers.append(answer(query))
            progress.advance()
    return answers[0] if isinstance(queries, Query) else answers


def _answerer(index: Index, asked: Asked) -> Callable[[Query], Answer]:
    """What answers one query; all that several queries share is made here, once."""
    asked.check(index)
    among = selected(index, asked.ids, asked.groups)
    readers = {kind: _reader(index, asked, kind, among) for kind in asked.kinds_to_read}
    near = None
    if "influence" in asked.evidence:
        made = _influence(index, asked, among)
        if asked.candidates is None:
            made.prepared = made.method.prepare(index, asked.modules)
            if not readers:
                return made.answer
            near = _everywhere(made)
        else:
            kind, count = asked.candidates
            first = readers.get(kind) or _reader(index, asked, kind, among)
            near = _on_candidates(made, first, count, asked.modules)
    listed = list(readers.values())
    options = asked.to_reproduce()
    return Joined(index, near, listed, asked.fusion, asked.top, asked.entailment, options).answer


def _reader(index: Index, asked: Asked, kind: str, among: Mask | None) -> Reader:
    method = {"lexical": asked.lexical, "semantic": asked.semantic}.get(kind)
    return reader(index, kind, method, among, asked.tokenizer)


def _influence(index: Index, asked: Asked, among: Mask | None) -> Influence:
    """Influence on the whole index, its method not prepared yet."""
    from headwater.answer.influence import Influence
    from headwater.methods.trackstar import TrackStar
    from headwater.methods.view import Prepared

    used = cast("View", asked.method or TrackStar())  # `Asked.check` has seen to it
    if asked.by and not used.additive:
        raise InputError(
            f"Scores of {used.title} may not be summed by {', '.join(asked.by)}",
            expected="an additive method: GradDot, LoGra or TRAK",
        )
    columns = {column: index.metadata(column) for column in asked.by}
    unready = Prepared(None, None, [])
    return Influence(
        index,
        used,
        unready,
        asked.top,
        asked.calibrate,
        asked.tokens,
        columns,
        asked.to_reproduce(),
        among,
    )


def _everywhere(made: Influence) -> Callable[[Query], Near]:
    near = Near(made)
    return lambda _: near


def _on_candidates(
    made: Influence, first: Reader, count: int, modules: Sequence[str] | None
) -> Callable[[Query], Near]:
    """Influence on each query's own candidates."""
    index = made.index
    order = index.examples.id_order
    if index.has_features:
        made.prepared = made.method.prepare(index, modules)

    def near(query: Query) -> Near:
        row = np.asarray(first.scores(query), dtype=np.float64)
        row[row <= 0] = np.nan  # what has nothing of the kind is no candidate
        chosen = np.sort(best_first(row, order, count))
        if not len(chosen):
            raise InputError(
                f"No example is a candidate by its {first.kind} evidence",
                do="ask for more kinds, or without candidates",
            )
        if index.has_features:
            mask = np.zeros(len(index), dtype=bool)
            mask[chosen] = True
            return Near(replace(made, among=mask))
        from headwater.evidence.two_stage import small_index

        small = small_index(index, chosen.tolist())
        columns = {name: [values[i] for i in chosen] for name, values in made.columns.items()}
        prepared = made.method.prepare(small, modules)
        local = replace(made, index=small, prepared=prepared, columns=columns, among=None)
        return Near(local, chosen)

    return near
