"""Which examples take part in a ranking: those of some ids or groups.

A mask over the documents, or None where all of them take part. Scores of the others are NaN: they
have none, and a zero would be a place in the ranking. What compares stored gradients also leaves
out the examples that have none; evidence of other kinds knows nothing of that.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.index.index import Index

Mask = np.ndarray[Any, Any]
Groups = tuple[str, Collection[Any]]


def selected(
    index: Index, ids: Collection[str] | None = None, groups: Groups | None = None
) -> Mask | None:
    """The examples that take part, bool [documents]; None = all.

    Args:
        index: the index.
        ids: only examples with these ids.
        groups: (metadata column, values): only examples of these groups. A value also fits by its
            text, as it is typed on a command line.

    Raises:
        InputError: when an id is not in the index, or no example is left.
    """
    if ids is None and groups is None:
        return None
    mask = np.ones(len(index), dtype=bool)
    if ids is not None:
        wanted = {ids} if isinstance(ids, str) else set(ids)
        mask &= np.asarray([name in wanted for name in index.ids])
        unknown = wanted.difference(index.ids)
        if unknown:
            raise InputError(
                f"{len(unknown)} of the ids are not in the index",
                expected=f"ids such as {index.ids[0]}",
                found=", ".join(sorted(map(str, unknown))[:3]),
            )
    if groups is not None:
        column, given = groups
        values = [given] if isinstance(given, str) else list(given)
        texts = {str(value) for value in values}
        found = index.metadata(column)
        mask &= np.asarray([value is not None and str(value) in texts for value in found])
    if not mask.any():
        raise InputError("No example is left", expected="ids or groups that the index holds")
    return mask


def with_features(index: Index, among: Mask | None = None) -> Mask | None:
    """`among` without the examples whose loss or gradient was not finite; None = all."""
    names = {name for shard in index.manifest["shards"] for name in shard.get("skipped", [])}
    if not names:
        return among
    there = np.asarray([name not in names for name in index.ids])
    return there if among is None else there & among
