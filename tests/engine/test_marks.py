"""A mark vouches for its files as long as they are the bytes that were marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.engine.marks import changed, read_mark, sums, write_mark


def test_a_mark_holds_for_unchanged_files_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    mark = tmp_path / "part.json"
    assert read_mark(mark, ["a", "b"]) is None
    write_mark(mark, {"rows": 3}, ["a", "b"])
    found = read_mark(mark, ["a", "b"])
    assert found is not None
    assert found["rows"] == 3
    assert read_mark(mark, ["a", "c"]) is None  # it says nothing of c
    for damage in (b"tw0", b"tw", b""):
        (tmp_path / "b").write_bytes(damage)
        assert read_mark(mark, ["a", "b"]) is None
        assert changed(tmp_path, found["files"]) == ["b"]
        assert read_mark(mark, ["a"]) == found
    (tmp_path / "a").unlink()
    assert read_mark(mark, ["a"]) is None


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"files": 1}', '{"files": {"a": 2}}'])
def test_what_is_no_mark(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "part.json").write_text(text)
    assert read_mark(tmp_path / "part.json", ["a"]) is None
    assert sums(tmp_path, ["a"])["a"]["bytes"] == 3
