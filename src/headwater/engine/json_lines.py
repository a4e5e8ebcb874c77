"""JSON Lines that a person wrote: each line an object, and every mistake named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from headwater.engine.errors import InputError


def read_text(path: Path, expected: str | None = None) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        InputError: where it can't be read; says what is `expected`.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read", expected=expected, found=reason) from error


def numbered(text: str) -> list[tuple[int, str]]:
    """Lines that are not blank with their numbers, from 1."""
    return [(n, line.rstrip("\r")) for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def json_object(place: str, line: str, what: str) -> dict[str, Any]:
    """The object on a line.

    Args:
        place: file and line, for messages. what: what it should be, as in "not a query".

    Raises:
        InputError: for what is not JSON, or no object.
    """
    try:
        loaded = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: not JSON", found=str(error)) from error
    if not isinstance(loaded, dict):
        raise InputError(f"{place}: not a {what}", expected="an object", found=repr(loaded)[:60])
    return cast("dict[str, Any]", loaded)
