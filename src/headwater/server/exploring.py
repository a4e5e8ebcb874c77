"""What one can learn from scores beyond the first few examples: effect, agreement, words, thinness.

Each is a pure function of scores, ids and texts; the kinds of work at the end fetch those from the
workbench. Every figure is told beside what chance gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.server import explore_schemas as schemas
from headwater.server.workbench import RANKED, VERBATIM

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.server.jobs import Kind, Lane, Tell
    from headwater.server.workbench import Workbench

DRAWS = 500  # random sets that an effect is compared with
DRAWN_CELLS = 20_000_000  # examples in all of them
SHORT = 200  # characters of an example in a scatter
FIRST = 100  # of either side that a scatter shows
OTHERS = 200  # further examples by lot
SEED = 0

Array = np.ndarray[Any, Any]


# -- the effect of leaving examples out ---------------------------------------------------


def effect(scores: Array, positions: Array, unit: str) -> dict[str, Any]:
    """What an additive method predicts for a query without these examples.

    Args:
        scores: float [examples], positive = supports; NaN = none. positions: of the examples.
        unit: of the scores.

    Returns:
        `total`: their summed score: how far the loss rises without them. `share_of_positive`: that
        of the sum of all positive scores. `random`: the same for as many examples by lot, mean and
        the middle 95 %.
    """
    there = np.flatnonzero(np.isfinite(scores))
    chosen = np.unique(positions[np.isfinite(scores[positions])])
    if not len(chosen):
        raise InputError("None of these examples has a score", expected="examples that take part")
    known = scores[there].astype(np.float64)
    total = float(scores[chosen].astype(np.float64).sum())
    positive = float(known[known > 0].sum())
    low, high, draws = _by_lot(known, len(chosen))
    return {
        "examples": len(chosen),
        "without_score": len(np.unique(positions)) - len(chosen),
        "total": total,
        "unit": unit,
        "share_of_positive": total / positive if positive > 0 else None,
        "random": {
            "mean": float(known.mean() * len(chosen)),
            "low": low,
            "high": high,
            "draws": draws,
        },
        "says": _effect_says(len(chosen), total, low, high),
    }


def _by_lot(known: Array, count: int) -> tuple[float, float, int]:
    """The middle 95 % of sums of so many scores by lot, and of how many draws."""
    random = np.random.default_rng(SEED)
    few = min(count, len(known) - count)  # a set's sum is that of all less that of the others
    draws = max(40, min(DRAWS, DRAWN_CELLS // max(few, 1)))
    sums = np.array(
        [known[random.choice(len(known), few, replace=False)].sum() for _ in range(draws)]
    )
    if few != count:
        sums = known.sum() - sums
    low, high = np.percentile(sums, [2.5, 97.5])
    return float(low), float(high), draws


def _effect_says(count: int, total: float, low: float, high: float) -> str:
    these = "this example" if count == 1 else f"these {count:,} examples"
    if low <= total <= high:
        return (
            f"Without {these} about the same is predicted as without as many at random: "
            "nothing that chance would not give."
        )
    way = "less likely" if total > high else "more likely"
    return f"Without {these} the output is predicted to become {way}, beyond what chance gives."


# -- agreement of two rankings ------------------------------------------------------------


def agreement(
    scores: Sequence[Array], ids: Sequence[Sequence[str]], ks: Sequence[int]
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """How far two rankings agree, over the examples that both score, matched by id.

    Args:
        scores, ids: of either side, [examples] each. ks: cuts of the overlap.

    Returns:
        The figures, with `points` still without texts; and where each point stands on both sides.

    Raises:
        InputError: when no example has a score on both sides.
    """
    place = {name: number for number, name in enumerate(ids[1])}
    pairs = [(a, place[name]) for a, name in enumerate(ids[0]) if name in place]
    matched = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    a, b = (np.asarray(one, np.float64)[matched[:, side]] for side, one in enumerate(scores))
    both = np.isfinite(a) & np.isfinite(b)
    matched, a, b = matched[both], a[both], b[both]
    if not len(a):
        expected = "indexes of the same corpus"
        raise InputError("The two sides share no example with a score", expected=expected)
    first, other = _order(a), _order(b)
    overlap = [
        {
            "k": k,
            "share": len(np.intersect1d(first[:k], other[:k])) / k,
            "by_chance": k / len(a),
        }
        for k in sorted(set(ks))
        if k <= len(a)
    ]
    rank_a, rank_b = _ranks(a), _ranks(b)
    spearman = _correlation(rank_a, rank_b)
    chosen = _shown(first, other)
    points = [
        {
            "id": ids[0][matched[i, 0]],
            "a": float(a[i]),
            "b": float(b[i]),
            "rank_a": int((a > a[i]).sum()) + 1,
            "rank_b": int((b > b[i]).sum()) + 1,
        }
        for i in chosen
    ]
    figures = {
        "overlap": overlap,
        "spearman": spearman,
        "pearson": _correlation(a, b),
        "points": points,
        "examples": len(a),
        "only_a": len(ids[0]) - len(pairs),
        "only_b": len(ids[1]) - len(pairs),
        "says": _agreement_says(overlap, spearman),
    }
    return figures, [(int(matched[i, 0]), int(matched[i, 1])) for i in chosen]


def _order(values: Array) -> Array:
    """Positions, the highest first; equal ones as they stand."""
    return np.argsort(-values, kind="stable")


def _ranks(values: Array) -> Array:
    """Ranks from the lowest up, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _correlation(a: Array, b: Array) -> float | None:
    """None where one side does not vary."""
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _shown(first: Array, other: Array) -> list[int]:
    """The first of both sides, and some by lot, ascending."""
    chosen = {*first[:FIRST].tolist(), *other[:FIRST].tolist()}
    rest = np.setdiff1d(np.arange(len(first)), np.array(sorted(chosen)))
    lots = np.random.default_rng(SEED).choice(rest, min(OTHERS, len(rest)), replace=False)
    return sorted({*chosen, *lots.tolist()})


def _agreement_says(overlap: Sequence[dict[str, Any]], spearman: float | None) -> str:
    if not overlap:
        return "There are too few examples to compare first places."
    one = overlap[0]
    told = (
        f"Of the first {one['k']:,} of either side {100 * one['share']:.3g} % are the same; "
        f"chance alone would give {100 * one['by_chance']:.2g} %"
    )
    if spearman is None:
        return f"{told}. One side scores all examples the same, so there is no rank correlation."
    return f"{told}. Over all examples the rank correlation is {spearman:.2f}."


# -- around a query -----------------------------------------------------------------------


def thinness(
    scores: Array,
    null: Sequence[float],
    groups: Sequence[Any] | None,
    rare: Sequence[Any],
    *,
    influence: bool = True,
) -> dict[str, Any]:
    """How many examples support a query more than chance would, and in which groups.

    Args:
        scores: float [examples], NaN = none. null: best scores of random completions; empty = not
            known. groups: a value for each example. rare: {"word", "documents"} of the query's
            words, the rarest first. influence: whether a score says what moved the model.
    """
    there = np.isfinite(scores)
    limit = float(np.quantile(null, 0.95, method="higher")) if len(null) else None
    above = there & (scores > limit) if limit is not None else np.zeros(len(scores), dtype=bool)
    made: list[dict[str, Any]] = []
    if groups is not None:
        members: dict[str | None, list[int]] = {}
        for position in np.flatnonzero(there).tolist():
            value = groups[position]
            members.setdefault(None if value is None else str(value), []).append(position)
        for value, mine in members.items():
            strongest = float(scores[mine].max())
            supporters = None if limit is None else int(above[mine].sum())
            one = {"value": value, "examples": len(mine), "supporters": supporters}
            made.append({**one, "strongest": strongest})
        made.sort(key=lambda one: (-(one["supporters"] or 0), -one["strongest"]))
    examples, supporters = int(there.sum()), int(above.sum())
    return {
        "supporters": None if limit is None else supporters,
        "null_95": limit,
        "examples": examples,
        "groups": made,
        "words": list(rare),
        "says": _thin_says(scores[there], limit, supporters, made, rare, influence),
    }


def _thin_says(
    scores: Array,
    limit: float | None,
    supporters: int,
    groups: Sequence[dict[str, Any]],
    rare: Sequence[dict[str, Any]],
    influence: bool,
) -> str:
    verb = "support" if influence else "match"
    if not len(scores):
        return "No example has a score."
    if limit is None:
        told = f"It cannot be said how many examples {verb} this: nothing to compare with"
    elif not supporters:
        told = (
            f"The corpus is thin here: no examples {verb} this more than chance would "
            f"(best score {scores.max():.3g}, random completions reach {limit:.3g})"
        )
    else:
        told = f"{supporters:,} of {len(scores):,} examples {verb} this more than chance would"
        if groups:
            told += (
                f", from {sum(bool(one['supporters']) for one in groups)} of {len(groups)} groups"
            )
    unheard = [one["word"] for one in rare if not one["documents"]]
    if unheard:
        names = ", ".join(f"“{word[:40]}”" for word in unheard[:3])
        told += f"; no example holds {names}"
    return f"{told}."


# -- the kinds of work --------------------------------------------------------------------


def _method(workbench: Workbench, name: str | None) -> Method:
    from headwater.methods.scoring import ranking_method

    return workbench.method(RANKED.get(name or "", name)) or ranking_method(None)


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
    scores = workbench.scores(asked.index, asked.query.query(), asked.method)
    positions = np.array([place[name] for name in asked.ids])
    return effect(scores, positions, method.unit)


def do_agreement(workbench: Workbench, asked: schemas.Agreement, tell: Tell) -> dict[str, Any]:
    """`agreement` of two sides, with the texts of the first."""
    from headwater.evidence.texts import document_text

    scores = [workbench.scores(s.index, s.query.query(), s.method) for s in asked.sides]
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
        return workbench.scores(asked.index, query, asked.method), []
    method = _method(workbench, asked.method)
    if not method.influence:
        own = workbench.scores(asked.index, query, asked.method)
        if not isinstance(method, TextRanker) or query.instead_of is not None:
            return own, []
        others = random_queries(index, query)
        best = [np.nanmax(row) for row in scored(index, others, method=method)] if others else []
        return own, [float(value) for value in best]
    from headwater.methods.view import View  # torch; rankers of texts do without

    if not isinstance(method, View):
        return workbench.scores(asked.index, query, asked.method), []
    from headwater.answer.influence import Influence

    made = Influence(index, method, method.prepare(index), 1, True, False, {}, {}, None)
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
