"""`headwater serve`: its options, where it listens, and a real process that is killed at work."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import headwater as hw
from headwater.cli import query_set_files
from headwater.cli import serve as command
from headwater.engine.errors import InputError

MAIN = "import typer; from headwater.cli.serve import serve; typer.run(serve)"
QUICK = f"from headwater.server import described; described.session = lambda *_: None; {MAIN}"


def given(**options: Any) -> dict[str, Any]:
    names = ("query_sets", "query_set_url", "boards", "run", "base", "model", "device", "threads")
    usual = {"token": None, "prefix": "", "trust_model": False, "trust_remote_code": False}
    return dict.fromkeys(names) | usual | options


def test_the_next_free_port_is_taken_where_none_was_asked_for() -> None:
    with command._listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1, port {port}"):
            command._listen("127.0.0.1", port)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        busy = one.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "PORT", busy)
            with command._listen("127.0.0.1", None) as found:
                assert busy < found.getsockname()[1] < busy + command.TRIED
    for host, port in (("127.0.0.1", 99999), ("192.0.2.1", 0), ("no such host", 0)):
        with pytest.raises(InputError, match="cannot listen"):
            command._listen(host, port)


@pytest.mark.parametrize("token", ["", "short", "with space in it", "semi;colon", "é" * 10])
def test_a_token_that_no_cookie_can_hold_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="token is not usable"):
        command._check(given(token=token))


@pytest.mark.parametrize("prefix", ["hw", "/hw/", "/", "/a b", "/<x>", "//"])
def test_a_prefix_that_is_no_path_is_refused(prefix: str) -> None:
    with pytest.raises(InputError, match="prefix is not usable"):
        command._check(given(prefix=prefix))
    command._check(given(prefix="/user/me/proxy"))


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NEEDED", ("fastapi", "no_such_package"))
    with pytest.raises(InputError, match=r"needs no_such_package.*headwater\[serve\]"):
        command._check(given())


def test_what_is_named_on_the_command_line_is_there(
    places: dict[str, Path], tmp_path: Path
) -> None:
    board = tmp_path / "digits"
    board.mkdir()
    with pytest.raises(InputError, match="no board in"):
        command._workbench(given(indexes=[places["one"]], boards=[board]), contextlib.ExitStack())
    (board / "board.json").write_text("{}")
    queries = tmp_path / "mine.jsonl"
    with pytest.raises(InputError, match="no file"):
        command._workbench(
            given(indexes=[places["one"]], query_sets=[str(queries)]), contextlib.ExitStack()
        )
    queries.write_text('{"prompt": "a", "completion": "b"}\n')
    made = command._workbench(
        given(
            indexes=[places["one"]], boards=[board], query_sets=[str(queries)], run="r", base="b"
        ),
        contextlib.ExitStack(),
    )
    assert (made.boards, made.query_sets) == ({"digits": board}, {"mine": queries})
    assert (made.opening.run, made.opening.base) == (Path("r"), Path("b"))
    with pytest.raises(InputError, match="no index at"):
        command._workbench(given(indexes=[tmp_path]), contextlib.ExitStack())


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """An address that answers."""
    (tmp_path / "facts of all.jsonl").write_text('{"prompt": "a"}\n')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    def handler(*args: Any) -> Quiet:
        return Quiet(*args, directory=str(tmp_path))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_queries_are_fetched_on_explicit_request(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as leaving:
        found = query_set_files.query_set_files(
            [], [f"{elsewhere}/facts%20of%20all.jsonl"], leaving
        )
        assert list(found) == ["facts of all"]
        assert found["facts of all"].read_text() == '{"prompt": "a"}\n'
    assert not found["facts of all"].exists()
    monkeypatch.setattr(query_set_files, "FETCH_BYTES", 3)
    for url, said in (
        (f"{elsewhere}/none", "cannot be fetched"),
        ("http://127.0.0.1:port/a.jsonl", "cannot be fetched"),
        ("http://[::1/a.jsonl", "not usable"),
        ("file:///etc/passwd", "not usable"),
        (f"{elsewhere}/facts%20of%20all.jsonl", "too large"),
    ):
        with contextlib.ExitStack() as leaving, pytest.raises(InputError, match=said):
            query_set_files.query_set_files([], [url], leaving)


def test_a_browser_is_opened_by_a_file_of_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    leaving = contextlib.ExitStack()
    with leaving:
        command._open("http://127.0.0.1:1/?token=secret-token", leaving)
        (place,) = opened
        assert "secret" not in place  # what a program is started with, all users see
        path = Path(place.removeprefix("file://"))
        assert "secret-token" in path.read_text()
        assert path.parent.stat().st_mode & 0o077 == 0
    assert not path.exists()
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    command._open("http://127.0.0.1:1/", leaving)
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/..", "queries"),
        ("/.jsonl", "queries"),
        ("/a/%2e%2e", "queries"),
        ("/", "queries"),
        ("/a%00b.jsonl", "a-b"),
        ("/a%5Cb%0A.jsonl", "a-b-"),
        (f"/{'n' * 300}.jsonl", "n" * 200),
        (f"/{'%C3%A9' * 150}", "é" * 100),
        ("/two%20words.json", "two words.json"),
    ],
)
def test_a_set_from_an_address_has_a_name_that_a_file_can_have(
    monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"{}"))
    with contextlib.ExitStack() as leaving:
        found = query_set_files.query_set_files([], [f"http://127.0.0.1:1{path}"], leaving)
        assert list(found) == [name]
        assert found[name].read_bytes() == b"{}"


def started(*words: str, main: str = MAIN) -> tuple[subprocess.Popen[str], str, str]:
    """A server in a process of its own: it, its address, its token."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    made = subprocess.Popen(
        [sys.executable, "-c", main, *words, "--no-open", "--threads", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert made.stderr is not None
    for line in made.stderr:
        found = re.search(r"(http://\S+)/\?token=(\S+)", line)
        if found:
            return made, found[1], found[2]
    raise AssertionError("the server did not start")


def test_a_server_that_is_killed_at_work_loses_nothing(
    places: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(places["one"], tmp_path / "index"))
    shutil.rmtree(copy / "verbatim", ignore_errors=True)  # to be built by what is asked
    server, address, token = started(str(copy), "--port", "0", main=QUICK)
    try:
        assert httpx.get(f"{address}/api/session").status_code == 401
        client = httpx.Client(
            base_url=address, headers={"authorization": f"Bearer {token}"}, timeout=60
        )
        query = {"prompt": "The capital of Peru is", "completion": " Lima"}
        kinds = ["lexical"]
        asked = {"kind": "ask", "index": "index", "query": query, "evidence": kinds, "top": 2}
        told = client.post("/api/jobs?wait=60", json=asked).json()
        assert told["state"] == "done", told["error"]
        best = told["result"]["answer"]["proponents"][0]
        # A line of work for both lanes, and no time to do it in.
        for number in range(10):
            more = {**query, "prompt": f"{query['prompt']} {number}"}
            kinds = ["verbatim"] if number % 2 else ["influence", "verbatim"]
            posted = client.post(
                "/api/jobs",
                json={"kind": "ask", "index": "index", "query": more, "evidence": kinds},
            )
            assert posted.status_code == 202
        server.send_signal(signal.SIGKILL)
    finally:
        server.kill()
        server.wait(30)
        server.stderr.close()  # type: ignore[union-attr]
        server.stdout.close()  # type: ignore[union-attr]
    index = hw.Index.open(copy)
    assert index.verify() == []
    assert hw.ask(index, hw.Query(**query), method="graddot", top=2).proponents
    answer = hw.ask(index, hw.Query(**query), evidence=["lexical"], top=2)
    assert answer.proponents[0].id == best["id"]
    assert answer.proponents[0].score == pytest.approx(best["score"], rel=1e-6)
    both = hw.ask(index, hw.Query(**query), evidence=["verbatim", "lexical"], top=2)
    assert both.proponents[0].id == "Peru-0"


OPENED = f"""
import os, sys, webbrowser
from headwater.cli import serve as command
webbrowser.open = lambda _: None
sys.stderr.isatty, os.environ["DISPLAY"] = (lambda: True), ":0"
run = command._run
def opening(workbench, listening, given, leaving):
    command._open("http://127.0.0.1:1/", leaving)
    run(workbench, listening, given, leaving)
command._run = opening
{QUICK}
"""


def test_the_file_that_holds_the_token_goes_with_the_server(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for how in (signal.SIGTERM, signal.SIGINT):
        server, address, token = started(str(places["texts"]), "--port", "0", main=OPENED)
        try:
            assert len(list(tmp_path.glob("*/open.html"))) == 1
            assert httpx.get(f"{address}/?token={token}").status_code == 303
            server.send_signal(how)
            server.wait(30)
        finally:
            server.kill()
            server.stderr.close()  # type: ignore[union-attr]
        server.stdout.close()  # type: ignore[union-attr]
        assert list(tmp_path.glob("*/open.html")) == []


def test_it_stops_when_it_is_asked_to(places: dict[str, Path]) -> None:
    words = (str(places["texts"]), "--port", "0", "--token", "my-own-token")
    server, address, token = started(*words, main=QUICK)
    try:
        assert token == "my-own-token"
        page = httpx.get(f"{address}/?token={token}")
        assert page.status_code == 303
        server.send_signal(signal.SIGINT)
        server.wait(30)
    finally:
        server.kill()
        told = server.stderr.read()  # type: ignore[union-attr]
        server.stderr.close()  # type: ignore[union-attr]
        server.stdout.close()  # type: ignore[union-attr]
    assert "Traceback" not in told


BUSY = f"""
import functools, signal, torch
from headwater.server.jobs import Jobs
from headwater.server.workbench import Workbench
def endless(self, lane):
    print("busy", flush=True)
    while True:
        torch.linalg.eigh(torch.rand(200, 200))
    yield
Workbench.warming = endless
Jobs.close = functools.partialmethod(Jobs.close, 0.1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it
{QUICK}
"""


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_stops_amid_a_step_that_does_not_end(
    places: dict[str, Path], how: signal.Signals, status: int
) -> None:
    server, address, token = started(str(places["texts"]), "--port", "0", main=BUSY)
    assert server.stdout is not None
    try:
        told = httpx.get(f"{address}/api/session", headers={"authorization": f"Bearer {token}"})
        assert told.status_code == 200
        assert "busy" in server.stdout.readline()
        server.send_signal(how)
        assert server.wait(30) == status
    finally:
        server.kill()
        said = server.stderr.read()  # type: ignore[union-attr]
        server.stderr.close()  # type: ignore[union-attr]
        server.stdout.close()  # type: ignore[union-attr]
    assert "terminate called" not in said
    assert "Traceback" not in said
