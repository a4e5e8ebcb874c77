"""What goes out as JSON: results, and what went wrong in the words of the command line."""

from __future__ import annotations

from typing import Any

from headwater.engine.errors import HeadwaterError
from headwater.engine.plain import plain


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
        return json_text(value, allow_nan=False, default=plain)
    except ValueError:
        return json_text(plain(value), allow_nan=False)
