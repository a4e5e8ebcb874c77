"""What does not fit a request is told in plain words: the field as it was written, what belongs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headwater.engine.errors import InputError
from headwater.server.app import all_kinds
from headwater.server.exports import answer_from
from headwater.server.schema_words import described
from headwater.server.unfit import no_json, shown, unfit, written

QUERY = {"prompt": "p", "completion": "c"}
ASK = {"kind": "ask", "index": "one", "query": QUERY}
# Words of the validator that nobody should meet.
INTERNAL = re.compile(
    r"Input should|valid|should have|Field required|Extra inputs|[a-z]+_[a-z]+_error|literal"
    r"|NoneType|<class|\bdict\b|\bstr\b|\bint\b|JSON decode|type=",
)


def post(client: TestClient, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    response = client.post(path, content=content, headers=headers)
    error = response.json()["error"]
    assert list(error) == ["wrong", "expected", "found", "do"]
    return response.status_code, error


@pytest.mark.parametrize(
    ("body", "wrong", "expected", "found"),
    [
        ({"index": "one"}, "The field kind is missing", "generate, tokens", "index"),
        ({}, "The field kind is missing", "generate, tokens", "an empty object"),
        ({**ASK, "kind": 3}, "There is no such kind of work", "generate, tokens", "3"),
        (
            {"kind": "ask", "index": "one"},
            "The field query is missing",
            "an object with prompt, completion, instead_of, words",
            "index",
        ),
        ({**ASK, "query": "Lima"}, "The field query does not fit", "an object with", '"Lima"'),
        (
            {**ASK, "top": 5000},
            "The field top does not fit",
            "a whole number from 1 to 1,000",
            "5000",
        ),
        ({**ASK, "top": None}, "The field top does not fit", "a whole number from 1", "null"),
        ({**ASK, "top": "many"}, "The field top does not fit", "a whole number", '"many"'),
        ({**ASK, "index": ["one"]}, "The field index does not fit", "a text of 1", "a list of 1"),
        ({**ASK, "tokens": 3}, "The field tokens does not fit", "true or false", "3"),
        (
            {**ASK, "evidence": []},
            "The field evidence does not fit",
            "a list of 1 to 4 entries, each a text of 1 to 300 characters",
            "an empty list",
        ),
        (
            {**ASK, "query": {**QUERY, "words": [[0, "x"]]}},
            "The field query.words[0][1] does not fit",
            "a whole number",
            '"x"',
        ),
        (
            {**ASK, "where": ["source", [{}]]},
            "The field where[1][0] does not fit",
            "a text, a whole number, a number or true or false",
            "an object",
        ),
        (
            {**ASK, "where": ["source"]},
            "The field where[1] is missing",
            "a list of 1 to 1,000 entries",
            "a list of 1",
        ),
        (
            {**ASK, "query": {**QUERY, "prompt": "x" * 1_000_001}},
            "The field query.prompt does not fit",
            "a text of at most 1,000,000 characters",
            "a text of 1,000,001 characters",
        ),
        ({**ASK, "method": "\ud83d"}, "The field method does not fit", "without halves", "ud83d"),
        (
            {"kind": "generate", "index": "one", "prompt": "", "top_p": 2},
            "The field top_p does not fit",
            "a number above 0 and at most 1",
            "2",
        ),
        ({**ASK, "path": "/etc"}, "There is no field path", "some of index, query, method", None),
        ([1], "The body does not fit", "an object", "a list of 1"),
        ("ask", "The body does not fit", "an object", '"ask"'),
        (b"", "The body is missing", None, None),
    ],
)
def test_what_does_not_fit_is_told(
    client: TestClient, body: Any, wrong: str, expected: str | None, found: str | None
) -> None:
    _, error = post(client, "/api/jobs", body)
    assert error["wrong"] == wrong
    for name, said in (("expected", expected), ("found", found)):
        assert said is None or said in error[name], error
    assert not INTERNAL.search(json.dumps(error)), error


def test_a_slip_in_a_name_is_guessed(client: TestClient) -> None:
    assert post(client, "/api/jobs", {**ASK, "evidense": ["lexical"]})[1]["do"] == (
        "did you mean evidence?"
    )
    inner = {**ASK, "query": {**QUERY, "instead-of": "x"}}
    _, error = post(client, "/api/jobs", inner)
    assert error["wrong"] == "There is no field query.instead-of"
    assert error["do"] == "did you mean instead_of?"


@pytest.mark.parametrize(
    ("body", "expected", "found"),
    [
        (b'{"kind": ask}', "a value: a text in double quotes", '{"kind": ask} (line 1, char'),
        (b"{'kind': 1}", "a name in double quotes", "{'kind': 1} (line 1, character 2)"),
        (b'{"kind"\n 1}', "a colon after the name", "(line 2, character 2)"),
        (b'{"a": 1 "b": 2}', "a comma", '"b": 2}'),
        (b'{"a": "b', "a double quote at the end", "(line 1, character 7)"),
        (b'{"a": 1', "a comma", "its end (line 1, character 8)"),
        (b"{} {}", "nothing after the end", "(line 1, character 4)"),
        (b'{"a": "\n"}', "as escapes", "(line 1, character 8)"),
        (b'{"a": "\\q"}', "what JSON allows there", "(line 1, character 8)"),
    ],
)
def test_a_body_that_is_no_json_is_told(
    client: TestClient, body: bytes, expected: str, found: str
) -> None:
    for path in ("/api/jobs", "/api/export", "/api/indexes/one/load"):
        status, error = post(client, path, body)
        assert (status, error["wrong"]) == (422, "The body is not JSON")
        assert expected in error["expected"]
        assert found in error["found"]


def test_bytes_and_depth_that_are_no_json_are_told(client: TestClient) -> None:
    status, error = post(client, "/api/jobs", b'{"a": "\xff"}')
    assert (status, error["wrong"]) == (400, "The body is not JSON")
    assert (error["expected"], error["found"]) == ("text in UTF-8", "a byte that is none at 8")
    assert "JSON" in post(client, "/api/jobs", b"[" * 100_000)[1]["wrong"]


def test_other_routes_tell_it_the_same_way(client: TestClient) -> None:
    status, error = post(client, "/api/indexes/one/load", {})
    assert (status, error["wrong"]) == (422, "The field trust is missing")
    assert (error["expected"], error["found"]) == ("true or false", "an empty object")
    status, error = post(client, "/api/export", {"what": "file", "format": "csv"})
    assert (status, error["wrong"]) == (422, "The field what does not fit")
    assert (error["expected"], error["found"]) == ("answer or selection", '"file"')
    _, error = post(client, "/api/query-sets", {"name": "a", "lines": 3})
    assert error["wrong"] == "The field lines does not fit"
    assert "a text of at most" in error["expected"]
    _, error = post(client, "/api/export", {"what": "selection", "format": "csv", "rows": [3]})
    assert (error["wrong"], error["expected"]) == ("The field rows[0] does not fit", "an object")
    _, error = post(client, "/api/jobs?wait=61", ASK)
    assert error["wrong"] == "The parameter wait does not fit"
    assert error["expected"] == "a number from 0 to 60"


def test_what_stands_in_the_address_is_told(client: TestClient) -> None:
    for address, wrong, expected in (
        ("/api/indexes/one/documents?limit=x", "The parameter limit does not fit", "a whole"),
        ("/api/indexes/one/documents/x", "The parameter position does not fit", "a whole number"),
        ("/api/map", "The parameter index is missing", "a text of at most 300 characters"),
        (f"/api/scores?key={'k' * 99}", "The parameter key does not fit", "at most 64 characters"),
    ):
        response = client.get(address)
        assert response.status_code == 422
        error = response.json()["error"]
        assert error["wrong"] == wrong
        assert expected in error["expected"]
    refused = client.put("/api/jobs", json={})
    assert refused.status_code == 405
    assert refused.json()["error"]["wrong"] == "PUT is not taken here"
    assert refused.json()["error"]["expected"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
GOOD: dict[str, dict[str, Any]] = {
    "generate": {"index": "i", "prompt": "p"},
    "tokens": {"index": "i", "prompt": "p", "completion": "c"},
    "ask": {"index": "i", "query": QUERY},
    "pair": {"index": "i", "query": QUERY, "position": 1},
    "verify": {"index": "i", "query": QUERY},
    "effect": {"index": "i", "query": QUERY, "ids": ["a"]},
    "agreement": {"sides": [{"index": "i", "query": QUERY}] * 2},
    "words": {"index": "i", "positions": [1]},
    "thin": {"index": "i", "query": QUERY},
}


@settings(max_examples=300)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_nothing_of_the_validator_is_passed_on(kind: str, data: st.DataObject) -> None:
    model = all_kinds()[kind][0]
    field = data.draw(st.sampled_from(sorted(model.model_fields)))
    value = data.draw(values)
    given = {**GOOD[kind], field: value}
    try:
        model.model_validate(given)
    except ValidationError as error:
        schema = model.model_json_schema()
        made = unfit(error.errors(include_url=False), given, schema, schema.get("$defs", {}))
        told = f"{made.wrong}; {made.expected}; {made.do}"
        if not made.wrong.startswith("There is no field"):  # its name may be anything
            assert not INTERNAL.search(told), told
        assert made.expected, told
        assert re.search(rf"\b{field}\b", made.wrong), told


def test_a_whole_answer_is_checked_in_the_same_words() -> None:
    with pytest.raises(InputError, match=r"the field query is missing \(a text belongs there\)"):
        answer_from({})
    with pytest.raises(InputError, match=r"the body does not fit \(an object with query, prompt"):
        answer_from([])


def test_values_are_shown_short() -> None:
    assert shown("x" * 200) == "a text of 200 characters"
    assert shown({"a": 1}) == "an object"
    assert shown([1, 2]) == "a list of 2"
    assert shown(True) == "true"
    assert written(["a", 0, 1, "b"]) == "a[0][1].b"
    assert described({}, {}) is None
    assert "its end" in str(no_json("[", 1, "Expecting value"))
