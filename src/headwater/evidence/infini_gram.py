"""Corpora that others have indexed: folders in the public format of infini-gram.

For each shard `tokenized.N` holds little-endian tokens with a separator of all ones before each
document, `table.N` the sorted suffixes as byte positions of k little-endian bytes each, `offset.N`
uint64 byte positions of the separators; `metadata.N` (a JSON line for each document, its start in
`metaoff.N`) and `unigram.N` are optional. The search is the one that our own corpora have. Nothing
in the folder says which tokenizer made it, nor whether its documents are reversed (version 5, which
cannot be read here). Paper: arXiv 2401.17377.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from headwater.engine.errors import DamageError, InputError
from headwater.evidence.characters import Characters
from headwater.evidence.named_tokenizer import named_tokenizer
from headwater.evidence.phrases import PhraseIndex, Tokens
from headwater.evidence.shard import Shard
from headwater.evidence.suffix_array import (
    Array,
    PackedPointers,
    SortedSuffixes,
    map_file,
    separator_of,
)
from headwater.evidence.token_store import count_tokens, token_type
from headwater.evidence.tokenizer import TextTokenizer

AGAIN = "copy or build the folder again"
CHECKED = 1 << 16  # offsets whose separators are looked up
SAMPLES, SAMPLE = 64, 256  # stretches of tokens that are looked at, and the tokens of each
EDGE = 8  # tokens at both ends of a stretch that may be cut otherwise
LIKELY = 0.9  # share of stretches that the right tokenizer must make again from their text

logger = logging.getLogger(__name__)


class InfiniGram(PhraseIndex):
    """The phrases of a corpus in an infini-gram folder; open one with `InfiniGram.open`."""

    def __init__(self, folder: Path, tokenizer: TextTokenizer, token_bytes: int) -> None:
        self.folder, self.dtype = folder, np.dtype(f"<u{token_bytes}")
        self._names = _shards(folder)
        shards: list[Shard] = []
        for name in self._names:
            first = shards[-1].first + shards[-1].documents if shards else 0
            shards.append(_map(folder, name, first, self.dtype))
        super().__init__(tokenizer, shards)
        self._decoded = lru_cache(maxsize=1024)(self._decode)
        self._frequency = lru_cache(maxsize=1 << 16)(lambda token: self.count([token]))

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        tokenizer: str | Path | TextTokenizer,
        token_bytes: int | None = None,
    ) -> InfiniGram:
        """Open an infini-gram folder.

        Args:
            folder: with tokenized.*, table.* and offset.* (or the same without a number).
            tokenizer: the one that it was made with: a folder, a tokenizer.json or a hub name.
            token_bytes: 1, 2 or 4; None = 2, or 4 where the vocabulary does not fit.

        Raises:
            InputError: when there is no such folder, or it holds ids that the tokenizer does not
                have. Where the ids fit but the texts that they decode to would be cut into other
                tokens, a warning is logged: that folder is most likely another tokenizer's.
            DamageError: when a file is missing or its size does not fit the others'.
        """
        used = named_tokenizer(tokenizer)
        width = token_bytes or token_type(used.vocabulary).itemsize
        if width not in (1, 2, 4):
            raise InputError("Unknown size of a token", expected="1, 2 or 4 bytes", found=width)
        made = cls(Path(folder), used, width)
        _check_tokenizer(made)
        return made

    def describe(self) -> dict[str, Any]:
        """Which tokenizer is used, and how much is held, JSON-serialisable."""
        return {
            "folder": str(self.folder),
            "tokenizer": self.tokenizer.describe(),
            "documents": len(self),
            "tokens": self.tokens,
            "shards": len(self.shards),
        }

    def source(self, position: int) -> tuple[str, dict[str, Any]]:
        """Id (that of the metadata, or file and line, or a number) and metadata of a document."""
        record = self._metadata(position)
        inner = record.get("metadata")
        found: dict[str, Any] = dict(inner) if isinstance(inner, dict) else {}
        place = {name: record[name] for name in ("path", "linenum") if name in record}
        where = f"{record['path']}:{record['linenum']}" if len(place) == 2 else str(position)
        return str(found.get("id", where)), found | place

    def characters(self, position: int) -> Characters:
        """The decoded text of a document, and which of its characters each token is."""
        return self._decoded(position)

    @cached_property
    def unigrams(self) -> Array:
        """How often each token stands in the corpus, int64 [vocabulary]; may read all of it."""
        counts = np.zeros(self.tokenizer.vocabulary, dtype=np.int64)
        for name in self._names:
            path = self.folder / f"unigram{name}"
            if path.exists():
                counts += _read_unigrams(path, len(counts))
            else:
                counts += count_tokens(self.folder / f"tokenized{name}", self.dtype, len(counts))
        return counts

    def log_probabilities(self, tokens: Tokens) -> Array:
        """Natural logarithms of the unigram probabilities, float64 [n]; -inf for unseen ones.

        Each token is looked up by itself: counting all of them would read the whole corpus.
        """
        counts = np.array([self._frequency(token) for token in self._ids(tokens).tolist()], float)
        with np.errstate(divide="ignore"):
            return np.log(counts) - np.log(max(self.tokens, 1))

    def _decode(self, position: int) -> Characters:
        return Characters(self.tokenizer, self.document_tokens(position), None)

    def _metadata(self, position: int) -> dict[str, Any]:
        for shard, name in zip(self.shards, self._names, strict=True):
            number = position - shard.first
            if not 0 <= number < shard.documents:
                continue
            lines, starts = self.folder / f"metadata{name}", self.folder / f"metaoff{name}"
            if not (lines.exists() and starts.exists()):
                return {}
            size = starts.stat().st_size
            if size != 8 * shard.documents:
                wanted = f"{8 * shard.documents} bytes, for {shard.documents} documents"
                raise _damage(starts, wanted, f"{size} bytes")
            place = int(np.memmap(starts, dtype="<u8", mode="r")[number])
            if place >= lines.stat().st_size:
                raise _damage(starts, f"places in {lines.name}", place)
            with lines.open("rb") as file:
                file.seek(place)
                line = file.readline()
            try:
                found = json.loads(line)
            except ValueError as error:
                raise _damage(lines, "a JSON line for each document", str(error)) from error
            return found if isinstance(found, dict) else {}
        raise InputError("No such document", expected=f"below {len(self)}", found=position)


def _check_tokenizer(opened: InfiniGram) -> None:
    """Whether stretches from all over the folder are of the tokenizer, by their ids and by their
    texts: what it decodes to must be cut into the same tokens."""
    tokenizer = opened.tokenizer
    looked_at = same = 0
    for shard in opened.shards:
        tokens, separator = shard.suffixes.tokens, separator_of(opened.dtype)
        places = np.linspace(0, max(len(tokens) - SAMPLE, 0), SAMPLES // len(opened.shards) + 1)
        for place in np.unique(places.astype(np.int64)).tolist():
            found = tokens[place : place + SAMPLE].astype(np.int64)
            largest = int(found[found != separator].max(initial=-1))
            if largest >= tokenizer.vocabulary:
                raise InputError(
                    f"{opened.folder} is not of the tokenizer {tokenizer.name}",
                    expected=f"ids below {tokenizer.vocabulary}",
                    found=largest,
                    do="give the tokenizer that it was made with",
                )
            # From a separator on: in the middle of a document tokens may depend on those before.
            start = int((found == separator).argmax())
            stretch = found[start + 1 :] if found[start] == separator else found
            stretch = stretch[: int((np.append(stretch, separator) == separator).argmax())]
            if len(stretch) > 2 * EDGE:
                looked_at += 1
                same += _made_again(tokenizer, stretch)
    if same < LIKELY * looked_at:
        logger.warning(
            f"{opened.folder} does not look like tokens of {tokenizer.name}: of {looked_at} pieces "
            f"{looked_at - same} are cut otherwise when their text is tokenised again. Counts will "
            "be wrong unless it was made with this tokenizer"
        )


def _made_again(tokenizer: TextTokenizer, tokens: Array) -> bool:
    """Whether a text is cut into these tokens again, but for its ends, which may be half words."""
    again = tokenizer.encode(tokenizer.decode(tokens)).ids
    inner = tokens[EDGE:-EDGE].astype(again.dtype).tobytes()
    return inner in again.tobytes()


def _shards(folder: Path) -> list[str]:
    """What follows the names of each shard's files: ".0", ".1", ... or nothing."""
    names = [path.name.removeprefix("tokenized") for path in folder.glob("tokenized*")]
    names = [name for name in names if re.fullmatch(r"(\.\d+)?", name)]
    if not names:
        raise InputError(
            f"There is no infini-gram index at {folder}",
            expected="files tokenized.0, table.0 and offset.0",
            found="another folder" if folder.is_dir() else "nothing",
        )
    return sorted(names, key=lambda name: int(name[1:] or 0))


def _map(folder: Path, name: str, first: int, dtype: np.dtype[Any]) -> Shard:
    """Map one shard, once its files' sizes go together."""
    tokens, table, offset = (folder / f"{kind}{name}" for kind in ("tokenized", "table", "offset"))
    text, sorted_, starts = map_file(tokens), map_file(table), map_file(offset)
    width = dtype.itemsize
    count, rest = divmod(len(text), width)
    if rest or text[:width] != separator_of(dtype).to_bytes(width, "little"):
        raise InputError(
            f"{tokens} does not begin with a separator",
            expected=f"tokens of {width} bytes",
            found=text[:width].hex(),
            do="give the tokenizer that it was made with, or token_bytes=1, 2 or 4",
        )
    size, rest = divmod(len(sorted_), count)
    if rest or not 1 <= size <= 8 or 1 << 8 * size < len(text) - width:
        raise _damage(table, f"{count} positions of equal size", f"{len(sorted_)} bytes")
    if len(starts) % 8:
        raise _damage(offset, "numbers of 8 bytes", f"{len(starts)} bytes")
    _check_offsets(offset, np.frombuffer(starts, dtype="<u8"), text, width)
    suffixes = SortedSuffixes(text, PackedPointers(sorted_, size), dtype, table, AGAIN)
    return Shard(suffixes, first, np.frombuffer(starts, dtype="<i8"), count, unit=width)


def _check_offsets(path: Path, starts: Array, text: mmap.mmap, width: int) -> None:
    """Offsets ascend from 0 within the text, and where they point a separator stands.

    All are compared with one another, so that no document's matches count as another's; of a large
    corpus separators are looked up for an even part, for each takes a read of its own.
    """
    before = -1
    for first in range(0, len(starts), CHECKED):
        block = starts[first : first + CHECKED]
        if int(block[0]) <= before or (block[1:] <= block[:-1]).any():
            raise _damage(path, "numbers that ascend", "others")
        before = int(block[-1])
    if not len(starts) or int(starts[0]) or before >= len(text):
        raise _damage(path, f"numbers from 0 to below {len(text)}", "others")
    separator = b"\xff" * width
    for start in starts[:: max(1, len(starts) // CHECKED)].tolist():
        if start % width or text[start : start + width] != separator:
            raise _damage(path, "the places of separators", f"{start}, where there is none")


def _read_unigrams(path: Path, vocabulary: int) -> Array:
    """Lines of "token count", or of counts alone in the order of the tokens."""
    counts = np.zeros(vocabulary, dtype=np.int64)
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            given = [int(word) for word in line.split()]
            token, count = (number, given[0]) if len(given) == 1 else (given[0], given[1])
            if token < vocabulary:  # the separator is counted there, too
                counts[token] = count
    except (ValueError, IndexError) as error:
        raise _damage(path, "a token and its count in each line", str(error)) from error
    return counts


def _damage(path: Path, expected: str, found: object) -> DamageError:
    return DamageError(f"{path} is damaged", expected=expected, found=found, do=AGAIN)
