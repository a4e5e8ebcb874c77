"""What is put to the test: a method's best texts or a group, and the controls beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.document import plain_text
from headwater.engine.errors import InputError
from headwater.evaluation.verification import FOUND, LEXICAL
from headwater.evidence.fusion import best_first
from headwater.evidence.lexical import BM25
from headwater.index.first_texts import Shown, first_texts
from headwater.index.selection import selected
from headwater.methods.scoring import scores

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.tasks.query import Query

TEXTS = ("text", "causal_lm")  # kinds of tasks whose examples are texts
STAND_FOR = 20  # documents of a group that are stepped on

Group = tuple[str, str]  # metadata column, value


@dataclass
class Chosen:
    """Documents to be tested.

    Args:
        name: as in `verification`. title: of what chose them.
        texts: positions, each text once. ids: of all, copies among them.
        shown: of each text its id, text, score, and the ids of its copies.
    """

    name: str
    title: str
    texts: list[int]
    ids: list[str]
    shown: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def by_method(index: Index, query: Query, method: Method, top: int) -> Chosen:
    """The best texts of a method, with all their copies.

    Raises:
        InputError: when it has a score above 0 for none.
    """
    best, row = _best(index, query, method, top)
    if not best:
        raise InputError(
            f"{method.title} finds no example that supports this output",
            expected="at least one score above 0",
            do="ask by another method (--method)",
        )
    made = _chosen(FOUND, method.title, best)
    made.shown = [
        {
            "id": one.document.id,
            "text": plain_text(one.document),
            "score": float(row[one.position]),
            "duplicates": one.duplicates,
        }
        for one in best
    ]
    return made


def _best(
    index: Index, query: Query, method: Method, top: int
) -> tuple[list[Shown], np.ndarray[Any, Any]]:
    """The first texts of a method among those that support the query, and all scores."""
    row = scores(index, query, method=method)[0]
    supporting = np.where(row > 0, row, np.nan)
    order = best_first(supporting, index.examples.id_order, len(row))
    return first_texts(index, order, top), row


def _chosen(name: str, title: str, best: Sequence[Shown]) -> Chosen:
    ids = [one for shown in best for one in (shown.document.id, *shown.duplicates)]
    return Chosen(name, title, [shown.position for shown in best], ids)


def by_group(index: Index, group: Group, seed: int) -> Chosen:
    """All documents of a group; some of them, drawn at random, stand for it in a tail patch.

    Raises:
        InputError: when there is no such group, or it is everything.
    """
    column, value = group
    mask = selected(index, groups=(column, [value]))
    positions = np.arange(len(index)) if mask is None else np.flatnonzero(mask)
    if len(positions) == len(index):
        raise InputError(
            f"Every document is of {column} {value}", expected="a group beside which others are"
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    some = generator.permutation(positions)[:STAND_FOR]
    ids = [index.ids[p] for p in positions]
    return Chosen(FOUND, f"{column} {value}", some.tolist(), ids)


def lexical(index: Index, query: Query, top: int) -> Chosen | None:
    """BM25's first texts, the lexical control; None where no example shares a word."""
    best, _ = _best(index, query, BM25(), top)
    return _chosen(LEXICAL, BM25.title, best) if best else None


def others(index: Index, without: Sequence[str], seed: int) -> list[int]:
    """Positions of all other documents, in a random order."""
    gone = set(without)
    left = [position for position, name in enumerate(index.ids) if name not in gone]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(left))
    return [left[i] for i in order.tolist()]
