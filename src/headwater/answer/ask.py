"""ask: a query in, an Answer out.

Influence alone, or several kinds of evidence joined and kept apart. Influence may be computed for
the candidates of another kind only, also in an index that holds no features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.answer.joined import Joined, Near
from headwater.answer.kinds import KINDS, Reader, reader
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
    """The training examples behind an output.

    Args:
        index: the index. queries: one (gives an Answer) or several (give a list).
        method: of influence; TrackStar when left out.
        top: proponents and opponents shown.
        calibrate: score the nulls too (19 short extra gradients a query).
        tokens: find the words that carry each shown example's score (a pass over each).
        by: metadata columns to total by, for additive methods.
        modules: name patterns of the modules that take part.
        ids: only examples with these ids.
        groups: (metadata column, values): only examples of these groups.
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
    wanted = as_list(queries)
    _check(index, top, evidence, fusion, candidates)
    among = selected(index, ids, groups)
    given: dict[str, Any] = {
        "top": top,
        "by": list(by),
        "modules": None if modules is None else list(modules),
        "ids": None if ids is None else sorted(ids),
        "groups": None if groups is None else (groups[0], list(groups[1])),
        "evidence": None if tuple(evidence) == ("influence",) else list(evidence),
        "fusion": None if fusion == "rrf" else fusion,
        "candidates": candidates,
        "tokenizer": tokenizer,
    }
    options = {name: value for name, value in given.items() if value}
    options |= {} if calibrate else {"calibrate": False}
    options |= {} if tokens else {"tokens": False}
    methods = {"lexical": lexical, "semantic": semantic}
    readers = {k: reader(index, k, methods.get(k), among, tokenizer) for k in _others(evidence)}
    near = None
    if "influence" in evidence:
        made = _influence(index, method, top, by, options, among, calibrate=calibrate)
        made.tokens = tokens
        if candidates is None:
            made.prepared = made.method.prepare(index, modules)
            near = _everywhere(made)
        else:
            first = readers.get(candidates[0])
            if first is None:
                first = reader(index, candidates[0], methods.get(candidates[0]), among, tokenizer)
            near = _on_candidates(made, first, candidates[1], modules)
    plain = near is not None and not readers and candidates is None
    joined = Joined(index, near, list(readers.values()), fusion, top, entailment, options)
    answers: list[Answer] = []
    with Progress("answering", len(wanted), "queries") as progress:
        for query in wanted:
            if plain and near is not None:
                influence = near(query).influence
                scored = influence.start(query)
                answers.append(influence.finish(scored, *influence.best_and_worst(scored)))
            else:
                answers.append(joined.answer(query))
            progress.advance()
    return answers[0] if isinstance(queries, Query) else answers


def _check(
    index: Index,
    top: int,
    evidence: Sequence[str],
    fusion: str,
    candidates: tuple[str, int] | None,
) -> None:
    if top < 1:
        raise InputError("top must be positive", found=top)
    if isinstance(evidence, str) or not evidence or set(evidence) - set(KINDS):
        raise InputError(
            "Unknown kinds of evidence", expected=f"some of {', '.join(KINDS)}", found=evidence
        )
    if fusion != "rrf" and fusion not in evidence:
        raise InputError(
            "Unknown fusion", expected="rrf, or a kind that is asked for", found=fusion
        )
    if candidates is None:
        if "influence" in evidence and not index.has_features:
            raise InputError(
                "The index holds no features, so influence has nothing to scan",
                expected="evidence without influence, or candidates for it",
                do="ask with candidates=('lexical', 200) (--candidates lexical:200)",
            )
        return
    if candidates[0] not in KINDS[1:] or candidates[1] < 1 or "influence" not in evidence:
        raise InputError(
            "Candidates are named by another kind, for influence",
            expected="evidence with influence, and (verbatim, lexical or semantic, a count)",
            found=f"{candidates[0]}:{candidates[1]}",
        )


def _others(evidence: Sequence[str]) -> list[str]:
    return [kind for kind in KINDS[1:] if kind in evidence]


def _influence(
    index: Index,
    method: Method | None,
    top: int,
    by: Sequence[str],
    options: dict[str, Any],
    among: Mask | None,
    *,
    calibrate: bool,
) -> Influence:
    """Influence on the whole index, its method not prepared yet."""
    from headwater.answer.influence import Influence
    from headwater.methods.trackstar import TrackStar
    from headwater.methods.view import Prepared, View

    used = method or TrackStar()
    if by and not used.additive:
        raise InputError(
            f"Scores of {used.title} may not be summed by {', '.join(by)}",
            expected="an additive method: GradDot, LoGra or TRAK",
        )
    if not isinstance(used, View):
        raise InputError(
            f"{getattr(used, 'title', used)} is no method of influence",
            expected="trackstar, gradcos, graddot, logra, relatif or trak",
            do="ask for other kinds by evidence= (--evidence lexical), or rank by it",
        )
    columns = {column: index.metadata(column) for column in by}
    unready = Prepared(None, None, [])
    return Influence(index, used, unready, top, calibrate, True, columns, options, among)


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
