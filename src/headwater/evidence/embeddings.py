"""Vectors of documents on disk: made part by part, resumed where it stopped, scanned exactly.

A part is the vectors of 2,048 documents, of unit length, with the lengths they had; its mark is
written last. A build that was stopped, or one of a corpus that has grown, takes marked parts over.
A document may have several vectors (windows of a long text): it counts with its best one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headwater.engine.errors import DamageError, InputError
from headwater.engine.files import write_atomic
from headwater.engine.marks import read_mark, write_mark
from headwater.engine.progress import Progress

if TYPE_CHECKING:
    import torch

    from headwater.index.store import Store

PART = 2048  # documents of a file
GROUP = 256  # documents whose vectors are made at once
ROWS = 1024  # vectors multiplied at a time: they stay in the cache
STORAGES = ("float16", "float32")

Array = np.ndarray[Any, Any]
Make = Callable[[range], tuple[Array, Array]]


def build(store: Store, make: Make, storage: str, label: str, *, also: Sequence[str] = ()) -> None:
    """Make the vectors of all documents; for who holds the store.

    Args:
        store: being built.
        make: from positions to float32 vectors [rows, d] and the position each belongs to, int
            [rows], ascending; at least one for each document.
        storage: "float16" or "float32". label: of the progress.
        also: names of other files of the store, already written.
    """
    count = len(store.index)
    parts: list[dict[str, Any]] = []
    with Progress(label, count, "passages") as progress:
        for number, first in enumerate(range(0, count, PART)):
            name = f"{number:05d}"
            positions = range(first, min(first + PART, count))
            mark = _finished(store.folder, name, len(positions))
            if mark is None:
                vectors, owners = _part(make, positions, progress)
                mark = _write(store.folder, name, vectors, owners - first, storage, len(positions))
            else:
                progress.advance(len(positions))
            parts.append({"name": name, "first": first, **mark})
    kept = [{key: part[key] for key in ("name", "first", "documents", "rows")} for part in parts]
    extra = {"parts": kept, "dimensions": parts[0]["dimensions"] if parts else 0}
    store.finish([*also, *(f"{part['name']}.safetensors" for part in parts)], extra)


def _part(make: Make, positions: range, progress: Progress) -> tuple[Array, Array]:
    made: list[tuple[Array, Array]] = []
    for first in range(positions.start, positions.stop, GROUP):
        group = range(first, min(first + GROUP, positions.stop))
        made.append(make(group))
        progress.advance(len(group))
    return np.concatenate([rows for rows, _ in made]), np.concatenate([own for _, own in made])


def _finished(folder: Path, name: str, documents: int) -> dict[str, Any] | None:
    """The mark of a part that is there, undamaged; None when it has to be made.

    The last part of a corpus that has grown since held fewer documents.
    """
    found = read_mark(folder / f"{name}.json", [f"{name}.safetensors"])
    return found if found is not None and found.get("documents") == documents else None


def _write(
    folder: Path, name: str, rows: Array, owners: Array, storage: str, documents: int
) -> dict[str, Any]:
    from safetensors.numpy import save_file

    norm = np.linalg.norm(rows.astype(np.float64), axis=1)
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and scores NaN
        unit = rows / np.maximum(norm, 1e-30)[:, None]
    tensors = {
        "vectors": np.ascontiguousarray(unit, dtype=storage),
        "norm": norm.astype(np.float32),
        "document": owners.astype(np.int32),
    }
    file = f"{name}.safetensors"
    write_atomic(folder / file, lambda temporary: save_file(tensors, temporary))
    mark = {"documents": documents, "rows": len(rows), "dimensions": int(rows.shape[1])}
    write_mark(folder / f"{name}.json", mark, [file])
    return mark


class Embeddings:
    """A finished store of vectors, as memory maps.

    Args:
        store: as `build` made it.

    Raises:
        DamageError: when a file is missing, or not what was written.
    """

    def __init__(self, store: Store) -> None:
        record: dict[str, Any] = store.record() or {}
        self.dimensions = int(record["dimensions"])
        self._parts = [self._map(store, part) for part in record["parts"]]

    def _map(self, store: Store, part: dict[str, Any]) -> tuple[int, int, dict[str, torch.Tensor]]:
        from headwater.index.mapped import map_tensors

        path = store.path(f"{part['name']}.safetensors")
        found = map_tensors(path)
        rows, documents = int(part["rows"]), int(part["documents"])
        shape = tuple(found["vectors"].shape) if "vectors" in found else None
        owners = found["document"].numpy() if "document" in found else np.zeros(0, np.int32)
        steps = np.diff(owners, prepend=-1, append=documents)
        if (
            shape != (rows, self.dimensions)
            or len(owners) != rows
            or len(found.get("norm", ())) != rows
            or not (steps[0] == steps[-1] == 1 and steps.min() >= 0 and steps.max() <= 1)
        ):
            raise DamageError(
                f"{path} is damaged",
                expected=f"vectors [{rows}, {self.dimensions}] of {documents} documents",
                found=f"vectors {shape} of other documents",
                do=f"remove {store.folder}; it is built again when it is needed",
            )
        return int(part["first"]), documents, found

    def blocks(self, queries: Array) -> Iterator[tuple[int, Array]]:
        """Inner products of unit vectors, float32 [queries, documents], a part at a time.

        Args:
            queries: float32 [queries, d].

        Raises:
            InputError: when they have other dimensions than the documents.
        """
        import torch

        if queries.ndim != 2 or queries.shape[1] != self.dimensions:
            raise InputError(
                "The queries' vectors do not fit those of the documents",
                expected=f"{self.dimensions} dimensions",
                found=list(queries.shape),
            )
        w = torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32)).T
        for first, documents, part in self._parts:
            u = part["vectors"]
            rows = [u[start : start + ROWS].float() @ w for start in range(0, len(u), ROWS)]
            scores = torch.cat(rows).T.numpy()
            if len(u) != documents:
                owners = part["document"].numpy()
                starts = np.flatnonzero(np.diff(owners, prepend=-1))
                scores = np.maximum.reduceat(scores, starts, axis=1)
            yield first, scores

    def vectors(self, positions: range) -> tuple[Array, Array]:
        """The vectors as they were made, float32 [rows, d], and whose they are, int64 [rows]."""
        rows: list[Array] = []
        owners: list[Array] = []
        for first, documents, part in self._parts:
            inside = range(max(first, positions.start), min(first + documents, positions.stop))
            if not inside:
                continue
            mine = part["document"].numpy()
            a, b = np.searchsorted(mine, [inside.start - first, inside.stop - first])
            unit = part["vectors"][a:b].float().numpy()
            rows.append(unit * part["norm"][a:b, None].numpy())
            owners.append(mine[a:b].astype(np.int64) + first)
        return np.concatenate(rows), np.concatenate(owners)

    def groups(self) -> Iterator[Array]:
        """All vectors as they were made, float32 [rows, d], a group of documents at a time."""
        for first, documents, _ in self._parts:
            for start in range(first, first + documents, GROUP):
                yield self.vectors(range(start, min(start + GROUP, first + documents)))[0]


def check_storage(storage: str) -> str:
    """`storage`, if it is one; raises InputError otherwise."""
    if storage not in STORAGES:
        raise InputError("Unknown storage", expected=" or ".join(STORAGES), found=storage)
    return storage


def owners_of(positions: range, counts: list[int]) -> Array:
    """The position each vector belongs to, int64 [rows], from how many each document has."""
    return np.repeat(np.arange(positions.start, positions.stop), cast("Any", counts))
