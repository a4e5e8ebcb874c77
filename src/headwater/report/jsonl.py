"""Rows in a file: JSON Lines (an answer in the PAIR viewer's schema among them) and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headwater.engine.files import write_atomic


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    """One JSON object a line, UTF-8.

    Raises:
        InputError, ResourceError: when the file cannot be written; then it is as it was before.
    """
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
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
