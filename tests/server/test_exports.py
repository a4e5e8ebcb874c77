"""Files: nothing a spreadsheet computes, nothing Markdown reads, nothing lost in JSON."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.server.exports import answer_file, selection_file
from headwater.server.markdown import escaped, passage
from headwater.server.tables import csv_text, guarded
from headwater.server.visible import visible

HOSTILE = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "[click](javascript:alert(1))",
    "=cmd|' /C calc'!A0",
    "\u202eabc\u2066",
    "\ud800 half",
    "\x00\x1b[31mred\x07",
    "`code` ~~~ ```",
    "a\r\nb\u2028c",
    "x" * 100_000,
]


def evidence(number: int, text: str) -> dict[str, Any]:
    return {
        "id": f"=id-{number}",
        "text": text,
        "score": -1.5 * number,
        "percentile": 99.0,
        "position": number,
        "metadata": {"source": "@wiki", "year": 1999, "tags": ["a"]},
    }


ANSWER: dict[str, Any] = {
    "query": "'p' -> 'c'",
    "prompt": "Perú: what is <b>",
    "completion": " 12. c",
    "target": ["c"],
    "probability": 0.5,
    "method": {"method": "trackstar"},
    "title": "TrackStar",
    "unit": "cosine",
    "additive": False,
    "examples": 1,
    "proponents": [evidence(number, text) for number, text in enumerate(HOSTILE)],
    "opponents": [evidence(50, "plain")],
    "judgement": {
        "best": 1.0,
        "null": [],
        "p_value": None,
        "stands_out": None,
        "summary": "1. *No* null",
    },
    "notes": ["- a note"],
    "reproduce": {"command": "headwater ask x '```' \u202e"},
}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("=1+1", "'=1+1"),
        ("+a", "'+a"),
        ("-a", "'-a"),
        ("@a", "'@a"),
        ("\tx", "'\tx"),
        ("\rx", "'\\u000dx"),
        ("\n=x", "'\n=x"),
        (" =x", "' =x"),
        ("\u00a0=x", "'\u00a0=x"),
        ("\u3000=x", "'\u3000=x"),
        ("\u2003=x", "'\u2003=x"),
        ("\u1680=x", "'\u1680=x"),
        ("\u2003\u200b =x", "'\u2003\\u200b =x"),
        (" \tx", "' \tx"),
        ("\u200b=x", "'\\u200b=x"),
        ("\uff1dx", "'\uff1dx"),
        ("\ufeff@x", "'\\ufeff@x"),
        ("-1.5", "-1.5"),
        ("+2e-3", "+2e-3"),
        ("-1.5.2", "'-1.5.2"),
        ("-1+cmd", "'-1+cmd"),
        (-1.5, -1.5),
        (True, True),
        (None, None),
        ("a=b", "a=b"),
        ("", ""),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("line\nline\ttab", "line\nline\ttab"),
    ],
)
def test_cells_are_guarded(value: Any, found: Any) -> None:
    assert guarded(value) == found


@given(st.text(max_size=30))
def test_no_cell_begins_a_formula(text: str) -> None:
    written = csv_text([{"first": "x", "a": text}])
    written.encode("utf-8")
    _, row = csv.reader(io.StringIO(written, newline=""))
    if row[1].strip().startswith(("=", "+", "-", "@")):
        float(row[1])


def test_an_answer_as_csv() -> None:
    made = answer_file(ANSWER, "csv")
    assert made.name == "headwater-peru-what-is-b.csv"
    rows = list(csv.DictReader(io.StringIO(made.content.decode(), newline="")))
    assert len(rows) == len(HOSTILE) + 1
    assert rows[1]["id"] == "'=id-1"
    assert rows[1]["score"] == "-1.5"
    assert rows[1]["metadata.source"] == "'@wiki"
    assert rows[1]["metadata.tags"] == '["a"]'
    assert rows[3]["text"].startswith("'=cmd")
    assert rows[-1]["side"] == "opposes"
    assert len(rows[9]["text"]) == 100_000


def test_an_answer_as_json_holds_every_character() -> None:
    for format in ("json", "jsonl"):
        content = answer_file(ANSWER, format).content.decode()
        found = json.loads(content)
        assert [one["text"] for one in found["proponents"]] == HOSTILE
        for bad in ("\u202e", "\u2028", "\x1b", "\x00"):
            assert bad not in content
    assert answer_file(ANSWER, "jsonl").content.count(b"\n") == 1
    pair = json.loads(answer_file(ANSWER, "pair").content)
    assert pair["proponents"] == HOSTILE
    assert pair["inputs_plaintext"] == ANSWER["prompt"]


def test_an_answer_as_markdown_is_plain_text() -> None:
    text = answer_file(ANSWER, "markdown").content.decode()
    for bad in ("<script", "<img", "<b>", "\u202e", "\x1b", "\x00", "\u2028"):
        assert bad not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert r"\[click\](javascript:alert(1))" in text
    assert r"1\. \*No\* null" in text
    assert "\n````sh\nheadwater ask x '```' \\u202e\n````\n" in text
    lines = text.splitlines()
    assert sum(line[:2] in {f"{n}." for n in range(1, 10)} for line in lines) == 9 + 1
    assert max(map(len, lines)) < 3000


@given(st.text(max_size=60))
def test_escaped_text_is_one_line_without_marks(text: str) -> None:
    found = escaped(text)
    assert "\n" not in found
    bare = found.replace("\\\\", "")
    for mark in "`*_[]#|~":
        assert bare.count(mark) == bare.count(f"\\{mark}")
    assert not {"<", ">"} & set(found)


def test_markdown_is_read_as_text_by_a_parser() -> None:
    markdown_it = pytest.importorskip("markdown_it")
    rendered = markdown_it.MarkdownIt("commonmark").render(
        answer_file(ANSWER, "markdown").content.decode()
    )
    for bad in ("<script", "<img", "<a ", "<em>", "href"):
        assert bad not in rendered
    assert rendered.count("<ol>") == 2
    assert rendered.count("<li>") == len(HOSTILE) + 1 + 1


def test_markdown_of_long_passages_shows_the_marked_words() -> None:
    """A passage of 100 kB is cut, with how much is left out; what is marked in it stays, bold."""
    filler = "so it goes on and on " * 2500
    said = "the grey owl of Lima"
    text = f"{filler}Seen: {said}* was [there]. {filler}"
    at = text.index(said)
    item = {**evidence(1, text), "spans": [[at, at + len(said) + 1]]}
    shared = {**evidence(2, f"{filler} Lima"), "tokens": [[" Lima", 0.9], [" so", 0.0]]}
    shared["tokens"] = [[filler, 0.0], *shared["tokens"]]
    answer = {**ANSWER, "proponents": [item, {**shared, "score": 1.0}], "opponents": []}
    answer |= {"prompt": f"{filler}the end of it", "completion": f"begin {filler}"}
    made = answer_file(answer, "markdown").content.decode()
    assert len(made) < 8000
    assert f"Seen: **{said}**\\* was \\[there\\]" in made
    assert "**Lima**" in made
    (line,) = [line for line in made.splitlines() if said in line]
    left = [int(n.replace(",", "")) for n in re.findall(r"\(([\d,]+) characters left out\)", line)]
    assert len(left) == 2
    assert len(text) - 1000 < sum(left) < len(text) - 600
    (asked,) = [line for line in made.splitlines() if line.startswith("> ")]
    assert "the end of it **begin so" in asked
    assert asked.count("characters left out") == 2
    markdown_it = pytest.importorskip("markdown_it")
    rendered = markdown_it.MarkdownIt("commonmark").render(made)
    assert f"<strong>{said}</strong>* was [there]" in rendered


@given(st.text(max_size=80), st.integers(0, 80), st.integers(0, 80))
def test_bold_is_what_is_marked_whatever_the_text(text: str, a: int, b: int) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    start, end = sorted((min(a, len(text)), min(b, len(text))))
    marks = [(start, end)] if start < end else []
    rendered = markdown_it.MarkdownIt("commonmark").render(f"1. x: {passage(text, marks)}")
    bold = [html.unescape(one) for one in re.findall("<strong>(.*?)</strong>", rendered)]
    inner = _letters(text[start:end])
    assert [_letters(one) for one in bold] == ([inner] if inner else [])
    assert rendered.count("<li>") == 1


def _letters(text: str) -> str:
    """From its first letter or digit to its last, on one line, as a file shows it."""
    places = [n for n, one in enumerate(text) if one.isalnum()]
    return visible(re.sub(r"\s+", " ", text[places[0] : places[-1] + 1])) if places else ""


def test_what_is_no_answer_is_refused() -> None:
    broken = {**ANSWER, "proponents": [{"id": 3}]}
    for value in (None, {}, {"query": 1}, broken, [ANSWER]):
        with pytest.raises(InputError, match="This is no answer"):
            answer_file(value, "csv")
    with pytest.raises(InputError, match="no such format"):
        answer_file(ANSWER, "exe")
    with pytest.raises(InputError, match="proponents.0"):
        answer_file(broken, "csv")


ROWS: list[dict[str, Any]] = [
    {"id": "a", "action": "drop", "score": -1.5, "n": 1, "text": "=1+1", "mixed": 1, "big": 2**70},
    {"id": "-b", "action": "keep", "score": None, "n": 2, "text": "\ud800", "mixed": "x"},
    {"id": "c", "action": "relabel", "to": {"label": "\u202e"}, "yes": True, "score": 2},
]


def test_a_selection_as_csv_and_lines() -> None:
    rows = list(csv.reader(io.StringIO(selection_file(ROWS, "csv").content.decode(), newline="")))
    assert rows[0][:3] == ["id", "action", "score"]
    assert rows[1][2] == "-1.5"
    assert rows[2][0] == "'-b"
    lines = selection_file(ROWS, "jsonl").content.decode().splitlines()
    assert [json.loads(line) for line in lines] == ROWS


def test_a_selection_as_parquet() -> None:
    made = selection_file(ROWS, "parquet")
    table = pq.read_table(io.BytesIO(made.content))
    assert table["id"].to_pylist() == ["a", "-b", "c"]  # ids are ids: nothing is put before them
    assert table["score"].to_pylist() == [-1.5, None, 2.0]
    assert table["n"].to_pylist() == [1, 2, None]
    assert table["mixed"].to_pylist() == ["1", "x", None]
    assert table["big"].to_pylist() == [str(2**70), None, None]
    assert table["yes"].to_pylist() == [None, None, True]
    assert table["text"].to_pylist() == ["=1+1", "\\ud800", None]
    empty = pq.read_table(io.BytesIO(selection_file([], "parquet").content))
    assert empty.column_names == ["id", "action"]
    assert selection_file([], "csv").content == b"\r\n"


def test_a_selection_needs_ids() -> None:
    with pytest.raises(InputError, match="Row 2 of the selection has no id"):
        selection_file([{"id": "a"}, {"action": "drop"}], "csv")
    with pytest.raises(InputError, match="no such format"):
        selection_file(ROWS, "pickle")


def test_rows_of_too_many_names_are_refused() -> None:
    """Each row has a cell for each name, so the file would be far larger than what was sent."""
    rows = [{"id": str(number), f"key-{number}": 1} for number in range(501)]
    for format in ("csv", "parquet"):
        with pytest.raises(InputError, match="too many columns.*at most 500"):
            selection_file(rows, format)
        assert selection_file(rows[:498], format).content
    assert selection_file(rows, "jsonl").content.count(b"\n") == 501


# -- over HTTP ----------------------------------------------------------------------------


def test_files_over_http(client: Any) -> None:
    plain = {**ANSWER, "proponents": ANSWER["proponents"][:4]}
    for format in ("csv", "jsonl", "json", "markdown", "pair"):
        made = client.post(
            "/api/export", json={"what": "answer", "format": format, "answer": plain}
        )
        assert made.status_code == 200
        assert made.headers["content-disposition"].startswith("attachment; filename=")
        assert made.headers["x-content-type-options"] == "nosniff"
        assert made.content == answer_file(plain, format).content
    asked = {"what": "selection", "format": "parquet", "rows": [{"id": "a", "action": "drop"}]}
    made = client.post("/api/export", json=asked)
    assert pq.read_table(io.BytesIO(made.content)).num_rows == 1
    for bad in (
        {"what": "answer", "format": "csv"},
        {"what": "selection", "format": "csv"},
        {"what": "answer", "format": "csv", "answer": {}},
        {"what": "selection", "format": "exe", "rows": []},
    ):
        assert client.post("/api/export", json=bad).status_code == 400
    assert client.post("/api/export", json={"what": "file", "format": "x"}).status_code == 422
