"""Open retrieval and FTRACE's reranking, with methods whose ranking is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

import headwater as hw
from headwater.engine.errors import InputError
from headwater.evaluation.paired import paired_difference
from headwater.evaluation.query_sets import QueryItem
from headwater.evaluation.reranking import (
    Candidates,
    candidate_sets,
    compare,
    per_query,
    rank_all,
    rank_candidates,
    same_target,
)
from headwater.evaluation.retrieval import retrieval
from headwater.methods.method import Method, Scores
from headwater.tasks.texts import Texts

CITIES = ["Lima", "Quito", "Oslo", "Accra", "New York"]


class Known(Method):
    """Scores by a function of (query, id); a hash in place of chance. Blocks of 7 documents."""

    name: ClassVar[str] = "known"
    title: ClassVar[str] = "Known"
    unit: ClassVar[str] = "points"
    additive: ClassVar[bool] = False
    needs: ClassVar[str] = "the answers"

    def __init__(self, score: Any) -> None:
        self.score = score
        self.among: Any = None

    def stream(
        self, index: Any, queries: Sequence[Any], modules: Any = None, among: Any = None
    ) -> Scores:
        self.among = among
        for first in range(0, len(index), 7):
            names = index.ids[first : first + 7]
            block = np.array([[self.score(q, n) for n in names] for q in queries], np.float32)
            if among is not None:
                block[:, ~among[first : first + 7]] = np.nan
            yield first, block


class Other(Known):
    name: ClassVar[str] = "other"
    title: ClassVar[str] = "Other"


def mixed(query: Any, name: str) -> float:
    """A number that looks random but depends on the two only."""
    return float(np.random.default_rng([*map(ord, f"{query.name}|{name}")]).random())


@pytest.fixture(scope="module")
def index() -> hw.Index:
    rows = [{"id": f"about-{i}", "text": f"No. {i}: nothing of note, really."} for i in range(60)]
    for n, city in enumerate(CITIES):
        rows += [{"id": f"{n}-gold-{j}", "text": f"Text {j} states: it is {city}."} for j in (1, 2)]
        rows += [{"id": f"{n}-same-{j}", "text": f"({city.upper()}) again, {j}"} for j in range(20)]
    rows.append({"id": "lookalike", "text": "Limas and Oslos, a new yorker"})
    return hw.Index.build(None, Texts(), hw.Corpus.from_documents(rows), features=None)


def items() -> list[QueryItem]:
    return [
        QueryItem(f"q{n}", "t", "It is", f" {city}", gold=(f"{n}-gold-1", f"{n}-gold-2"))
        for n, city in enumerate(CITIES)
    ]


def gold_first(query: Any, name: str) -> float:
    right = name.startswith(f"{query.name[1:]}-gold")
    return 2.0 + mixed(query, name) if right else mixed(query, name)


def test_documents_of_the_same_target(index: hw.Index) -> None:
    found = same_target(index, [" Lima", " New York", " Lima", " nowhere", "!?"])
    names = [[index.ids[i] for i in positions] for positions in found]
    assert len(names[0]) == len(names[1]) == 22
    assert all(name.startswith("0-") for name in names[0])  # not "Limas"
    assert all(name.startswith("4-") for name in names[1])  # two words, one after the other
    assert names[2] == names[0]
    assert names[3] == names[4] == []


def test_candidates_hold_all_gold_and_nothing_twice(index: hw.Index) -> None:
    asked = items()
    many = Candidates(same_target=8, random=30, lexical=12, seed=3)
    lexical = Known(mixed)
    found = candidate_sets(index, asked, many, lexical)
    listed = hw.top(index, [item.query() for item in asked], 12, method=lexical)
    for number, (item, positions) in enumerate(zip(asked, found, strict=True)):
        names = [index.ids[i] for i in positions]
        assert set(item.gold) <= set(names)
        assert len(set(names)) == len(names)
        assert positions.tolist() == sorted(positions.tolist())
        assert set(listed[number].ids) <= set(names)
        assert sum(name.startswith(f"{number}-same") for name in names) >= 8
        assert len(names) <= 2 + 8 + 30 + 12
    again = candidate_sets(index, asked, many, lexical)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    other = candidate_sets(index, asked, Candidates(8, 30, 12, seed=4), lexical)
    assert not all(np.array_equal(a, b) for a, b in zip(found, other, strict=True))
    # A query's draws do not depend on the queries after it.
    alone = candidate_sets(index, asked[:1], many, lexical)
    assert np.array_equal(alone[0], found[0])
    none = candidate_sets(index, asked, Candidates(0, 0, 0))
    assert [sorted(index.ids[i] for i in one) for one in none] == [list(i.gold) for i in asked]


@pytest.mark.parametrize("protocol", ["open", "ftrace"])
def test_a_perfect_ranker_is_perfect(index: hw.Index, protocol: Any) -> None:
    found = compare(index, items(), [Known(gold_first)], protocol=protocol, lexical=Known(mixed))
    result = found.rows[0].result
    assert (result.mrr.value, result.success.value, result.recall.value) == (1.0, 1.0, 1.0)
    assert found.rows[0].difference is None
    assert found.rows[0].given == "the answers"
    assert (found.candidates is None) == (protocol == "open")


def test_ranking_within_candidates_is_that_of_the_scores(index: hw.Index) -> None:
    asked = items()
    method = Known(mixed)
    sets = candidate_sets(index, asked, Candidates(3, 10, 0))
    ranked = rank_candidates(index, [item.query() for item in asked], method, sets)
    for item, positions, found in zip(asked, sets, ranked, strict=True):
        names = [index.ids[i] for i in positions]
        scores = {name: np.float32(mixed(item.query(), name)) for name in names}
        assert found == sorted(names, key=lambda name: (-scores[name], name))
    together = set(np.concatenate(sets).tolist())
    assert set(np.flatnonzero(method.among).tolist()) == together


def test_without_a_score_there_is_no_rank(index: hw.Index) -> None:
    asked = items()[:1]
    sets = candidate_sets(index, asked, Candidates(3, 0, 0))

    def partly(query: Any, name: str) -> float:
        return float("nan") if "gold-1" in name else 1.0

    (found,) = rank_candidates(index, [asked[0].query()], Known(partly), sets)
    assert "0-gold-1" not in found
    assert len(found) == len(sets[0]) - 1


def test_ties_are_ordered_by_lot_and_zero_is_no_find(index: hw.Index) -> None:
    """Gold comes first by its id; all that it has is what all others have."""
    asked = [QueryItem(f"q{n}", "t", "It is", " x", gold=("0-gold-1",)) for n in range(3)]
    every = [np.arange(len(index))] * 3
    queries = [item.query() for item in asked]
    equal, nothing = Known(lambda query, name: 1.0), Known(lambda query, name: 0.0)
    places = []
    for seed in range(40):
        (ranked, *_) = rank_all(index, queries, equal, len(index), seed)
        assert sorted(map(str, ranked)) == sorted(index.ids)
        assert rank_candidates(index, queries, equal, every, seed)[0] == ranked
        assert rank_all(index, queries, equal, 5, seed)[0] == ranked[:5]
        places.append(ranked.index("0-gold-1"))
    assert 0.35 < np.mean(places) / len(index) < 0.65
    assert np.std(places) / len(index) > 0.2
    for protocol in ("open", "ftrace"):
        found = compare(index, asked, [nothing], protocol=protocol, depth=len(index))
        result = found.rows[0].result
        assert (result.mrr.value, result.success.value, result.recall.value) == (0.0, 0.0, 0.0)
    # What scores less than nothing stands after all that scores nothing.
    signed = Known(lambda query, name: -float(name == "0-gold-1"))
    assert rank_all(index, queries, signed, len(index))[0] == [None] * 170 + ["0-gold-1"]
    assert rank_candidates(index, queries, signed, every)[0] == [None] * 170 + ["0-gold-1"]


def test_bm25_finds_nothing_where_no_word_is_shared(index: hw.Index) -> None:
    asked = [QueryItem("q", "t", "Wherever", " zebras", gold=("0-gold-1",))]
    for protocol in ("open", "ftrace"):
        found = compare(index, asked, [hw.BM25()], protocol=protocol, lexical=hw.BM25())
        assert found.rows[0].result.mrr.value == 0.0
    sets = candidate_sets(index, asked, Candidates(0, 0, 50), hw.BM25())
    assert [index.ids[i] for i in sets[0]] == ["0-gold-1"]


def test_candidates_inflate_and_differences_are_paired(index: hw.Index) -> None:
    asked = items()
    methods = [Known(gold_first), Other(mixed)]
    far = compare(index, asked, methods, depth=171)
    near = compare(index, asked, methods, protocol="ftrace", candidates=Candidates(5, 5, 0))
    assert near.rows[1].result.mrr.value > far.rows[1].result.mrr.value
    assert near.candidates is not None
    assert near.candidates <= 12
    row = far.rows[1]
    assert row.difference is not None
    gold = [item.gold for item in asked]
    tops = hw.top(index, [item.query() for item in asked], 171, method=methods[1])
    naive = [
        1 / (1 + min(t.ids.index(g) for g in right)) for t, right in zip(tops, gold, strict=True)
    ]
    assert row.result.mrr.value == pytest.approx(np.mean(naive))
    assert row.difference["mrr"].value == pytest.approx(np.mean(naive) - 1)
    assert row.difference["mrr"].low <= row.difference["mrr"].value <= row.difference["mrr"].high
    assert compare(index, asked, methods, depth=171).rows[1].difference == row.difference


def test_per_query_is_the_mean_taken_apart() -> None:
    ranked = [["a", "x", "b"], ["x", "y", "q"], ["x"]]
    gold = [("a", "b"), ("q",), ("n",)]
    whole = retrieval(ranked, gold, k=2)
    parts = per_query(ranked, gold, 2)
    np.testing.assert_allclose(
        parts.mean(axis=0), [whole.mrr.value, whole.success.value, whole.recall.value]
    )


def test_paired_difference_knows_what_two_intervals_do_not() -> None:
    """Queries differ by far more than the methods do, which differ by 0.1 on every query."""
    first = np.random.default_rng(0).random(50)
    found = paired_difference(first, first + 0.1)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    noise = np.random.default_rng(1).normal(0, 1, 400)
    wide = paired_difference(np.zeros(400), noise, resamples=4000)
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * noise.std() / 20, rel=0.1)


def test_gold_that_is_not_there(index: hw.Index) -> None:
    asked = [
        *items(),
        QueryItem("far", "t", "It is", " Bern", gold=("elsewhere",)),
        QueryItem("half", "t", "It is", " Lima", gold=("0-gold-1", "elsewhere")),
    ]
    found = compare(index, asked, [Known(gold_first)], k=5)
    assert (found.queries, found.left_out, found.absent) == (6, 1, 1)
    with pytest.raises(InputError, match=r"No gold document.*ids such as about-0.*elsewhere"):
        compare(index, asked[5:6], [Known(gold_first)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": []}, "no query"),
        ({"methods": []}, "no method"),
        ({"methods": [hw.BM25(), hw.BM25()]}, "more than once; found BM25"),
        ({"protocol": "closed"}, "no such protocol.*open or ftrace"),
        ({"k": 0}, "k is not usable"),
        ({"k": 20, "depth": 10}, "k is not usable"),
        ({"k": 0, "protocol": "ftrace"}, "k is not usable"),
        ({"items": [QueryItem("o", "t", "It is")]}, "o cannot be evaluated.*no completion"),
        ({"items": [QueryItem("o", "t", "It is", " x")]}, "o cannot be evaluated.*no gold"),
    ],
)
def test_refuses(index: hw.Index, change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"items": items(), "methods": [Known(mixed)]} | change
    with pytest.raises(InputError, match=said):
        compare(index, given.pop("items"), given.pop("methods"), **given)


def test_a_cut_beyond_the_depth_of_another_protocol_and_two_of_a_kind(index: hw.Index) -> None:
    found = compare(index, items(), [Known(mixed)], protocol="ftrace", k=200, lexical=Known(mixed))
    assert found.rows[0].result.recall.value == 1.0
    two = compare(index, items(), [hw.BM25(), hw.BM25(k1=0.9)])
    assert len(two.rows) == 2
