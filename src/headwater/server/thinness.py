"""How thin a corpus is around a query: how many examples support it more than chance would.

Chance is the best score of each random completion; without those no count is given, only the
strongest score of each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


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
