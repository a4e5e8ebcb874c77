"""What is made of a corpus on demand and kept beside the features, by the same rules as the index.

`<index>/<kind>/<key>/` holds the files and, written last, `record.json` with what they were made
of (the corpus, the settings) and their checksums. The key is a hash of the settings, so that two
tokenizers or two encoders live side by side. A store whose corpus has grown since is built anew,
or, where its builder can add to it, goes on from what it holds.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import BusyError, DamageError, HeadwaterError
from headwater.engine.files import inside, locked, make_folder, read_json, sweep, write_json
from headwater.engine.marks import changed, sums

if TYPE_CHECKING:
    from headwater.index.index import Index

RECORD = "record.json"
STATE = "state.json"  # what a build is of, written when it begins
KINDS = ("verbatim", "lexical", "semantic", "curvature", "map")
_KEY = re.compile(r"[0-9a-f]{12}")


class Store:
    """The files of one kind under one choice of settings.

    Args:
        index: whose corpus it is made of.
        kind: one of `KINDS`.
        settings: JSON-serialisable; everything that the files depend on besides the corpus.

    Use: `prepared(store, build)`, where `build` writes files and ends with `store.finish`.
    """

    def __init__(self, index: Index, kind: str, settings: dict[str, Any]) -> None:
        self.index, self.kind, self.settings = index, kind, settings
        self._sizes: dict[str, int] | None = None  # of the finished files, once one was asked for
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
        if self._sizes is None:  # a store may have thousands of files: its record is read once
            files = (self.record() or {"files": {}})["files"]
            self._sizes = {one: int(held["bytes"]) for one, held in files.items()}
        path = inside(self.folder, name)
        wanted = self._sizes.get(name)
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
    def building(self, *, grows: bool = False) -> Generator[Path]:
        """Hold the store's lock and give its folder; what an earlier state left is removed.

        Files that are already finished parts of this same state (shards of a build that was
        stopped) stay.

        Args:
            grows: the builder adds to its files: those made of a beginning of this corpus stay,
                too. Finished ones that are not what was recorded, byte for byte, go: what is
                added would be recorded along with them. A folder's files belong together, and go
                together.
        """
        make_folder(self.folder)
        self._sizes = None
        with locked(self.folder / ".lock", f"The {self.kind} files at {self.folder}", wait=True):
            sweep(self.folder)
            state = {"corpus": self.corpus, "settings": self.settings}
            held = self._state()
            lost = _damaged(self.folder) if grows and (self.folder / RECORD).exists() else []
            if not (self._may_grow(held) if grows else held == state) or RECORD in lost:
                _clear(self.folder)
            elif lost or held != state:
                for name in {Path(name).parts[0] for name in [*lost, RECORD]}:
                    _remove(self.folder / name)
            if held != state or not (self.folder / STATE).exists():
                write_json(self.folder / STATE, state)
            yield self.folder

    def _state(self) -> dict[str, Any]:
        """What the last build in this folder was of; empty when nothing says so."""
        path = self.folder / STATE
        try:
            found: Any = read_json(path) if path.exists() else {}
        except HeadwaterError:
            return {}
        return found if isinstance(found, dict) else {}

    def _may_grow(self, held: dict[str, Any]) -> bool:
        """Whether what is there was made of a beginning of this corpus."""
        before: Any = held.get("corpus")
        shards: Any = before.get("shards") if isinstance(before, dict) else None
        if not isinstance(shards, list) or held.get("settings") != self.settings:
            return False
        return shards == self.corpus["shards"][: len(shards)]

    def finish(self, files: list[str], extra: dict[str, Any]) -> None:
        """Write the record, and so make the store count.

        Args:
            files: names below the folder. extra: what readers need to know, JSON-serialisable.
        """
        made = sums(self.folder, files)
        record = {"corpus": self.corpus, "settings": self.settings, "files": made, **extra}
        write_json(self.folder / RECORD, record)


def prepared(store: Store, build: Callable[[Store], None], *, grows: bool = False) -> Store:
    """The store, built by `build` where it is not ready; `grows` as in `Store.building`."""
    if not store.ready():
        with store.building(grows=grows):
            if not store.ready():  # another process may have built it while this one waited
                build(store)
    return store


def stores(index_folder: Path) -> Iterator[tuple[str, Path]]:
    """(kind, folder) of every finished store of an index."""
    for kind in KINDS:
        for path in sorted((index_folder / kind).glob(f"*/{RECORD}")):
            if _KEY.fullmatch(path.parent.name):
                yield kind, path.parent


def has_current(index: Index, kind: str) -> bool:
    """Whether a finished store of this kind is of the corpus as it is now."""
    now = Store(index, kind, {}).corpus
    for other, folder in stores(index.path):
        with suppress(HeadwaterError, KeyError, TypeError):
            if other == kind and read_json(folder / RECORD)["corpus"] == now:
                return True
    return False


def remove_outdated(index: Index, kind: str) -> None:
    """Remove finished stores that were made of another state of the corpus; nobody opens them."""
    now = Store(index, kind, {}).corpus
    for other, folder in stores(index.path):
        try:
            outdated = other == kind and read_json(folder / RECORD)["corpus"] != now
        except (HeadwaterError, KeyError, TypeError):
            continue  # named by `damaged_stores`
        if outdated:
            with suppress(BusyError), locked(folder / ".lock", str(folder)):
                _clear(folder)


def damaged_stores(index_folder: Path) -> list[str]:
    """Names of files of stores whose bytes are not what was recorded; reads everything."""
    wrong: list[str] = []
    for kind, folder in stores(index_folder):
        wrong += [f"{kind}/{folder.name}/{name}" for name in _damaged(folder)]
    return wrong


def _damaged(folder: Path) -> list[str]:
    """Names of a store's files whose bytes are not what its record says."""
    try:
        return changed(folder, read_json(folder / RECORD)["files"])
    except (HeadwaterError, KeyError, TypeError, AttributeError):
        return [RECORD]


def _clear(folder: Path) -> None:
    """Remove everything but the lock, which is held."""
    for path in folder.iterdir():
        if path.name != ".lock":
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
