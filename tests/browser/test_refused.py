"""Who is turned away: foreign names and pages, and whoever has no token. Most need no browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from browser.serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

PATHS = ("/api/session", "/api/openapi.json", "/api/jobs/x", "/api/scores?key=x", "/assets/x.js")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.address, timeout=30)


@pytest.mark.parametrize("path", ["/", *PATHS])
@pytest.mark.parametrize(
    "token", [None, "", "wrong", "token-of-the-browser-test", "token-of-the-browser-testsx", "\xff"]
)
def test_nothing_without_the_token(
    client: httpx.Client, server: Server, path: str, token: str | None
) -> None:
    named = [("cookie", f"headwater-{server.port}={token}".encode("latin-1"))]
    named += [("authorization", f"Bearer {token}".strip().encode("latin-1"))]
    response = client.get(path, headers=[] if token is None else named)
    assert response.status_code == 401
    assert server.token not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_a_wrong_token_in_the_address_sets_no_cookie(client: httpx.Client, server: Server) -> None:
    response = client.get("/?token=wrong")
    assert response.status_code == 401
    assert "set-cookie" not in response.headers
    right = client.get(f"/?token={server.token}&token=wrong")
    assert right.status_code == 401
    given = client.get(f"/?token={server.token}")
    assert given.status_code == 303
    assert "HttpOnly" in given.headers["set-cookie"]
    assert "SameSite=Strict" in given.headers["set-cookie"]
    assert server.token not in given.headers["location"]
    client.cookies.clear()


@pytest.mark.parametrize("host", ["rebound.test", "localhost.evil.test", "127.0.0.1.nip.io", ""])
def test_a_foreign_name_is_refused_even_with_the_token(
    client: httpx.Client, server: Server, host: str
) -> None:
    for name in (host, f"{host}:{server.port}"):
        response = client.get("/api/session", headers={**server.bearer, "host": name})
        assert response.status_code == 403, name


@pytest.mark.parametrize(
    "origin", ["http://evil.test", "null", "https://127.0.0.1", "http://127.0.0.1:1"]
)
def test_a_foreign_page_is_refused_even_with_the_token(
    client: httpx.Client, server: Server, origin: str
) -> None:
    told = {**server.bearer, "origin": origin}
    assert client.get("/api/session", headers=told).status_code == 403
    body = '{"kind": "tokens", "index": "facts", "prompt": "a", "completion": "b"}'
    assert client.post("/api/jobs", content=body, headers={**told, **JSON}).status_code == 403


def test_only_json_is_taken(client: httpx.Client, server: Server) -> None:
    """What a form of another page can send is none of it."""
    body = '{"kind": "tokens", "index": "facts", "prompt": "a", "completion": "b"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        told = {**server.bearer, "content-type": kind}
        assert client.post("/api/jobs", content=body, headers=told).status_code == 415, kind
    assert client.post("/api/jobs", content=body, headers={**server.bearer, **JSON}).is_success


def test_the_token_leaves_the_address_and_no_script_sees_it(page: Page, server: Server) -> None:
    page.get_by_role("textbox", name="Prompt").wait_for()
    assert page.url == f"{server.address}/"
    assert page.evaluate("() => document.cookie") == ""
    kept = "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.body.innerHTML])"
    assert server.token not in page.evaluate(kept)
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    # The address with the token is not among the pages that one can go back to.
    assert page.evaluate("() => history.length") <= 2


def test_other_pages_of_the_same_browser_get_nothing(
    page: Page, context: BrowserContext, server: Server
) -> None:
    """The cookie is in the browser; a foreign page, and a name made to mean this machine, ask."""
    foreign = context.new_page()
    empty = {"status": 200, "content_type": "text/html", "body": "<!doctype html>"}
    foreign.route("http://evil.test/**", lambda route: route.fulfill(**empty))  # type: ignore[arg-type]
    foreign.goto("http://evil.test/")
    got = """async address => {
        const cookie = { credentials: 'include' };
        const form = { method: 'POST', headers: { 'content-type': 'text/plain' }, body: '{}' };
        const got = [(one) => one.text(), () => 'refused'];
        const said = [];
        for (const init of [cookie, { ...cookie, ...form }])
            said.push(await fetch(`${address}/api/session`, init).then(...got));
        const shown = new Image();
        said.push(await new Promise((done) => {
            shown.onload = () => done('loaded');
            shown.onerror = () => done('refused');
            shown.src = `${address}/api/session`;
        }));
        return said;
    }"""
    assert foreign.evaluate(got, server.address) == ["refused"] * 3
    answered = foreign.goto(f"http://rebound.test:{server.port}/")
    assert answered is not None
    assert answered.status == 403
    framed = f"<!doctype html><iframe src='{server.address}'></iframe>"
    foreign.route(
        "http://frame.test/**", lambda route: route.fulfill(body=framed, content_type="text/html")
    )
    foreign.goto("http://frame.test/")
    assert not foreign.frames[1].get_by_role("heading", name="Headwater").is_visible()


def test_a_browser_without_the_token_is_told_what_to_do(browser: Browser, server: Server) -> None:
    alone = browser.new_page()
    answered = alone.goto(server.address)
    assert answered is not None
    assert answered.status == 401
    assert "terminal" in alone.inner_text("body")
    alone.close()
