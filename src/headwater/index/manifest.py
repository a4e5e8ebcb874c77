"""The manifest: everything an index is, in one JSON file that is written whole.

It is written twice: when the calibration is frozen (`complete` false, so that a build can go on)
and when every shard is there, with their sizes and checksums.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headwater.engine.errors import DamageError, InputError, MismatchError
from headwater.engine.files import read_json, write_json

FORMAT = 1
NAME = "manifest.json"

Manifest = dict[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index folder.

    Raises:
        InputError: when there is no index. MismatchError: when it is of a newer format.
    """
    path = folder / NAME
    if not path.exists():
        raise InputError(
            f"There is no index at {folder}",
            expected=f"a folder with {NAME}",
            found="another folder" if folder.is_dir() else "nothing",
            do="build one with: headwater index MODEL CORPUS OUT",
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise DamageError(f"{path} is not a manifest", expected="a field 'format'")
    if manifest["format"] > FORMAT:
        raise MismatchError(
            f"The index at {folder} is of a newer format",
            expected=f"format {FORMAT} or older",
            found=f"format {manifest['format']}",
            do="update headwater",
        )
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest in one step."""
    write_json(folder / NAME, manifest)


def require_same(found: dict[str, Any], asked: dict[str, Any], what: str) -> None:
    """Raise MismatchError naming the first field in which two descriptions differ."""
    for field in sorted({*found, *asked}):
        if found.get(field) != asked.get(field):
            raise MismatchError(
                f"The {what} differs from the index's in '{field}'",
                expected=found.get(field),
                found=asked.get(field),
                do="give what the index was built with, or build into another folder",
            )
