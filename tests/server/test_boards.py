"""Boards: by name only, checked before they are served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.engine.errors import DamageError, InputError
from headwater.server.boards import board

FOUND: dict[str, Any] = {
    "preset": "tiny",
    "recipe": {"seed": 0},
    "columns": {"LDS": "higher is better"},
    "rows": [
        {
            "name": "trackstar",
            "title": "TrackStar",
            "given": [],
            "parameters": {},
            "figures": {"LDS": {"value": 0.5, "low": 0.4, "high": float("nan")}},
            "cost": {"seconds": 2.0, "memory": 1, "disk": 0},
            "trainings": 2.0,
        }
    ],
    "findings": [{"claim": "<script>", "holds": None, "figures": "\u202e"}],
    "notes": [],
    "training_seconds": 1.0,
    "headline": "LDS",
    "extra": {},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "board.json").write_text(json.dumps(FOUND))
    return tmp_path


def test_a_board_is_served_by_its_name(folder: Path) -> None:
    for path in (folder, folder / "board.json"):
        found = board({"mine": path}, "mine")
        assert found["rows"][0]["figures"]["LDS"]["value"] == 0.5
        assert found["rows"][0]["trainings"] == 2.0
        assert found["findings"][0]["claim"] == "<script>"


def test_names_are_no_paths(folder: Path) -> None:
    for name in ("../mine", str(folder), "", "other"):
        with pytest.raises(InputError, match="no such board"):
            board({"mine": folder}, name)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '"x"', '{"rows": [3], "findings": []}', '{"rows": {}, "findings": 3}'],
)
def test_what_is_no_board_is_refused(folder: Path, text: str) -> None:
    (folder / "board.json").write_text(text)
    with pytest.raises(DamageError):
        board({"mine": folder}, "mine")


def test_a_board_that_went_away(folder: Path) -> None:
    (folder / "board.json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        board({"mine": folder}, "mine")


def test_a_board_over_http(client: Any, workbench: Any, folder: Path) -> None:
    workbench.boards["mine"] = folder
    try:
        found = client.get("/api/boards/mine")
    finally:
        del workbench.boards["mine"]
    assert found.status_code == 200
    assert found.json()["rows"][0]["figures"]["LDS"]["high"] is None  # JSON has no NaN
    assert client.get("/api/boards/none").status_code == 404
