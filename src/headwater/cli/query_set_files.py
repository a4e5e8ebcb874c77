"""The query sets that `headwater serve` shows: files, and copies of what lies elsewhere.

What lies elsewhere is fetched once, now, and because the user named it. The copies go with the
server.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from headwater.engine.errors import InputError
from headwater.server.named import named

FETCH_SECONDS, FETCH_BYTES = 30, 256 << 20
NAME_BYTES = 200  # of a file; systems take 255


def query_set_files(
    files: list[str], urls: list[str], leaving: contextlib.ExitStack
) -> dict[str, Path]:
    """The files by their names; what lies elsewhere is fetched now, and only now."""
    places = [Path(one) for one in files]
    for place in places:
        if not place.is_file():
            raise InputError(f"There is no file {place}", expected="queries in JSON Lines")
    if urls:
        folder = Path(leaving.enter_context(temporary()))
        places += [_fetched(url, folder / str(number)) for number, url in enumerate(urls)]
    return {name.removesuffix(".jsonl"): place for name, place in named(places).items()}


def _fetched(url: str, folder: Path) -> Path:
    """A copy of what lies at an address, in a folder of its own."""
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.parse import unquote, urlsplit
    from urllib.request import urlopen

    try:
        parts = urlsplit(url)
    except ValueError as error:  # of brackets that are none of an address
        raise InputError("The address is not usable", found=f"{url}: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise InputError("The address is not usable", expected="http:// or https://", found=url)
    try:
        with urlopen(url, timeout=FETCH_SECONDS) as answer:
            content = answer.read(FETCH_BYTES + 1)
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise InputError(f"{url} cannot be fetched", found=str(error)) from error
    if len(content) > FETCH_BYTES:
        raise InputError(f"{url} is too large", expected=f"at most {FETCH_BYTES >> 20} MB")
    place = folder / f"{_cleaned(Path(unquote(parts.path)).name)}.jsonl"
    folder.mkdir()
    place.write_bytes(content)
    return place


def _cleaned(name: str) -> str:
    """A set's name from an address: one that a file can have, and that an address can hold."""
    name = "".join("-" if one == "\\" or not one.isprintable() else one for one in name)
    name = name.removesuffix(".jsonl").encode()[:NAME_BYTES].decode("utf-8", "ignore").strip()
    return name if name.strip(".") else "queries"


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder that only its owner can read."""
    return tempfile.TemporaryDirectory(prefix="headwater-")
