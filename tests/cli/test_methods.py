"""`headwater methods` and methods that need a training run, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command

from headwater.evidence.rankers import METHODS


def test_all_methods_are_listed_with_what_they_need(hw: Command) -> None:
    ended = hw("methods", "--json")
    rows = [row for row in ended.lines if row]
    assert [row["name"] for row in rows] == list(METHODS)
    assert all(row["needs"] and row["unit"] and row["title"] for row in rows)
    table = hw("methods").out
    assert "source --run FOLDER" in " ".join(table.split())


@pytest.mark.parametrize("name", ["source", "tracin"])
def test_what_is_lacking_is_told(hw: Command, built: Path, tmp_path: Path, name: str) -> None:
    asked = ("ask", built, "The capital of Peru is", " Lima", "--method", name)
    assert "--run FOLDER" in hw(*asked).error
    assert "No such training run" in hw(*asked, "--run", tmp_path / "none").error
