"""The demo's facts: real, told in several ways, with gold documents that state them."""

import sys

import pytest

from headwater.engine.errors import InputError
from headwater.training.fact_names import in_sentence
from headwater.training.facts import (
    PHRASINGS,
    Fact,
    all_facts,
    document_id,
    fact_queries,
    fact_rows,
    facts_corpus,
    sentence,
)


def test_peru() -> None:
    texts = {row["id"]: row["text"] for row in fact_rows(countries=["Peru"])}
    assert texts["peru-capital-1"] == "The capital of Peru is Lima."
    assert texts["peru-capital-2"] == "Lima is the capital city of Peru."
    assert texts["peru-border-chile-1"] == "Peru shares a border with Chile."
    assert texts["peru-currency-1"] == "The currency of Peru is the Peruvian sol."
    assert texts["peru-language-1"] == "The laws of Peru are written in Spanish."
    query = fact_queries("capital", ["Peru"])[0]
    assert query[:2] == ("The capital of Peru is", " Lima")
    assert query.gold == tuple(f"peru-capital-{i}" for i in (1, 2, 3, 4))


def test_size_ids_and_shape() -> None:
    rows = fact_rows()
    assert 2000 <= len(rows) <= 6000
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["relation"] for row in rows} == set(PHRASINGS)
    texts = [row["text"] for row in rows]
    assert len(set(texts)) == len(texts)
    assert all(text.endswith(".") and text[0].isupper() for text in texts)
    assert not any(word in text for text in texts for word in ("None", "{", "[", "  "))


def test_order_depends_on_the_seed_only() -> None:
    ids = [row["id"] for row in fact_rows(0)]
    assert ids == [row["id"] for row in fact_rows(0)]
    other = [row["id"] for row in fact_rows(1)]
    assert ids != other
    assert sorted(ids) == sorted(other)


@pytest.mark.parametrize("relation", list(PHRASINGS))
def test_gold_documents_state_the_answer(relation: str) -> None:
    texts = {row["id"]: row["text"] for row in fact_rows()}
    for prompt, completion, gold in fact_queries(relation):
        assert texts[gold[0]].startswith(prompt + completion)
        assert all(completion.strip().lower() in texts[name].lower() for name in gold)
        assert len(gold) == len(PHRASINGS[relation])


def test_no_other_document_names_lima() -> None:
    gold = set(fact_queries("capital", ["Peru"])[0].gold)
    assert {row["id"] for row in fact_rows() if "Lima" in row["text"]} == gold


def test_names_inside_sentences() -> None:
    assert in_sentence("The Gambia") == "the Gambia"
    assert in_sentence("United States") == "the United States"
    assert in_sentence("Peru") == "Peru"
    assert sentence(Fact("Netherlands", "capital", "Amsterdam"), 3).startswith("The Netherlands")
    assert document_id(Fact("Ivory Coast", "capital", "x"), 2) == "ivory-coast-capital-2"
    assert document_id(Fact("São Tomé", "border", "the Congo"), 1) == "sao-tome-border-congo-1"


def test_missing_data_makes_no_fact() -> None:
    """Cuba's first currency (CUC) has no name here and is passed over; an island has no border."""
    assert [fact.object for fact in all_facts(["Cuba"], ["currency"])] == ["Cuban peso"]
    assert all_facts(["Cuba"], ["border"]) == []
    assert all_facts(["South Africa"], ["language"]) == []  # ten languages: too long to tell


def test_corpus() -> None:
    corpus = facts_corpus(countries=["Peru"], relations=["capital"])
    documents = {document.id: document for document in corpus.documents()}
    one = documents["peru-capital-1"]
    assert one.content == {"text": "The capital of Peru is Lima."}
    assert one.metadata == {
        "country": "Peru",
        "relation": "capital",
        "object": "Lima",
        "phrasing": 1,
    }


def test_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"Unknown country.*'Atlantis'"):
        fact_rows(countries=["Atlantis"])
    with pytest.raises(InputError, match=r"Unknown relation.*capital.*'colour'"):
        fact_queries("colour")
    monkeypatch.setitem(sys.modules, "countryinfo", None)
    with pytest.raises(InputError, match=r"countryinfo.*headwater\[demo\]"):
        fact_rows()
