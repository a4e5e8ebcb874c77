"""Places of texts against naive search over characters, by tokenizers of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import headwater.evidence.cover_search as cover_search
import headwater.evidence.text_covers as text_covers
import headwater.evidence.text_places as text_places
from headwater.engine.errors import InputError
from headwater.evidence.spelling import NO, PERHAPS, YES, first_joins, joins, last_joins
from headwater.evidence.tokenizer import TextTokenizer
from headwater.evidence.verbatim import Verbatim
from phrase_models import glued_bytes, letters, naive_text, sentence_pieces, text_index

ALPHABET = 'aab  \n.,("—”éñ北京1🙂'
TEXTS = [
    'ab). ("ab", ab." ab abab',
    " ab\nab\u2028ab (ab) éab abé é",
    "我在北京住。北京北京 ab北京ab",
    "“ab” —ab— ab’s ab1 1ab 🙂ab🙂",
    "a. b.. a... b",
    "ab",
    "abñ ñab ab baé aé b aéb",
]
KINDS = {"glued": glued_bytes, "pieces": sentence_pieces, "words": lambda: None}
_made: dict[Any, Any] = {}


def tokenizer(name: str) -> TextTokenizer | None:
    if name not in _made:
        _made[name] = KINDS[name]()
    return _made[name]


def corpus(name: str, shard_tokens: int = 10**6) -> Verbatim:
    if (name, shard_tokens) not in _made:
        index = text_index(TEXTS)
        _made[name, shard_tokens] = Verbatim.open(index, tokenizer(name), shard_tokens=shard_tokens)
    return _made[name, shard_tokens]


def check(verbatim: Verbatim, texts: list[str], query: str) -> None:
    right = naive_text(texts, query)
    assert verbatim.count_text(query) == len(right)
    matches = verbatim.text_matches(query)
    found = [(match.position, verbatim.range_of(match, query)) for match in matches]
    size = len(query.strip())
    assert found == [(number, (start, start + size)) for number, start in right]
    assert [(m.position, m.offset) for m in verbatim.find_text(query)] == [
        (match.position, match.offset) for match in matches
    ]
    assert verbatim.find_text(query, 2) == verbatim.find_text(query)[:2]


QUERIES = ["ab", ".", "..", ",", '"', '("ab', 'ab."', "北京", "京", "é", "éab", "”", "“ab", "a"]
QUERIES += [
    "ñab",
    "baé",
    "aé",
    "b aéb",
    " ab",
    "ab ",
    "ab ab",
    "ab\nab",
    "’s",
    "ab’s",
    "—",
    "🙂",
    "1",
    "b",
    "。",
    "ab\u2028ab",
]


@pytest.mark.parametrize("shard_tokens", [20, 10**6])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("few", [0, 16])
def test_every_place_is_counted_once(monkeypatch, name, shard_tokens, few):
    monkeypatch.setattr(cover_search, "FEW", few)
    verbatim = corpus(name, shard_tokens)
    for query in QUERIES:
        check(verbatim, TEXTS, query)
    assert verbatim.count_text("ab") > 5


@pytest.mark.parametrize("name", KINDS)
@given(
    st.lists(st.text(ALPHABET, min_size=1, max_size=14).filter(str.strip), min_size=1, max_size=5),
    st.integers(0, 99),
    st.integers(1, 6),
    st.sampled_from([0, 16]),
)
@example(["“ab”", "”a"], 0, 3, 0)
@settings(max_examples=40, deadline=None)
def test_equals_naive_search_over_characters(name, texts, start, size, few):
    whole = " ".join(texts)
    query = whole[start % len(whole) :][:size]
    if not query.strip():
        return
    verbatim = Verbatim.open(text_index(texts), tokenizer(name), shard_tokens=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cover_search, "FEW", few)
        check(verbatim, texts, query)
        patch.setattr(text_covers, "MANY", 0)  # by what follows, and how often
        assert verbatim.count_text(query) == len(naive_text(texts, query))


@pytest.mark.parametrize("name", KINDS)
def test_chosen_documents_and_samples(monkeypatch, name):
    verbatim = corpus(name, 20)
    among = np.array([True, False] * 3 + [True])
    for query in ("ab", ".", "北京"):
        chosen = [place for place in naive_text(TEXTS, query) if among[place[0]]]
        assert verbatim.count_text(query, among) == len(chosen)
        total, found = verbatim.sample_text(query, 100, among=among)
        assert total == len(found) == len(chosen)
        whole = verbatim.text_matches(query)
        assert verbatim.sample_text(query, 100) == (len(whole), whole)
        for most in (text_places.SAMPLE_IN_ORDER, 1):  # in order, or by rank
            monkeypatch.setattr(text_places, "SAMPLE_IN_ORDER", most)
            monkeypatch.setattr(text_places, "DRAWS", 1000)
            total, found = verbatim.sample_text(query, 2, seed=1)
            assert total == len(whole)
            assert len(set(found)) == 2
            assert set(found) <= set(whole)
            assert verbatim.sample_text(query, 2, seed=1)[1] == found == sorted(found)
        monkeypatch.undo()
    assert len({tuple(verbatim.sample_text("ab", 2, seed=s)[1]) for s in range(9)}) > 3


def test_a_tokenizer_without_bytes_goes_by_its_words():
    verbatim = Verbatim.open(text_index(["a b a", "b a"]), letters())
    assert verbatim.count_text("a") == 3
    assert verbatim.count_text("b a") == 2
    assert [match.position for match in verbatim.find_text(" b a ")] == [0, 1]


@pytest.mark.parametrize("text", [None, 3, b"ab", "", " ", "\n"])
def test_what_is_no_text(text):
    for ask in (corpus("glued").count_text, corpus("words").find_text):
        with pytest.raises(InputError, match="no text|no tokens"):
            ask(text)


def test_what_joins():
    assert [joins(c) for c in ("a", "é", "1", "\u0301", "_", "-", " ", "北", "ก", "か", "")] == [
        *[True] * 4,
        *[False] * 7,
    ]
    for text in ("é", "”", "北", "🙂", "a", "-", "ǆ"):
        data = text.encode()
        assert first_joins(data + b"a") == last_joins(b"a" + data) == joins(text)
        if len(data) > 1:
            assert first_joins(data[-1:]) == last_joins(data[:-1]) == PERHAPS
    assert first_joins("”".encode()[:2]) == NO
    assert first_joins("é".encode()[:1]) == PERHAPS  # × and ÷ begin so, too
    assert first_joins("ǆ".encode()[:1]) == YES
    assert first_joins("🙂".encode()[:2]) == PERHAPS
