"""The examples of an index that pass a filter: one pass over the corpus, no model.

Which columns there are is only known at the end of the pass, so it is there that a column which no
example has is refused: it would otherwise look like a filter that nothing passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.kept import Kept
from headwater.engine.progress import Progress
from headwater.evidence.filter_grammar import parse
from headwater.evidence.filters import ID, TEXT, Row
from headwater.evidence.texts import document_text

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask

TOLD_EVERY = 1000  # examples between two looks at whether anyone still waits
KEPT_BYTES = 32 << 20  # of what passed filters, an index


def passing(index: Index, filter: str) -> Mask:
    """Whether each example passes, bool [documents]; an empty filter lets all pass.

    Args:
        index: the index. filter: as `evidence/filter_grammar.py` says; over id, text and metadata.

    Raises:
        InputError: for a filter that is not understood, or that asks for a column that no example
            has; names those that are there.
    """
    made, text = parse(filter), filter.strip()
    if made is None:
        return np.ones(len(index), dtype=bool)
    held: Kept[Mask] = index.opened.setdefault("passing", Kept[Any](KEPT_BYTES, _bytes))
    found = held.get(text)
    if found is None:
        found, columns = np.zeros(len(index), dtype=bool), dict[str, None]()
        with Progress("filtering", len(index), "examples") as progress:
            for position, one in enumerate(index.stream(), 1):
                columns |= dict.fromkeys(one.metadata)
                found[position - 1] = made.matches(Row(one.id, document_text(one), one.metadata))
                if position % TOLD_EVERY == 0:
                    progress.advance(TOLD_EVERY)
        parse(filter, columns, own=(ID, TEXT))  # an example has no score of its own
        found.setflags(write=False)
        held.put(text, found)
    return found


def narrowed(index: Index, among: Mask | None, filter: str | None) -> Mask | None:
    """Those of `among` (None = all) that pass the filter; None or an empty one changes nothing.

    Raises:
        InputError: as `passing` does, and when no example is left.
    """
    if filter is None or not filter.strip():
        return among
    found = passing(index, filter)
    left = found if among is None else found & among
    if not left.any():
        whole = "" if among is None else " of those that were asked for"
        raise InputError(
            f"The filter lets no example pass{whole}",
            expected="a filter that some example passes",
            found=filter,
        )
    return left


def _bytes(one: Mask) -> int:
    return one.nbytes
