"""Which requests are let in: those that hold the token and call this machine by its own names.

Loopback is no protection by itself: other users of the machine reach it, any page in a browser can
send requests to it, and a foreign name can be made to mean 127.0.0.1 (DNS rebinding). So the token
is asked for everywhere, Host and Origin must be ours, and a page cannot send JSON across origins.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from headwater.server.explore_schemas import MOST_SET

if TYPE_CHECKING:
    from starlette.types import Scope

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
READING = ("GET", "HEAD")
BODY_BYTES = 1 << 20
ESCAPED = 2  # JSON writes quotes and the ends of lines as two characters
UPLOADS = ("/api/query-sets", "/api/export")  # whose bodies are files


@dataclass(frozen=True)
class Settings:
    """How a server is guarded.

    Args:
        token: asked of every request. port: on which it listens.
        hosts: further names it may be called by, such as "box.example.org" or, with one port only,
            "box.example.org:8080". prefix: path below which a proxy puts it ("" = none).
        body_bytes: the largest body. upload_bytes: the largest file, whose body is longer.
    """

    token: str
    port: int
    hosts: tuple[str, ...] = ()
    prefix: str = ""
    body_bytes: int = BODY_BYTES
    upload_bytes: int = MOST_SET

    @property
    def cookie(self) -> str:
        """Cookies are shared by all ports of a name, so this one's name holds the port."""
        return f"headwater-{self.port}"

    def knows(self, host: str) -> bool:
        """Whether this is a name of ours, as a Host header has it."""
        wanted = host.lower()
        if wanted in {f"{name}:{self.port}" for name in LOOPBACK}:
            return True
        if self.port == 80 and wanted in LOOPBACK:
            return True
        name = urlsplit(f"//{wanted}").hostname if _is_host(wanted) else None
        allowed = {one.lower() for one in self.hosts}
        return wanted in allowed or (name is not None and name in allowed)

    def own(self, origin: str, host: str) -> bool:
        """Whether a page of this origin is ours; `host` is the name that the request is for."""
        kind, _, name = origin.lower().partition("://")
        allowed = {host.lower(), *(one.lower() for one in self.hosts)}
        allowed |= {f"{one}:{self.port}" for one in LOOPBACK}
        return kind in ("http", "https") and name in allowed


def _is_host(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname) and parts.netloc == text and (parts.port or 1) > 0
    except ValueError:
        return False


class Refused(Exception):
    """A request that gets no further: its status, and why in words."""

    def __init__(self, status: int, wrong: str, do: str | None = None) -> None:
        super().__init__(wrong)
        self.status, self.wrong, self.do = status, wrong, do


class Asked:
    """One request, as far as it decides who may ask."""

    def __init__(self, scope: Scope, settings: Settings) -> None:
        self.settings = settings
        self.method: str = scope["method"]
        path: str = scope["path"]
        prefix = settings.prefix
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):  # the proxy left it on
            scope = {**scope, "root_path": prefix}
            path = path[len(prefix) :]
        self.scope, self.path = scope, path
        self.headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            self.headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    @property
    def api(self) -> bool:
        """Whether it is for the API and not for a file of the app."""
        return self.path.startswith("/api/") or self.path == "/api"

    def header(self, name: str) -> str | None:
        """Its value; a header that comes twice where it must not is refused."""
        values = self.headers.get(name, [])
        if len(values) > 1:
            raise Refused(400, f"The header {name} comes more than once")
        return values[0] if values else None

    def check_names(self) -> None:
        """Host and Origin are ours, and no other page sent this."""
        if not self.settings.knows(self.header("host") or ""):
            todo = f"use 127.0.0.1:{self.settings.port}, or allow the name with --allow-host"
            raise Refused(403, "The server is not called by this name", todo)
        origin = self.header("origin")
        if origin is not None and not self.settings.own(origin, self.header("host") or ""):
            raise Refused(403, "The request comes from another site")
        place = self.header("sec-fetch-site")
        opened = self.header("sec-fetch-mode") == "navigate" and self.method in READING
        if place in ("cross-site", "same-site") and not (opened and not self.api):
            raise Refused(403, "The request comes from another site")

    @property
    def brings_token(self) -> bool:
        """Whether it is the page's address with the token in it."""
        return self.method in READING and self.path in ("", "/") and "token" in dict(self.query())

    def query(self) -> list[tuple[str, str]]:
        """What stands after the question mark."""
        text: bytes = self.scope["query_string"]
        return parse_qsl(text.decode("latin-1"), keep_blank_values=True)

    def check_token(self) -> None:
        """A cookie or a header holds the token."""
        for given in self._tokens():
            if self.same(given):
                return
        raise Refused(
            401, "The token is missing or wrong", "open the address that the terminal shows"
        )

    def same(self, given: str) -> bool:
        """Compared in a time that says nothing of how much of it is right."""
        return secrets.compare_digest(
            given.encode("utf-8", "replace"), self.settings.token.encode()
        )

    def _tokens(self) -> Iterable[str]:
        kind, _, given = (self.header("authorization") or "").partition(" ")
        if kind.lower() == "bearer":
            yield given.strip()
        for text in self.headers.get("cookie", []):
            for one in text.split(";"):  # other programs' cookies on this name may be anything
                name, _, value = one.strip().partition("=")
                if name == self.settings.cookie:
                    yield value

    def check_kind(self) -> None:
        """What changes something comes as JSON, which no form and no other page can send."""
        if self.method in (*READING, "DELETE", "OPTIONS"):
            return
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "Only JSON is taken", "send content-type: application/json")

    @property
    def limit(self) -> int:
        """The most bytes of its body."""
        if self.path in UPLOADS:
            return ESCAPED * self.settings.upload_bytes + self.settings.body_bytes
        return self.settings.body_bytes
