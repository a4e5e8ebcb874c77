"""The boards of an evaluation that are served: folders with a board.json, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headwater.engine.errors import DamageError, InputError
from headwater.engine.files import read_json
from headwater.server.jobs import Missing

NAME = "board.json"
BYTES = 50_000_000


def board(boards: Mapping[str, Path], name: str) -> dict[str, Any]:
    """A board by its name, as `Board.to_dict` gives it.

    Args:
        boards: folders (or files) by name, as the server was given them.

    Raises:
        InputError, DamageError: for a name that is not there, or what is no board.
    """
    from headwater.evaluation.board import Board

    if name not in boards:
        told = ", ".join(boards) or "none: give a folder with --boards at the start"
        raise Missing("There is no such board", expected=told, found=name[:200])
    path = boards[name]
    path = path / NAME if path.is_dir() else path
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"The board {name} cannot be read", found=error.strerror) from error
    if size > BYTES:
        raise InputError(f"The board {name} is too large", expected=f"{BYTES:,} bytes", found=size)
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise DamageError("This is no board", expected="an object", found=type(found).__name__)
        return Board.from_dict(found).to_dict()
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamageError(f"{path} is no board", expected=NAME, found=str(error)[:200]) from error
