"""Postings of words: a score for every word in every document that has it, in the files of bm25s.

By columns: a word's documents and scores stand together, the documents in order. Built a whole
column at a time from the numbers of all words in a row; read from memory maps, which a query
touches only where its own words are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import DamageError, InputError
from headwater.engine.files import disk_error, read_json, write_atomic

if TYPE_CHECKING:
    from headwater.index.store import Store

DATA, INDICES, STARTS = FILES = (
    "data.csc.index.npy",
    "indices.csc.index.npy",
    "indptr.csc.index.npy",
)
VOCABULARY = "vocab.index.json"

Array = np.ndarray[Any, Any]
Formula = Callable[[Array, Array, Array, int], Array]


def postings_of(tokens: Array, lengths: Array, words: int, formula: Formula) -> tuple[Array, ...]:
    """Scores float32, documents int32 and column starts int64 [words + 1] of all postings.

    Args:
        tokens: int32, of all documents, one document after the other; -1 counts for nothing.
        lengths: of each document. words: size of the vocabulary. formula: a posting's score.
    """
    owners = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    kept = tokens >= 0
    tokens, owners = tokens[kept], owners[kept]
    lengths = np.bincount(owners, minlength=len(lengths))
    order = np.argsort(tokens, kind="stable")  # by term, within a term by document
    terms, owners = tokens[order], owners[order]
    fresh = np.ones(len(terms), dtype=bool)
    fresh[1:] = (terms[1:] != terms[:-1]) | (owners[1:] != owners[:-1])
    starts = np.flatnonzero(fresh)
    tf = np.diff(starts, append=len(terms))
    terms, owners = terms[starts], owners[starts]
    df = np.bincount(terms, minlength=words)
    relative = lengths / max(lengths.mean(), 1e-30)
    data = formula(tf, relative[owners], df[terms], len(lengths)).astype(np.float32)
    return data, owners, np.concatenate([[0], np.cumsum(df)]).astype(np.int64)


@dataclass(frozen=True)
class Postings:
    """An open lexical store.

    Args:
        data: float32, scores by term, then document. indices: uint32, their documents. indptr:
            int64 [terms + 1], where each term's begin. vocabulary: stem -> term. documents: how
            many. folder: where it lies.
    """

    data: Array
    indices: Array
    indptr: Array
    vocabulary: dict[str, int]
    stop_words: frozenset[str]
    documents: int
    folder: Path

    @classmethod
    def open(cls, store: Store) -> Postings:
        """Map a finished store; raises DamageError when its files do not fit together."""
        record: dict[str, Any] = store.record() or {}
        data, indices, indptr = (_mapped(store.path(name)) for name in FILES)
        vocabulary: Any = read_json(store.path(VOCABULARY))
        if not isinstance(vocabulary, dict):
            raise _damage(store.folder / VOCABULARY, "no vocabulary")
        if (
            indptr.dtype != np.int64
            or indptr.shape != (len(vocabulary) + 1,)
            or int(indptr[0]) != 0
            or (indptr[1:] < indptr[:-1]).any()
        ):
            raise _damage(store.folder / STARTS, "columns that do not fit the vocabulary")
        for name, values, dtype in ((DATA, data, np.float32), (INDICES, indices, np.int32)):
            if values.dtype != dtype or values.shape != (int(indptr[-1]),):
                raise _damage(store.folder / name, f"{values.dtype} {list(values.shape)}")
        # Unsigned: a damaged document number is then out of range, never counted from the end.
        unsigned = indices.view(np.uint32)
        stop_words = frozenset(record["stop_words"])
        documents = int(record["documents"])
        return cls(data, unsigned, indptr, vocabulary, stop_words, documents, store.folder)

    def add(self, scores: Array, terms: Mapping[int, int], first: int = 0) -> None:
        """Add the terms' scores for documents `first`, `first` + 1, ... to float32 [documents]."""
        whole = len(scores) == self.documents
        try:
            for number, times in terms.items():
                start, end = int(self.indptr[number]), int(self.indptr[number + 1])
                rows, data = self.indices[start:end], self.data[start:end]
                if not whole:
                    a, b = np.searchsorted(rows, [first, first + len(scores)])
                    rows, data = rows[a:b] - np.uint32(first), data[a:b]
                np.add.at(scores, rows, data if times == 1 else data * np.float32(times))
        except IndexError as error:
            raise _damage(self.folder / INDICES, "a document that is not there") from error

    def score(self, number: int, position: int) -> float | None:
        """A term's score in a document; None where the document does not have it."""
        start, end = int(self.indptr[number]), int(self.indptr[number + 1])
        at = start + int(np.searchsorted(self.indices[start:end], position))
        return float(self.data[at]) if at < end and self.indices[at] == position else None

    def count(self, number: int) -> int:
        """How many documents have a term."""
        return int(self.indptr[number + 1] - self.indptr[number])


def bm25s_package() -> Any:
    """The package, imported now; raises InputError when it is not installed."""
    try:
        import bm25s
    except ImportError as error:
        raise InputError(
            "Lexical evidence needs a package that is not installed", do="run pip install bm25s"
        ) from error
    return bm25s


def save(
    folder: Path, made: tuple[Array, ...], stems: Mapping[str, int], documents: int, **formula: Any
) -> list[str]:
    """Let bm25s write its files beside, then put each in place whole; their names.

    Args:
        folder: of the store. made: by `postings_of`. stems: stem -> term. documents: how many.
        formula: `k1`, `b` and `method` of bm25s, for who opens the files with that package.
    """
    model = bm25s_package().BM25(**formula)
    data, indices, indptr = made
    model.scores = {"data": data, "indices": indices, "indptr": indptr, "num_docs": documents}
    model.vocab_dict, model.nonoccurrence_array = stems, None
    room = folder / f".bm25s.{os.getpid()}.tmp"  # a killed build leaves it, and the next sweeps it
    try:
        model.save(room, show_progress=False)
        names = sorted(path.name for path in room.iterdir())
        for name in names:
            write_atomic(folder / name, lambda path, name=name: _move(room / name, path))
        room.rmdir()
    except OSError as error:
        raise disk_error(folder, error) from error
    return names


def _move(path: Path, target: Path) -> None:
    path.replace(target)


def _mapped(path: Path) -> Array:
    try:
        # A plain view of the map: numpy's own class of maps is slow to slice.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise _damage(path, str(error)) from error


def _damage(path: Path, found: str) -> DamageError:
    return DamageError(
        f"{path} is damaged",
        expected="a file of a bm25s index",
        found=found,
        do=f"remove {path.parent}; it is built again when it is needed",
    )
