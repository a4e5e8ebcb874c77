"""Work in batches under a token budget that is halved as often as memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

from headwater.corpus.batches import batches_by_length
from headwater.engine.errors import ResourceError
from headwater.engine.memory import give_back, out_of_memory

Made = TypeVar("Made")


def in_batches(
    lengths: Sequence[int], budget: int, compute: Callable[[list[int]], Made]
) -> Iterator[tuple[list[int], Made, int]]:
    """`compute` of batches of items by length: (their numbers, what was made, the budget in use).

    Args:
        lengths: tokens of each item. budget: tokens of a batch, to begin with.

    Raises:
        ResourceError: when a single item does not fit.
    """
    waiting = batches_by_length(lengths, budget)[::-1]
    while waiting:
        part, fits = waiting.pop(), True
        try:
            made = compute(part)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(part) == 1:
                raise ResourceError(
                    f"Memory ran out on a single chunk of {lengths[part[0]]} tokens",
                    do="use a smaller max_length, a smaller dtype, or a larger machine",
                ) from error
            made, fits = None, False
        if not fits:  # outside of the handler, which keeps the failed batch's tensors alive
            give_back()
            budget = max(1, budget // 2)
            rest = [i for items in [part, *waiting[::-1]] for i in items]
            again = batches_by_length([lengths[i] for i in rest], budget)
            waiting = [[rest[i] for i in items] for items in again][::-1]
            continue
        yield part, cast("Made", made), budget


def whole(budget: int, attempt: Callable[[int], Made], said: str) -> Made:
    """`attempt(budget)`, begun again at half the budget as often as memory runs out.

    For sums, to which a batch that failed half way has already added: halving it would not do.

    Raises:
        ResourceError: when a budget of one token does not do either.
    """
    while True:
        try:
            return attempt(budget)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if budget <= 1:
                raise ResourceError(
                    f"Memory ran out on the {said}",
                    do="attribute fewer layers (modules), or use a larger machine",
                ) from error
        give_back()
        budget //= 2
