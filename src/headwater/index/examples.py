"""The examples of an index, read from its corpus shards; the last ones asked for stay in memory.

Showing an example reads its row group, not its shard. Files are opened once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.files import inside
from headwater.engine.kept import Kept
from headwater.index.corpus_shards import ShardFile, documents_of, read_shard

if TYPE_CHECKING:
    from headwater.corpus.document import Document

KEPT = 2048  # documents in memory
GROUP_BYTES = 32 << 20  # of row groups in memory
SHOWN = ("id", "content", "arrays", "metadata")

Array = np.ndarray[Any, Any]


class Examples:
    """Documents by position.

    Args:
        folder: with the corpus shards. shards: their records in the manifest.
    """

    def __init__(self, folder: Path, shards: Sequence[dict[str, Any]]) -> None:
        self.folder, self.shards = folder, shards
        counts = [shard["documents"] for shard in shards]
        self.starts: Array = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._kept: dict[int, Document] = {}
        self._files: dict[int, ShardFile] = {}
        self._groups = Kept[Any](GROUP_BYTES, lambda table: table.nbytes)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of all documents, in order."""
        return [row["id"] for row in self._rows(["id"])]

    @cached_property
    def id_order(self) -> Array:
        """Place of each document's id among all ids, int64: ties are broken by it."""
        # Not by numpy: every id of its array would be as wide as the longest one.
        order = sorted(range(len(self.ids)), key=self.ids.__getitem__)
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        return places

    def _path(self, number: int) -> Path:
        return inside(self.folder, f"{self.shards[number]['name']}.parquet")

    def _rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for number in range(len(self.shards)):
            yield from read_shard(self._path(number), columns)

    def stream(self) -> Iterator[Document]:
        """All documents in order, a shard in memory at a time."""
        for number in range(len(self.shards)):
            yield from documents_of(read_shard(self._path(number), SHOWN))

    def metadata(self, column: str) -> list[Any]:
        """One metadata value for each document (None where it has none).

        Raises:
            InputError: when no document has such a column; names those that are there.
        """
        values: list[Any] = []
        seen: set[str] = set()
        for row in self._rows(["metadata"]):
            record = json.loads(row["metadata"])
            seen |= record.keys()
            values.append(record.get(column))
        if column not in seen:
            raise InputError(
                f"The examples have no metadata column '{column}'",
                expected=", ".join(sorted(seen)) or "metadata",
                found=column,
            )
        return values

    def documents(self, positions: Sequence[int]) -> list[Document]:
        """The documents at these positions."""
        asked = [int(position) for position in positions]
        missing = [position for position in dict.fromkeys(asked) if position not in self._kept]
        if missing:
            if len(self._kept) + len(missing) > KEPT:
                self._kept.clear()
                missing = list(dict.fromkeys(asked))
            made = documents_of(self.rows(missing, SHOWN))
            found = dict(zip(missing, made, strict=True))
            if len(found) > KEPT:  # more than is kept: only passed on
                return [found[position] for position in asked]
            self._kept |= found
        return [self._kept[position] for position in asked]

    def rows(self, positions: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Stored rows at these positions, as dicts."""
        asked = np.asarray(positions, dtype=int)
        numbers = np.searchsorted(self.starts, asked, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        for number in sorted(set(numbers.tolist())):
            mine = asked[numbers == number]
            if number not in self._files:
                self._files[number] = ShardFile(self._path(number), self._groups)
            rows = self._files[number].rows((mine - self.starts[number]).tolist(), columns)
            found |= dict(zip(mine.tolist(), rows, strict=True))
        return [found[position] for position in asked.tolist()]
