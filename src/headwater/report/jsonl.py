"""Rows in a file: JSON Lines (an answer in the PAIR viewer's schema among them) and CSV."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headwater.engine.files import write_atomic

_HALF = re.compile("[\ud800-\udfff]")


def json_text(value: Any, **options: Any) -> str:
    """JSON as UTF-8 can hold it: half of a surrogate pair is written as an escape."""
    text = json.dumps(value, ensure_ascii=False, **options)
    return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    """One JSON object a line, UTF-8.

    Raises:
        InputError, ResourceError: when the file cannot be written; then it is as it was before.
    """
    lines = "".join(json_text(row) + "\n" for row in rows)
    write_atomic(path, lambda temporary: _text(temporary, lines))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A header and a line for each row; raises as `write_lines` does."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)

    write_atomic(path, write)


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
