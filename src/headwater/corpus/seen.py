"""How often a 64-bit hash was seen, in 8 bytes a hash and not a Python object each.

Open addressing in one flat array, at most two thirds full: 12 to 24 bytes an entry where a dict
takes a hundred. Only hashes that come again have a counter.
"""

from __future__ import annotations

from array import array


class HashCounter:
    """Counts 64-bit hashes; `repeats` maps those seen more than once to how often."""

    def __init__(self) -> None:
        self.repeats: dict[int, int] = {}
        self._size = 0
        self._zero = False  # 0 marks a free slot, so the hash 0 is kept apart
        self._slots = array("Q", bytes(8 * 1024))

    def __len__(self) -> int:
        """How many different hashes were seen."""
        return self._size + self._zero

    def add(self, value: int) -> int:
        """Count `value` (0 <= value < 2^64) once more; returns how often it was seen before."""
        if self._is_new(value):
            return 0
        before = self.repeats.get(value, 1)
        self.repeats[value] = before + 1
        return before

    def _is_new(self, value: int) -> bool:
        if value == 0:
            known, self._zero = self._zero, True
            return not known
        slot = self._find(self._slots, value)
        if self._slots[slot] == value:
            return False
        self._slots[slot] = value
        self._size += 1
        if 3 * self._size > 2 * len(self._slots):
            self._grow()
        return True

    @staticmethod
    def _find(slots: array[int], value: int) -> int:
        mask = len(slots) - 1
        slot = value & mask
        while slots[slot] not in (0, value):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        larger = array("Q", bytes(16 * len(self._slots)))
        for value in self._slots:
            if value:
                larger[self._find(larger, value)] = value
        self._slots = larger
