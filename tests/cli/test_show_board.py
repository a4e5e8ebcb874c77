"""A board is on the disk before anybody reads it, and is shown where it cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from headwater.cli import show_board as command
from headwater.engine.errors import HeadwaterError
from headwater.evaluation.board import Board, Row
from headwater.evaluation.candidates import Cost
from headwater.evaluation.estimate import Estimate

BOARD = Board(
    "mine",
    {"seed": 0},
    {"LDS": "higher is better"},
    [Row("graddot", "GradDot", (), {}, {"LDS": Estimate(0.5, 0.4, 0.6)}, Cost(1.0, 10, 20))],
    headline="LDS",
)


def test_it_is_written_though_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> NoReturn:
        raise BrokenPipeError

    monkeypatch.setattr(command, "_show", gone)
    with pytest.raises(BrokenPipeError):
        command.show_board(BOARD, tmp_path / "out", as_json=False)
    kept = json.loads((tmp_path / "out" / "board.json").read_text())
    assert kept["rows"][0]["figures"]["LDS"]["value"] == 0.5


def test_it_is_shown_where_it_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(HeadwaterError):
        command.show_board(BOARD, tmp_path / "out", as_json=True)
    assert json.loads(capsys.readouterr().out)["preset"] == "mine"
