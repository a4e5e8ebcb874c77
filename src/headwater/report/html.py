"""Answers in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.answer.page import to_html
from headwater.engine.files import write_atomic

if TYPE_CHECKING:
    from headwater.answer.answer import Answer


def write_html(path: Path, answers: Sequence[Answer]) -> None:
    """The answers, all in one file.

    Raises:
        ResourceError: where the interface was not built, or there is no room; then the file is as
            it was before. InputError: when it cannot be written.
    """
    text = to_html(answers)
    write_atomic(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
