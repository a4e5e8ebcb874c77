"""Any value in JSON's own types, for whatever leaves the process."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """`value` in JSON's own types; numbers that are not finite, which JSON lacks, become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    item = getattr(value, "tolist", None)
    return plain(item()) if item is not None else str(value)
