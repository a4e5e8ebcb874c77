"""ask: a query in, an Answer out.

Influence alone, or several kinds of evidence joined and kept apart. Influence may be computed for
the candidates of another kind only, also in an index that holds no features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.answer.asked import Asked, kinds_for
from headwater.answer.joined import Joined, Rows
from headwater.answer.kinds import Reader, reader
from headwater.answer.near import Near
from headwater.answer.own_words import TOKENS, own_words
from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.evidence.fusion import best_first
from headwater.evidence.passing import narrowed, passing
from headwater.index.selection import selected, with_features
from headwater.tasks.query import Query

if TYPE_CHECKING:
    from headwater.answer.answer import Answer
    from headwater.answer.influence import Influence
    from headwater.evidence.support import Entailment
    from headwater.index.index import Index
    from headwater.index.selection import Groups, Mask
    from headwater.methods.method import Method

OPTIONS = tuple(one.name for one in fields(Asked))


def ask(
    index: Index,
    queries: Query | str | Sequence[Query | str],
    *,
    method: Method | str | None = None,
    top: int = 10,
    calibrate: bool = True,
    tokens: bool = True,
    by: Sequence[str] = (),
    modules: Sequence[str] | None = None,
    ids: Collection[str] | None = None,
    groups: Groups | None = None,
    filter: str | None = None,
    evidence: str | Sequence[str] | None = None,
    fusion: str = "rrf",
    candidates: tuple[str, int] | None = None,
    lexical: Method | None = None,
    semantic: Method | None = None,
    tokenizer: str | None = None,
    entailment: Entailment | None = None,
    max_tokens: int = TOKENS,
    uncertainty: int = 0,
) -> Any:
    """The training examples behind an output: of one query an Answer, of several a list.

    Args:
        queries: what is explained; after a prompt alone (a string) the model's own words are.
        method: of influence, or its name; TrackStar when left out.
        top: shown at either end. calibrate: score the nulls, too (19 short gradients a query).
        tokens: find the words that carry each shown example's score (a pass over each).
        by: metadata columns to total by. modules: name patterns of the modules that take part.
        ids: only of these ids. groups: (metadata column, values): only of these.
        filter: only examples that pass, as "source:wiki year>1999"; see `filter_grammar.py`.
        evidence: one or several of "influence" (the default), "verbatim", "lexical" and "semantic";
            of texts without features verbatim and lexical when left out.
        fusion: of several kinds: "rrf" (reciprocal ranks), or the kind whose order is shown.
        candidates: (kind, count): influence only on the first `count` of that kind; without
            features in the index their gradients are computed now.
        lexical, semantic: methods of those kinds; BM25 and Dense when left out.
        tokenizer: of the verbatim search; None = the model's. entailment: for `support`.
        max_tokens: of the model's own words. uncertainty: further projection seeds to score by.

    Raises:
        InputError: for what does not fit the index.
    """
    method = _named(method)
    asks = any((method, candidates, by, fusion == "influence"))  # for influence
    evidence, chosen = kinds_for(index, evidence, influence=asks)
    given = {name: value for name, value in locals().items() if name in OPTIONS}
    wanted = _wanted(queries)
    answer = _answerer(index, Asked(**given))
    chosen += [*_filtered(index, filter), *_cautions(method), *_unfinished(index)]
    answers: list[Answer] = []
    with Progress("answering", len(wanted), "queries") as progress:
        for one in wanted:
            query, *own = own_words(index, one, max_tokens) if isinstance(one, str) else (one,)
            answers.append(answer(query))
            answers[-1].notes += [*own, *chosen]
            progress.advance()
    return answers[0] if isinstance(queries, Query | str) else answers


def _answerer(index: Index, asked: Asked) -> Callable[[Query], Answer]:
    """What answers one query; all that several queries share is made here, once."""
    asked.check(index)
    among = narrowed(index, selected(index, asked.ids, asked.groups), asked.filter)
    readers = {kind: _reader(index, asked, kind, among) for kind in asked.kinds_to_read}
    method, near = None, _nowhere
    if "influence" in asked.evidence:
        made = _influence(index, asked, among)
        method = made.method
        if asked.candidates is None:
            if not asked.streams:
                made.prepared = method.prepare(index, asked.modules)
            if not readers:
                return made.answer
            near = _everywhere(made)
        else:
            kind, count = asked.candidates
            first = readers.get(kind) or _reader(index, asked, kind, among)
            near = _on_candidates(made, first, count, asked)
    return Joined(
        index,
        method,
        near,
        list(readers.values()),
        among,
        asked.fusion,
        asked.top,
        asked.entailment,
        asked.to_reproduce(),
    ).answer


def _named(method: Method | str | None) -> Method | None:
    if not isinstance(method, str):
        return method
    from headwater.evidence.rankers import method_by_name

    return method_by_name(method)


def _wanted(queries: Query | str | Sequence[Query | str]) -> list[Query | str]:
    made = [queries] if isinstance(queries, Query | str) else list(queries)
    if not made:
        raise InputError("There is no query", expected="at least one")
    return made


def _cautions(method: Method | None) -> list[str]:
    return [method.caution] if method is not None and method.caution else []


def _filtered(index: Index, filter: str | None) -> list[str]:
    if filter is None or not filter.strip():
        return []
    count, said = int(passing(index, filter).sum()), " ".join(filter.split())
    return [f"only the {count:,} of {len(index):,} examples that pass “{said}” took part"]


def _unfinished(index: Index) -> list[str]:
    if index.manifest["complete"]:
        return []
    return ["the index is not finished: it holds all its examples, but not yet their features"]


def _reader(index: Index, asked: Asked, kind: str, among: Mask | None) -> Reader:
    method = {"lexical": asked.lexical, "semantic": asked.semantic}.get(kind)
    return reader(index, kind, method, among, asked.tokenizer)


def _influence(index: Index, asked: Asked, among: Mask | None) -> Influence:
    """Influence on the whole index, its method not prepared yet."""
    from headwater.answer.influence import Influence
    from headwater.answer.streamed import StreamedInfluence
    from headwater.methods.trackstar import TrackStar
    from headwater.methods.view import Prepared

    used = asked.method or TrackStar()
    if asked.by and not used.additive:
        raise InputError(
            f"Scores of {used.title} may not be summed by {', '.join(asked.by)}",
            expected="an additive method: GradDot, LoGra or TRAK",
        )
    columns = {column: index.metadata(column) for column in asked.by}
    kind = StreamedInfluence if asked.streams else Influence
    made = kind(
        index,
        used,
        Prepared(None, None, []),
        asked.top,
        asked.calibrate and not asked.streams,
        asked.tokens and not asked.streams,
        columns,
        asked.to_reproduce(),
        among,
    )
    made.modules, made.uncertainty = asked.modules, asked.uncertainty
    return made


def _nowhere(query: Query, rows: Rows) -> None:
    """Influence that was not asked for."""


def _everywhere(made: Influence) -> Callable[[Query, Rows], Near]:
    near = Near(made)
    return lambda query, rows: near


def _on_candidates(
    made: Influence, first: Reader, count: int, asked: Asked
) -> Callable[[Query, Rows], Near | None]:
    """Influence on each query's own candidates; None where it has none."""
    index = made.index
    order, finite = index.examples.id_order, with_features(index)
    streams = asked.streams
    if index.has_features and not streams:
        made.prepared = made.method.prepare(index, asked.modules)

    def near(query: Query, rows: Rows) -> Near | None:
        row = rows[first.kind] if first.kind in rows else first.scores(query)
        there = row > 0  # what has nothing of the kind is no candidate
        if finite is not None:
            there &= finite
        chosen = np.sort(best_first(np.where(there, row, np.nan), order, count))
        if not len(chosen):
            return None
        if index.has_features or streams:
            mask = np.zeros(len(index), dtype=bool)
            mask[chosen] = True
            return Near(replace(made, among=mask), candidates=True)
        from headwater.evidence.two_stage import small_index

        small = small_index(index, chosen.tolist(), references=asked.calibrate)
        columns = {name: [values[i] for i in chosen] for name, values in made.columns.items()}
        prepared = made.method.prepare(small, asked.modules)
        local = replace(made, index=small, prepared=prepared, columns=columns, among=None)
        return Near(local, chosen, candidates=True)

    return near
