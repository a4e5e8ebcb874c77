"""The filter language: what it means, what it refuses, and that it always ends."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.evidence.filter_grammar import parse
from headwater.evidence.filters import Row

PERU = Row(
    "peru-1",
    "The capital of Peru is Lima; don't forget.",
    {"source": "wiki", "year": 1999, "tags": ["city", "South America"], "ok": True, "none": None},
    0.25,
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "peru",
        "PERU lima",
        "peru and lima",
        '"capital of Peru"',
        '"capital   of, peru"',
        '"don\'t"',
        "capi*",
        "-chile",
        "not chile",
        "not not peru",
        "--peru",
        "chile or lima",
        "(chile or peru) lima",
        "chile lima or peru",
        "source:wiki",
        "source=WIKI",
        "source : wiki",
        "source:wi*",
        "source!=blog",
        "missing!=blog",
        "source:*",
        "-none:*",
        "year>1998",
        "year >= 1999",
        "year=1999.0",
        "year<2e3",
        "score>0.2",
        "score>-1",
        "score<=0.25",
        "id:peru*",
        "id=peru-1",
        "id:peru-1",
        "tags:america",
        "tags=city",
        "ok:true",
        "text:lima",
        '"source":"wiki"',
        '";"',
        "not:*  or peru",
        '" ;"',
        '"; "',
        "text:;",
    ],
)
def test_peru_passes(text: str) -> None:
    found = parse(text)
    assert found is None or found.matches(PERU)


@pytest.mark.parametrize(
    "text",
    [
        "chile",
        "per",
        "apital*",
        '"Peru capital"',
        '"capital of Per"',
        "-peru",
        "peru -lima",
        "not (peru or chile)",
        "chile lima or santiago",
        "source:wikipedia",
        "source=wik",
        "source!=wiki",
        "missing:*",
        "none:*",
        "none=",
        "missing>0",
        "source>0",
        "year>1999",
        "score>0.25",
        "ok>0",
        "id=peru",
        "tags=america",
        "tags!=city",
        '"capi*"',
        '"?"',
    ],
)
def test_peru_does_not_pass(text: str) -> None:
    try:
        found = parse(text)
    except InputError:
        assert text == "none="  # a value is missing
        return
    assert found is not None
    assert not found.matches(PERU)


def test_a_row_without_a_score_passes_no_comparison() -> None:
    for score in (None, float("nan")):
        row = Row("a", "b", score=score)
        for text in ("score>0", "score<=0", "score=0"):
            found = parse(text)
            assert found is not None
            assert not found.matches(row)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("peru (chile", 12, "closing bracket for the one at character 6"),
        ("peru)", 5, "the end of the filter"),
        ('a "b', 3, 'closing "'),
        ("score>high", 7, "a number"),
        ("score>", 7, "a value after score>"),
        ("year>nan", 6, "a number"),
        ("a or", 5, "a word"),
        ("or a", 1, "both sides of 'or'"),
        ("a and and b", 7, "both sides of 'and'"),
        ("()", 2, "a word"),
        ("*", 1, "a word before the *"),
        ('""', 1, "text in the quotes"),
        ('" "', 1, "text in the quotes"),
        ("=3", 1, "a word"),
        ("https://example.com", 1, "one of id, text, score, source, year"),
        ("a " * 101, 201, "at most 100 terms"),
        ("(" * 21 + "a" + ")" * 21, 22, "at most 20 brackets"),
        ("-" * 21 + "a", 22, "at most 20 brackets"),
    ],
)
def test_what_is_wrong_is_told_by_place(text: str, place: int, expected: str) -> None:
    with pytest.raises(InputError, match=rf"at character {place}\b") as told:
        parse(text, ["source", "year"])
    assert expected in str(told.value)


def test_too_long_a_filter_is_refused() -> None:
    with pytest.raises(InputError, match="too long"):
        parse("a" * 1001)


def test_scripts_without_spaces_and_other_letters() -> None:
    row = Row("a", "秘鲁的首都是利马。 Straße in ÎLE-de-France, снег")
    for text in ("利马", '"首都是"', "首*", "STRASSE", "île", '"Île de france"', "СНЕГ"):
        found = parse(text)
        assert found is not None
        assert found.matches(row), text
    found = parse("马利")
    assert found is not None
    assert not found.matches(row)


def test_a_link_is_a_value() -> None:
    row = Row("a", "b", {"url": "https://example.com/a?b=1&c=(x)"})
    found = parse("url:https://example.com/a?b=1")
    assert found is not None
    assert found.matches(row)


def test_hostile_texts_are_only_texts() -> None:
    row = Row("<script>", "<script>alert(1)</script> \u202eabc \ud800 " + "a" * 100_000)
    for text in ("script", '"<script>"', "alert", '"\ud800"', "id:script", '"\u202e"'):
        found = parse(text)
        assert found is not None
        assert found.matches(row), text


def test_time_is_linear_in_the_text() -> None:
    """Patterns that make backtracking engines and repeated searches slow."""
    row = Row("a", "a" * 1_000_000 + " " + "ab " * 300_000)
    found = parse(f'{"a" * 300}b or {"a " * 40} {"a" * 200}* or "{"ab " * 100}c"')
    assert found is not None
    start = time.perf_counter()
    found.matches(row)
    assert time.perf_counter() - start < 5


def test_a_slip_is_told_soon_whatever_the_columns_are_called() -> None:
    long = [f"{number:03}" + "ab" * 98 for number in range(400)]
    many = [f"{number:05}" + "ab" * 27 for number in range(20_000)]
    for columns, size in ((long, 199), (many, 59)):
        start = time.perf_counter()
        with pytest.raises(InputError, match="there is none"):
            parse(f"{('ba' * 100)[:size]}:x", columns)
        assert time.perf_counter() - start < 3
    with pytest.raises(InputError, match=r"[Dd]id you mean source\?"):
        parse("sorce:x", [*long, "source"])


# -- against a naive evaluator ------------------------------------------------------------

VOCABULARY = ["peru", "chile", "lima", "a"]
ROWS = [
    Row(str(number), " ".join(words), {"source": source, "n": n}, score)
    for number, (words, source, n, score) in enumerate(
        [
            (("peru", "lima"), "wiki", 1, 0.5),
            (("lima", "peru", "chile"), "blog", 2, -0.5),
            (("a",), "wiki", None, None),
            ((), None, -3, 0.0),
            (("chile", "a", "lima"), "wiki blog", 7.5, 2.0),
        ]
    )
]

Tree = Any
_leaf = st.one_of(
    st.tuples(st.just("word"), st.sampled_from(VOCABULARY)),
    st.tuples(st.just("phrase"), st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=3)),
    st.tuples(st.just("begins"), st.sampled_from(["pe", "chi", "l", "a"])),
    st.tuples(st.just("has"), st.sampled_from(["wiki", "blog"])),
    st.tuples(st.sampled_from([">", "<", ">=", "<=", "=", "!="]), st.integers(-4, 8)),
)
_trees = st.recursive(
    _leaf,
    lambda part: st.one_of(
        st.tuples(st.just("not"), part),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(part, min_size=2, max_size=3)),
    ),
    max_leaves=12,
)


def _typed(tree: Tree) -> str:
    kind, rest = tree
    if kind == "word":
        return str(rest)
    if kind == "phrase":
        return f'"{" ".join(rest)}"'
    if kind == "begins":
        return f"{rest}*"
    if kind == "has":
        return f"source:{rest}"
    if kind == "not":
        return f"-({_typed(rest)})"
    if kind in ("and", "or"):
        return "(" + (" or " if kind == "or" else " ").join(map(_typed, rest)) + ")"
    return f"n{kind}{rest}"


def _naive(tree: Tree, row: Row) -> bool:
    kind, rest = tree
    words = row.text.split()
    number = row.columns["n"]
    if kind == "word":
        return rest in words
    if kind == "phrase":
        return any(words[i : i + len(rest)] == rest for i in range(len(words)))
    if kind == "begins":
        return any(word.startswith(rest) for word in words)
    if kind == "has":
        return rest in (row.columns["source"] or "").split()
    if kind == "not":
        return not _naive(rest, row)
    if kind in ("and", "or"):
        return (all if kind == "and" else any)(_naive(one, row) for one in rest)
    if kind == "!=":
        return number != rest
    if number is None:
        return False
    return {
        ">": number > rest,
        "<": number < rest,
        ">=": number >= rest,
        "<=": number <= rest,
        "=": number == rest,
    }[kind]


@given(_trees)
def test_it_agrees_with_a_naive_evaluator(tree: Tree) -> None:
    found = parse(_typed(tree), ["source", "n"])
    assert found is not None
    assert [found.matches(row) for row in ROWS] == [_naive(tree, row) for row in ROWS]


_MARKS = [
    *('"', "\\", "(", ")", "-", "*", ":", "=", "!", "!=", "<", ">", "or", "and", "not"),
    *("a", "source", "n", "1", "1e999", "\ud800", "\u202e", "é", "利", "\x00"),
]
_pieces = st.sampled_from([*_MARKS, " "])


@given(st.one_of(st.text(max_size=60), st.lists(_pieces, max_size=40).map("".join)))
def test_whatever_is_typed_is_understood_or_refused_in_words(text: str) -> None:
    try:
        found = parse(text, ["source", "n"])
    except InputError as error:
        assert "character" in str(error)
        return
    for row in [*ROWS, PERU]:
        assert found is None or isinstance(found.matches(row), bool)
