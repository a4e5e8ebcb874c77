"""Scores, rankings and groups: what every method answers, by one set of functions.

All of it streams. `top` keeps only the best and worst k of each query, and ties are broken by the
order of ids, so that the result does not depend on shards.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.index.selection import Groups, selected
from headwater.tasks.query import Query

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Top:
    """The best and the worst examples of one query, best and worst first.

    Args:
        ids, scores: proponents. opponent_ids, opponent_scores: opponents, lowest score first.
        positions, opponent_positions: of the documents in the index.
    """

    ids: list[str]
    scores: list[float]
    opponent_ids: list[str]
    opponent_scores: list[float]
    positions: list[int]
    opponent_positions: list[int]


@dataclass(frozen=True)
class Ranked:
    """A place in a ranking: an example or a group, its score, how many examples it holds."""

    name: str
    score: float
    examples: int
    keep: bool = True


def _usual() -> Method:
    from headwater.methods.trackstar import TrackStar  # torch; rankers of texts do without

    return TrackStar()


def _chosen(method: Method | None) -> Method:
    """The method, or the usual one; raises InputError for a name."""
    if isinstance(method, str):
        raise InputError(
            "A method is given by its name",
            expected="the method itself, such as hw.TrackStar() or hw.BM25()",
            found=repr(method),
            do="make it with headwater.evidence.rankers.method_by_name, which knows the names",
        )
    return _usual() if method is None else method


def ranking_method(by: str | None) -> Method:
    """What `rank` uses when no method is given: groups want one whose scores may be summed."""
    if by is None:
        return _usual()
    from headwater.methods.logra import LoGra

    return LoGra()


def as_list(queries: Query | Sequence[Query]) -> list[Query]:
    """One query or several as a list; raises InputError when there is none."""
    made = [queries] if isinstance(queries, Query) else list(queries)
    if not made:
        raise InputError("There is no query", expected="at least one")
    return made


def scores(
    index: Index,
    queries: Query | Sequence[Query],
    *,
    method: Method | None = None,
    modules: Sequence[str] | None = None,
    ids: Collection[str] | None = None,
    groups: Groups | None = None,
) -> Array:
    """Scores of every training example for every query, float32 [queries, examples].

    Examples that take no part (others than `ids` or `groups`, and for methods that compare stored
    gradients those without a finite one) score NaN.

    Args:
        index: the index. queries: one or several.
        method: TrackStar when left out.
        modules: name patterns of the modules that take part; None = all.
        ids: only examples with these ids.
        groups: (metadata column, values): only examples of these groups.

    Raises:
        InputError: for a query, a method, ids or groups that do not fit the index.
    """
    wanted = as_list(queries)
    among = selected(index, ids, groups)
    result = np.full((len(wanted), len(index)), np.nan, dtype=np.float32)
    for first, block in _chosen(method).stream(index, wanted, modules, among):
        result[:, first : first + block.shape[1]] = block
    return result


def top(
    index: Index,
    queries: Query | Sequence[Query],
    k: int = 10,
    *,
    method: Method | None = None,
    modules: Sequence[str] | None = None,
    ids: Collection[str] | None = None,
    groups: Groups | None = None,
    unrelated: bool = False,
) -> list[Top]:
    """The best and worst k examples of each query, streamed in bounded memory.

    A method that compares examples with the query (BM25, Dense, a fusion) scores 0 what has nothing
    in common with it; that is no result at either end, and fewer than k may come back.

    Args:
        index, queries, method, modules, ids, groups: as in `scores`.
        k: how many at either end. unrelated: show also what has nothing in common.
    """
    if k < 1:
        raise InputError("k must be positive", found=k)
    wanted = as_list(queries)
    among = selected(index, ids, groups)
    order = index.examples.id_order
    keepers = [(Keeper(k), Keeper(k)) for _ in wanted]
    used = _chosen(method)
    for first, block in used.stream(index, wanted, modules, among):
        if not (used.influence or unrelated):
            block = np.where(block == 0, np.float32(np.nan), block)
        part = slice(first, first + block.shape[1])
        positions = np.arange(first, part.stop)
        if among is not None:
            keep = among[part]
            positions, block = positions[keep], block[:, keep]
        places = order[positions]
        for (best, worst), row in zip(keepers, block, strict=True):
            best.offer(-row, places, positions)
            worst.offer(row, places, positions)
    return [_top(index, best, worst) for best, worst in keepers]


def _top(index: Index, best: Keeper, worst: Keeper) -> Top:
    return Top(
        [index.ids[p] for p in best.positions],
        [-float(v) for v in best.values],
        [index.ids[p] for p in worst.positions],
        [float(v) for v in worst.values],
        best.positions.tolist(),
        worst.positions.tolist(),
    )


class Keeper:
    """The k smallest values offered so far; equal values in the order of their ids' places."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.values = np.zeros(0, dtype=np.float32)
        self.places = np.zeros(0, dtype=np.int64)
        self.positions = np.zeros(0, dtype=np.int64)

    def offer(self, values: Array, places: Array, positions: Array) -> None:
        """Take in a block of values; NaN is none.

        Args:
            places: of the ids among all ids (`Examples.id_order`). positions: of the documents.
        """
        there = ~np.isnan(values)
        if not there.all():
            values, places, positions = values[there], places[there], positions[there]
        if len(values) > self.k:  # all that ties with the k-th smallest stays in the race
            limit = np.partition(values, self.k - 1)[self.k - 1]
            near = values <= limit
            values, places, positions = values[near], places[near], positions[near]
        values = np.concatenate([self.values, values])
        places = np.concatenate([self.places, places])
        positions = np.concatenate([self.positions, positions])
        order = np.lexsort((places, values))[: self.k]
        self.values, self.places = values[order], places[order]
        self.positions = positions[order]


def rank(
    index: Index,
    queries: Query | Sequence[Query],
    *,
    by: str | None = None,
    method: Method | None = None,
    keep: float | None = None,
    modules: Sequence[str] | None = None,
    ids: Collection[str] | None = None,
    groups: Groups | None = None,
) -> list[Ranked]:
    """All examples, or groups of them, from most to least supporting; for curation.

    Args:
        index: the index. queries: one, or several whose mean is taken.
        by: a metadata column; its groups are ranked by the sum of their examples' scores.
        method: TrackStar for examples, LoGra for groups (additive) when left out.
        keep: the share, from the top, that is marked to be kept.
        modules, ids, groups: as in `scores`; examples that take no part are not ranked.

    Raises:
        InputError: when groups are asked of a method whose scores may not be summed.
    """
    if keep is not None and not 0 < keep <= 1:
        raise InputError("keep is a share", expected="above 0, at most 1", found=keep)
    wanted = as_list(queries)
    query = wanted[0] if len(wanted) == 1 else Query.mean(wanted)
    method = ranking_method(by) if method is None else _chosen(method)
    if by is not None and not method.additive:
        raise InputError(
            f"Scores of {method.title} may not be summed over groups",
            expected="an additive method: GradDot, LoGra or TRAK",
            found=method.title,
        )
    names = None if by is None else index.metadata(by)  # fails before any work
    row = scores(index, query, method=method, modules=modules, ids=ids, groups=groups)[0]
    values = row.astype(np.float64)
    if names is None:
        named = zip(index.ids, values.tolist(), strict=True)
        pairs = [(name, value, 1) for name, value in named if not np.isnan(value)]
    else:
        pairs = group_sums(names, values)
    pairs.sort(key=lambda pair: (-pair[1], pair[0]))
    kept = len(pairs) if keep is None else max(1, round(keep * len(pairs)))
    return [Ranked(name, s, n, place < kept) for place, (name, s, n) in enumerate(pairs)]


def group_sums(groups: Sequence[Any], values: Array) -> list[tuple[str, float, int]]:
    """(group, sum of its values, how many) in the order in which groups appear, without NaN."""
    sums: dict[str, tuple[float, int]] = {}
    for group, value in zip(groups, values, strict=True):
        if np.isnan(value):
            continue
        name = "(none)" if group is None else str(group)
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + float(value), count + 1)
    return [(name, total, count) for name, (total, count) in sums.items()]


def self_influence(
    index: Index, *, method: Method | None = None, modules: Sequence[str] | None = None
) -> Array:
    """Score of each example for itself, float32 [examples]; LoGra when no method is given.

    High values are examples the model could fit only with effort: outliers, wrong labels. NaN for
    examples without a finite gradient.

    Raises:
        InputError: for methods whose self-influence says nothing (unit norm), or is not defined.
    """
    from headwater.methods.logra import LoGra

    return (LoGra() if method is None else _chosen(method)).self_influence(index, modules)
