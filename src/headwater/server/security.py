"""The guard around the server: it lets in what `admission.py` admits, and answers the rest itself.

The token comes once in a URL, and from then on in a cookie that scripts cannot read. Pure ASGI, so
that streams pass through as they are and nothing is answered without these headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from headwater.server.admission import Asked, Refused, Settings
from headwater.server.static import page
from headwater.server.told import as_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
UNKNOWN = page(
    "Open the address that the terminal shows",
    "This workbench answers only with its token. What headwater serve printed holds it.",
    "If you opened that address before, the server was started again since: take the new one.",
)


class Guard:
    """The middleware. Around everything."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through what may pass; refuse the rest with a reason."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket: there is none here
            await send({"type": "websocket.close", "code": 1008})
            return
        asked = Asked(scope, self.settings)
        guarded = _with_headers(send, asked.api)
        try:
            asked.check_names()
            if asked.brings_token:
                await _redirect(guarded, asked)
                return
            asked.check_token()
            asked.check_kind()
            body = await _body(receive, asked)
        except Refused as refused:
            await _refuse(guarded, asked, refused)
            return
        await self.app(asked.scope, _replay(body, receive), guarded)


async def _body(receive: Receive, asked: Asked) -> bytes:
    """The whole body, so that its size is known before anything reads it."""
    told = asked.header("content-length") or "0"
    if not told.isdecimal() or int(told) > asked.limit:
        raise Refused(413, f"The body is too large: at most {asked.limit:,} bytes are taken")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "The connection ended before the body did")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > asked.limit:
            raise Refused(413, f"The body is too large: at most {asked.limit:,} bytes are taken")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` that gives the body once, then waits for the end of the connection."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_headers(send: Send, api: bool) -> Send:
    """`send` that puts the headers on every answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            more = {**HEADERS, **({"cache-control": "no-store"} if api else {})}
            message["headers"] = [
                *message["headers"],
                *((n.encode(), v.encode()) for n, v in more.items() if n.encode() not in there),
            ]
        await send(message)

    return sent


async def _redirect(send: Send, asked: Asked) -> None:
    """Take the token out of the address, into a cookie."""
    query = asked.query()
    given = [value for name, value in query if name == "token"]
    if not asked.same(given[-1]):
        refused = Refused(401, "The token is wrong", "open the address that the terminal shows")
        await _refuse(send, asked, refused)
        return
    rest = urlencode([(name, value) for name, value in query if name != "token"])
    settings = asked.settings
    # Relative: below a proxy's prefix only the browser knows the whole address. For the same
    # reason the cookie names no path: the browser takes the folder of this address.
    here = "./" if asked.path else f"{settings.prefix}/"
    cookie = f"{settings.cookie}={settings.token}; HttpOnly; SameSite=Strict"
    headers = [
        (b"location", (here + (f"?{rest}" if rest else "")).encode()),
        (b"set-cookie", cookie.encode()),
        (b"cache-control", b"no-store"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Send, asked: Asked, refused: Refused) -> None:
    """The reason, as a page to who opened one, else as JSON."""
    shown = not asked.api and refused.status == 401
    error = {"wrong": refused.wrong, "expected": None, "found": None, "do": refused.do}
    body = (UNKNOWN if shown else as_json({"error": error})).encode()
    kind = b"text/html; charset=utf-8" if shown else b"application/json"
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if refused.status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
