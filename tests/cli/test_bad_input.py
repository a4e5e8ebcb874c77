"""Whatever is wrong with the input: one line that names it, and an exit code that is not zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import Command, write_rows


def refused(hw: Command, model: Path, corpus: Path, *words: object) -> str:
    out = corpus.parent / "out"
    ended = hw("index", model, corpus, out, *words)
    assert ended.code == 2, ended.err
    assert not (out / "manifest.json").exists()
    return ended.error


def test_a_missing_file(hw: Command, tmp_path: Path, model: Path) -> None:
    assert "none.jsonl does not exist" in refused(hw, model, tmp_path / "none.jsonl")


def test_a_malformed_line(hw: Command, tmp_path: Path, model: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "one two three"}\n{"text": "two three"}\n{"text": oh}\n')
    error = refused(hw, model, path)
    assert "c.jsonl" in error
    assert "line 3" in error
    ended = hw("index", model, path, tmp_path / "kept", "--skip-bad", "--json")
    assert ended.code == 0
    assert ended.json["documents"] == 2
    assert ended.json["skipped_count"] == 1
    assert ended.json["skipped"][0]["example"].endswith("c.jsonl:3")


def test_a_wrong_column(hw: Command, tmp_path: Path, model: Path) -> None:
    path = write_rows(tmp_path / "c.jsonl", [{"body": "one two"}])
    error = refused(hw, model, path)
    assert "text" in error
    assert "body" in error
    assert "nope" in refused(hw, model, path, "--column", "text=nope")
    assert "OURS=YOURS" in refused(hw, model, path, "--column", "text")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": ""}, "text is empty"),
        ({"text": "a"}, "no token"),
        ({"input_ids": [1, 2, 3], "labels": [-100] * 3}, "-100"),
        ({"input_ids": [1, 2, 9999]}, "9999"),
        ({"input_ids": [1, 2, -3]}, "-3"),
    ],
)
def test_examples_that_cannot_be_learnt_from(
    hw: Command, tmp_path: Path, model: Path, row: dict[str, Any], said: str
) -> None:
    assert said in refused(hw, model, write_rows(tmp_path / "c.jsonl", [row]))


def test_a_missing_model(hw: Command, tmp_path: Path, corpus: Path) -> None:
    error = hw("index", "no-such-model", corpus, tmp_path / "out").error
    assert "no-such-model" in error
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "could not be loaded" in hw("index", empty, corpus, tmp_path / "out").error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--projection", "16"), "16x16"),
        (("--projection", "0x4"), "positive"),
        (("--storage", "int4"), "int8"),
        (("--output", "logits"), "margin"),
        (("--parameters", "some"), "linear"),
        (("--modules", "nothing*"), "No parameter"),
        (("--modules", "*", "--parameters", "all"), "--modules or --parameters"),
        (("--dtype", "float99"), "float32"),
        (("--max-length", "1"), "max_length"),
        (("--max-length", "9999"), "positions"),
        (("--budget", "0"), "--budget"),
        (("--exact",), "--second-moment"),
        (("--second-moment", "nowhere"), "nowhere"),
        (("--append",), "no index"),
    ],
)
def test_options_that_cannot_be(
    hw: Command, tmp_path: Path, model: Path, corpus: Path, words: tuple[str, ...], said: str
) -> None:
    ended = hw("index", model, corpus, tmp_path / "out", *words)
    assert ended.code == 2
    assert said in ended.error


def test_a_folder_of_something_else(hw: Command, tmp_path: Path, model: Path, corpus: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")
    ended = hw("index", model, corpus, tmp_path)
    assert "neither empty nor an index" in ended.error
    assert (tmp_path / "diary.txt").exists()


def test_questions_that_cannot_be(hw: Command, tmp_path: Path, built: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert "no index" in hw("ask", nowhere, "a", " b").error
    assert "words to explain" in hw("ask", built).error
    assert "target is empty" in hw("ask", built, "The capital of Peru is", "").error
    ended = hw("ask", built, "a", " b", "--method", "witchcraft")
    assert (ended.code, "witchcraft" in ended.error, "trackstar" in ended.error) == (2, True, True)
    assert "--output margin" in hw("ask", built, "a", " b", "--method", "trak").error
    assert "top" in hw("ask", built, "a", " b", "--top", "0").error
    assert "colour" in hw("ask", built, "a", " b", "--method", "logra", "--by", "colour").error
    assert "additive" in hw("ask", built, "a", " b", "--by", "source").error
    assert "nope" in hw("ask", built, "a", " b", "--modules", "nope").error
    assert "window" in hw("ask", built, "a b c d e f " * 30, " b").error


def test_query_files_that_cannot_be(hw: Command, tmp_path: Path, built: Path) -> None:
    path = tmp_path / "q.jsonl"
    cases = {
        '{"prompt": "a", "completion": " b"}\n{"prompt": "a"}\n': ("line 2", "completion"),
        '{"prompt": "a", "completion": " b"}\n\n{oops\n': ("line 3", "JSON"),
        '{"prompt": 3, "completion": " b"}\n': ("line 1", "prompt"),
        '{"prompt": "a", "completion": ""}\n': ("line 1", "empty"),
        "[1, 2]\n": ("line 1", "object"),
        "\n": ("no query",),
    }
    for text, said in cases.items():
        path.write_text(text)
        error = hw("rank", built, "--queries", path).error
        assert all(word in error for word in said), error
    for line in ('{"prompt": "a", "instead_of": " b"}', '{"prompt": [{"role": "user"}]}'):
        path.write_text(line + "\n")
        assert "completion" in hw("ask", built, "--queries", path).error
    assert "cannot be read" in hw("ask", built, "--queries", tmp_path / "none").error
    assert "both given" in hw("ask", built, "a", " b", "--queries", path).error
    assert "--queries FILE" in hw("rank", built).error


def test_the_command_typed_wrongly(hw: Command) -> None:
    for words in (("asks",), ("ask",), ("ask", "x", "--nope"), ("index", "--budget", "many")):
        ended = hw(*words)
        assert ended.code == 2
        assert "--help" in ended.error


def test_a_defect_of_ours_is_one_line(hw: Command, built: Path, monkeypatch: Any) -> None:
    import headwater.answer.ask as module

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(module, "ask", broken)
    ended = hw("ask", built, "a", " b")
    assert ended.code == 70
    assert "HEADWATER_DEBUG=1" in ended.error
    monkeypatch.setenv("HEADWATER_DEBUG", "1")
    assert "Traceback" in hw("ask", built, "a", " b").err


def test_no_terminal_codes_from_data(hw: Command, tmp_path: Path, model: Path) -> None:
    path = write_rows(tmp_path / "c.jsonl", [{"bo\x1b[31mdy": "one two"}])
    assert "\x1b" not in refused(hw, model, path)
