"""Marks beside finished files: their sizes and checksums, so that what was damaged since is seen.

A build that was stopped takes over only what its marks vouch for byte by byte; else damage would be
recorded as if it had been written so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.engine.errors import HeadwaterError
from headwater.engine.files import checksum, inside, read_json, write_json

Sums = dict[str, dict[str, Any]]  # by name below a folder: bytes and checksum


def sums(folder: Path, names: Sequence[str]) -> Sums:
    """Sizes and checksums of files."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "checksum": checksum(folder / name)}
        for name in sorted(names)
    }


def changed(folder: Path, recorded: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of files that are missing, or not the bytes that were recorded."""
    return [
        name
        for name, held in recorded.items()
        if not inside(folder, name).is_file()
        or (folder / name).stat().st_size != held["bytes"]
        or checksum(folder / name) != held["checksum"]
    ]


def write_mark(path: Path, values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Say at `path` that these files beside it are finished.

    Args:
        values: what else is to be known of them, JSON-serialisable.
    """
    write_json(path, {**values, "files": sums(path.parent, names)})


def read_mark(path: Path, names: Sequence[str]) -> dict[str, Any] | None:
    """What `write_mark` said; None where it said nothing of these files, or they are others now."""
    try:
        found: Any = read_json(path) if path.exists() else None
        recorded = {name: found["files"][name] for name in names}
        return None if changed(path.parent, recorded) else found
    except (HeadwaterError, KeyError, TypeError):
        return None
