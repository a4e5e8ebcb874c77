"""A kind of evidence on disk, beside the features: built on demand, by the same rules as the index.

`<index>/<kind>/<key>/` holds the files and, written last, `record.json` with what they were made
of (the corpus, the settings) and their checksums. The key is a hash of the settings, so that two
tokenizers or two encoders live side by side. A store whose corpus has grown since is built anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import DamageError, HeadwaterError
from headwater.engine.files import (
    checksum,
    inside,
    locked,
    make_folder,
    read_json,
    sweep,
    write_json,
)

if TYPE_CHECKING:
    from headwater.index.index import Index

RECORD = "record.json"
KINDS = ("verbatim", "lexical", "semantic")
_KEY = re.compile(r"[0-9a-f]{12}")


class Store:
    """The files of one kind of evidence under one choice of settings.

    Args:
        index: whose corpus it is made of.
        kind: "verbatim", "lexical" or "semantic".
        settings: JSON-serialisable; everything that the files depend on besides the corpus.

    Use: `if not store.ready(): with store.building(): write files, store.finish([...], {...})`.
    """

    def __init__(self, index: Index, kind: str, settings: dict[str, Any]) -> None:
        self.index, self.kind, self.settings = index, kind, settings
        text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.folder = index.path / kind / self.key

    @property
    def corpus(self) -> dict[str, Any]:
        """What says that the index's corpus is still the one a store was made of."""
        held = self.index.manifest["corpus"]
        return {
            "fingerprint": held["fingerprint"],
            "documents": held["documents"],
            "shards": [shard["checksum"] for shard in held["shards"]],
        }

    def record(self) -> dict[str, Any] | None:
        """What `finish` wrote; None when it has not, or for another state of the corpus."""
        path = self.folder / RECORD
        if not path.exists():
            return None
        try:
            found = read_json(path)
        except HeadwaterError:  # a damaged record is no record: the store is built again
            return None
        if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
            return None
        if found.get("corpus") != self.corpus or found.get("settings") != self.settings:
            return None
        return found  # pyright: ignore[reportReturnType]

    def ready(self) -> bool:
        """Whether the store is complete, of this corpus, and its files have their sizes."""
        found = self.record()
        if found is None:
            return False
        return all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == held["bytes"]
            for name, held in found["files"].items()
        )

    def path(self, name: str) -> Path:
        """A file of a ready store.

        Raises:
            DamageError: when it is missing or has another size than was written.
        """
        found = self.record()
        path = inside(self.folder, name)
        wanted = None if found is None else found["files"].get(name, {}).get("bytes")
        size = path.stat().st_size if path.is_file() else None
        if wanted is None or size != wanted:
            raise DamageError(
                f"{path} is damaged or missing",
                expected="a file that was never finished" if wanted is None else f"{wanted} bytes",
                found="no file" if size is None else f"{size} bytes",
                do=f"remove {self.folder}; it is built again when it is needed",
            )
        return path

    @contextmanager
    def building(self) -> Generator[Path]:
        """Hold the store's lock and give its folder; what an earlier state left is removed.

        Files that are already finished parts of this same state (shards of a build that was
        stopped) may stay: they are found under `parts()`.
        """
        make_folder(self.folder)
        with locked(self.folder / ".lock", f"The {self.kind} evidence at {self.folder}", wait=True):
            sweep(self.folder)
            state = {"corpus": self.corpus, "settings": self.settings}
            path = self.folder / "state.json"
            same = False
            if path.exists():
                try:
                    same = read_json(path) == state
                except HeadwaterError:
                    same = False
            if not same:
                self._clear()
                write_json(path, state)
            yield self.folder

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name == ".lock":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def finish(self, files: list[str], extra: dict[str, Any]) -> None:
        """Write the record, and so make the store count.

        Args:
            files: names below the folder. extra: what readers need to know, JSON-serialisable.
        """
        made = {
            name: {
                "bytes": (self.folder / name).stat().st_size,
                "checksum": checksum(self.folder / name),
            }
            for name in sorted(files)
        }
        record = {"corpus": self.corpus, "settings": self.settings, "files": made, **extra}
        write_json(self.folder / RECORD, record)


def stores(index_folder: Path) -> Iterator[tuple[str, Path]]:
    """(kind, folder) of every finished store of an index."""
    for kind in KINDS:
        for path in sorted((index_folder / kind).glob(f"*/{RECORD}")):
            if _KEY.fullmatch(path.parent.name):
                yield kind, path.parent


def damaged_stores(index_folder: Path) -> list[str]:
    """Names of evidence files whose bytes are not what was recorded; reads everything."""
    wrong: list[str] = []
    for kind, folder in stores(index_folder):
        try:
            files = read_json(folder / RECORD)["files"]
            wrong += [
                f"{kind}/{folder.name}/{name}"
                for name, held in files.items()
                if not inside(folder, name).is_file()
                or checksum(inside(folder, name)) != held["checksum"]
            ]
        except (HeadwaterError, KeyError, TypeError, AttributeError):
            wrong.append(f"{kind}/{folder.name}/{RECORD}")
    return wrong
