"""`headwater serve`: the workbench in a browser, on this machine and for its owner alone."""

from __future__ import annotations

import atexit
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.output import warn
from headwater.engine.errors import InputError, ResourceError
from headwater.server.named import named

if TYPE_CHECKING:
    from socket import socket

    from headwater.server.workbench import Workbench

PORT = 8613
TRIED = 100  # ports, from that one on
NEEDED = ("fastapi", "uvicorn")
EVERYWHERE = ("0.0.0.0", "::")
FETCH_SECONDS, FETCH_BYTES = 30, 256 << 20
NAME_BYTES = 200  # of a file; systems take 255
SWITCH = 0.0005  # seconds, for Python's 0.005
GRACE = 2  # seconds that a stopping server gives its connections

Indexes = Annotated[
    list[Path], typer.Argument(metavar="INDEX...", help="The folders of indexes to open.")
]


def serve(
    indexes: Indexes,
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help=f"Default: {PORT}, or the next that is free.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="HEADWATER_TOKEN", help="Asked of every request; default: a new one."),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Don't open a browser.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also answer to this name (a proxy's). Repeatable."),
    ] = None,
    prefix: Annotated[
        str, typer.Option(metavar="/PATH", help="The path below which a proxy puts the server.")
    ] = "",
    query_sets: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Queries in JSON Lines to browse. Repeatable."),
    ] = None,
    query_set_url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="The same, fetched now. Repeatable."),
    ] = None,
    boards: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Of headwater evaluate, to look at. Repeatable."),
    ] = None,
    run: o.Run = None,
    base: o.Base = None,
    model: o.OtherModel = None,
    trust_model: o.TrustModel = False,
    trust_remote_code: o.TrustRemoteCode = False,
    device: o.Device = None,
    threads: Annotated[int | None, typer.Option(help="To compute with.")] = None,
) -> None:
    """Open the workbench: ask, read the evidence, compare and explore in a browser.

    Only this machine can reach it, and only with the token in the address that is printed.
    """
    given = dict(locals())
    _check(given)
    workbench = _workbench(given)
    listening = _listen(host, port)
    # Left to itself, this signal ends Python without what was registered for its exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _run(workbench, listening, given)
    finally:
        listening.close()


def _check(given: dict[str, Any]) -> None:
    import importlib.util
    import re

    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise InputError(
            f"The server needs {' and '.join(lacking)}",
            do='install it with: pip install "headwater[serve]"',
        )

    token, prefix = given["token"], given["prefix"]
    if token is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{8,200}", token):
        raise InputError(
            "The token is not usable", expected="8 to 200 letters, digits, '.', '_', '~' or '-'"
        )
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9._~%-]+)+", prefix):
        raise InputError("The prefix is not usable", expected="such as /headwater", found=prefix)
    if given["threads"] is not None and given["threads"] < 1:
        raise InputError("threads is too small", expected="1 or more", found=given["threads"])


def _workbench(given: dict[str, Any]) -> Workbench:
    """What is served, by the names of the parameters of `serve`."""
    from headwater.server.workbench import Opening, Workbench

    plain = ("model", "trust_model", "trust_remote_code", "device", "threads")
    options: dict[str, Any] = {name: given[name] for name in plain}
    for name in ("run", "base"):
        options[name] = None if given[name] is None else Path(given[name])
    opening = Opening(**options)
    boards = given["boards"] or []
    for folder in boards:
        if not (folder / "board.json").is_file():
            raise InputError(f"There is no board in {folder}", expected="a board.json")
    queries = _query_sets(given["query_sets"] or [], given["query_set_url"] or [])
    found = named(boards)
    return Workbench(given["indexes"], opening, query_sets=queries, boards=found)


def _query_sets(files: list[str], urls: list[str]) -> dict[str, Path]:
    """The files by their names; what lies elsewhere is fetched now, and only now."""
    places = [Path(one) for one in files]
    for place in places:
        if not place.is_file():
            raise InputError(f"There is no file {place}", expected="queries in JSON Lines")
    places += [_fetched(url) for url in urls]
    return {name.removesuffix(".jsonl"): place for name, place in named(places).items()}


def _fetched(url: str) -> Path:
    """A copy of what lies at an address, in a folder of its own that goes with the process."""
    import tempfile
    from urllib.error import URLError
    from urllib.parse import unquote, urlsplit
    from urllib.request import urlopen

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise InputError("The address is not usable", expected="http:// or https://", found=url)
    try:
        with urlopen(url, timeout=FETCH_SECONDS) as answer:
            content = answer.read(FETCH_BYTES + 1)
    except (URLError, OSError, ValueError) as error:
        raise InputError(f"{url} cannot be fetched", found=str(error)) from error
    if len(content) > FETCH_BYTES:
        raise InputError(f"{url} is too large", expected=f"at most {FETCH_BYTES >> 20} MB")
    folder = tempfile.TemporaryDirectory(prefix="headwater-")
    atexit.register(folder.cleanup)
    place = Path(folder.name) / f"{_cleaned(Path(unquote(parts.path)).name)}.jsonl"
    place.write_bytes(content)
    return place


def _cleaned(name: str) -> str:
    """A set's name from an address: one that a file can have, and that an address can hold."""
    name = "".join("-" if one == "\\" or not one.isprintable() else one for one in name)
    name = name.removesuffix(".jsonl").encode()[:NAME_BYTES].decode("utf-8", "ignore").strip()
    return name if name.strip(".") else "queries"


def _listen(host: str, port: int | None) -> socket:
    """A listening socket; the next free port where none was asked for.

    Raises:
        InputError: when the address cannot be had.
    """
    import errno
    import socket

    wanted = [port] if port is not None else range(PORT, PORT + TRIED)
    why: OSError | None = None
    for number in wanted:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, number))
            made.listen(128)
            return made
        except (OSError, OverflowError) as error:
            made.close()
            why = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
            if why.errno != errno.EADDRINUSE:
                break
    raise InputError(
        f"The server cannot listen on {host}, port {port if port is not None else PORT}",
        found=why.strerror if why is not None else None,
        do="choose another with --port or --host",
    )


def _run(workbench: Workbench, listening: socket, given: dict[str, Any]) -> None:
    """Serve until it is stopped.

    The address is told first: whoever comes before the server is imported is let wait by the
    socket, which listens.
    """
    import secrets

    from headwater.engine.built import built

    token = given["token"] or secrets.token_urlsafe(24)
    host, port = given["host"], listening.getsockname()[1]
    place = (
        f"http://{'127.0.0.1' if host in EVERYWHERE else _bracketed(host)}:{port}/?token={token}"
    )
    warn(f"Headwater's workbench is at\n\n    {place}\n")
    warn("Keep the address to yourself: it holds the token. Ctrl-C stops the server.")
    try:
        built("app")
    except ResourceError:
        warn("The app is not built, so only the API answers. Build it with: make web")
    else:
        if not given["no_open"]:
            _open(place)
    _serve(workbench, listening, given, token)


def _serve(workbench: Workbench, listening: socket, given: dict[str, Any], token: str) -> None:
    import uvicorn

    from headwater.server import described
    from headwater.server.app import create_app
    from headwater.server.security import LOOPBACK, Settings

    host, port = given["host"], listening.getsockname()[1]
    known = host in EVERYWHERE or _bracketed(host) in LOOPBACK
    own = () if known else (f"{_bracketed(host)}:{port}",)
    names = (*(given["allow_host"] or ()), *own)
    settings = Settings(token, port, names, given["prefix"])
    described.session(workbench, settings.upload_bytes)  # so that the first screen is there at once
    config = uvicorn.Config(
        create_app(workbench, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    # An answer is hundreds of short calls that let go of the interpreter, and each waits so long to
    # have it back while another answer computes.
    sys.setswitchinterval(SWITCH)
    uvicorn.Server(config).run(sockets=[listening])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _open(place: str) -> None:
    """Open a browser, where there is one with windows.

    By a file that only its owner can read: what a program is started with, all users can see. It
    goes with the process.
    """
    import os
    import tempfile
    import webbrowser

    windows = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not (windows and sys.stderr.isatty()):
        return
    folder = tempfile.TemporaryDirectory(prefix="headwater-")
    atexit.register(folder.cleanup)
    page = Path(folder.name) / "open.html"
    page.write_text(
        f'<!doctype html><meta http-equiv="refresh" content="0;url={place}">',
        encoding="utf-8",
    )
    webbrowser.open(page.as_uri())
