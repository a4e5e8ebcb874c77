"""The HTTP API as a script meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import headwater as hw
from headwater.server import described
from headwater.server.admission import Settings
from headwater.server.app import create_app
from headwater.server.explore_schemas import MOST_SET
from headwater.server.jobs import Jobs
from headwater.server.static import Assets
from headwater.server.workbench import Workbench
from headwater.tasks.texts import Texts

QUERY = {"prompt": "The capital of Peru is", "completion": " Lima."}


def test_a_session_says_what_can_be_asked(client: TestClient) -> None:
    told = client.get("/api/session").json()
    one, texts = told["indexes"][0], told["indexes"][3]
    assert (one["name"], one["examples"], one["features"]) == ("one", 18, True)
    assert one["model"] in ("known", "ready")
    assert one["columns"] == ["source"]
    assert {"influence", "verbatim", "lexical"} <= set(one["kinds"])
    assert (texts["model"], texts["features"]) == ("none", False)
    assert "influence" not in texts["kinds"]
    methods = {method["name"]: method for method in one["methods"]}
    assert methods["trackstar"]["missing"] is None
    assert methods["graddot"]["additive"] is True
    assert methods["bm25"]["influence"] is False
    assert "--run FOLDER" in methods["source"]["missing"]
    assert "needs margin features" in methods["trak"]["missing"]
    assert all(m["missing"] for m in texts["methods"] if m["influence"])
    assert told["limits"]["upload_bytes"] == MOST_SET


def test_what_is_not_installed_is_not_offered(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(described, "find_spec", lambda name: None)
    monkeypatch.setitem(client.app.state.workbench.extra, "described", {})  # type: ignore[union-attr]
    methods = {m["name"]: m for m in client.get("/api/session").json()["indexes"][0]["methods"]}
    assert "package tantivy, which is not installed" in methods["tantivy"]["missing"]
    assert methods["dense"]["missing"]
    assert methods["bm25"]["missing"] is None


def test_columns_stand_by_their_use_for_groups(tmp_path: Path) -> None:
    long = "A sentence that goes on for long, so that nobody would want it as the name of a group. "
    rows = [
        {
            "id": str(n),
            "text": "a",
            "body": f"{long}{n % 2}",
            "url": f"u{n}",
            "split": "train",
            "tags": ["a", "b"],
            "year": 1990 + n % 9,
            "source": "wiki" if n % 2 else "blog",
            **({"late": n % 3} if n > 1150 else {}),
        }
        for n in range(1200)
    ]
    folder = tmp_path / "index"
    hw.Index.build(folder, Texts(), hw.Corpus.from_documents(rows), None)
    found = described.columns(Workbench([folder]).index("index"))
    assert found == ["source", "year", "late", "split", "url", "tags", "body"]


@pytest.mark.parametrize(
    ("columns", "first"),
    [
        ({"phrasing": 4, "country": 30}, "country"),  # four values only split the corpus
        ({"phrasing": 4, "year": 30}, "year"),
        ({"year": 30, "domain": "d%3"}, "domain"),  # texts before numbers
        ({"topic": 9, "source": "s%30"}, "source"),
        ({"label": "l%2", "topic": "t%9", "Source": "s%2"}, "Source"),
        ({"label": "l%2", "topic": "t%9"}, "label"),
        ({"source": "s%1", "topic": "t%9"}, "topic"),  # one for all groups nothing
        ({"source": "s%600", "topic": "t%9"}, "topic"),  # nor does one for each
        ({"country": "c%90", "relation": "r%8"}, "relation"),
    ],
)
def test_the_column_that_groups_best_is_offered_first(
    columns: dict[str, int | str], first: str
) -> None:
    def value(shape: int | str, n: int) -> str:
        letter, _, many = str(shape).rpartition("%")
        return f"{letter}{n % int(many)}"

    values = {name: [value(shape, n) for n in range(600)] for name, shape in columns.items()}
    assert min(values, key=lambda name: described._use(name, values[name])) == first


def test_an_example_comes_with_its_neighbours(client: TestClient) -> None:
    found = client.get("/api/indexes/one/documents/1?around=2").json()
    assert (found["id"], found["position"]) == ("Peru-1", 1)
    assert found["text"] == "Lima lies in Peru."
    assert found["metadata"] == {"source": "Peru"}
    assert [one["position"] for one in found["before"]] == [0]
    assert [one["position"] for one in found["after"]] == [2, 3]
    last = client.get("/api/indexes/one/documents/17?around=99999").json()
    assert (len(last["before"]), last["after"]) == (17, [])
    for position, status in (("18", 404), ("-1", 404), ("x", 422)):
        response = client.get(f"/api/indexes/one/documents/{position}")
        assert response.status_code == status
        assert response.json()["error"]["wrong"]


def test_examples_are_filtered_and_paged(client: TestClient) -> None:
    every = client.get("/api/indexes/one/documents?limit=5&offset=16").json()
    assert (every["total"], [one["position"] for one in every["rows"]]) == (18, [16, 17])
    some = client.get("/api/indexes/one/documents", params={"filter": "source:Peru -trains"})
    assert [one["id"] for one in some.json()["rows"]] == ["Peru-0", "Peru-1"]
    again = client.get("/api/indexes/one/documents", params={"filter": "source:Peru -trains"})
    assert again.json() == some.json()
    wrong = client.get("/api/indexes/one/documents", params={"filter": '(("'})
    assert wrong.status_code == 400
    slip = client.get("/api/indexes/one/documents", params={"filter": "peru sorce=Peru"})
    assert (slip.status_code, slip.json()["error"]) == (
        400,
        {
            "wrong": "The filter asks for the column sorce at character 6, and there is none",
            "expected": "one of id, text, source",
            "found": "sorce",
            "do": "did you mean source? To look for the words themselves, put them in quotes",
        },
    )
    assert client.get("/api/indexes/none/documents").status_code == 404
    assert client.get("/api/indexes/..%2Fone/documents/1").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "wrong"),
    [
        ({"kind": "no"}, 400, "no such kind of work"),
        ({}, 400, "kind is missing"),
        ([1], 422, "does not fit"),
        ({"kind": "ask", "index": "one"}, 400, "query is missing"),
        ({"kind": "ask", "index": "one", "query": QUERY, "path": "/etc"}, 400, "no field path"),
        ({"kind": "ask", "index": "one", "query": QUERY, "top": 10**9}, 400, "top does not fit"),
        ({"kind": "ask", "index": "../one", "query": QUERY}, 404, "no such index"),
        (
            {"kind": "generate", "index": "one", "prompt": "a", "top_p": 2},
            400,
            "top_p does not fit",
        ),
        ({"kind": "ask", "index": ["one"], "query": QUERY}, 400, "index does not fit"),
        (
            {"kind": "tokens", "index": "one", "prompt": "\ud83d", "completion": ""},
            400,
            "prompt does",
        ),
    ],
)
def test_what_is_no_work_is_refused_in_words(
    client: TestClient, body: Any, status: int, wrong: str
) -> None:
    headers = {"content-type": "application/json"}
    response = client.post("/api/jobs", content=json.dumps(body), headers=headers)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"wrong", "expected", "found", "do"}
    assert wrong in error["wrong"]


@pytest.mark.parametrize("content", [b"{", b"\xff", b"", b"[" * 100_000, b'{"kind": NaN}'])
def test_what_is_no_json_is_refused_in_words(client: TestClient, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = client.post("/api/jobs", content=content, headers=headers)
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["wrong"]


def test_work_is_followed_and_asked_for_later(client: TestClient) -> None:
    asked = {"kind": "ask", "index": "one", "query": QUERY, "evidence": ["lexical"], "top": 4}
    posted = client.post("/api/jobs", json=asked)
    assert posted.status_code == 202
    name = posted.json()["id"]
    told = client.get(f"/api/jobs/{name}/events")
    assert told.headers["content-type"].startswith("text/event-stream")
    event, data = told.text.strip().split("\n\n")[-1].split("\n")
    assert event == "event: result"
    result = json.loads(data.removeprefix("data: "))
    job = client.get(f"/api/jobs/{name}").json()
    assert (job["state"], job["result"], job["error"]) == ("done", result, None)
    for last in ("9" * 5000, "1" * 19, "x"):  # no number of an event
        again = client.get(f"/api/jobs/{name}/events", headers={"last-event-id": last})
        assert again.text == told.text
    assert client.delete(f"/api/jobs/{name}").json()["state"] == "done"
    for missing in ("/api/jobs/none", "/api/jobs/none/events", "/api/scores?key=none"):
        assert client.get(missing).status_code == 404


def test_a_wait_is_no_longer_than_was_asked_for(client: TestClient) -> None:
    asked = {"kind": "tokens", "index": "one", "prompt": "never", "completion": " asked"}
    response = client.post("/api/jobs?wait=0", json=asked)
    assert response.status_code in (200, 202)
    assert client.post("/api/jobs?wait=61", json=asked).status_code == 422


def test_a_full_queue_is_429(workbench: Workbench, settings: Settings) -> None:
    jobs = Jobs(workbench, queue=0, warm=False)
    app = create_app(workbench, settings, jobs=jobs)
    with TestClient(app, base_url="http://127.0.0.1:8613") as client:
        client.headers["authorization"] = f"Bearer {settings.token}"
        asked = {"kind": "ask", "index": "one", "query": {**QUERY, "prompt": "Unasked"}}
        response = client.post("/api/jobs", json=asked)
        assert response.status_code == 429
        assert response.json()["error"]["do"] == "ask again in a moment"
        assert client.get("/api/indexes/one/documents").status_code == 429
        assert client.get("/api/session").status_code == 200


def test_a_yes_is_needed_to_load_somebodys_model(client: TestClient) -> None:
    assert client.post("/api/indexes/one/load", json={"trust": False}).status_code == 400
    assert client.post("/api/indexes/one/load", json={}).status_code == 422
    assert client.post("/api/indexes/none/load", json={"trust": True}).status_code == 404
    name = client.post("/api/indexes/other/load", json={"trust": True}).json()["id"]
    client.get(f"/api/jobs/{name}/events")
    assert client.get(f"/api/jobs/{name}").json()["state"] == "done"
    told = {one["name"]: one for one in client.get("/api/session").json()["indexes"]}
    assert told["other"]["model"] == "ready"
    assert told["one"]["model"] == "known"  # one at a time


def test_the_api_describes_itself(client: TestClient) -> None:
    told = client.get("/api/openapi.json").json()
    body = told["paths"]["/api/jobs"]["post"]["requestBody"]["content"]["application/json"]
    kinds = {one["title"]: one for one in body["schema"]["oneOf"]}
    assert {"generate", "tokens", "ask", "pair", "verify"} <= set(kinds)
    assert "kind" in kinds["ask"]["required"]
    wanted = set(re.findall(r'"\$ref": ?"([^"]*)"', json.dumps(told)))
    assert "#/components/schemas/AskedQuery" in wanted
    for one in wanted:
        place: Any = told
        for part in one.removeprefix("#/").split("/"):
            place = place[part]
    assert client.get("/docs").status_code == 404  # its page would come from elsewhere


def served(workbench: Workbench, settings: Settings, folder: Path) -> TestClient:
    app = create_app(workbench, settings, assets=Assets(folder), jobs=Jobs(workbench, warm=False))
    client = TestClient(app, base_url="http://127.0.0.1:8613")
    client.headers["authorization"] = f"Bearer {settings.token}"
    return client


def test_files_of_the_app_and_no_others(
    workbench: Workbench, settings: Settings, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    (app / "assets").mkdir(parents=True)
    (app / "index.html").write_text("<!doctype html>the app")
    (app / "assets" / "index-1.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    client = served(workbench, settings, app)
    page = client.get("/?index=one")
    assert "the app" in page.text
    assert page.headers["cache-control"] == "no-cache"
    script = client.get("/assets/index-1.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/assets/..%2f..%2fsecret.txt", "/assets"):
        assert client.get(path).status_code == 404


def test_without_the_app_it_says_what_to_type_and_the_api_answers(
    workbench: Workbench, settings: Settings, tmp_path: Path
) -> None:
    client = served(workbench, settings, tmp_path)
    page = client.get("/")
    assert page.status_code == 503
    assert "make web" in page.text
    assert client.get("/api/session").status_code == 200
