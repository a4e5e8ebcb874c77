"""The protocol of a method: an index and queries in, scores out, positive meaning support.

A method that compares projected gradients is a `View` of the index (`methods/view.py`); others
stream over the corpus. Both yield the same: blocks of scores in the order of the documents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headwater.engine.errors import InputError
from headwater.gradients.parameters import matches

if TYPE_CHECKING:
    from headwater.gradients.layout import Block
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query

Scores = Iterator[tuple[int, np.ndarray[Any, Any]]]


class Method(ABC):
    """One way of scoring training examples for queries.

    Class attributes: `name` (for the command line), `title` (as its paper names it), `unit` of a
    score, `additive` (whether scores may be summed over a group), `needs` and `costs` in words,
    `influence` (whether it says what moved the model, and not only what resembles its words);
    `caution`, which every answer says, of what its scores cannot show of themselves.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    additive: ClassVar[bool]
    needs: ClassVar[str]
    costs: ClassVar[str] = "not told"
    influence: ClassVar[bool] = True
    caution: ClassVar[str] = ""

    @abstractmethod
    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Yield (position of the first document, float32 [queries, documents]) in order.

        Args:
            index: the index. queries: what is to be explained.
            modules: name patterns of the blocks that take part; None = all.
            among: the documents that take part, bool [documents]; None = all. The others score
                NaN, and runs of them need not be yielded.
        """

    def self_influence(
        self, index: Index, modules: Sequence[str] | None = None
    ) -> np.ndarray[Any, Any]:
        """Score of each document for itself, float32 [documents].

        Raises:
            InputError: for methods that have none, as most do.
        """
        raise InputError(
            f"{self.title} has no self-influence",
            expected="a view of stored features (LoGra, GradDot, TRAK), or EK-FAC",
        )

    def describe(self) -> dict[str, Any]:
        """Name and parameters, JSON-serialisable, for reproduction."""
        return {"method": self.name}


def choose_blocks(blocks: Sequence[Block], patterns: Sequence[str] | None) -> list[int]:
    """Numbers of the blocks whose name, or whose module's, matches a pattern (`*` as in files).

    Raises:
        InputError: when none does.
    """
    if isinstance(patterns, str):  # one pattern: its letters are none
        patterns = [patterns]
    if patterns is None:
        return list(range(len(blocks)))
    chosen = [number for number, block in enumerate(blocks) if matches(block.name, patterns)]
    if not chosen:
        raise InputError(
            "No module of the index matches",
            expected=f"a pattern of names such as {blocks[0].name}",
            found=", ".join(patterns),
        )
    return chosen


def require_output(index: Index, title: str, *, weighted: bool) -> None:
    """Raise InputError when the index's features are not of what a view compares.

    Args:
        title: of the view. weighted: whether it weighs examples by 1 - p, which goes with margins.
    """
    found, needed = index.features.output, "margin" if weighted else "loss"
    if found != needed:
        raise InputError(
            f"{title} needs {needed} features",
            expected=f"an index built with output='{needed}' (--output {needed})",
            found=f"output '{found}'",
        )
