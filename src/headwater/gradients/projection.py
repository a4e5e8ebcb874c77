"""Random projections as a pure function of (seed, parameter name, side, shape).

Entries are +-1/sqrt(rows), taken bit by bit from a counter-based generator keyed by a hash of those
four: the same bytes on any device, in any order, on any number of workers. For independent P and Q,
E <P G Q^T, P G' Q^T> = <G, G'>.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def signs(seed: int, name: str, side: str, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """float32 [rows, columns] of +-1/sqrt(rows).

    Args:
        seed: of the whole feature set.
        name: the parameter's name.
        side: "out" or "in", so that P and Q are independent.
        rows: target dimension. columns: the gradient's dimension.
    """
    key = hashlib.sha256(f"{seed}|{name}|{side}|{rows}x{columns}".encode()).digest()
    generator = np.random.Philox(key=np.frombuffer(key[:16], dtype="<u8"))
    words = generator.random_raw((rows * columns + 63) // 64).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: rows * columns]
    return ((bits.astype(np.float32) * 2 - 1) / np.sqrt(np.float32(rows))).reshape(rows, columns)
