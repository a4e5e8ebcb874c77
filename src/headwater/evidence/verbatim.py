"""Verbatim evidence: every phrase of the corpus, counted and found exactly, from a memory map.

The corpus's tokens and their suffix array lie in the index's folder and are made when they are
first needed, shard by shard, so that a killed build goes on. A match says that words stand in the
corpus, not that they caused anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import DamageError, InputError
from headwater.engine.files import write_atomic
from headwater.engine.marks import read_mark, write_mark
from headwater.engine.progress import Progress
from headwater.evidence.characters import Characters
from headwater.evidence.named_tokenizer import tokenizer_of
from headwater.evidence.phrases import PhraseIndex
from headwater.evidence.shard import Shard
from headwater.evidence.suffix_array import (
    Array,
    SortedSuffixes,
    WholePointers,
    map_file,
    separator_of,
    write_suffix_array,
)
from headwater.evidence.texts import document_text
from headwater.evidence.token_store import (
    SHARD_TOKENS,
    UNIGRAMS,
    shard_files,
    token_type,
    write_tokens,
)
from headwater.evidence.tokenizer import FILE, TextTokenizer
from headwater.index.store import Store, prepared

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.index.index import Index

FORMAT = 1
CHECKED = 1 << 23  # tokens of a shard whose sorted array is checked whenever it is opened
KEPT = 1024  # documents that are kept in memory once they were asked about


class Verbatim(PhraseIndex):
    """The phrases of an index's corpus; open one with `Verbatim.open`."""

    def __init__(self, index: Index, store: Store, tokenizer: TextTokenizer) -> None:
        record = store.record()
        if record is None:
            raise DamageError(f"There is no verbatim evidence at {store.folder}")
        self.index, self.folder = index, store.folder
        dtype = token_type(tokenizer.vocabulary)
        shards = [_map(store, n, shard, dtype) for n, shard in enumerate(record["shards"])]
        super().__init__(tokenizer, shards)
        self._unigrams = store.path(UNIGRAMS)
        # One document is asked about again and again: for each match, its snippet, its context.
        self._documents: dict[int, Document] = {}
        self._characters = lru_cache(maxsize=KEPT)(self._read_characters)

    @classmethod
    def open(
        cls,
        index: Index | str | os.PathLike[str],
        tokenizer: str | Path | TextTokenizer | None = None,
        build: bool = True,
        shard_tokens: int = SHARD_TOKENS,
    ) -> Verbatim:
        """Open the verbatim evidence of an index, building it when it is missing.

        Args:
            index: an open index, or its folder.
            tokenizer: see `tokenizer_of`; None = the model's own, or `words` without a model.
            build: False = raise where there is none yet.
            shard_tokens: most tokens in a shard, when it is built; sorting needs 10 to 20 bytes
                of memory for each.

        Raises:
            InputError: when there is none and `build` is False, when the tokenizer is not at hand,
                or a document holds token ids that are not its own.
            DamageError: when a file is not what was written.
        """
        index = _index(index)
        used = tokenizer_of(index, tokenizer)
        store = Store(index, "verbatim", {"format": FORMAT, "tokenizer": used.fingerprint})
        if build:
            prepared(store, lambda one: _build(one, used, shard_tokens))
        elif store.record() is None:
            raise InputError(
                f"The index has no verbatim evidence for the tokenizer {used.name}",
                do="build it: headwater.evidence.verbatim.Verbatim.open(index)",
            )
        return cls(index, store, used)

    def describe(self) -> dict[str, Any]:
        """Which tokenizer is used, and how much is held, JSON-serialisable."""
        return {
            "tokenizer": self.tokenizer.describe(),
            "documents": len(self),
            "tokens": self.tokens,
            "shards": len(self.shards),
        }

    def source(self, position: int) -> tuple[str, dict[str, Any]]:
        """Id and metadata of a document."""
        document = self._document(position)
        return document.id, document.metadata

    def characters(self, position: int) -> Characters:
        """The text of a document, and which of its characters each token is."""
        return self._characters(position)

    @cached_property
    def unigrams(self) -> Array:
        """How often each token stands in the corpus, int64 [vocabulary]."""
        return np.fromfile(self._unigrams, dtype="<i8")

    def prefetch(self, positions: Sequence[int]) -> None:
        """Read these documents at once; each read of one takes as long as that of hundreds."""
        wrong = [position for position in positions if not 0 <= position < len(self)]
        if wrong:
            raise InputError("No such document", expected=f"below {len(self)}", found=wrong[0])
        missing = [position for position in positions if position not in self._documents]
        if len(missing) + len(self._documents) > KEPT:
            self._documents.clear()
            missing = list(positions)
        found = self.index.documents(missing) if missing else []
        self._documents |= dict(zip(missing, found, strict=True))

    def _document(self, position: int) -> Document:
        self.prefetch([position])
        return self._documents[position]

    def _read_characters(self, position: int) -> Characters:
        document = self._document(position)
        text = None if "input_ids" in document.content else document_text(document)
        return Characters(self.tokenizer, self.document_tokens(position), text)


def _index(given: Index | str | os.PathLike[str]) -> Index:
    from headwater.index.index import Index

    if isinstance(given, Index):
        return given
    if not isinstance(given, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            "Phrases are those of an index",
            expected="an Index, or the folder of one",
            found=type(given).__name__,
        )
    return Index.open(given)


def _build(store: Store, tokenizer: TextTokenizer, shard_tokens: int) -> None:
    dtype = token_type(tokenizer.vocabulary)
    shards = write_tokens(store.index, tokenizer, store.folder, shard_tokens)
    files = [FILE, UNIGRAMS]
    with Progress("suffix array", sum(shard["tokens"] for shard in shards), "tokens") as progress:
        for number, shard in enumerate(shards):
            tokens, offsets = shard_files(number)
            files += [tokens, offsets, _array_file(number)]
            _sort(store.folder, tokens, number, dtype.itemsize)
            progress.advance(shard["tokens"])
    extra = {"tokenizer": tokenizer.describe(), "vocabulary": tokenizer.vocabulary}
    layout = {"bytes_per_token": dtype.itemsize, "separator": separator_of(dtype)}
    store.finish(files, extra | layout | {"shards": shards})


def _sort(folder: Path, tokens: str, number: int, width: int) -> None:
    """The suffix array of a shard, unless it is there and of these very tokens."""
    name = _array_file(number)
    mark = (folder / name).with_suffix(".json")
    if read_mark(mark, (tokens, name)) is None:
        source = folder / tokens
        write_atomic(folder / name, lambda out: write_suffix_array(source, width, out))
        write_mark(mark, {}, (tokens, name))


def _array_file(number: int) -> str:
    return f"array-{number:05d}.bin"


def _map(store: Store, number: int, shard: dict[str, int], dtype: np.dtype[Any]) -> Shard:
    """Map one shard, once the sizes of its files go together."""
    names = (*shard_files(number), _array_file(number))
    tokens, offsets, array = (store.path(name) for name in names)
    count, documents = shard["tokens"], shard["documents"]
    pointer = array.stat().st_size // count
    expected = (count * dtype.itemsize, documents * 8, count * (4 if pointer <= 4 else 8))
    for path, size in zip((tokens, offsets, array), expected, strict=True):
        if path.stat().st_size != size:
            raise DamageError(
                f"{path} is damaged",
                expected=f"{size} bytes, for {count} tokens of {documents} documents",
                found=f"{path.stat().st_size} bytes",
                do=f"remove {store.folder}; it is built again when it is needed",
            )
    pointers = WholePointers(map_file(array), dtype.itemsize, pointer)
    remedy = f"remove {store.folder}; it is built again when it is needed"
    suffixes = SortedSuffixes(map_file(tokens), pointers, dtype, array, remedy)
    if count <= CHECKED:
        suffixes.check()
    starts = np.memmap(offsets, dtype="<i8", mode="r") if documents else np.zeros(0, np.int64)
    return Shard(suffixes, shard["first"], starts, count - 1)
