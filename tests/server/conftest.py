"""Small indexes that are served, and a browser's side of the server without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import rows, save_model, write_rows
from fastapi.testclient import TestClient

from headwater.cli.app import run
from headwater.server.admission import Settings
from headwater.server.app import create_app
from headwater.server.jobs import Jobs
from headwater.server.workbench import Workbench

TOKEN, PORT = "a-token-of-the-tests", 8613


def build(model: str, corpus: Path, out: Path, *more: str) -> Path:
    torch.set_num_threads(1)
    assert run(["index", model, str(corpus), str(out), "--json", *more]) == 0
    return out


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Indexes of one corpus: `one` and `same` of a model, `other` of another, `texts` of none."""
    folder = tmp_path_factory.mktemp("served")
    corpus = write_rows(folder / "facts.jsonl", rows())
    first, second = (str(save_model(folder / f"model-{n}", seed=n)) for n in (0, 1))
    one = build(first, corpus, folder / "one")
    return {
        "one": one,
        "same": Path(shutil.copytree(one, folder / "same")),
        "other": build(second, corpus, folder / "other"),
        "texts": build("-", corpus, folder / "texts", "--no-features"),
    }


@pytest.fixture(scope="session")
def workbench(places: dict[str, Path]) -> Workbench:
    return Workbench(list(places.values()))


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(TOKEN, PORT)


@pytest.fixture(scope="session")
def client(workbench: Workbench, settings: Settings) -> Iterator[TestClient]:
    """With the token."""
    app = create_app(workbench, settings, jobs=Jobs(workbench, warm=False))
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as made:
        made.headers["authorization"] = f"Bearer {TOKEN}"
        yield made


Work = Callable[..., Any]


@pytest.fixture(scope="session")
def work(client: TestClient) -> Work:
    """Do work of a kind and wait for its end: the job as it stands then."""

    def post(kind: str, **asked: Any) -> Any:
        content = json.dumps({"kind": kind, **asked})  # plain ASCII, also of half characters
        headers = {"content-type": "application/json"}
        response = client.post("/api/jobs?wait=60", content=content, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    return post
