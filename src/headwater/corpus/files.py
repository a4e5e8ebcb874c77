"""From what a person names (file, list, folder, glob, URL) to a list of files in a fixed order.

Local paths and fsspec URLs give the same `File`, which knows its format by its suffixes. Everything
that can be known about a file without reading it through is checked here: that it exists, that it
opens, that its format is one we read.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMATS = {
    ".jsonl": "json",
    ".jsonlines": "json",
    ".ndjson": "json",
    ".json": "json",
    ".jsonl.gz": "json",
    ".jsonl.zst": "json",
    ".ndjson.gz": "json",
    ".ndjson.zst": "json",
    ".json.gz": "json",
    ".json.zst": "json",
    ".txt": "text",
    ".txt.gz": "text",
    ".txt.zst": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_READABLE = ".jsonl, .json, .ndjson and .txt (also .gz, .zst), .parquet, .arrow"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a corpus: `system` is None for a local path, else an fsspec file system."""

    name: str
    path: str
    system: Any
    size: int | None
    mtime: float | None

    @property
    def format(self) -> str | None:
        """One of "json", "text", "parquet", "arrow"; None where no suffix says."""
        return _format(self.path)

    @property
    def compression(self) -> str | None:
        """Either "gz" or "zst", or None."""
        suffix = PurePosixPath(self.path).suffix.lower()[1:]
        return suffix if suffix in ("gz", "zst") else None

    def open(self) -> BinaryIO:
        """The bytes as stored; raises InputError if they cannot be had."""
        try:
            if self.system is None:
                return open(self.path, "rb")
            return cast("BinaryIO", self.system.open(self.path, "rb"))
        except FileNotFoundError:
            raise _missing(self.name) from None
        except (OSError, KeyError) as error:  # zip archives raise KeyError
            raise InputError(f"{self.name} cannot be read", found=_reason(error)) from error

    def describe(self) -> dict[str, Any]:
        """Name, size in bytes and mtime in seconds (None where the file system has none)."""
        return {"name": self.name, "size": self.size, "mtime": self.mtime}


def find_files(source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[File]:
    """The files that `source` names: a list keeps its order, folders and globs are sorted.

    Raises:
        InputError: nothing is there, it cannot be read, or a named file has an unknown format.
    """
    named: list[object]
    named = [source] if isinstance(source, str | os.PathLike) else list(source)
    files: list[File] = []
    for one in named:
        if not isinstance(one, str | os.PathLike):
            raise InputError("a source is not a path", expected="a path or URL", found=repr(one))
        text = str(os.fspath(one))
        files.extend(_remote(text) if "://" in text else _local(text))
    if not files:
        raise InputError("no source was given", expected="a path or URL", found="an empty list")
    for file in files:
        if file.format is None:
            raise InputError(
                f"{file.name} is of a format that is not read", expected=_READABLE, found=file.name
            )
        if file.system is None:
            file.open().close()
    return files


def _format(path: str) -> str | None:
    name = PurePosixPath(path).name.lower()
    suffixes = PurePosixPath(name).suffixes
    return FORMATS.get("".join(suffixes[-2:])) or FORMATS.get("".join(suffixes[-1:]))


def _local(text: str) -> list[File]:
    root = Path(text).expanduser()
    if root.is_dir():
        paths = [path for path in root.rglob("*") if _wanted(path.relative_to(root))]
        return _chosen(text, [_local_file(path) for path in paths if path.is_file()])
    # A name that exists is taken literally, whatever brackets it has.
    if not root.exists() and glob.has_magic(text):
        matches = (Path(match) for match in glob.glob(str(root), recursive=True))
        return _chosen(text, [_local_file(path) for path in matches if path.is_file()])
    if not root.exists():
        raise _missing(text)
    return [_local_file(root)]


def _wanted(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)


def _local_file(path: Path) -> File:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read", found=_reason(error)) from error
    return File(path.as_posix(), str(path), None, status.st_size, status.st_mtime)


def _remote(url: str) -> list[File]:
    import fsspec  # late: it is slow to import

    try:
        system, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
        if glob.has_magic(path) and not system.exists(path):
            paths = [
                found for found in cast("list[str]", system.glob(path)) if system.isfile(found)
            ]
        elif system.isdir(path):
            below = [path for path in cast("list[str]", system.find(path))]
            paths = [found for found in below if _wanted(Path(found[len(path) :]))]
        else:
            return [_remote_file(url, system, path)]
        return _chosen(url, [_remote_file(url, system, found) for found in paths])
    except FileNotFoundError:
        raise _missing(url) from None
    except ImportError as error:
        raise InputError(
            f"{url} needs a package that is not installed", found=_reason(error)
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{url} cannot be read", found=_reason(error)) from error


def _remote_file(url: str, system: Any, path: str) -> File:
    info = cast("dict[str, Any]", system.info(path))
    mtime = info.get("mtime")
    # In a chain (zip://a.jsonl::s3://b.zip) the file system's own name would hide the archive.
    inner, chain, outer = url.partition("::")
    name = (
        f"{inner.partition('://')[0]}://{path}::{outer}" if chain else system.unstrip_protocol(path)
    )
    known = float(mtime) if isinstance(mtime, int | float) else None
    return File(str(name), path, system, info.get("size"), known)


def _chosen(text: str, files: list[File]) -> list[File]:
    chosen = sorted((file for file in files if file.format), key=lambda file: file.name)
    if not chosen:
        raise InputError(
            f"no files to read in {text}",
            expected=_READABLE,
            found=f"{len(files)} other files" if files else "no files",
        )
    return chosen


def _missing(name: str) -> InputError:
    return InputError(f"{name} does not exist", expected="a file, a folder, a glob or a URL")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
