"""Work that a request waits for: who goes away stops it, and what fails says whose fault it is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from headwater.engine.progress import Progress
from headwater.server import reading
from headwater.server.admission import Settings
from headwater.server.app import create_app
from headwater.server.jobs import Jobs
from headwater.server.workbench import Workbench

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def address(workbench: Workbench) -> Iterator[str]:
    """Of a real server: a client of the tests never goes away."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    app = create_app(workbench, Settings(TOKEN, port), jobs=Jobs(workbench, warm=False))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
    listening.close()


def test_work_stops_when_who_asked_goes_away(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopped, over = threading.Event(), threading.Event(), time.monotonic() + 30

    def endless(*_: Any) -> None:
        begun.set()
        try:
            with Progress("Reading", None) as progress:
                while time.monotonic() < over:
                    time.sleep(0.01)
                    progress.advance(1)
        except BaseException:
            stopped.set()
            raise

    monkeypatch.setattr(reading, "documents", endless)
    headers = {"authorization": f"Bearer {TOKEN}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{address}/api/indexes/one/documents", headers=headers, timeout=0.5)
    assert begun.is_set()
    assert stopped.wait(15)


def test_who_stays_is_answered_after_several_looks(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.server.streams.LOOK", 0.05)
    monkeypatch.setattr(reading, "documents", lambda *_: time.sleep(0.5) or {"rows": []})
    headers = {"authorization": f"Bearer {TOKEN}"}
    found = httpx.get(f"{address}/api/indexes/one/documents", headers=headers, timeout=30)
    assert (found.status_code, found.json()) == (200, {"rows": []})


def test_a_defect_is_500_and_says_what_to_do(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "documents", lambda *_: 1 // 0)
    found = client.get("/api/indexes/one/documents")
    error = found.json()["error"]
    assert found.status_code == 500
    assert error["wrong"].startswith("ZeroDivisionError")
    assert "defect of headwater" in error["do"]
    assert found.headers["content-security-policy"]
