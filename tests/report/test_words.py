"""Marks lie where their tokens are, whatever the tokenizer did to the text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater.report.words import Mark, excerpt, place, printable, strongest

PIECES = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=30)


@given(PIECES)
def test_tokens_that_make_up_the_text_are_all_found(pieces: list[str]) -> None:
    text = "".join(pieces)
    marks = place(text, [(piece, 1.0) for piece in pieces])
    assert [text[m.start : m.end] for m in marks] == pieces
    assert [m.start for m in marks] == [sum(map(len, pieces[:i])) for i in range(len(pieces))]


@given(st.text(max_size=200), st.lists(st.tuples(st.text(max_size=5), st.floats(-1, 1))))
def test_marks_never_leave_the_text_or_overlap(text: str, tokens: list[tuple[str, float]]) -> None:
    marks = place(text, tokens)
    chosen = strongest(text, marks)
    for found in (marks, chosen):
        ends = [0, *(mark.end for mark in found)]
        assert all(end <= mark.start for end, mark in zip(ends, found, strict=False))
        assert all(mark.start <= mark.end <= len(text) for mark in found)
    assert all(text[m.start : m.end].strip() == text[m.start : m.end] for m in chosen)


def test_special_tokens_and_broken_characters_take_no_room() -> None:
    tokens = [
        ("<s>", 9.0),
        ("The", 0.0),
        (" \ufffd", 0.0),
        ("\ufffd", 0.0),
        ("t", 0.0),
        (" é", 5.0),
    ]
    text = "The ét é"
    assert [text[m.start : m.end] for m in place(text, tokens)] == ["The", "t", " é"]


def test_pieces_of_a_word_are_marked_together() -> None:
    text = "The capital of Peru is Lima."
    tokens = [("The", 0.0), (" capital", 0.01), (" of", 0.0), (" Pe", 0.3), ("ru", 0.3)]
    tokens += [(" is", 0.4), (" L", 0.0), ("im", 0.0), ("a", -0.5), (".", 0.0)]
    found = [(text[m.start : m.end], m.share > 0) for m in strongest(text, place(text, tokens))]
    assert found == [("Peru is", True), ("Lima", False)]


def test_a_script_without_spaces_is_marked_by_token() -> None:
    text = "東京は日本の首都です" * 8
    tokens = [(text[i : i + 2], 1.0 if i == 20 else 0.0) for i in range(0, len(text), 2)]
    (mark,) = strongest(text, place(text, tokens))
    assert (mark.start, mark.end) == (20, 22)


@given(st.integers(0, 3990), st.integers(80, 400))
def test_the_excerpt_holds_the_strongest_word(at: int, limit: int) -> None:
    text = ("word " * 800)[:4000]
    at -= at % 5
    start, end = excerpt(text, [Mark(i, i + 4, float(i == at)) for i in range(0, 4000, 5)], limit)
    assert 0 < end - start <= limit
    assert start <= at < at + 4 <= end
    assert text[start:end].split()[0] == "word"


def test_short_texts_are_whole() -> None:
    assert excerpt("abc", [], 10) == (0, 3)


@given(st.text())
def test_printable_keeps_places_and_drops_controls(text: str) -> None:
    made = printable(text)
    assert len(made) == len(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in made)
