"""The kinds of work behind the exploring half: effect, agreement, words, thinness, maps.

Each fetches scores, ids and texts from the workbench; what is made of them stands in a file of its
own, as a pure function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.server import explore_schemas as schemas
from headwater.server.agreement import agreement
from headwater.server.effect import effect
from headwater.server.thinness import thinness
from headwater.server.workbench import RANKED, VERBATIM

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.server.job import Lane, Tell
    from headwater.server.jobs import Kind
    from headwater.server.workbench import Workbench

SHORT = 200  # characters of an example in a scatter

Array = np.ndarray[Any, Any]


def _method(workbench: Workbench, name: str | None) -> Method:
    from headwater.methods.scoring import ranking_method

    return workbench.method(RANKED.get(name or "", name)) or ranking_method(None)


def _scores(workbench: Workbench, asked: schemas.Side) -> Array:
    """Of the examples that take part; NaN for the others."""
    wanted = (asked.filter or "").strip()
    options = {"filter": wanted} if wanted else None
    return workbench.scores(asked.index, asked.query.query(), asked.method, options)


def do_effect(workbench: Workbench, asked: schemas.Effect, tell: Tell) -> dict[str, Any]:
    """`effect` of a list of ids."""
    method = _method(workbench, asked.method)
    if not method.additive:
        raise InputError(
            f"Scores of {method.title} may not be added up, so they predict no effect of several",
            expected="an additive method: GradDot, LoGra or TRAK",
        )
    index = workbench.index(asked.index)
    place = {name: number for number, name in enumerate(index.ids)}
    unknown = [name for name in asked.ids if name not in place]
    if unknown:
        raise InputError(
            f"{len(unknown):,} of the ids are not in the index",
            expected=f"ids such as {index.ids[0]}",
            found=", ".join(name[:80] for name in unknown[:3]),
        )
    scores = _scores(workbench, asked)
    positions = np.array([place[name] for name in asked.ids])
    return effect(scores, positions, method.unit)


def do_agreement(workbench: Workbench, asked: schemas.Agreement, tell: Tell) -> dict[str, Any]:
    """`agreement` of two sides, with the texts of the first."""
    from headwater.evidence.texts import document_text

    scores = [_scores(workbench, side) for side in asked.sides]
    indexes = [workbench.index(side.index) for side in asked.sides]
    made, places = agreement(scores, [index.ids for index in indexes], asked.k)
    found = indexes[0].documents([a for a, _ in places])
    for point, document in zip(made["points"], found, strict=True):
        point["text"] = document_text(document)[:SHORT]
    return made


def do_words(workbench: Workbench, asked: schemas.Words, tell: Tell) -> Any:
    """The words of some examples that few others have."""
    from headwater.server.vocabulary import Vocabulary

    index = workbench.index(asked.index)
    beyond = [position for position in asked.positions if position >= len(index)]
    if beyond:
        raise InputError(
            "There is no such example", expected=f"0 to {len(index) - 1}", found=beyond[0]
        )
    return Vocabulary().telling(index, list(dict.fromkeys(asked.positions)), asked.k)


def do_thin(workbench: Workbench, asked: schemas.Thin, tell: Tell) -> dict[str, Any]:
    """`thinness` around a query, with a null where the method has one."""
    from headwater.server.vocabulary import Vocabulary

    index, query = workbench.index(asked.index), asked.query.query()
    groups = None if asked.by is None else index.metadata(asked.by)
    scores, null = _with_null(workbench, index, asked)
    text = f"{query.prompt or ''} {query.completion or ''}"
    influence = asked.method != VERBATIM and _method(workbench, asked.method).influence
    rare = Vocabulary().rarest(index, text)
    return thinness(scores, null, groups, rare, influence=influence)


def _with_null(
    workbench: Workbench, index: Index, asked: schemas.Thin
) -> tuple[Array, list[float]]:
    """Scores, and the best score of each random completion; none where that takes too long."""
    from headwater.evidence.ranker import TextRanker
    from headwater.methods.scoring import scores as scored
    from headwater.server.vocabulary import random_queries

    query = asked.query.query()
    if asked.method == VERBATIM:
        return _scores(workbench, asked), []
    method = _method(workbench, asked.method)
    if not method.influence:
        own = _scores(workbench, asked)
        if not isinstance(method, TextRanker) or query.instead_of is not None:
            return own, []
        there, others = np.isfinite(own), random_queries(index, query)
        if not others or not there.any():
            return own, []
        return own, [float(row[there].max()) for row in scored(index, others, method=method)]
    from headwater.methods.view import View  # torch; rankers of texts do without

    if not isinstance(method, View):
        return _scores(workbench, asked), []
    from headwater.answer.influence import Influence
    from headwater.evidence.passing import narrowed

    among = narrowed(index, None, asked.filter)
    made = Influence(index, method, method.prepare(index), 1, True, False, {}, {}, among)
    found = made.start(query)
    return found.scores, found.null


def do_map(workbench: Workbench, asked: schemas.MapOf, tell: Tell) -> dict[str, Any]:
    """A map of the examples, computed once."""
    from headwater.server.maps import make_map

    return make_map(workbench.index(asked.index), asked.of)


def _by_method(workbench: Workbench, asked: schemas.Side) -> Lane:
    workbench.path(asked.index)
    return workbench.scores_lane(asked.method)


def _by_methods(workbench: Workbench, asked: schemas.Agreement) -> Lane:
    lanes = {_by_method(workbench, side) for side in asked.sides}
    return "model" if "model" in lanes else "reader"


def _reads(workbench: Workbench, asked: schemas.OfIndex) -> Lane:
    workbench.path(asked.index)
    return "reader"


KINDS: dict[str, Kind] = {
    "effect": (schemas.Effect, do_effect, _by_method),
    "agreement": (schemas.Agreement, do_agreement, _by_methods),
    "words": (schemas.Words, do_words, _reads),
    "thin": (schemas.Thin, do_thin, _by_method),
    "map": (schemas.MapOf, do_map, _reads),
}
