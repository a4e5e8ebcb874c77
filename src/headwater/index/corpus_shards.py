"""The corpus inside the index: documents as they were given, cut into chunks, in Parquet shards.

Ingesting comes first and is cheap: every bad line, duplicate and unknown token shows before any
gradient is paid for, the number of tokens is known, and the index explains itself ever after. A
document's chunks never lie in two shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.document import Document, content_hash
from headwater.corpus.duplicates import DuplicateCounter
from headwater.engine.errors import DamageError, HeadwaterError, InputError
from headwater.engine.files import checksum, inside, write_atomic
from headwater.engine.progress import Progress
from headwater.tasks.task import Chunk

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.engine.kept import Kept
    from headwater.tasks.task import Task
    from headwater.tasks.texts import Texts

TOGETHER = 256  # documents tokenised at once
GROUP = 64  # documents of a row group: what is read to show one of them
FEW = 8  # rows of a group that are taken one by one, which is faster
LISTED = 1000  # skipped examples named in the summary; all are counted

Held = tuple[Document, list[Chunk]]


class Ingest:
    """Writes corpus shards; `summary` is what the manifest records of them."""

    def __init__(self, folder: Path, task: Task | Texts, shard_rows: int, skip_bad: bool) -> None:
        self.folder, self.task = folder, task
        self.shard_rows, self.skip_bad = shard_rows, skip_bad
        self.shards: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.skipped_count = 0
        self._digest = hashlib.sha256()
        self._duplicates = DuplicateCounter()
        self._held: list[Held] = []
        self._rows = 0
        self.unigrams: np.ndarray[Any, Any] | None = None

    def run(self, corpus: Corpus, first: int = 0, taken: set[str] | None = None) -> dict[str, Any]:
        """Ingest `corpus` into shards numbered from `first`; `taken` are ids already present.

        Raises:
            InputError: for what cannot be used; then none of its shards is left.
        """
        try:
            return self._run(corpus, first, taken)
        except HeadwaterError:
            for shard in self.shards:
                (self.folder / f"{shard['name']}.parquet").unlink(missing_ok=True)
            raise

    def _run(self, corpus: Corpus, first: int, taken: set[str] | None) -> dict[str, Any]:
        vocabulary = getattr(self.task, "vocabulary", None)
        if vocabulary is not None:
            self.unigrams = np.zeros(vocabulary, dtype=np.int64)
        with Progress("reading the corpus", None, "documents") as progress:
            for group in _groups(corpus.documents(), TOGETHER):
                for document in group:  # whether or not it can be used: see `fingerprint`
                    self._digest.update(_digested(document))
                for document, chunks in self._chunked(group):
                    self._take(document, chunks, first, taken)
                progress.advance(len(group))
        self._close(first)
        if not self.shards:
            raise InputError("The corpus holds no example", expected="at least one document")
        for row in corpus.bad:
            self._skip(f"{row.file}:{row.row}", row.reason)
        return self._summary(corpus)

    def _chunked(self, group: list[Document]) -> list[Held]:
        try:
            return list(zip(group, self.task.chunk_many(group), strict=True))
        except InputError:
            if not self.skip_bad:
                raise
        kept: list[Held] = []
        for document in group:
            try:
                kept.append((document, self.task.chunks(document)))
            except InputError as error:
                self._skip(document.id, str(error))
        return kept

    def _take(
        self, document: Document, chunks: list[Chunk], first: int, taken: set[str] | None
    ) -> None:
        if taken is not None and document.id in taken:
            raise InputError(
                f"Document {document.id} is already in the index",
                do="give appended examples ids of their own",
            )
        if self._held and self._rows + len(chunks) > self.shard_rows:
            self._close(first)
        self._held.append((document, chunks))
        self._rows += len(chunks)
        self._duplicates.add(document)
        if self.unigrams is not None:
            for chunk in chunks:
                np.add.at(self.unigrams, chunk.content["input_ids"], 1)

    def _skip(self, name: str, reason: str) -> None:
        self.skipped_count += 1
        if len(self.skipped) < LISTED:
            self.skipped.append({"example": name, "reason": reason})

    def _close(self, first: int) -> None:
        if not self._held:
            return
        path = self.folder / f"{first + len(self.shards):05d}.parquet"
        held = self._held
        write_atomic(path, lambda temporary: write_parquet(temporary, held))
        self.shards.append(
            {
                "name": path.stem,
                "documents": len(held),
                "rows": self._rows,
                "tokens": sum(chunk.length for _, chunks in held for chunk in chunks),
                "bytes": path.stat().st_size,
                "checksum": checksum(path),
            }
        )
        self._held, self._rows = [], 0

    def _summary(self, corpus: Corpus) -> dict[str, Any]:
        return {
            "described": corpus.describe(),
            "fingerprint": self._digest.hexdigest()[:32],
            "documents": sum(shard["documents"] for shard in self.shards),
            "rows": sum(shard["rows"] for shard in self.shards),
            "tokens": sum(shard["tokens"] for shard in self.shards),
            "duplicates": self._duplicates.report(),
            "skipped": self.skipped,
            "skipped_count": self.skipped_count,
            "shards": self.shards,
        }


def fingerprint(corpus: Corpus) -> str:
    """What `Ingest` would record of this corpus, without cutting it into chunks."""
    digest = hashlib.sha256()
    for document in corpus.documents():
        digest.update(_digested(document))
    return digest.hexdigest()[:32]


def _digested(document: Document) -> bytes:
    return f"{document.id}|{content_hash(document.content)}\n".encode()


def count_tokens(folder: Path, shards: Sequence[dict[str, Any]], size: int) -> np.ndarray[Any, Any]:
    """How often each token stands in the chunks of these shards, int64 [size]."""
    counts = np.zeros(size, dtype=np.int64)
    for shard in shards:
        for row in read_shard(inside(folder, f"{shard['name']}.parquet"), ["chunks"]):
            for chunk in row["chunks"]:
                np.add.at(counts, np.asarray(chunk["input_ids"]), 1)
    return counts


def _groups(documents: Iterator[Document], size: int) -> Iterator[list[Document]]:
    group: list[Document] = []
    for document in documents:
        group.append(document)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def write_parquet(path: Path, held: Sequence[Held]) -> None:
    """Write documents with their chunks as one corpus shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save

    chunk_type = pa.list_(
        pa.struct(
            [
                ("offset", pa.int32()),
                ("length", pa.int32()),
                ("input_ids", pa.list_(pa.int32())),
                ("labels", pa.list_(pa.int32())),
            ]
        )
    )
    names = ("id", "content", "arrays", "metadata", "chunks")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for document, chunks in held:
        arrays = {k: np.asarray(v, order="C") for k, v in document.content.items() if _is_array(v)}
        plain = {k: v for k, v in document.content.items() if k not in arrays}
        columns["id"].append(document.id)
        columns["content"].append(json.dumps(plain, ensure_ascii=False, default=_plain))
        columns["arrays"].append(save(arrays) if arrays else None)
        columns["metadata"].append(
            json.dumps(document.metadata, ensure_ascii=False, default=_plain, sort_keys=True)
        )
        columns["chunks"].append([_chunk_row(chunk) for chunk in chunks])
    table = pa.table(
        {
            "id": pa.array(columns["id"], pa.string()),
            "content": pa.array(columns["content"], pa.string()),
            "arrays": pa.array(columns["arrays"], pa.binary()),
            "metadata": pa.array(columns["metadata"], pa.string()),
            "chunks": pa.array(columns["chunks"], chunk_type),
        }
    )
    pq.write_table(table, path, compression="zstd", row_group_size=GROUP)


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc"


def _plain(value: Any) -> Any:
    item = getattr(value, "tolist", None)
    return item() if item is not None else str(value)


def _chunk_row(chunk: Chunk) -> dict[str, Any]:
    tokens = "input_ids" in chunk.content
    return {
        "offset": chunk.offset,
        "length": chunk.length,
        "input_ids": chunk.content["input_ids"] if tokens else None,
        "labels": chunk.content["labels"] if tokens else None,
    }


def read_shard(
    path: Path, columns: Sequence[str] = ("id", "content", "arrays", "metadata", "chunks")
) -> list[dict[str, Any]]:
    """Rows of a corpus shard as dicts.

    Raises:
        DamageError: when the file is missing or not what was written.
    """
    import pyarrow.parquet as pq

    with _undamaged(path):
        return pq.read_table(path, columns=list(columns)).to_pylist()


class ShardFile:
    """A corpus shard held open, for reading some of its rows again and again.

    Args:
        groups: where what was read of it is kept, row group by row group; those who ask one index
            again and again come back to the same ones. None = nothing is kept.
    """

    def __init__(self, path: Path, groups: Kept[Any] | None = None) -> None:
        import pyarrow.parquet as pq

        self.path = path
        with _undamaged(path):
            self.file = pq.ParquetFile(path, memory_map=True)
        metadata = self.file.metadata
        self.sizes = [metadata.row_group(g).num_rows for g in range(self.file.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self.groups = groups

    def rows(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Rows in the order asked for; only their row groups are read.

        Raises:
            DamageError: when the file is not what was written.
        """
        asked = np.asarray(rows, dtype=int)
        owners = np.searchsorted(self.starts, asked, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        with _undamaged(self.path):
            for group in sorted(set(owners.tolist())):
                mine = asked[owners == group]
                table = self._group(group, columns)
                found |= zip(mine.tolist(), _some(table, mine - self.starts[group]), strict=True)
        return [found[row] for row in asked.tolist()]

    def _group(self, group: int, columns: Sequence[str]) -> Any:
        """Some columns of a row group, as a table."""
        key = f"{self.path} {group} {' '.join(columns)}"
        table = None if self.groups is None else self.groups.get(key)
        if table is None:
            table = self.file.read_row_group(group, columns=list(columns), use_threads=False)
            if self.groups is not None:
                self.groups.put(key, table)
        return table


def _some(table: Any, rows: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """These rows of a table, as dicts."""
    if len(rows) > FEW:
        return table.take(rows).to_pylist()
    columns = list(zip(table.column_names, table.columns, strict=True))
    return [{name: column[row].as_py() for name, column in columns} for row in rows.tolist()]


@contextmanager
def _undamaged(path: Path) -> Generator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamageError(
            f"{path} is damaged or missing",
            found=str(error).splitlines()[0],
            do="run the build again with the same corpus: only what is damaged is made anew",
        ) from error


def documents_of(rows: Sequence[dict[str, Any]]) -> list[Document]:
    """Documents from rows with id, content, arrays and metadata."""
    from safetensors.numpy import load

    made: list[Document] = []
    for row in rows:
        content = json.loads(row["content"])
        if row["arrays"] is not None:
            content |= {k: v[()] if v.ndim == 0 else v for k, v in load(row["arrays"]).items()}
        made.append(Document(row["id"], content, json.loads(row["metadata"])))
    return made


def chunks_of(task: Task, rows: Sequence[dict[str, Any]]) -> list[list[Chunk]]:
    """The chunks stored for each row; of other tasks than language models, made anew."""
    result: list[list[Chunk]] = []
    for row in rows:
        stored = row["chunks"]
        if stored and stored[0]["input_ids"] is not None:
            result.append(
                [
                    Chunk(
                        {
                            "input_ids": np.asarray(c["input_ids"], dtype=np.int32),
                            "labels": np.asarray(c["labels"], dtype=np.int32),
                        },
                        c["offset"],
                        c["length"],
                    )
                    for c in stored
                ]
            )
        else:
            result.append(task.chunks(documents_of([row])[0]))
    return result
