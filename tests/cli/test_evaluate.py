"""`headwater evaluate retrieval`: methods side by side on facts whose documents are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import CITIES, PLACES, Command, write_rows


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    lines = [
        {
            "prompt": f"The capital of {place} is",
            "completion": f" {city}",
            "gold": [f"{place}-{number}" for number in range(3)],
        }
        for place, city in zip(PLACES, CITIES, strict=True)
    ]
    return write_rows(tmp_path / "facts.jsonl", lines)


def test_open(hw: Command, index: Path, facts: Path) -> None:
    command = ("evaluate", "retrieval", index, "--facts", facts, "--k", 3)
    methods = ("--method", "bm25", "--method", "gradcos", "--method", "random")
    ended = hw(*command, *methods, "--json")
    assert ended.code == 0, ended.err
    found = ended.json
    assert (found["protocol"], found["queries"], found["k"]) == ("open", 6, 3)
    bm25, gradcos, random = found["rows"]
    assert bm25["result"]["mrr"]["value"] == 1.0  # both names stand in each gold document
    assert bm25["result"]["success"]["value"] == 1.0
    assert bm25["difference"] is None
    for row in (gradcos, random):
        difference = row["difference"]["mrr"]
        assert difference["value"] == pytest.approx(row["result"]["mrr"]["value"] - 1.0)
        assert difference["low"] <= difference["value"] <= difference["high"]
        assert row["given"]
    again = hw(*command, *methods, "--json").json
    assert [row["result"] for row in again["rows"]] == [row["result"] for row in found["rows"]]


def test_ftrace(hw: Command, index: Path, facts: Path) -> None:
    command = ("evaluate", "retrieval", index, "--facts", facts, "--protocol", "ftrace", "--k", 3)
    sizes = ("--same-target", 2, "--random", 4, "--lexical", 3)
    ended = hw(*command, *sizes, "--method", "bm25", "--method", "random", "--json")
    assert ended.code == 0, ended.err
    assert 3 <= ended.json["candidates"] <= 12
    assert any("higher than those of" in note for note in ended.json["notes"])
    table = hw(*command, *sizes, "--method", "bm25", "--method", "random")
    assert table.code == 0
    for said in ("FTRACE", "candidates", "MRR", "success@3", "recall@3", "is given", "paired"):
        assert said in table.out
    assert "higher than those of open retrieval" in " ".join(table.out.split())


def test_what_is_compared_when_nothing_is_named(hw: Command, index: Path, facts: Path) -> None:
    ended = hw("evaluate", "retrieval", index, "--facts", facts, "--json")
    assert ended.code == 0, ended.err
    named = [row["method"] for row in ended.json["rows"]]
    assert named == ["trackstar", "gradcos", "bm25", "random"]


def test_held_out_queries(hw: Command, tmp_path: Path, index: Path, facts: Path) -> None:
    lines = [{"prompt": f"The capital of {p} is", "completion": f" {p}"} for p in PLACES]
    held_out = write_rows(tmp_path / "held.jsonl", lines)
    command = ("evaluate", "retrieval", index, "--facts", facts, "--eval-queries", held_out)
    ended = hw(*command, "--method", "trackstar", "--json")
    assert ended.code == 0, ended.err
    assert "held-out" in ended.json["rows"][0]["given"]
    assert "trackstar" in hw(*command, "--method", "gradcos").error


def test_refuses(hw: Command, tmp_path: Path, index: Path, facts: Path) -> None:
    def error(*words: Any) -> str:
        ended = hw("evaluate", "retrieval", index, *words)
        assert ended.code == 2, ended.err
        return ended.error

    assert "--facts FILE" in error()
    assert "cannot be read" in error("--facts", tmp_path / "none")
    assert "no such protocol" in error("--facts", facts, "--protocol", "closed")
    assert "witchcraft" in error("--facts", facts, "--method", "witchcraft")
    assert "more than once" in error("--facts", facts, "--method", "bm25", "--method", "bm25")
    assert "k is not usable" in error("--facts", facts, "--k", 0, "--method", "bm25")
    assert "0 or more" in error("--facts", facts, "--random", -1)
    assert "cannot be evaluated" in error("--facts", "open", "--method", "bm25")
    assert "No gold document" in error("--facts", "facts", "--method", "bm25")
    assert "--help" in hw("evaluate", "beauty", index).error
