"""Figures as people read them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes as people read them: 512 B, 3.1 MB."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f} B"
