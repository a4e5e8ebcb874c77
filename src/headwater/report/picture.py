"""An Answer as a picture (SVG): the terminal table in a frame, without fonts from elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType

from headwater.answer.answer import Answer
from headwater.engine.files import write_atomic
from headwater.report.terminal import render
from headwater.report.words import printable

WIDTH = 100  # columns


def svg(shown: RenderableType, title: str, width: int = WIDTH) -> str:
    """What a terminal of that width would show, as an SVG document."""
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        legacy_windows=False,
    )
    console.print(shown)
    text = console.export_svg(title=title, unique_id="headwater")
    # rich names a font on a server of others; a picture must not fetch anything.
    return re.sub(r"@font-face\s*\{.*?\}\s*", "", text, flags=re.DOTALL)


def write_svg(path: Path, answer: Answer, width: int = WIDTH) -> None:
    """Save the answer's table.

    Raises:
        InputError, ResourceError: when the file cannot be written.
    """
    text = svg(render(answer), f"headwater ask: {printable(answer.query)}", width)
    write_atomic(path, lambda temporary: _text(temporary, text))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
