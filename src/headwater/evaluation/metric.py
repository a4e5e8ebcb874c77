"""What a metric is: a method's scores in, figures with intervals out.

One protocol for all of them, so that a board is methods times metrics and nothing else. A figure
that cannot be had is a reason in words and never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from headwater.evaluation.estimate import Estimate

Array = np.ndarray[Any, Any]
Figures = Mapping[str, Estimate | str]  # by column; a str says why there is no figure


@dataclass(frozen=True)
class Scored:
    """One row of a board: a method and what it said.

    Attributes:
        name, title: of the method (or of a control).
        scores: float32 [queries, documents], positive = supports the query; NaN = no score.
        own: gives the documents' self-influence, float64 [documents]; None where the method has
            none.
    """

    name: str
    title: str
    scores: Array
    own: Callable[[], Array] | None = None


class Metric(Protocol):
    """Judges one method at a time; what it needs besides (a bank, gold passages) it holds."""

    @property
    def name(self) -> str:
        """As the command line has it: `lds`, `removal`, `tail-patch`, ..."""
        ...

    @property
    def columns(self) -> Mapping[str, str]:
        """Heading of each figure, and in a sentence what it is and which way is better.

        Greater is, unless the sentence ends in "lower is better", "fewer is better" or "1 is best".
        """
        ...

    def measure(self, scored: Scored) -> Figures:
        """A figure for each column."""
        ...
