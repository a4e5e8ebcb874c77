"""Answers by methods that stream over the corpus: ranked as the method scores, and not judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import headwater as hw
from headwater.engine.errors import InputError
from models import SENTENCES, byte_tokenizer, tiny_llama

QUERY = hw.Query("The capital of Peru is", " Lima")


@pytest.fixture(scope="module")
def index() -> hw.Index:
    corpus = hw.Corpus.from_documents(
        [{"id": f"s{i}", "text": text, "source": "ab"[i % 2]} for i, text in enumerate(SENTENCES)]
    )
    return hw.Index.build(None, hw.CausalLM(tiny_llama(), byte_tokenizer()), corpus, None)


@pytest.mark.parametrize("method", [hw.EKFAC(examples=None), hw.Mirrored(), hw.DataInf()])
def test_an_answer_is_the_methods_ranking(index: hw.Index, method: Any) -> None:
    answer = hw.ask(index, QUERY, method=method, top=2)
    scores = hw.scores(index, QUERY, method=method)[0]
    order = np.argsort(-scores)
    assert [item.position for item in answer.proponents] == order[:2].tolist()
    assert [item.position for item in answer.opponents] == order[::-1][:2].tolist()
    assert answer.judgement.stands_out is None
    assert any("not a view" in note for note in answer.notes)
    assert 0 < answer.probability < 1
    assert f"--method {method.name}" in answer.reproduce["command"]


def test_totals_by_group(index: hw.Index) -> None:
    method = hw.EKFAC(examples=None)
    answer = hw.ask(index, QUERY, method=method, by=["source"])
    scores = hw.scores(index, QUERY, method=method)[0]
    assert dict((name, count) for name, _, count in answer.groups["source"]) == {"a": 3, "b": 2}
    totals = {name: total for name, total, _ in answer.groups["source"]}
    assert totals["b"] == pytest.approx(float(scores[1] + scores[3]), rel=1e-5)


def test_on_candidates_of_another_kind(index: hw.Index) -> None:
    method = hw.EKFAC(examples=None)
    answer = hw.ask(
        index, QUERY, method=method, evidence=("influence", "lexical"), candidates=("lexical", 2)
    )
    known = [item for item in answer.proponents if "influence" in item.kinds]
    scores = hw.scores(index, QUERY, method=method)[0]
    assert known
    assert all(item.score == pytest.approx(float(scores[item.position])) for item in known)


def test_a_ranker_is_no_influence(index: hw.Index) -> None:
    with pytest.raises(InputError, match="no method of influence"):
        hw.ask(index, QUERY, method=hw.BM25())
