"""A board as files: board.md, board.json, board.svg and board.png in one folder."""

from __future__ import annotations

from pathlib import Path

from headwater.engine.files import make_folder, read_json, write_atomic
from headwater.evaluation.board import Board
from headwater.report.board_chart import write_chart
from headwater.report.board_markdown import board_markdown
from headwater.report.jsonl import json_text

NAME = "board.json"


def write_board(folder: Path, found: Board) -> list[Path]:
    """Write all four; returns what was written.

    Raises:
        InputError, ResourceError: when a file cannot be written, or there is no matplotlib.
    """
    make_folder(folder)
    text = json_text(found.to_dict(), indent=1) + "\n"
    write_atomic(folder / NAME, lambda path: _text(path, text))
    pictures = write_chart(folder, found)
    told = board_markdown(found, pictures[0].name if pictures else None)
    write_atomic(folder / "board.md", lambda path: _text(path, told))
    return [folder / "board.md", folder / NAME, *pictures]


def read_board(folder: Path) -> Board:
    """The board that was written there.

    Raises:
        InputError, DamageError: when there is none.
    """
    return Board.from_dict(read_json(folder / NAME))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
