"""The manifest: everything an index is, in one JSON file that is written whole.

It is written twice: when the calibration is frozen (`complete` false, so that a build can go on)
and when every shard is there, with their sizes and checksums.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from headwater.engine.errors import DamageError, InputError, MismatchError
from headwater.engine.files import read_json, write_json
from headwater.tasks.task import same_fingerprint

FORMAT = 1
NAME = "manifest.json"
_DIGEST = re.compile("[0-9a-f]{32}(-[0-9a-f]{32})?")
SETS = "feature_sets"  # folder of the further feature sets of an index

# What every manifest holds, and its type; a shard's name is a number, so no path leads anywhere.
FIELDS: dict[str, type] = {
    "task": dict,
    "source": dict,
    "features": dict,
    "parameters": list,
    "layout": list,
    "corpus": dict,
    "calibration": dict,
    "budget": int,
    "shard_rows": int,
    "shards": list,
    "complete": bool,
}
SHARD_NAME = re.compile(r"[0-9]{5,9}")

Manifest = dict[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index folder.

    Raises:
        InputError: when there is no index. MismatchError: when it is of a newer format.
        DamageError: when it is no manifest, or names files outside its folder.
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
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int:
        raise _damaged(path, "a number 'format'", "none")
    if manifest["format"] > FORMAT:
        raise MismatchError(
            f"The index at {folder} is of a newer format",
            expected=f"format {FORMAT} or older",
            found=f"format {manifest['format']}",
            do="update headwater",
        )
    for name, kind in FIELDS.items():
        if type(manifest.get(name)) is not kind:
            found = "none" if name not in manifest else type(manifest[name]).__name__
            raise _damaged(path, f"a field '{name}' ({kind.__name__})", found)
    _check_shards(path, manifest["corpus"].get("shards"), "checksum", "documents", "rows")
    _check_shards(path, manifest["shards"], "checksum", "bytes", "rows")
    return manifest


def _check_shards(path: Path, shards: Any, *fields: str) -> None:
    """Raise DamageError unless each shard's name is a number and its fields are there."""
    if not isinstance(shards, list):
        raise _damaged(path, "a list of shards", type(shards).__name__)
    for shard in cast("list[Any]", shards):
        name = shard.get("name") if isinstance(shard, dict) else None
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
            raise _damaged(path, "shards named by numbers, inside the index's folder", repr(name))
        missing = [field for field in fields if field not in shard]
        if missing:
            raise _damaged(path, f"a field '{missing[0]}' of shard {name}", "none")


def _damaged(path: Path, expected: str, found: str) -> DamageError:
    return DamageError(
        f"{path} is not a manifest of headwater's",
        expected=expected,
        found=found,
        do="restore it, or build into a new folder",
    )


def corpus_folder(folder: Path) -> Path:
    """Where the examples of an index are; those of a feature set are of the index it lies in."""
    whole = folder.parent.parent
    is_set = folder.parent.name == SETS and (whole / NAME).exists()
    return (whole if is_set else folder) / "corpus"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest in one step."""
    write_json(folder / NAME, manifest)


def require_same(found: dict[str, Any], asked: dict[str, Any], what: str) -> None:
    """Raise MismatchError naming the first field in which two descriptions differ."""
    for field in sorted({*found, *asked}):
        mine, yours = found.get(field), asked.get(field)
        if not (same_fingerprint(mine, yours) if field == "model" else mine == yours):
            raise MismatchError(
                f"Not the index's own {what}: '{field}' differs",
                expected=_told(found.get(field), asked.get(field)),
                found=_told(asked.get(field), found.get(field)),
                do="give what the index was built with, or build into another folder",
            )


def _told(value: Any, other: Any) -> Any:
    """A value in words: a digest says no more than that there is something."""
    if value is None:
        return "none"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return "one" if other is None else f"another one ({value[:8]})"
    return value
