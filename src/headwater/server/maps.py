"""A map of an index's examples: two coordinates each, by their gradients or by their meaning.

Computed once and kept in the index folder under `map/`, by the rules of all that is made on demand
(`index/store.py`): a record says what it was made of, and a map of a corpus that has grown since,
or one that is damaged, is made again. First the features are brought to their widest directions by
a randomised SVD (Halko et al. 2011) that reads the index three times and never has it in memory;
then `layout.py` lays them out. An example without features has no place: NaN.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headwater.engine.errors import DamageError, InputError
from headwater.engine.files import write_atomic
from headwater.engine.marks import changed
from headwater.engine.progress import Progress
from headwater.index.store import Store, prepared, remove_outdated
from headwater.server.layout import kept_neighbours, laid_out

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.evidence.embeddings import Embeddings
    from headwater.index.index import Index

OF = ("features", "semantic")
KIND = "map"
FILE = "places.safetensors"
VERSION = 1  # of the way it is made: a map of another is made again
WIDEST = 48  # directions that are kept
MORE = 8  # that a randomised SVD takes besides
SKETCH_BYTES = 1 << 29  # of the directions, in float32
SEED = 0
PART = 2048  # examples at a time
HOW = {
    "features": "unit gradients, {d} widest directions, neighbours kept together",
    "semantic": "sentence embeddings, {d} widest directions, neighbours kept together",
}

Array = np.ndarray[Any, Any]


class Rows(Protocol):
    """The examples as vectors of unit length, which are never all in memory."""

    size: int
    there: Array  # bool [n]: which examples have a vector

    def onto(self, directions: Array) -> Array:
        """Inner products with directions [m, size], float32 [n, m]; 0 where there is no vector."""
        ...

    def summed(self, weights: Array) -> Array:
        """Sums of the vectors with weights [n, m], float32 [m, size]."""
        ...


class Gradients:
    """Stored features, each example's of unit length."""

    def __init__(self, index: Index) -> None:
        from headwater.index.selection import with_features
        from headwater.methods.view import document_norms

        self.index, self.size = index, index.size
        norms = document_norms(index, None, range(len(index.blocks)))
        among = with_features(index)
        self.there = (norms > 0) & (np.ones(len(index), bool) if among is None else among)
        self.scale = np.where(self.there, 1 / np.maximum(norms, 1e-30), 0).astype(np.float32)

    def onto(self, directions: Array) -> Array:
        """By the scan that answers queries."""
        from headwater.methods.grad_dot import GradDot
        from headwater.methods.view import Prepared

        whole = Prepared(None, self.scale, list(range(len(self.index.blocks))), [])
        made = np.zeros((len(self.index), len(directions)), dtype=np.float32)
        for first, block in GradDot().stream_features(self.index, whole, directions):
            made[first : first + block.shape[1]] = block.T
        return np.nan_to_num(made, copy=False)

    def summed(self, weights: Array) -> Array:
        """In stored coordinates, brought back once: their change is linear."""
        import torch

        from headwater.index.encoding import coordinates
        from headwater.methods.view import rows_at_a_time

        index, scaled = self.index, weights * self.scale[:, None]
        total = torch.zeros((weights.shape[1], self.size))
        step = rows_at_a_time(self.size)
        with Progress("widest directions", len(index), "examples") as progress:
            for shard in index.shards():
                for start in range(0, len(shard.u), step):
                    part = slice(start, start + step)
                    scale = None if shard.scale is None else shard.scale[part]
                    z = coordinates(index.blocks, shard.u[part], scale, index.features.storage)
                    owners = shard.document[part].numpy() + shard.first
                    total += torch.from_numpy(scaled[owners]).T @ z
                progress.advance(shard.documents)
        return index.calibration.basis.backward(index.blocks, total).numpy()


class Meanings:
    """Sentence embeddings; an example of several windows has their mean."""

    def __init__(self, index: Index) -> None:
        self.embeddings, self.count = opened_embeddings(index), len(index)
        self.size = self.embeddings.dimensions
        self.there = np.zeros(self.count, dtype=bool)
        for positions, rows in self._parts("reading embeddings"):
            self.there[positions.start : positions.stop] = np.abs(rows).max(axis=1) > 0

    def _parts(self, label: str) -> Iterator[tuple[range, Array]]:
        with Progress(label, self.count, "examples") as progress:
            for first in range(0, self.count, PART):
                positions = range(first, min(first + PART, self.count))
                vectors, owners = self.embeddings.vectors(positions)
                rows = np.zeros((len(positions), self.size), dtype=np.float32)
                np.add.at(rows, owners - first, vectors)
                norms = np.linalg.norm(rows, axis=1, keepdims=True)
                rows = np.nan_to_num(rows / np.maximum(norms, 1e-30))
                yield positions, rows
                progress.advance(len(positions))

    def onto(self, directions: Array) -> Array:
        """A part at a time."""
        return np.concatenate([rows @ directions.T for _, rows in self._parts("projecting")])

    def summed(self, weights: Array) -> Array:
        """A part at a time."""
        total = np.zeros((weights.shape[1], self.size), dtype=np.float32)
        for positions, rows in self._parts("widest directions"):
            total += weights[positions.start : positions.stop].T @ rows
        return total


def opened_embeddings(index: Index) -> Embeddings:
    """The index's sentence embeddings, made first where they are not there yet."""
    from headwater.evidence.semantic import Dense

    class Opened(Dense):
        """Dense retrieval, for its vectors."""

        def vectors(self) -> Embeddings:
            return self._opened(index)

    return Opened().vectors()


def widest(rows: Rows, most: int = WIDEST, seed: int = SEED) -> Array:
    """The vectors by their widest directions, widest first, centred, float32 [n, d].

    Where there is no vector the numbers mean nothing.
    """
    d = min(most, rows.size, len(rows.there), max(2, SKETCH_BYTES // (4 * rows.size) - MORE))
    random = np.random.default_rng(seed)
    sketch = random.standard_normal((min(d + MORE, rows.size), rows.size), dtype=np.float32)
    basis, _ = np.linalg.qr(rows.onto(sketch))
    _, _, directions = np.linalg.svd(rows.summed(basis), full_matrices=False)
    made = rows.onto(np.ascontiguousarray(directions[:d]))
    there = made[rows.there].astype(np.float64)
    if not len(there):
        return made
    _, turned = np.linalg.eigh(np.cov(there.T).reshape(there.shape[1], -1))
    turned = turned[:, ::-1]
    turned *= np.sign(turned[np.abs(turned).argmax(axis=0), np.arange(turned.shape[1])])
    return ((made - there.mean(axis=0)) @ turned).astype(np.float32)


# -- what is kept -------------------------------------------------------------------------


def map_store(index: Index, of: str) -> Store:
    """Where the map of this index is kept, or will be.

    Raises:
        InputError: for something else than features or embeddings, or an index without features.
    """
    if of not in OF:
        raise InputError("There is no such map", expected=" or ".join(OF), found=of[:40])
    settings: dict[str, Any] = {"of": of, "version": VERSION, "seed": SEED}
    if of == "features":
        if not index.has_features:
            raise InputError(
                "The index holds no features to make a map of", do="make one of its meanings"
            )
        held = index.manifest["calibration"]["checksum"]
        settings |= {"features": index.manifest["features"], "calibration": held}
    return Store(index, KIND, settings)


def make_map(index: Index, of: str) -> dict[str, Any]:
    """The map's record, made now where it is not there yet; `seconds` are those of its making.

    Raises:
        InputError: as `map_store`, or when the folder cannot be written.
    """
    store = map_store(index, of)
    if not _sound(store):
        with store.building() as folder:
            for name in (FILE, "record.json"):
                (folder / name).unlink(missing_ok=True)
        remove_outdated(index, KIND)
    return _told(prepared(store, _build).record() or {})


def _told(record: dict[str, Any]) -> dict[str, Any]:
    names = ("points", "of", "seconds", "made_by", "kept", "without_place")
    return {name: record.get(name) for name in names}


def _build(store: Store) -> None:
    index, of, started = store.index, store.settings["of"], time.perf_counter()
    rows: Rows = Gradients(index) if of == "features" else Meanings(index)
    x = widest(rows)[rows.there]
    y = laid_out(x, SEED)
    places = np.full((len(index), 2), np.nan, dtype=np.float32)
    places[rows.there] = y
    write_atomic(store.folder / FILE, lambda path: _save(path, places))
    extra = {
        "points": len(index),
        "of": of,
        "made_by": HOW[of].format(d=x.shape[1]),
        "kept": kept_neighbours(x, y),
        "without_place": int((~rows.there).sum()),
        "seconds": round(time.perf_counter() - started, 2),
    }
    store.finish([FILE], extra)


def _save(path: Path, places: Array) -> None:
    from safetensors.numpy import save_file

    save_file({"places": places}, path)


def _sound(store: Store) -> bool:
    """Whether the map that is there is what was recorded, byte for byte; or there is none."""
    record = store.record()
    try:
        return record is None or not changed(store.folder, record["files"])
    except (DamageError, KeyError, TypeError):
        return False


def read_map(index: Index, of: str) -> Array:
    """The places, float32 [2, examples]: all x, then all y; NaN for examples without one.

    Raises:
        InputError: where it was not computed yet. DamageError: for a file that is not what was
            written.
    """
    from headwater.index.mapped import map_tensors

    store = map_store(index, of)
    if store.record() is None:
        raise InputError("There is no map yet", do="compute it first")
    places = map_tensors(store.path(FILE)).get("places")
    if places is None or tuple(places.shape) != (len(index), 2):
        raise DamageError(
            f"{store.folder / FILE} is damaged",
            expected=f"{len(index)} places",
            do="compute the map again",
        )
    return np.ascontiguousarray(places.numpy().T)
