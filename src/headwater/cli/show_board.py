"""A board at the end of its command: written first, for a reader of the text may leave early."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.cli.output import console, emit, warn
from headwater.engine.errors import HeadwaterError

if TYPE_CHECKING:
    from headwater.evaluation.board import Board


def show_board(found: Board, folder: Path | None, *, as_json: bool) -> None:
    """Write the board into a folder (None = nowhere), show it, and say what was written.

    Raises:
        HeadwaterError: when it cannot be written; it has been shown by then.
    """
    from headwater.report.board_files import write_board

    try:
        paths = [] if folder is None else write_board(folder, found)
    except HeadwaterError:
        with suppress(BrokenPipeError):
            _show(found, as_json=as_json)  # not lost with the files
        raise
    if paths:
        warn("written: " + ", ".join(str(path) for path in paths))
    _show(found, as_json=as_json)


def _show(found: Board, *, as_json: bool) -> None:
    from headwater.report.board import board_report

    if as_json:
        emit(found.to_dict())
        return
    shown = console()
    shown.print(board_report(found, shown.width))
