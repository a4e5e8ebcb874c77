"""`headwater serve`: the workbench in a browser, on this machine and for its owner alone."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.output import warn
from headwater.cli.query_set_files import query_set_files, temporary
from headwater.engine.errors import InputError, ResourceError
from headwater.server.named import named

if TYPE_CHECKING:
    from collections.abc import Generator
    from socket import socket

    from headwater.server.workbench import Workbench

PORT = 8613
TRIED = 100  # ports, from that one on
NEEDED = ("fastapi", "uvicorn")
EVERYWHERE = ("0.0.0.0", "::")
SWITCH = 0.0005  # seconds, for Python's 0.005
INTERRUPTED = 130  # what a shell says of Ctrl-C
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
    # Left to itself, this signal ends Python without what is left to do at its exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as leaving:
        leaving.enter_context(_by_force())
        workbench = _workbench(given, leaving)
        listening = leaving.enter_context(_listen(host, port))
        _run(workbench, listening, given, leaving)


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


@contextlib.contextmanager
def _by_force() -> Generator[None]:
    """Ends the process, and not Python alone, where a lane is still at a step of its work.

    Before Python 3.14 a thread that comes back from native code into an ended Python aborts the
    process, with a message of its own and a core dump.
    """
    from headwater.server.jobs import lanes_alive

    status: int | str | None = 0
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if not lanes_alive():
            raise
        status = stop.code if isinstance(stop, SystemExit) else INTERRUPTED
    if lanes_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


def _workbench(given: dict[str, Any], leaving: contextlib.ExitStack) -> Workbench:
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
    queries = query_set_files(given["query_sets"] or [], given["query_set_url"] or [], leaving)
    found = named(boards)
    return Workbench(given["indexes"], opening, query_sets=queries, boards=found)


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


def _run(
    workbench: Workbench, listening: socket, given: dict[str, Any], leaving: contextlib.ExitStack
) -> None:
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
            _open(place, leaving)
    _serve(workbench, listening, given, token)


def _serve(workbench: Workbench, listening: socket, given: dict[str, Any], token: str) -> None:
    import uvicorn

    from headwater.server import described
    from headwater.server.admission import LOOPBACK, Settings
    from headwater.server.app import create_app

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


def _open(place: str, leaving: contextlib.ExitStack) -> None:
    """Open a browser, where there is one with windows.

    By a file that only its owner can read: what a program is started with, all users can see.
    """
    import webbrowser

    windows = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not (windows and sys.stderr.isatty()):
        return
    page = Path(leaving.enter_context(temporary())) / "open.html"
    page.write_text(
        f'<!doctype html><meta http-equiv="refresh" content="0;url={place}">',
        encoding="utf-8",
    )
    webbrowser.open(page.as_uri())
