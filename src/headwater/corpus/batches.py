"""Batches of similar lengths under a token budget.

Longest first, each batch filled as far as the budget lets it: no grouping of the sorted lengths
takes fewer batches, the largest batch comes first (memory runs out at once or never), and the
result depends on the lengths alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def batches_by_length(lengths: Sequence[int], budget: int, multiple: int = 1) -> list[list[int]]:
    """Indices into `lengths`, each in one batch, sorted by length (longest first), then by index.

    Args:
        lengths: tokens of each example, at least 1.
        budget: padded tokens of a batch (examples x longest); an example longer than the budget
            is a batch of its own.
        multiple: a batch is padded to a multiple of this many tokens, which counts.

    Raises:
        InputError: a length, the budget or the multiple is below 1.
    """
    _check(lengths, multiple)
    if budget < 1:
        raise InputError("the batch budget is too small", expected="at least 1", found=budget)
    order: list[int] = np.argsort(-np.asarray(lengths, np.int64), kind="stable").tolist()
    batches: list[list[int]] = []
    first = 0
    while first < len(order):
        count = max(1, budget // _padded(lengths[order[first]], multiple))
        batches.append(order[first : first + count])
        first += count
    return batches


def padding_share(
    lengths: Sequence[int], batches: Sequence[Sequence[int]], multiple: int = 1
) -> float:
    """The share of padded tokens in all tokens of the batches: 0 for none; 0 for no batches."""
    _check(lengths, multiple)
    real = sum(lengths[index] for batch in batches for index in batch)
    padded = sum(
        len(batch) * _padded(max(lengths[index] for index in batch), multiple)
        for batch in batches
        if batch
    )
    return 1.0 - real / padded if padded else 0.0


def _padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _check(lengths: Sequence[int], multiple: int) -> None:
    if multiple < 1:
        raise InputError("multiple is too small", expected="at least 1", found=multiple)
    if lengths and min(lengths) < 1:
        index = next(index for index, length in enumerate(lengths) if length < 1)
        raise InputError(
            f"example {index} has no tokens",
            expected="a length of at least 1",
            found=lengths[index],
        )
