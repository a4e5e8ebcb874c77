"""OLMoTrace's spans against the definition, checked range by range on small corpora."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.evidence.relevance import Relevance
from headwater.evidence.spans import Tracing, spans_of, trace
from headwater.evidence.tokenizer import TextTokenizer
from headwater.evidence.verbatim import Verbatim
from models import SENTENCES, byte_tokenizer
from phrase_models import naive_find, naive_text, text_index

TEXTS = [
    *SENTENCES,
    "Café Lima: 🙂🙃 Peru, naïve. The sea.",
    "And Lima is the capital of Peru. Yes",
]
OUTPUT = "Quito? Lima is the capital of Peru. The cat sat on the mat 🙂🙃 Peru, and a river runs"
ALL = Tracing(density=1.0, merge=False)


def byte_level() -> TextTokenizer:
    return TextTokenizer.from_json(byte_tokenizer().backend_tokenizer.to_str(), "bytes")


def naive_spans(verbatim: Any, texts: list[str], output: str, options: Tracing) -> Any:
    """Every range tried: allowed ones that stand somewhere, in none other that begins no later."""
    tokenizer, name = verbatim.tokenizer, verbatim.tokenizer.name
    encoded = tokenizer.encode(output)
    ids, n = encoded.ids.tolist(), len(encoded.ids)
    documents = [verbatim.document_tokens(i).tolist() for i in range(len(verbatim))]
    places = encoded.offsets.tolist()
    parts = [output[start:end] for start, end in places]
    starts = [True] * n
    for i in range(1, n):
        inside = places[i][0] < places[i - 1][1]  # the rest of a character
        word = (parts[i - 1][-1:] + parts[i][:1]).isalnum()
        starts[i] = name == "words" or not (inside or word)
    if not options.whole_words:
        starts = [True] * n
    stops = [bool(tokenizer.stops[t]) and options.sentences for t in ids]
    ends = [*starts, True]

    def stands(first: int, end: int) -> bool:
        if not options.whole_words:
            return bool(naive_find(documents, ids[first:end]))
        if parts[first].isspace() or parts[end - 1].isspace():
            return False  # a span does not begin or end with white space
        return bool(naive_text(texts, output[places[first][0] : places[end - 1][1]]))

    allowed = [
        (first, end)
        for first in range(n)
        for end in range(first + 1, n + 1)
        if starts[first] and (ends[end] or parts[end].isspace()) and not any(stops[first : end - 1])
        if stands(first, end)
    ]
    return [
        span
        for span in allowed
        if not any(o != span and o[0] <= span[0] and o[1] >= span[1] for o in allowed)
    ]


SMALL = ["ab abc. ca b", "a b c\nab ab", "cab cab. abc", "b.a.c", "(ab c) a.ab"]


@given(
    st.text(alphabet="abc .\n(", min_size=1, max_size=30),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["bytes", "words"]),
)
@example("c", True, False, "bytes")  # stands only as a word, or where one begins
@example("ab c) a.ab", True, False, "bytes")
@settings(max_examples=120, deadline=None)
def test_maximal_spans_are_the_naive_ones(output, whole_words, sentences, name):
    verbatim = small(name)
    options = replace(ALL, whole_words=whole_words, sentences=sentences)
    encoded = verbatim.tokenizer.encode(output)
    found = spans_of(verbatim, output, encoded, options)
    assert found == naive_spans(verbatim, SMALL, output, options)


_kept: dict[str, Any] = {}


def small(name: str = "bytes") -> Verbatim:
    if name not in _kept:
        tokenizer = byte_level() if name == "bytes" else None
        _kept[name] = Verbatim.open(text_index(SMALL), tokenizer, shard_tokens=12)
    return _kept[name]


@pytest.mark.parametrize("name", ["bytes", "words"])
def test_on_text(name):
    verbatim = Verbatim.open(text_index(TEXTS), byte_level() if name == "bytes" else None)
    encoded = verbatim.tokenizer.encode(OUTPUT)
    spans = trace(verbatim, OUTPUT, settings=ALL)
    found = spans_of(verbatim, OUTPUT, encoded, ALL)
    assert found == naive_spans(verbatim, TEXTS, OUTPUT, ALL)
    assert "Lima is the capital of Peru." in [span.text for span in spans]
    for span in spans:
        assert OUTPUT[span.start : span.end] == span.text
        assert span.documents
        for document in span.documents:
            text = TEXTS[document.position]
            assert document.id == f"d{document.position}"
            for start, end in document.matches:
                assert text[start:end] == span.text
            assert (document.start, document.end) == document.matches[0]
            for piece in document.snippets:
                assert text[piece.start : piece.start + len(piece.text)] == piece.text
            assert document.snippet_start <= document.start
    assert json.loads(json.dumps([asdict(span) for span in spans]))


@pytest.mark.parametrize("name", ["bytes", "words"])
def test_words_are_counted_wherever_they_stand(name):
    """At the start of an output a word has no space; in the corpus most words have one."""
    texts = ["the red fox ran", "a (red fox) sat", "red fox", "x red foxes", "a\nred fox"]
    verbatim = Verbatim.open(text_index(texts), byte_level() if name == "bytes" else None)
    for output in ("red fox", " red fox", "(red fox is"):
        [span] = [s for s in trace(verbatim, output, settings=ALL) if s.text.endswith("red fox")]
        assert span.count == verbatim.count_text(span.text) == (1 if "(" in span.text else 4)
        for document in span.documents:
            for start, end in document.matches:
                assert texts[document.position][start:end] == span.text
    among = np.array([True, False, True, True, False])
    [span] = trace(verbatim, "red fox", settings=ALL, among=among)
    assert span.count == 2
    assert sorted(document.position for document in span.documents) == [0, 2]


def test_a_first_word_is_as_probable_as_its_forms_together():
    """At the start of an output it is a rare token, or none, of a frequent word."""
    verbatim = Verbatim.open(text_index(["a (fox", "a (cat", "(x", "fox, (y"]))
    [span] = trace(verbatim, "(fox", settings=ALL)
    words = verbatim.tokenizer.raw.get_vocab()
    p = verbatim.unigrams / verbatim.tokens
    bracket = p[words[" ("]] + p[words["("]] if "(" in words else p[words[" ("]]
    assert span.log_probability == pytest.approx(np.log(bracket) + np.log(p[words["fox"]]))
    [span] = trace(Verbatim.open(text_index(["a(b", "c(b"])), "(b", settings=ALL)
    assert span.log_probability > -10


def test_words_that_stand_only_within_others_are_left_out():
    texts = ["the red foxes ran", "infrared fox"]
    verbatim = Verbatim.open(text_index(texts), byte_level())
    spans = trace(verbatim, "red fox", settings=ALL)
    assert [(span.text, span.count) for span in spans] == [("red", 1), ("fox", 1)]


def test_what_is_no_corpus_and_no_text():
    with pytest.raises(InputError, match="a Verbatim"):
        trace("t300", "x")  # pyright: ignore
    with pytest.raises(InputError, match="output is no text"):
        trace(small(), 5)  # pyright: ignore
    with pytest.raises(InputError, match="prompt is no text"):
        trace(small(), "ab", None)  # pyright: ignore


def test_the_least_probable_are_kept():
    verbatim = Verbatim.open(text_index(TEXTS), byte_level())
    encoded = verbatim.tokenizer.encode(OUTPUT)
    every = trace(verbatim, OUTPUT, settings=ALL)
    counts = verbatim.unigrams
    ranges = spans_of(verbatim, OUTPUT, encoded, ALL)
    for span, (first, end) in zip(every, ranges, strict=True):
        [part] = span.parts
        p = (counts / counts.sum())[encoded.ids[first:end]]
        word = OUTPUT[encoded.offsets[first, 0] : part.end].split()[0].rstrip(".,?")
        forms = [ids for ids in verbatim.tokenizer.spellings(word)]
        other = [np.prod((counts / counts.sum())[list(ids)]) for ids in forms]
        head = len(forms[-1] if OUTPUT[encoded.offsets[first, 0]] == " " else forms[0])
        if len(forms) == 2:
            p = np.array([sum(other), *p[head:]])
        assert part.log_probability == pytest.approx(float(np.log(p).sum()))
        assert part.tokens == end - first
    keep = int(np.ceil(0.05 * len(encoded.ids)))
    kept = trace(verbatim, OUTPUT, settings=Tracing(merge=False))
    assert 1 < len(kept) == keep < len(every)
    rarest = sorted(every, key=lambda span: span.log_probability)[:keep]
    assert [span.start for span in kept] == sorted(span.start for span in rarest)
    longest = trace(verbatim, OUTPUT, settings=Tracing(merge=False, ranking="length"))
    most = sorted((span.parts[0].tokens for span in every), reverse=True)[:keep]
    assert sorted((span.parts[0].tokens for span in longest), reverse=True) == most


def test_frequent_and_short_ones_can_be_left_out():
    verbatim = small()
    output = "ab cab. abc a b"
    for span in trace(verbatim, output, settings=replace(ALL, frequency=1)):
        assert span.count == 1
    for span in trace(verbatim, output, settings=replace(ALL, minimum=4)):
        assert span.parts[0].tokens >= 4
    assert trace(verbatim, output, settings=replace(ALL, minimum=99)) == []


def test_overlapping_spans_are_joined():
    texts = ["one two three four", "three four five six", "other words", "one two three four"]
    verbatim = Verbatim.open(text_index(texts))
    output = "so one two three four five six"
    apart = trace(verbatim, output, settings=ALL)
    assert [span.text for span in apart] == ["one two three four", "three four five six"]
    [joined] = trace(verbatim, output, settings=replace(ALL, merge=True))
    assert joined.text == "one two three four five six" == output[joined.start : joined.end]
    assert [part.text for part in joined.parts] == ["one two three four", "three four five six"]
    assert sorted(d.position for d in joined.documents) == [0, 1, 3]
    assert joined.log_probability == min(part.log_probability for part in joined.parts)


def test_spans_that_only_touch_stay_apart():
    verbatim = Verbatim.open(text_index(["one two", "so, three"]))
    spans = trace(verbatim, "one two, three", settings=replace(ALL, merge=True))
    assert [span.text for span in spans] == ["one two", ", three"]


def test_snippets_of_one_document_are_joined():
    text = "x red fox y red fox " + "z " * 60 + "red fox end"
    verbatim = Verbatim.open(text_index([text]))
    [span] = trace(verbatim, "a red fox", settings=replace(ALL, snippet=8))
    [document] = span.documents
    assert len(document.matches) == 3
    assert [text[start:end] for start, end in document.matches] == ["red fox"] * 3
    first, second = document.snippets
    assert first.text == text[: len(first.text)] == "x red fox y red fox z z z z"
    assert second.text == " z z z z red fox end"
    assert text[second.start :] == second.text


def test_documents_are_a_seeded_sample():
    verbatim = Verbatim.open(text_index([f"number {i} is red" for i in range(30)]))

    def positions(**options: Any) -> list[int]:
        [span] = trace(verbatim, "it is red", settings=replace(ALL, **options))
        assert span.count == 30
        return sorted(document.position for document in span.documents)

    assert len(positions()) == 10
    assert positions() == positions()
    assert positions() != positions(seed=1)
    assert positions(documents=30) == list(range(30))


def test_relevance_is_okapi_bm25():
    pieces = ["the cat sat", "the dog lay on the cat cat", "a river", "a sea of grass"]
    prompt, output = "which cat", "the cat sat sat"
    query = f"{prompt} {output}".split()
    documents = [piece.split() for piece in pieces]
    mean = sum(map(len, documents)) / len(documents)
    holders = Counter(word for document in documents for word in set(document))
    weights = {w: np.log((len(pieces) - n + 0.5) / (n + 0.5)) for w, n in holders.items()}
    floor = 0.25 * np.mean(list(weights.values()))
    weights = {w: floor if idf < 0 else idf for w, idf in weights.items()}
    for document, score in zip(documents, Relevance().scores(pieces, prompt, output), strict=True):
        wanted = 0.0
        for word in query:
            f = document.count(word)
            saturated = f + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean)
            wanted += weights.get(word, 0.0) * f * 2.5 / saturated
        assert score == pytest.approx(wanted / (0.18 * len(output)))


def test_relevance_of_one_or_two_keeps_their_order():
    better, worse = Relevance().scores(["the red fox ran", "the sea"], "", "the red fox")
    assert better > worse > 0
    assert Relevance().scores(["the red fox"], "", "the red fox")[0] > 0
    assert Relevance().scores([], "", "x") == []


def test_levels_and_their_order():
    assert [Relevance().level(s) for s in (0.7, 0.69, 0.5, 0.49)] == [
        "high",
        "medium",
        "medium",
        "low",
    ]
    texts = [f"{word} lima" for word in ("blue", "green", "grey", "red fox runs", "wide", "x")]
    verbatim = Verbatim.open(text_index(texts))
    [span] = trace(verbatim, "a lima", "red fox runs", replace(ALL, documents=6))
    assert span.documents[0].position == 3
    scores = [document.score for document in span.documents]
    assert all(one >= other for one, other in pairwise(scores))
    assert span.relevance == span.documents[0].relevance


def test_urls_come_from_the_metadata():
    verbatim = Verbatim.open(text_index(["a red fox", "grey"], url="https://example.org"))
    [span] = trace(verbatim, "the red fox", settings=ALL)
    assert span.documents[0].url == "https://example.org/0"
    assert span.documents[0].metadata == {"url": "https://example.org/0"}


def test_nothing_to_find():
    verbatim = small()
    assert trace(verbatim, "") == []
    assert trace(verbatim, "xyz") == []
    assert trace(verbatim, " ", settings=ALL) == []  # it occurs, but is no text


@pytest.mark.parametrize(
    "options", [{"ranking": "best"}, {"density": 0}, {"documents": 0}, {"minimum": 0}]
)
def test_bad_settings(options):
    with pytest.raises(InputError):
        Tracing(**options)
