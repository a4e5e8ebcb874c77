"""Of a long text the marked words are shown, and not more than was asked for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headwater.answer.answer import Evidence
from headwater.report.pieces import NEAR, WORTH, joined, marks_of, pieces

LONG = "so it goes on and on " * 5000  # 105,000 characters


def test_a_short_text_is_shown_whole() -> None:
    assert pieces("a short text", [(2, 7)], 20) == [(0, 12)]


def test_a_long_text_without_marks_is_shown_by_its_beginning() -> None:
    ((start, end),) = pieces(LONG, [], 600)
    assert start == 0
    assert 570 <= end <= 600
    assert LONG[end] == " "


def test_marks_far_apart_are_all_shown() -> None:
    marks = [(90_000, 90_020), (10, 30), (50_000, 50_010)]
    found = pieces(LONG, marks, 600)
    assert len(found) == 3
    for start, end in marks:
        assert any(first <= start and end <= last for first, last in found)


def test_of_a_mark_as_long_as_the_text_the_beginning_is_shown() -> None:
    ((start, end),) = pieces(LONG, [(40_000, 90_000)], 600)
    assert start < 40_000 < end
    assert end - start <= 700


@given(st.lists(st.tuples(st.integers(0, 4900), st.integers(1, 300)), max_size=20))
def test_not_much_more_than_asked_for_is_shown(given: list[tuple[int, int]]) -> None:
    text = LONG[:5000]
    marks = [(start, min(start + length, 5000)) for start, length in given]
    found = pieces(text, marks, 600)
    assert found == sorted(found)
    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(a[1] < b[0] for a, b in pairwise(found))
    assert sum(end - start for start, end in found) <= 600 + 2 * NEAR + WORTH * len(found)
    if marks:
        start, end = marks[0]
        assert any(first <= start and min(end, start + 300) <= last for first, last in found)


def test_marks_are_the_same_words_and_those_that_carry_the_score() -> None:
    tokens = [("the", 0.01), (" grey", 0.5), (" owl", -0.4), (" flew", 0.02)]
    item = Evidence("a", "the grey owl flew", 1.0, 9.0, 0, tokens=tokens, spans=[(0, 3), (4, 12)])
    assert marks_of(item) == [(4, 12), (0, 3), (4, 8)]
    item.score, item.spans = -1.0, [(3, 99), (-2, 4)]  # an opponent, with spans of another text
    assert marks_of(item) == [(9, 12)]


def test_ranges_that_touch_are_joined() -> None:
    assert joined([(5, 9), (0, 2), (2, 4), (6, 7)]) == [(0, 4), (5, 9)]
    assert joined([(0, 2), (5, 9)], gap=3) == [(0, 9)]
