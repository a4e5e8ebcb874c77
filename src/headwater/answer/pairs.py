"""Which words of one training example each word of the output leans on: a score as a matrix.

A score is linear in the query's gradient, which is a sum over the target's tokens, and in the
example's, which is a sum over its tokens where gradients factor by token. So it splits twice, with
the norms held fixed, and all shares together are the score again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.answer.influence import chunks_of
from headwater.answer.tokens import (
    MOST_CHUNKS,
    MOST_TARGETS,
    by_target,
    example_shares,
    target_directions,
    target_parts,
    text_of,
)
from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.index.index import QUERY_BUDGET

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.methods.view import View
    from headwater.tasks.query import Query

UNSPLIT = 0.05  # share of a score that the pairs may miss without a word


@dataclass
class Pairs:
    """Shares of one score by pairs of tokens.

    Args:
        targets: the explained tokens of the output. tokens: those of the example.
        shares: of the score, in its unit [targets][tokens]. total: the score itself, by the stored
            features. notes: what a reader should know.
    """

    targets: list[str]
    tokens: list[str]
    shares: list[list[float]]
    total: float
    notes: list[str] = field(default_factory=list[str])


def pairs(
    index: Index, query: Query, position: int, *, method: Method | str | None = None
) -> Pairs:
    """Split the score of the example at `position` for `query` by pairs of tokens.

    Args:
        index: with features, of a language model. query: one, of at most 32 explained tokens.
        method: one that compares stored gradients, or its name; TrackStar when left out.

    Raises:
        InputError: for an example that is not there, and where a score cannot be split so.
    """
    view = _view(method)
    if not 0 <= position < len(index):
        raise InputError(
            "There is no such example", expected=f"0 to {len(index) - 1}", found=position
        )
    parts, split = _split(index, query)
    prepared = view.prepare(index)
    names = [query.describe()] * (1 + len(split))
    u, _ = index.gradients.weighted([parts, *(one for _, one in split)], QUERY_BUDGET, names)
    whole, each = u[0], u[1:]
    v = target_directions(index, view, prepared, whole=whole, split=each).float().numpy()
    factor = 1.0 if prepared.scale is None else float(prepared.scale[position])
    chunks = index.chunks([position])[0]
    rows: list[list[tuple[str, float]]] = []
    with Progress("words of the example", len(v), "words") as progress:
        for one in v:
            rows.append(example_shares(index, chunks, one, factor))
            progress.advance()
    own = by_target(index, view, prepared, whole=whole, split=each, shown=[position])
    shares, total = [[value for _, value in row] for row in rows], float(np.sum(own))
    return Pairs(
        targets=text_of(index, [token for token, _ in split]),
        tokens=[word for word, _ in rows[0]],
        shares=shares,
        total=total,
        notes=_notes(len(chunks), total, float(np.sum(shares))),
    )


def _view(method: Method | str | None) -> View:
    from headwater.evidence.rankers import method_by_name
    from headwater.methods.trackstar import TrackStar
    from headwater.methods.view import View

    made: Any = TrackStar() if method is None else method
    if isinstance(made, str):
        made = method_by_name(made)
    if not isinstance(made, View):
        raise InputError(
            f"Scores of {getattr(made, 'title', made)} do not split by pairs of words",
            expected="a method that compares stored gradients, such as trackstar or logra",
        )
    if made.weighted:
        raise InputError(
            f"{made.title} weighs whole examples, so its scores do not split by their words",
            expected="a method of loss features, such as trackstar or logra",
        )
    return made


def _split(index: Index, query: Query) -> tuple[Any, Any]:
    """The query's chunks, whole and by target token."""
    if query.parts:
        raise InputError("A mean of queries has no words of its own", expected="one query")
    if index.manifest["task"]["kind"] != "causal_lm":
        raise InputError(
            "Only outputs of a language model are in words",
            found=f"an index of kind '{index.manifest['task']['kind']}'",
        )
    parts, _ = chunks_of(index, query)
    split = target_parts(parts)
    if len(split) > MOST_TARGETS:
        raise InputError(
            "The output is too long to be split by word",
            expected=f"at most {MOST_TARGETS} tokens that are explained",
            found=len(split),
            do="choose fewer of its words",
        )
    return parts, split


def _notes(chunks: int, total: float, split: float) -> list[str]:
    """What the matrix leaves out."""
    if chunks > MOST_CHUNKS:
        return [f"the first {MOST_CHUNKS} of the example's {chunks} chunks are split by word"]
    if abs(total - split) > UNSPLIT * abs(total):
        return [
            f"the pairs hold {split:.4g} of the score of {total:.4g}: the rest lies in parameters "
            "whose gradients have no tokens, or in the rounding of what is stored"
        ]
    return []
