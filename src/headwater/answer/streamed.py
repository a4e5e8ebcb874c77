"""Influence by a method that streams over the corpus: scores as they come, without a null.

Each random completion of the null would cost such a method a direction as large as the model, and
each token of a shown example a pass of its own. So its answers are ranked, not judged, and say so.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from headwater.answer.influence import Explain, Influence, Scored, chunks_of, probability_of

if TYPE_CHECKING:
    from headwater.tasks.query import Query


class StreamedInfluence(Influence):
    """`Influence` of a method that is no view of features."""

    def start(self, query: Query) -> Scored:
        """One pass of the method for this query."""
        index = self.index
        clock = time.perf_counter()
        parts, notes = chunks_of(index, query)
        scores = np.full(len(index), np.nan, dtype=np.float32)
        for first, block in self.method.stream(index, [query], self.modules, self.among):
            scores[first : first + block.shape[1]] = block[0]
        seconds = {"pass over the corpus": time.perf_counter() - clock}
        notes.append(
            f"{self.method.title} is not a view of stored features: neither nulls nor words are "
            "worked out; ask with trackstar for those"
        )
        probability = probability_of(index, parts) if len(parts) == 1 else None
        nothing = np.zeros(0, dtype=np.float32)
        explain = Explain(self, nothing, nothing)
        return Scored(query, scores, [], probability, [], notes, seconds, explain)
