"""Effect, agreement, words and thinness: figures by hand, and as kinds of work on a small index."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_facts import FEATURES, corpus, task

import headwater as hw
from headwater.engine.errors import InputError
from headwater.server import explore_schemas as schemas
from headwater.server import exploring
from headwater.server.agreement import agreement
from headwater.server.effect import effect
from headwater.server.thinness import thinness
from headwater.server.vocabulary import Vocabulary, random_queries
from headwater.server.workbench import RANKED

NAN = float("nan")
QUERY = {"prompt": "The fox is", "completion": " red."}


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return hw.Index.build(None, task(8), corpus(), FEATURES, hw.Plan(shard_rows=8))


@pytest.fixture(scope="module")
def bench(index: hw.Index) -> Any:
    """As much of a workbench as the kinds of work use."""
    from headwater.evidence.rankers import method_by_name

    def method(name: str | None) -> Any:
        return None if name is None else method_by_name(name)

    def scores(_: str, query: hw.Query, name: str | None = None, options: Any = None) -> Any:
        return hw.scores(index, query, method=method(RANKED.get(name or "", name)))[0]

    return SimpleNamespace(index=lambda _: index, method=method, scores=scores)


def tell(event: str, data: dict[str, Any]) -> None:
    raise AssertionError(event)


# -- effect -------------------------------------------------------------------------------


def test_the_effect_is_the_sum_beside_what_chance_gives() -> None:
    scores = np.array([4.0, 2.0, -1.0, 0.0, 1.0, -2.0, NAN], np.float32)
    made = effect(scores, np.array([0, 1, 1, 6]), "nats")
    assert made["examples"] == 2
    assert made["without_score"] == 1
    assert made["total"] == 6.0
    assert made["share_of_positive"] == pytest.approx(6 / 7)
    assert made["random"]["mean"] == pytest.approx(2 * 4 / 6)
    assert made["random"]["low"] >= -3.0
    assert made["random"]["high"] <= 6.0
    negative = effect(-np.abs(scores), np.array([2]), "nats")
    assert negative["share_of_positive"] is None
    with pytest.raises(InputError, match="None of these examples has a score"):
        effect(scores, np.array([6]), "nats")


def test_random_sets_are_as_large_as_the_chosen_one() -> None:
    scores = np.random.default_rng(0).normal(size=2000) + 1
    for count in (1, 50, 1950):
        made = effect(scores, np.arange(count), "")["random"]
        wide = 1.96 * (count * (2000 - count) / 1999) ** 0.5
        assert made["mean"] == pytest.approx(count * scores.mean())
        assert (made["high"] - made["low"]) / 2 == pytest.approx(wide, rel=0.15)
        assert made["low"] < made["mean"] < made["high"]
    whole = effect(scores, np.arange(2000), "")
    assert whole["random"]["low"] == pytest.approx(whole["total"])
    assert "nothing that chance would not give" in whole["says"]
    best = effect(scores, np.argsort(-scores)[:50], "")
    assert "less likely, beyond what chance" in best["says"]
    assert (
        "more likely, beyond what chance" in effect(-scores, np.argsort(-scores)[:50], "")["says"]
    )


def test_only_scores_that_may_be_added_have_an_effect(bench: Any, index: hw.Index) -> None:
    asked = {"index": "x", "query": QUERY, "ids": ["colour-fox", "again-0"]}
    made = exploring.do_effect(bench, schemas.Effect(**asked, method="graddot"), tell)
    scores = bench.scores("x", hw.Query(*QUERY.values()), "graddot")
    places = [index.ids.index(name) for name in asked["ids"]]
    assert made["total"] == pytest.approx(float(scores[places].sum()), rel=1e-5)
    assert made["total"] > made["random"]["high"]
    with pytest.raises(InputError, match="may not be added up"):
        exploring.do_effect(bench, schemas.Effect(**asked, method="trackstar"), tell)
    with pytest.raises(InputError, match="1 of the ids are not in the index"):
        bad = {**asked, "ids": ["colour-fox", "<script>"]}
        exploring.do_effect(bench, schemas.Effect(**bad, method="graddot"), tell)


# -- agreement ----------------------------------------------------------------------------


def test_agreement_is_matched_by_id() -> None:
    a = np.array([5.0, 4, 3, 2, 1, NAN])
    b = np.array([1.0, 5, 4, 3, 7])  # the same examples in another order, and one of its own
    ids = ["p", "q", "r", "s", "t", "u"], ["t", "p", "q", "r", "mine"]
    made, places = agreement([a, b], ids, [1, 2, 3, 9])
    assert made["examples"] == 4
    assert (made["only_a"], made["only_b"]) == (2, 1)
    assert [one["share"] for one in made["overlap"]] == [1.0, 1.0, 1.0]  # and none for 9
    assert [one["by_chance"] for one in made["overlap"]] == [0.25, 0.5, 0.75]
    assert made["spearman"] == pytest.approx(1)
    assert [one["rank_b"] for one in made["points"]] == [1, 2, 3, 4]
    assert places == [(0, 1), (1, 2), (2, 3), (4, 0)]
    with pytest.raises(InputError, match="share no example"):
        agreement([a, b], (["x"] * 6, ids[1]), [1])


def test_agreement_of_chance_and_of_ties() -> None:
    scipy = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    a, b = random.normal(size=5000), np.round(random.normal(size=5000))
    names = [str(i) for i in range(5000)]
    made, _ = agreement([a, b], (names, names), [100])
    assert made["spearman"] == pytest.approx(scipy.spearmanr(a, b)[0])
    assert made["pearson"] == pytest.approx(scipy.pearsonr(a, b)[0])
    assert made["overlap"][0]["share"] < 0.1
    assert 300 <= len(made["points"]) <= 400
    flat, _ = agreement([a, np.zeros(5000)], (names, names), [10])
    assert flat["spearman"] is flat["pearson"] is None
    assert "scores all examples the same" in flat["says"]


def test_agreement_of_two_methods(bench: Any, index: hw.Index) -> None:
    sides = [{"index": "x", "query": QUERY, "method": name} for name in ("gradcos", "lexical")]
    made = exploring.do_agreement(bench, schemas.Agreement(sides=sides, k=[3]), tell)
    assert made["examples"] == len(index)
    point = made["points"][0]
    assert point["text"] == index.documents([index.ids.index(point["id"])])[0].content["text"]


# -- words and thinness -------------------------------------------------------------------


def test_words_are_those_that_few_others_have(bench: Any, index: hw.Index) -> None:
    positions = [index.ids.index(name) for name in ("tale-1", "colour-hen", "legs-hen")]
    made = exploring.do_words(bench, schemas.Words(index="x", positions=positions, k=4), tell)
    assert len(made) == 4
    first = {one["word"]: one for one in made}
    assert first["hen"]["positions"] == sorted(positions)
    assert first["hen"]["documents"] == 4
    # Two in tale-1 (1 + ln 2), and one in each of the others.
    weight = (1 + np.log(2) + 2) * np.log(len(index) / 4)
    assert first["hen"]["weight"] == pytest.approx(weight)
    assert "legs" not in first  # many have them
    with pytest.raises(InputError, match="no such example"):
        exploring.do_words(bench, schemas.Words(index="x", positions=[999]), tell)


def test_rare_words_of_a_query(index: hw.Index) -> None:
    found = Vocabulary().rarest(index, "The unicorn is red, the FOX is <script>")
    told = {one["word"]: one["documents"] for one in found}
    assert told["unicorn"] == told["script"] == 0
    assert told["fox"] == 7
    assert found[0]["documents"] == 0
    assert "the" not in told


def test_thinness_counts_those_above_the_null() -> None:
    scores = np.array([5.0, 4.0, 1.0, 0.0, NAN])
    null = [float(value) for value in range(19)]
    made = thinness(scores, [one / 6 for one in null], ["a", "b", "b", None, "c"], [])
    assert made["null_95"] == 3.0
    assert made["supporters"] == 2
    assert made["examples"] == 4
    assert [(one["value"], one["examples"], one["supporters"]) for one in made["groups"]] == [
        ("a", 1, 1),
        ("b", 2, 1),
        (None, 1, 0),
    ]
    assert made["says"] == (
        "2 of 4 examples support this more than chance would, from 2 of 3 groups."
    )
    none = thinness(scores, null, None, [{"word": "x", "documents": 0}], influence=False)
    assert none["supporters"] == 0
    assert "no examples match this more than chance would" in none["says"]
    assert "no example holds “x”" in none["says"]
    unknown = thinness(scores, [], None, [])
    assert unknown["supporters"] is unknown["null_95"] is None
    assert "cannot be said" in unknown["says"]
    assert thinness(np.full(2, NAN), [1.0], None, [])["says"] == "No example has a score."


@pytest.mark.parametrize("method", ["gradcos", "bm25", "lexical", "random"])
def test_thin_has_a_null_where_the_method_has_one(bench: Any, method: str) -> None:
    asked = schemas.Thin(index="x", query=QUERY, method=method, by="source")
    made = exploring.do_thin(bench, asked, tell)
    assert (made["null_95"] is None) == (method == "random")
    assert {one["value"] for one in made["groups"]} == {"colours", "legs", "tales", None}
    scores = bench.scores("x", hw.Query(*QUERY.values()), method)
    above = None if made["null_95"] is None else int((scores > made["null_95"]).sum())
    assert made["supporters"] == above
    with pytest.raises(InputError, match="no metadata column"):
        exploring.do_thin(bench, asked.model_copy(update={"by": "nothing"}), tell)


def test_random_queries_are_seeded_and_as_long(index: hw.Index) -> None:
    query = hw.Query("The fox is", " red and quick.")
    made = random_queries(index, query)
    assert made == random_queries(index, query)
    assert len({one.completion for one in made}) > 10
    assert all(len((one.completion or "").split()) == 3 for one in made)
    assert all(one.prompt == query.prompt for one in made)


# -- over HTTP ----------------------------------------------------------------------------


def test_kinds_of_work_over_http(work: Any) -> None:
    query = {"prompt": "The capital of Peru is", "completion": " Lima."}
    made = work("effect", index="one", query=query, method="graddot", ids=["Peru-0", "Peru-1"])
    assert made["state"] == "done"
    assert made["result"]["examples"] == 2
    words = work("words", index="texts", positions=[0, 1, 2], k=3)["result"]
    assert {"peru", "lima"} <= {one["word"] for one in words}
    side = {"index": "one", "query": query, "method": "lexical"}
    agreed = work("agreement", sides=[side, {**side, "index": "texts"}], k=[5])["result"]
    assert agreed["overlap"][0]["share"] == 1.0
    thin = work("thin", index="texts", query=query, method="lexical", by="source")["result"]
    assert thin["examples"] == 18
    failed = work("effect", index="one", query=query, method="trackstar", ids=["Peru-0"])
    assert failed["state"] == "failed"
    assert "may not be added up" in failed["error"]["wrong"]


@pytest.mark.parametrize("method", ["lexical", "verbatim", "trackstar"])
def test_only_examples_that_pass_a_filter_take_part(work: Any, method: str) -> None:
    query = {"prompt": "The capital of Peru is", "completion": " Lima."}
    asked = {"index": "one", "query": query, "method": method, "by": "source"}
    thin = work("thin", **asked, filter=" source=Peru ")["result"]
    peru = next(one for one in thin["groups"] if one["value"] == "Peru")
    assert [one["value"] for one in thin["groups"]] == ["Peru"]
    assert thin["examples"] == peru["examples"] < 18
    whole = work("thin", **asked, filter="  ")["result"]
    assert whole["examples"] == 18
    if method != "verbatim":  # what it is compared with is of the same examples
        assert thin["null_95"] <= whole["null_95"]
    side = {"index": "one", "query": query, "method": method}
    sides = [{**side, "filter": "source=Peru"}, {**side, "method": "bm25"}]
    agreed = work("agreement", sides=sides, k=[1])["result"]
    assert agreed["examples"] == peru["examples"]
    wrong = {**side, "filter": "nosuch=x"}
    for failed in (work("thin", **wrong), work("agreement", sides=[wrong, side])):
        assert failed["state"] == "failed"
        assert "asks for the column nosuch" in failed["error"]["wrong"]
