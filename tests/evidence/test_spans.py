"""OLMoTrace's spans against the definition, checked range by range on small corpora."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.evidence.relevance import Relevance
from headwater.evidence.spans import Tracing, maximal_spans, trace
from headwater.evidence.tokenizer import TextTokenizer
from headwater.evidence.verbatim import Verbatim
from models import SENTENCES, byte_tokenizer
from phrase_models import naive_find, text_index

TEXTS = [
    *SENTENCES,
    "Café Lima: 🙂🙃 Peru, naïve. The sea.",
    "And Lima is the capital of Peru. Yes",
]
OUTPUT = "Quito? Lima is the capital of Peru. The cat sat on the mat 🙂🙃 Peru, and a river runs"
ALL = Tracing(density=1.0, merge=False)


def byte_level() -> TextTokenizer:
    return TextTokenizer.from_json(byte_tokenizer().backend_tokenizer.to_str(), "bytes")


def naive_spans(verbatim: Verbatim, ids: list[int], options: Tracing) -> list[tuple[int, int]]:
    """Every range tried: allowed ones that occur, in none other that begins no later."""
    tokenizer = verbatim.tokenizer
    documents = [verbatim.document_tokens(i).tolist() for i in range(len(verbatim))]
    starts = [bool(tokenizer.word_starts[t]) or not options.whole_words for t in ids]
    stops = [bool(tokenizer.stops[t]) and options.sentences for t in ids]
    starts[0] = True
    ends = [*starts, True]
    allowed = [
        (first, end)
        for first in range(len(ids))
        for end in range(first + 1, len(ids) + 1)
        if starts[first] and ends[end] and not any(stops[first : end - 1])
        if naive_find(documents, ids[first:end])
    ]
    return [
        span
        for span in allowed
        if not any(o != span and o[0] <= span[0] and o[1] >= span[1] for o in allowed)
    ]


@given(st.text(alphabet="abc .\n", min_size=1, max_size=30), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_maximal_spans_are_the_naive_ones(output, whole_words, sentences):
    verbatim = small()
    options = replace(ALL, whole_words=whole_words, sentences=sentences)
    ids = verbatim.tokenizer.encode(output).ids
    assert maximal_spans(verbatim, ids, options) == naive_spans(verbatim, ids.tolist(), options)


_kept: dict[str, Any] = {}


def small() -> Verbatim:
    if "small" not in _kept:
        index = text_index(["ab abc. ca b", "a b c\nab ab", "cab cab. abc", "b.a.c"])
        _kept["small"] = Verbatim.open(index, byte_level(), shard_tokens=12)
    return _kept["small"]


@pytest.mark.parametrize("name", ["bytes", "words"])
def test_on_text(name):
    verbatim = Verbatim.open(text_index(TEXTS), byte_level() if name == "bytes" else None)
    ids = verbatim.tokenizer.encode(OUTPUT).ids
    spans = trace(verbatim, OUTPUT, settings=ALL)
    assert maximal_spans(verbatim, ids, ALL) == naive_spans(verbatim, ids.tolist(), ALL)
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


def test_the_least_probable_are_kept():
    verbatim = Verbatim.open(text_index(TEXTS), byte_level())
    encoded = verbatim.tokenizer.encode(OUTPUT)
    every = trace(verbatim, OUTPUT, settings=ALL)
    counts = verbatim.unigrams
    ranges = maximal_spans(verbatim, encoded.ids, ALL)
    for span, (first, end) in zip(every, ranges, strict=True):
        [part] = span.parts
        p = counts[encoded.ids[first:end]] / counts.sum()
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
