"""The first screen waits for nothing heavy, and what has no model never brings torch in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from headwater.evidence.method_table import OF_TEXTS, method_of_texts, method_table, tell
from headwater.evidence.rankers import METHODS
from headwater.server.workbench import Workbench

SERVED = """
import json, sys, threading
from pathlib import Path
from fastapi.testclient import TestClient
from headwater.cli import serve
from headwater.server.app import create_app
from headwater.server.jobs import Jobs
from headwater.server.admission import Settings
from headwater.server.workbench import Workbench

index, asks = Path(sys.argv[1]), json.loads(sys.argv[2])
workbench = Workbench([index])
jobs = Jobs(workbench, warm=bool(asks))
app = create_app(workbench, Settings("a-token-of-the-tests", 8613), jobs=jobs)
with TestClient(app, base_url="http://127.0.0.1:8613") as client:
    client.headers["authorization"] = "Bearer a-token-of-the-tests"
    told = client.get("/api/session").json()["indexes"][0]
    assert told["methods"] and "source" in told["columns"]
    for asked in asks:
        ended = client.post("/api/jobs?wait=60", json=asked).json()
        assert ended["state"] == "done", ended
    if asks:
        found = client.get(f"/api/indexes/{index.name}/documents?filter=source:Peru").json()
        assert found["total"] == 3, found
        # What a lane makes ready is done before what is asked of it later.
        assert list(workbench.warming("model")) == []
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
QUERY = {"prompt": "The capital of Peru is", "completion": " Lima"}
ASKED = [
    {"kind": "ask", "index": "texts", "query": QUERY, "evidence": ["lexical"]},
    {
        "kind": "ask",
        "index": "texts",
        "query": QUERY,
        "evidence": ["verbatim", "lexical"],
        "filter": "peru",
    },
    {"kind": "thin", "index": "texts", "query": QUERY, "method": "bm25", "by": "source"},
    {"kind": "words", "index": "texts", "positions": [0, 1], "k": 5},
    {
        "kind": "agreement",
        "sides": [
            {"index": "texts", "query": QUERY, "method": "bm25"},
            {"index": "texts", "query": QUERY, "method": "lexical"},
        ],
    },
]


@pytest.mark.parametrize(("name", "asks"), [("one", []), ("texts", ASKED)])
def test_no_screen_brings_torch_in_where_no_model_is_needed(
    places: dict[str, Path], name: str, asks: list[Any]
) -> None:
    command = [sys.executable, "-c", SERVED, str(places[name]), json.dumps(asks)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


def test_the_table_of_methods_says_what_the_methods_say() -> None:
    assert method_table() == tell(), "run python -m headwater.evidence.method_table"


def test_rankers_of_texts_are_the_methods_of_their_names() -> None:
    for name in OF_TEXTS:
        assert type(method_of_texts(name)) is METHODS[name]
    assert method_of_texts("trackstar") is None


def test_what_is_told_of_a_view_is_what_it_says_itself(
    client: TestClient, workbench: Workbench
) -> None:
    from headwater.engine.errors import InputError
    from headwater.methods.view import View

    told = {one["name"]: one for one in client.get("/api/session").json()["indexes"][0]["methods"]}
    index = workbench.index("one")
    for one in method_table():
        if not one.view:
            continue
        method = workbench.method(one.name)
        assert isinstance(method, View)
        try:
            method.check(index)
            said = None
        except InputError as error:
            said = str(error)
        assert told[one.name]["missing"] == said
