"""The walk of one question: words, tokens, an answer, pairs of words, the test of it."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import headwater as hw
from headwater.server import schemas
from headwater.server.asking import Pieces, ask_lane
from headwater.server.text_tokens import text_tokens
from headwater.server.workbench import Workbench

PROMPT, WORDS = "The capital of Peru is", " Lima."
QUERY = {"prompt": PROMPT, "completion": WORDS}


@pytest.fixture(scope="module")
def index(workbench: Workbench) -> hw.Index:
    return hw.Index.open(workbench.paths["one"])


def covered(tokens: list[dict[str, Any]], text: str) -> None:
    """The ranges tile the text, and each token's text is its range."""
    assert "".join(one["text"] for one in tokens) == text
    at = 0
    for one in tokens:
        assert one["start"] == at
        at = one["end"]
        assert one["text"] == text[one["start"] : one["end"]]
    assert at == len(text)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (PROMPT, WORDS),
        ("", "Lima"),
        (PROMPT, ""),
        ("  two  spaces\n", "\tand\n\nlines "),
        ("Ünïcödé 漢字", " 🙂🙃 é"),
        ("The cap", "ital of"),
    ],
)
def test_tokens_tile_the_text_whatever_it_holds(work: Any, prompt: str, completion: str) -> None:
    found = work("tokens", index="one", prompt=prompt, completion=completion)
    assert found["state"] == "done", found["error"]
    covered(found["result"]["prompt"] + _moved(found["result"], prompt), prompt + completion)


def _moved(result: dict[str, Any], prompt: str) -> list[dict[str, Any]]:
    """The completion's tokens in the characters of the whole text; one across the border whole."""
    made: list[dict[str, Any]] = []
    before = result["prompt"][-1]["end"] if result["prompt"] else 0
    for one in result["completion"]:
        start, end = one["start"] + len(prompt), one["end"] + len(prompt)
        if not made and before < start:
            start = before
        made.append({"start": start, "end": end, "text": (prompt[start:] + one["text"])})
    return made


def test_probabilities_are_the_models_own(work: Any, index: hw.Index) -> None:
    found = work("tokens", index="one", prompt=PROMPT, completion=WORDS)["result"]
    answer = hw.ask(index, hw.Query(PROMPT, WORDS), calibrate=False, top=1)
    said = np.prod([one["probability"] for one in found["completion"]])
    assert said == pytest.approx(answer.probability, rel=1e-4)
    assert found["prompt"][0]["probability"] is None
    assert all(0 < one["probability"] <= 1 for one in found["prompt"][1:])
    # A character of several tokens is one, with the product of their probabilities.
    one = text_tokens(index.task, "a ", "漢")[1]  # type: ignore[arg-type]
    assert [token["text"] for token in one] == ["漢"]
    whole = hw.ask(index, hw.Query("a ", "漢"), calibrate=False, top=1)
    assert one[0]["probability"] == pytest.approx(whole.probability, rel=1e-4)


def test_too_long_a_text_is_refused_in_words(work: Any) -> None:
    found = work("tokens", index="one", prompt="word " * 200, completion="x")
    assert found["state"] == "failed"
    assert "longer than the model's window" in found["error"]["wrong"]
    assert work("tokens", index="one", prompt="", completion="")["state"] == "failed"


def test_what_is_generated_is_streamed_and_the_same(client: TestClient, work: Any) -> None:
    asked = {"index": "one", "prompt": PROMPT, "max_tokens": 12, "temperature": 1.0, "seed": 3}
    whole = work("generate", **asked)["result"]
    covered(whole["tokens"], whole["text"])
    name = client.post("/api/jobs", json={"kind": "generate", **asked}).json()["id"]
    told = client.get(f"/api/jobs/{name}/events").text
    pieces = [
        json.loads(block.split("data: ")[1])["text"]
        for block in told.split("\n\n")
        if "event: token" in block
    ]
    assert "".join(pieces) == whole["text"]
    assert "event: result" in told
    other = work("generate", **{**asked, "seed": 4})["result"]
    assert other["text"] != whole["text"]


def test_pieces_of_a_character_are_one_token() -> None:
    made = Pieces()
    assert [made.add(text, p) for text, p in [("a", 0.5), ("", 0.5), ("", 0.5), ("é", 0.4)]] == [
        True,
        False,
        False,
        True,
    ]
    assert made.tokens[1] == {"text": "é", "start": 1, "end": 2, "probability": 0.1}


def test_an_answer_is_the_librarys(work: Any, index: hw.Index, client: TestClient) -> None:
    asked = {"query": QUERY, "method": "graddot", "top": 3, "by": ["source"]}
    found = work("ask", index="one", **asked)["result"]
    right = hw.ask(index, hw.Query(PROMPT, WORDS), method="graddot", top=3, by=["source"]).to_dict()
    for told in (found["answer"], right):
        told.pop("seconds")
    assert found["answer"] == json.loads(json.dumps(right))
    scores = client.get(f"/api/scores?key={found['scores']}")
    assert scores.headers["content-type"] == "application/octet-stream"
    best = found["answer"]["proponents"][0]
    vector = np.frombuffer(scores.content, "<f4")
    assert len(vector) == len(index)
    assert vector[best["position"]] == pytest.approx(best["score"], rel=1e-5)
    assert vector.argmax() == best["position"]


def test_words_without_a_completion_are_the_models_own(work: Any) -> None:
    found = work("ask", index="one", query={"prompt": PROMPT}, top=1, calibrate=False)["result"]
    assert found["answer"]["completion"]
    assert any("the model's own" in note for note in found["answer"]["notes"])


def test_chosen_words_alone_are_explained(work: Any) -> None:
    query = {**QUERY, "words": [[1, 5]]}
    found = work("ask", index="one", query=query, top=1, calibrate=False)["result"]["answer"]
    assert "".join(found["target"]) == "Lima"
    whole = work("ask", index="one", query=QUERY, top=1, calibrate=False)["result"]["answer"]
    assert "".join(whole["target"]) == " Lima."
    assert found["probability"] > whole["probability"]


def test_evidence_of_an_index_without_a_model(work: Any) -> None:
    found = work("ask", index="texts", query=QUERY, evidence=["lexical", "verbatim"])
    answer = found["result"]["answer"]
    assert set(answer["kinds"]) == {"lexical", "verbatim"}
    assert answer["proponents"][0]["id"] == "Peru-0"
    assert answer["spans"]
    refused = work("ask", index="texts", query=QUERY, evidence=["influence"])
    assert "holds no features" in refused["error"]["wrong"]
    assert "no model" in work("generate", index="texts", prompt="a")["error"]["wrong"]


@pytest.mark.parametrize(
    ("asked", "lane"),
    [
        ({"index": "one", "evidence": ["lexical", "verbatim"]}, "reader"),
        ({"index": "one", "evidence": ["lexical"]}, "reader"),
        ({"index": "texts"}, "reader"),
        ({"index": "one"}, "model"),
        ({"index": "one", "evidence": ["lexical", "influence"]}, "model"),
        ({"index": "one", "evidence": ["semantic"]}, "model"),
        ({"index": "texts", "candidates": ["lexical", 2]}, "model"),
    ],
)
def test_what_needs_no_model_does_not_wait_for_one(
    workbench: Workbench, asked: dict[str, Any], lane: str
) -> None:
    assert ask_lane(workbench, schemas.Ask(query=schemas.AskedQuery(**QUERY), **asked)) == lane
    alone = schemas.Ask(query=schemas.AskedQuery(prompt=PROMPT), **asked)
    assert ask_lane(workbench, alone) == "model"  # its words are the model's own


def test_the_same_question_is_answered_once(work: Any) -> None:
    asked = {"index": "one", "query": {**QUERY, "prompt": "Trains to"}, "evidence": ["lexical"]}
    first, again = work("ask", **asked), work("ask", **asked)
    assert first["id"] != again["id"]
    assert first["result"] == again["result"]  # the seconds, too: it was not done again
    other = work("ask", **{**asked, "top": 2})
    counts = [len(one["result"]["answer"]["proponents"]) for one in (first, other)]
    assert counts[0] > counts[1] == 2


def test_pairs_of_words_sum_to_the_score(work: Any) -> None:
    for method in ("graddot", "trackstar"):
        answer = work("ask", index="one", query=QUERY, method=method, top=1)["result"]["answer"]
        best = answer["proponents"][0]
        pair = work("pair", index="one", query=QUERY, method=method, position=best["position"])
        found = pair["result"]
        shares = np.asarray(found["shares"])
        assert shares.shape == (len(found["targets"]), len(found["tokens"]))
        assert found["targets"] == answer["target"]
        assert "".join(found["tokens"]) == best["text"]
        assert found["total"] == pytest.approx(best["score"], rel=2e-3)
        assert shares.sum() == pytest.approx(best["score"], rel=0.02)
        assert shares.sum(axis=0) == pytest.approx(
            [share for _, share in best["tokens"]], rel=0.02, abs=1e-3 * abs(shares).max()
        )


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"method": "bm25", "position": 0}, "do not split by pairs"),
        ({"method": "trak", "position": 0}, "weighs whole examples"),
        ({"method": "none", "position": 0}, "no such method"),
        ({"position": 10_000}, "no such example"),
        ({"position": 0, "index": "texts"}, "Only outputs of a language model"),
        ({"position": 0, "query": {"prompt": "a", "completion": "b" * 40}}, "too long"),
    ],
)
def test_pairs_that_cannot_be_had_are_refused(work: Any, asked: Any, wrong: str) -> None:
    found = work("pair", **{"index": "one", "query": QUERY, **asked})
    assert found["state"] == "failed"
    assert wrong in found["error"]["wrong"]


def test_an_answer_is_put_to_the_test(work: Any) -> None:
    found = work("verify", index="one", query=QUERY, method="graddot", top=1)
    assert found["state"] == "done", found["error"]
    assert any("not retrained" in note for note in found["result"]["notes"])
    group = work("verify", index="one", query=QUERY, group=["source", "Peru"])
    assert group["state"] == "done", group["error"]


def test_only_examples_that_pass_the_filter_take_part(work: Any, client: TestClient) -> None:
    asked: dict[str, Any] = {"index": "one", "query": QUERY, "filter": " id:Peru or id:Japan "}
    asked |= {"method": "graddot", "evidence": ["influence", "lexical"], "calibrate": False}
    for more in ({}, {"candidates": ["lexical", 4]}):
        found = work("ask", **asked, **more)["result"]
        shown = found["answer"]["proponents"] + found["answer"]["opponents"]
        assert {one["id"].split("-")[0] for one in shown} <= {"Peru", "Japan"}
        assert "--filter=id:Peru or id:Japan" in shlex.split(
            found["answer"]["reproduce"]["command"]
        )
    assert found["answer"]["candidates_of"] == 6
    scores = client.get(f"/api/scores?key={found['scores']}")
    vector = np.frombuffer(scores.content, "<f4")
    assert int(np.isfinite(vector).sum()) == 6
    whole = work("ask", **(asked | {"filter": ""}))["result"]
    assert whole["scores"] != found["scores"]


def test_a_filter_that_fits_no_column_fails_in_words(work: Any) -> None:
    job = work("ask", index="texts", query=QUERY, evidence=["lexical"], filter="sorce:Peru")
    assert job["state"] == "failed"
    assert "the column sorce at character 1" in job["error"]["wrong"]
    assert "source" in job["error"]["expected"]
    job = work("ask", index="texts", query=QUERY, evidence=["lexical"], filter="zebra")
    assert "lets no example pass" in job["error"]["wrong"]
