"""Influence on some of the examples, seen from the whole index.

Where only a query's candidates take part they may lie in a small index of their own; then its
positions are not those of the index that was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.index.first_texts import Shown

if TYPE_CHECKING:
    from headwater.answer.answer import Evidence
    from headwater.answer.influence import Influence, Scored

Array = np.ndarray[Any, Any]


@dataclass
class Near:
    """Influence on some of the examples: of all of them, or of a query's candidates.

    Args:
        influence: ready to answer, on the index or on a small one of the candidates.
        positions: of its documents in the whole index; None = it is the whole index.
        candidates: whether only some take part, named by another kind.
    """

    influence: Influence
    positions: Array | None = None
    candidates: bool = False

    def spread(self, scored: Scored, row: Array) -> None:
        """Put its scores into a row of the whole index."""
        row[slice(None) if self.positions is None else self.positions] = scored.scores

    def known(self, scored: Scored, best: list[Shown]) -> tuple[list[Shown], list[Shown]]:
        """Shown examples with an influence score, at its own positions; and those without."""
        own: dict[int, int] = {}
        if self.positions is not None:
            own = {int(p): i for i, p in enumerate(self.positions.tolist())}
        known: list[Shown] = []
        others: list[Shown] = []
        for one in best:
            place = one.position if self.positions is None else own.get(one.position)
            if place is None or np.isnan(scored.scores[place]):
                others.append(one)
            else:
                known.append(Shown(place, one.document, one.duplicates))
        return known, others

    def restore(self, items: list[Evidence]) -> None:
        """Give examples their positions in the whole index again."""
        if self.positions is not None:
            for item in items:
                item.position = int(self.positions[item.position])
