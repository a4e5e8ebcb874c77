"""What goes out as JSON: results, and what went wrong in the words of the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headwater.engine.errors import HeadwaterError


def failure(error: HeadwaterError) -> dict[str, Any]:
    """The parts of what went wrong, as the command line tells them."""
    told = {"wrong": error.wrong, "expected": error.expected, "found": error.found, "do": error.do}
    return {name: None if value is None else str(value) for name, value in told.items()}


def defect(error: BaseException) -> dict[str, Any]:
    """The same for what nobody can be blamed for but us."""
    if isinstance(error, MemoryError):
        return failure(HeadwaterError("Memory ran out", do="ask for less, or close an index"))
    said = " ".join(str(error).split())[:300]
    return failure(
        HeadwaterError(
            f"{type(error).__name__}: {said}" if said else type(error).__name__,
            do="this is a defect of headwater; the server's terminal shows where it happened",
        )
    )


def as_json(value: Any) -> str:
    """JSON that every browser reads: what is not finite is null, half a character an escape."""
    from headwater.report.jsonl import json_text

    try:
        return json_text(value, allow_nan=False, default=_plain)
    except ValueError:
        return json_text(_finite(value), allow_nan=False)


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy; what else JSON has no word for by its text."""
    made = getattr(value, "tolist", None)
    return made() if made is not None else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    return _finite(_plain(value))
