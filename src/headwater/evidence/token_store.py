"""The corpus's tokens on disk: shards of big-endian numbers with a separator around each document.

Big-endian, because then the order of the bytes is the order of the tokens, which is all that a
suffix array needs. The separator is the largest number of the type and no token: a phrase without
it cannot match across two documents. The tokenizer's own JSON lies beside, so that the folder
explains itself. A killed build goes on after the last shard whose files are what its mark says.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.files import write_atomic
from headwater.engine.marks import read_mark, write_mark
from headwater.engine.progress import Progress
from headwater.evidence.suffix_array import separator_of
from headwater.evidence.texts import document_text
from headwater.evidence.tokenizer import FILE, WORDS, TextTokenizer

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.index.index import Index

SHARD_TOKENS = 1 << 28  # at most so many tokens in a shard, unless one document alone has more
BATCH = 1 << 20  # characters, or given tokens, that are taken at a time
UNIGRAMS = "unigrams.bin"


def token_type(vocabulary: int) -> np.dtype[Any]:
    """The type of a stored token: >u2 where ids and separator fit, else >u4."""
    return np.dtype(">u2" if vocabulary < 1 << 16 else ">u4")


def build_cost(tokens: int, vocabulary: int, shard_tokens: int = SHARD_TOKENS) -> tuple[int, int]:
    """Peak memory and disk, in bytes, of the verbatim evidence of so many tokens.

    Sorting holds a shard's bytes and a 32-bit number for each: 10 bytes a token of two bytes, 20
    of one of four (36 beyond 2^31 bytes). On disk lie the tokens and the array.
    """
    width = token_type(vocabulary).itemsize
    shard = min(tokens, shard_tokens)
    number = 4 if shard * width < 1 << 31 else 8
    pointer = 4 if shard < 1 << 31 else 8
    return shard * width * (1 + number), tokens * (width + pointer)


def write_tokens(
    index: Index, tokenizer: TextTokenizer, folder: Path, shard_tokens: int = SHARD_TOKENS
) -> list[dict[str, int]]:
    """Tokenise the corpus into `folder`, or go on where a killed run stopped.

    Writes for each shard `tokens-00000.bin` (separator, document, separator, ...; see `token_type`)
    and `offsets-00000.bin` (little-endian int64 [documents]: where the separator before each
    document stands), then its mark; then the tokenizer and the unigram counts. Texts are tokenised
    whole; documents of token ids are taken as they are.

    Returns:
        For each shard `first` (position of its first document), `documents`, and `tokens` as they
        lie there, separators included.

    Raises:
        InputError: for a document whose token ids are not the tokenizer's.
    """
    write_atomic(folder / FILE, lambda path: _write_text(path, tokenizer.json))
    shards = _finished(folder)
    first = shards[-1]["first"] + shards[-1]["documents"] if shards else 0
    dtype = token_type(tokenizer.vocabulary)
    with Progress("tokenise", len(index), "examples") as progress:
        progress.advance(first)
        held = _Held(first)
        for ids in _tokenised(islice(index.stream(), first, None), tokenizer):
            if held.documents and held.tokens + len(ids) + 1 > shard_tokens:
                shards.append(held.write(folder, len(shards), dtype))
                held = _Held(shards[-1]["first"] + shards[-1]["documents"])
            held.add(ids)
            progress.advance()
        if held.documents or not shards:
            shards.append(held.write(folder, len(shards), dtype))
    _write_unigrams(folder, len(shards), tokenizer.vocabulary, dtype)
    return shards


def shard_files(number: int) -> tuple[str, str]:
    """Names of a shard's tokens and offsets."""
    return f"tokens-{number:05d}.bin", f"offsets-{number:05d}.bin"


class _Held:
    """The documents of the shard that is being filled."""

    def __init__(self, first: int) -> None:
        self.first, self.tokens = first, 1  # the separator at the end
        self.parts: list[np.ndarray[Any, Any]] = []

    @property
    def documents(self) -> int:
        return len(self.parts)

    def add(self, ids: np.ndarray[Any, Any]) -> None:
        self.parts.append(ids)
        self.tokens += len(ids) + 1

    def write(self, folder: Path, number: int, dtype: np.dtype[Any]) -> dict[str, int]:
        lengths = np.array([len(part) + 1 for part in self.parts], dtype="<i8")
        offsets = np.cumsum(lengths) - lengths
        text = np.full(self.tokens, separator_of(dtype), dtype=dtype)
        for start, part in zip(offsets.tolist(), self.parts, strict=True):
            text[start + 1 : start + 1 + len(part)] = part
        names = shard_files(number)
        for name, array in zip(names, (text, offsets), strict=True):
            write_atomic(folder / name, lambda path, array=array: array.tofile(path))
        made = {"first": self.first, "documents": self.documents, "tokens": self.tokens}
        write_mark(_mark(folder, number), made, names)
        return made


def _mark(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.json"


def _finished(folder: Path) -> list[dict[str, int]]:
    """The shards that an earlier run finished, up to the first that it did not."""
    shards: list[dict[str, int]] = []
    while (found := read_mark(_mark(folder, len(shards)), shard_files(len(shards)))) is not None:
        try:
            shards.append({name: int(found[name]) for name in ("first", "documents", "tokens")})
        except (KeyError, TypeError, ValueError):
            break
    return shards


def _tokenised(
    documents: Iterator[Document], tokenizer: TextTokenizer
) -> Iterator[np.ndarray[Any, Any]]:
    """Token ids of each document, a batch at a time."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        given = document.content.get("input_ids")
        size += (len(document_text(document)) if given is None else len(given)) + 1
        if size >= BATCH:
            yield from _ids_of(batch, tokenizer)
            batch, size = [], 0
    yield from _ids_of(batch, tokenizer)


def _ids_of(documents: list[Document], tokenizer: TextTokenizer) -> Iterator[np.ndarray[Any, Any]]:
    given = ["input_ids" in document.content for document in documents]
    texts = [document_text(d) for d, ready in zip(documents, given, strict=True) if not ready]
    made = iter(tokenizer.encode_many(texts))
    for document, ready in zip(documents, given, strict=True):
        yield _given_ids(document, tokenizer) if ready else next(made)


def _given_ids(document: Document, tokenizer: TextTokenizer) -> np.ndarray[Any, Any]:
    """The ids of a document that came as tokens, checked."""
    if tokenizer.name == WORDS:
        raise InputError(
            f"Document {document.id} holds token ids, and whose they are is not known",
            do="name their tokenizer (tokenizer=...)",
        )
    ids = np.asarray(document.content["input_ids"], dtype=np.int64).reshape(-1)
    wrong = ids[(ids < 0) | (ids >= tokenizer.vocabulary)]
    if not len(wrong):
        return ids.astype(np.int32)
    separator = separator_of(token_type(tokenizer.vocabulary))
    what = "the separator of documents" if wrong[0] == separator else "a token of no vocabulary"
    raise InputError(
        f"Document {document.id} holds {what}",
        expected=f"ids from 0 to {tokenizer.vocabulary - 1} of the tokenizer {tokenizer.name}",
        found=int(wrong[0]),
        do="name the tokenizer that its ids are of",
    )


def _write_unigrams(folder: Path, shards: int, vocabulary: int, dtype: np.dtype[Any]) -> None:
    """How often each token stands in the corpus, little-endian int64 [vocabulary]."""
    counts = np.zeros(vocabulary, dtype="<i8")
    for number in range(shards):
        counts += count_tokens(folder / shard_files(number)[0], dtype, vocabulary)
    write_atomic(folder / UNIGRAMS, counts.tofile)


def count_tokens(path: Path, dtype: np.dtype[Any], vocabulary: int) -> np.ndarray[Any, Any]:
    """How often each token stands in a file of tokens, int64 [vocabulary]; the rest is left out."""
    counts = np.zeros(vocabulary, dtype=np.int64)
    text = np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)
    for start in range(0, len(text), 1 << 24):
        ids = text[start : start + (1 << 24)].astype(np.int64)
        counts += np.bincount(ids[ids < vocabulary], minlength=vocabulary)
    return counts


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
