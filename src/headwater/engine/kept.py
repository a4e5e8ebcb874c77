"""What was worked out once is kept, up to a size: the oldest goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key, as many as fit; safe in several threads.

    Args:
        most: of `size` in all. size: of one value; a larger one than `most` is not kept.
    """

    def __init__(self, most: int, size: Callable[[T], int] = lambda _: 1) -> None:
        self.most, self.size, self.held = most, size, 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        """The value, which is then the newest; None where there is none."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: str, value: T) -> None:
        """Keep a value."""
        size = self.size(value)
        with self._lock:
            if key in self._values:
                self.held -= self._values.pop(key)[1]
            if size > self.most:
                return
            self._values[key] = (value, size)
            self.held += size
            while self.held > self.most:
                self.held -= self._values.popitem(last=False)[1][1]

    def __len__(self) -> int:
        return len(self._values)
