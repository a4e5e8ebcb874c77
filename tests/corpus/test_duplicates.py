"""Counting hashes compactly, and duplicates with them."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from headwater.corpus import Document, DuplicateCounter
from headwater.corpus.seen import HashCounter


@given(st.lists(st.integers(0, 12) | st.integers(0, 2**64 - 1)))
def test_counts_like_a_dict(values):
    counter, before = HashCounter(), Counter()
    for value in values:
        assert counter.add(value) == before[value]
        before[value] += 1
    assert len(counter) == len(before)
    assert counter.repeats == {value: n for value, n in before.items() if n > 1}


def test_grows_and_stays_compact():
    counter = HashCounter()
    source = random.Random(0)
    values = [source.getrandbits(64) for _ in range(20_000)]
    assert not any(counter.add(value) for value in values)
    assert all(counter.add(value) == 1 for value in values)
    assert len(counter._slots) * 8 <= 24 * len(values)


def test_clustered_hashes_are_kept_apart():
    counter = HashCounter()
    values = [(n << 32) | 5 for n in range(600)]  # all start in one slot
    assert not any(counter.add(value) for value in values)
    assert all(counter.add(value) == 1 for value in values)


def test_report():
    counter = DuplicateCounter(largest=1)
    texts = ["a", "b", "a", "c", "b", "a"]
    added = [
        counter.add(Document(str(n), {"text": text}, {"n": n})) for n, text in enumerate(texts)
    ]
    assert added == [False, False, True, False, True, True]
    report = counter.report()
    assert report["documents"] == 6
    assert report["duplicates"] == 3
    assert [(group["count"], group["example"]) for group in report["largest"]] == [(3, "2")]


def test_empty_report():
    assert DuplicateCounter().report() == {"documents": 0, "duplicates": 0, "largest": []}
