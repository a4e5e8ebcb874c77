"""Who may ask: every request without the token, from elsewhere or of another kind is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi.testclient import TestClient

from headwater.server.admission import Settings
from headwater.server.security import POLICY, Guard

TOKEN, PORT = "a-token-of-the-tests", 8613
HOST = f"127.0.0.1:{PORT}"


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """An app that says the path and the size of the body that it was given."""
    message = await receive()
    told = f"{scope.get('root_path', '')}|{scope['path']}|{len(message['body'])}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": told})


def guarded(**options: Any) -> TestClient:
    settings = Settings(TOKEN, PORT, **options)
    return TestClient(Guard(behind, settings), base_url=f"http://{HOST}", follow_redirects=False)


@pytest.fixture
def page() -> TestClient:
    return guarded()


BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("path", ["/", "/api/session", "/assets/index.js", "/anything?token="])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"headwater-{PORT}=wrong"},
        {"cookie": f"headwater-{PORT + 1}={TOKEN}"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {TOKEN}é".encode()},
    ],
)
def test_without_the_token_nothing_is_answered(
    page: TestClient, path: str, headers: dict[str, Any]
) -> None:
    response = page.get(path, headers=headers)
    assert response.status_code == 401
    assert TOKEN not in response.text


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"cookie": f"headwater-{PORT}={TOKEN}"},
        {"cookie": f'theirs={{"a": "b;c"}}; headwater-{PORT}={TOKEN}; x="'},
    ],
)
def test_with_the_token_the_request_goes_through(page: TestClient, headers: Any) -> None:
    assert page.get("/api/session", headers=headers).text == "|/api/session|0"


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_cannot_read(
    page: TestClient,
) -> None:
    response = page.get(f"/?view=compare&token={TOKEN}&q=a%26b")
    assert response.status_code == 303
    assert response.headers["location"] == "./?view=compare&q=a%26b"
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"headwater-{PORT}={TOKEN}; ")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert page.get("/").status_code == 200  # the client keeps the cookie
    assert page.get("/?token=wrong").status_code == 401
    # The API takes no token from an address: addresses are logged and copied.
    page.cookies.clear()
    assert page.get(f"/api/session?token={TOKEN}").status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (HOST, 200),
        (f"localhost:{PORT}", 200),
        (f"LOCALHOST:{PORT}", 200),
        (f"[::1]:{PORT}", 200),
        ("127.0.0.1", 403),
        ("127.0.0.1:9999", 403),
        (f"evil.example:{PORT}", 403),
        (f"127.0.0.1.evil.example:{PORT}", 403),
        (f"evil@127.0.0.1:{PORT}", 403),
        ("", 403),
    ],
)
def test_a_foreign_host_is_refused(page: TestClient, host: str, status: int) -> None:
    response = page.get("/api/session", headers={**BEARER, "host": host})
    assert response.status_code == status


def test_names_are_allowed_one_by_one() -> None:
    page = guarded(hosts=("box.example", "hub.example:8000"))
    for host, status in [
        ("box.example", 200),
        ("box.example:443", 200),
        ("BOX.example:1", 200),
        ("hub.example:8000", 200),
        ("hub.example", 403),
        ("notbox.example", 403),
        ("box.example:x", 403),
    ]:
        assert page.get("/", headers={**BEARER, "host": host}).status_code == status, host


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (f"http://{HOST}", 200),
        (f"http://localhost:{PORT}", 200),
        ("null", 403),
        ("http://127.0.0.1", 403),
        ("http://127.0.0.1:9999", 403),
        ("https://evil.example", 403),
        (f"file://{HOST}", 403),
    ],
)
def test_a_foreign_origin_is_refused(page: TestClient, origin: str, status: int) -> None:
    response = page.get("/api/session", headers={**BEARER, "origin": origin})
    assert response.status_code == status


def test_another_site_can_lead_to_the_page_but_not_ask(page: TestClient) -> None:
    for place in ("cross-site", "same-site"):
        asked = {**BEARER, "sec-fetch-site": place, "sec-fetch-mode": "no-cors"}
        assert page.get("/api/session", headers=asked).status_code == 403
        assert page.get("/", headers=asked).status_code == 403
        led = {**BEARER, "sec-fetch-site": place, "sec-fetch-mode": "navigate"}
        assert page.get("/", headers=led).status_code == 200
        assert page.get("/api/session", headers=led).status_code == 403
    own = {**BEARER, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert page.get("/api/session", headers=own).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
        ("text/plain; application/json", 415),
    ],
)
def test_only_json_is_taken(page: TestClient, kind: str, status: int) -> None:
    headers = {**BEARER, "content-type": kind}
    assert page.post("/api/jobs", content=b"{}", headers=headers).status_code == status


def test_bodies_have_a_limit_whether_or_not_they_say_their_size() -> None:
    page = guarded(body_bytes=100, upload_bytes=1000)
    json = {**BEARER, "content-type": "application/json"}

    def pieces(size: int) -> Any:
        yield from (b"x" for _ in range(size))

    for content in (b"x" * 101, pieces(101)):
        response = page.post("/api/jobs", content=content, headers=json)
        assert response.status_code == 413
        assert "at most 100 bytes" in response.json()["error"]["wrong"]
    assert page.post("/api/jobs", content=pieces(100), headers=json).text == "|/api/jobs|100"
    upload = page.post("/api/query-sets", content=b"x" * 2100, headers=json)  # a file of 1000 bytes
    assert upload.text == "|/api/query-sets|2100"
    assert page.post("/api/query-sets", content=b"x" * 2101, headers=json).status_code == 413
    lying = {**json, "content-length": "minus"}
    assert page.post("/api/jobs", content=b"{}", headers=lying).status_code in (400, 413)


def test_every_answer_carries_the_headers(client: TestClient) -> None:
    answers = [
        client.get("/api/session"),
        client.get("/api/session", headers={"authorization": "Bearer wrong"}),
        client.get("/api/jobs/none"),
        client.get("/", headers={"host": "evil.example"}),
        client.get("/nothing.js"),
        client.post("/api/jobs", json={"kind": "none"}),
    ]
    assert [one.status_code for one in answers] == [200, 401, 404, 403, 404, 400]
    for one in answers:
        assert one.headers["content-security-policy"] == POLICY
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["referrer-policy"] == "no-referrer"
        assert one.headers["cross-origin-opener-policy"] == "same-origin"
        assert one.headers["cross-origin-resource-policy"] == "same-origin"
    for one in answers[:3]:
        assert one.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "told"),
    [("/hw/api/session", "/hw|/hw/api/session|0"), ("/api/session", "|/api/session|0")],
)
def test_a_proxys_prefix_may_stay_or_go(path: str, told: str) -> None:
    page = guarded(prefix="/hw")
    assert page.get(path, headers=BEARER).text == told
    led = page.get(f"/hw?token={TOKEN}")
    assert (led.status_code, led.headers["location"]) == (303, "/hw/")
    assert page.get(f"/hw/?token={TOKEN}").headers["location"] == "./"


def test_a_header_that_comes_twice_is_refused() -> None:
    sent: list[Any] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        headers = [(b"host", HOST.encode()), (b"host", b"evil.example")]
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
        await Guard(behind, Settings(TOKEN, PORT))({**scope, "headers": headers}, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 400


def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        await Guard(behind, Settings(TOKEN, PORT))({"type": "websocket"}, None, send)  # type: ignore

    asyncio.run(ask())
    assert sent == [{"type": "websocket.close", "code": 1008}]
