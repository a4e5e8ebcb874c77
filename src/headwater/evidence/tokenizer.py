"""From text to token ids and back to exact characters, by the `tokenizers` package alone.

Verbatim evidence compares tokens, so it says with which tokenizer: the model's own by default. Its
`tokenizer.json` is read without the model, and without what would hide text: truncation, padding,
and the post-processor, which adds special tokens and trims spaces off the character ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.evidence.spelling import Spelling, joins
from headwater.tasks.texts import encodable

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


FILE = "tokenizer.json"
WORDS = "words"
MOST_FORMS = 1 << 18  # words whose other form is kept in memory


_LATIN = re.compile(rb" ?[A-Za-z]+(?![A-Za-z\x80-\xff])")
_LETTER = re.compile(rb"[A-Za-z\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids int32 [n] and, int32 [n, 2], the characters of the text that each stands for."""

    ids: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer that adds nothing to a text and leaves nothing out.

    Attributes:
        name: what it was asked for by. fingerprint: sha256 of `json`, hexadecimal.
        json: its serialised form, from which it can be made again.
    """

    name: str
    fingerprint: str
    json: str = field(repr=False)
    raw: Tokenizer = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, text: str, name: str) -> TextTokenizer:
        """Read a serialised tokenizer.

        Raises:
            InputError: when `text` is none.
        """
        from tokenizers import Tokenizer

        try:
            parts = json.loads(text)
            parts |= {"truncation": None, "padding": None, "post_processor": None}
            raw = Tokenizer.from_str(json.dumps(parts, ensure_ascii=False))
        except Exception as error:  # `tokenizers` raises bare Exceptions
            raise InputError(
                f"The tokenizer {name} cannot be read",
                expected="a tokenizer.json of the tokenizers package",
                found=" ".join(str(error).split())[:200],
            ) from error
        kept = raw.to_str()
        return cls(name, hashlib.sha256(kept.encode()).hexdigest(), kept, raw)

    @classmethod
    def from_file(cls, path: Path, name: str | None = None) -> TextTokenizer:
        """Read a tokenizer.json; raises InputError when that is none."""
        try:
            changed = path.stat().st_mtime_ns
        except OSError as error:
            raise InputError(f"{path} cannot be read", found=error.strerror) from error
        return _read(path, name or str(path), changed)

    def describe(self) -> dict[str, str]:
        """Which tokenizer it is, JSON-serialisable."""
        return {"name": self.name, "fingerprint": self.fingerprint}

    def encode(self, text: str) -> Encoded:
        """The tokens of a text with their characters; no special tokens are added."""
        found = self.raw.encode(encodable(text), add_special_tokens=False)
        ids = np.array(found.ids, dtype=np.int32)
        return Encoded(ids, np.array(found.offsets, dtype=np.int32).reshape(len(ids), 2))

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray[Any, Any]]:
        """The token ids of several texts, int32 [n] each, faster than `encode`."""
        clean = [encodable(text) for text in texts]
        found = self.raw.encode_batch_fast(clean, add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in found]

    def decode(self, ids: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """The text of token ids; half a character becomes U+FFFD.

        Raises:
            InputError: for an id that the tokenizer does not have.
        """
        array = np.asarray(ids, dtype=np.int64)
        wrong = array[(array < 0) | (array >= self.vocabulary)]
        if len(wrong):
            raise InputError(
                f"A token is not of the tokenizer {self.name}",
                expected=f"ids below {self.vocabulary}",
                found=int(wrong[0]),
            )
        return self.raw.decode(array.tolist(), skip_special_tokens=False)

    def normal(self, text: str) -> str:
        """A text as its tokens spell it, without white space around it."""
        made: Any = self.raw.normalizer
        text = encodable(text)
        if made is not None:
            text = made.normalize_str(text)
        return text.replace("\u2581", " ").strip() if self._kind == "pieces" else text.strip()

    def spellings(self, text: str) -> list[tuple[int, ...]]:
        """The tokens of a text without and with a space before it, where these differ.

        No occurrence in a corpus is one of two of them. White space around the text is left out.

        Raises:
            InputError: when nothing is left.
        """
        bare = text.strip()
        # As it stands at the beginning of a line, where nothing belongs to it but itself.
        made = [self._after_newline(one) for one in (bare, f" {bare}")] if bare else []
        if not made or not all(made):
            raise InputError("The text has no tokens to look for", found=repr(text[:40]))
        first, spaced = made
        # Where the space is a token of its own, or none, these are the same occurrences.
        return [first] if spaced[-len(first) :] == first else [first, spaced]

    def forms(self, words: Sequence[str]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The tokens of each word without and with a space before it.

        Empty for a form that the vocabulary does not have, or that is one token with what stands
        before it. What was made is kept: outputs have words in common.
        """
        kept = self._forms
        if len(kept) > MOST_FORMS:
            kept.clear()
        new = [word for word in dict.fromkeys(words) if word not in kept]
        asked = [encodable(text) for word in new for text in (f"\n{word}", f"\n {word}")]
        made = iter(self.raw.encode_batch(asked, add_special_tokens=False))
        for word in new:
            bare, spaced = (_without_newline(next(made)) or () for _ in range(2))
            if self.unknown is not None:
                bare, spaced = (() if self.unknown in form else form for form in (bare, spaced))
            kept[word] = bare, spaced
        return [kept[word] for word in words]

    def word_at(self, before: bytes, rest: bytes) -> tuple[int, ...]:
        """The tokens of the word with which `rest` begins; empty where they may be others.

        Pair encoding cuts a stretch into the same tokens whatever is around it, so long as its two
        ends are ends of tokens. A word in Latin letters is such a stretch in most vocabularies,
        unless it goes on in other letters.
        """
        if self._kind != "bytes" or self.spelling is None or not self.spelling.words_end:
            return ()
        found = _LATIN.match(rest)
        if found is None or (rest[:1] != b" " and _LETTER.match(before[-1:])):
            return ()
        word = found[0]
        if word not in self._latin:
            ids = tuple(self.raw.encode(word.decode(), add_special_tokens=False).ids)
            self._latin[word] = ids if self.spelling.text(ids) == word else ()
        return self._latin[word]

    @cached_property
    def _latin(self) -> dict[bytes, tuple[int, ...]]:
        return {}

    @cached_property
    def _forms(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        return {}

    def _after_newline(self, text: str) -> tuple[int, ...]:
        found = self.raw.encode(encodable(f"\n{text}"), add_special_tokens=False)
        made = _without_newline(found)
        return tuple(self.encode(text).ids.tolist()) if made is None else made

    @cached_property
    def spelling(self) -> Spelling | None:
        """The bytes of each token; None where tokens do not spell the text (white space is lost),
        and for `words`, whose tokens say by themselves where words begin and end."""
        if self._kind not in ("bytes", "pieces"):
            return None
        spelled = _spelled if self._kind == "bytes" else _spelled_piece
        pieces = [b""] * self.vocabulary
        for token, number in self._tokens.items():
            pieces[number] = spelled(token)
        for token, number in self._added.items():
            pieces[number] = token.encode()
        return Spelling(pieces, set(self._added.values()))

    @cached_property
    def vocabulary(self) -> int:
        """One more than the largest token id."""
        return max(self._tokens.values(), default=-1) + 1

    @cached_property
    def unknown(self) -> int | None:
        """The token that stands for whatever is not in the vocabulary; it matches nothing."""
        name = self._parts["model"].get("unk_token")
        if self._parts["model"].get("unk_id") is not None:  # the Unigram model has a number
            return int(self._parts["model"]["unk_id"])
        return None if name is None else self._tokens.get(name)

    @cached_property
    def word_starts(self) -> np.ndarray[Any, Any]:
        """Whether a token begins a word or is none (punctuation, a space), bool [vocabulary].

        OLMoTrace's spans begin at such a token and are followed by one (arXiv 2504.07096).
        """
        starts = np.zeros(self.vocabulary, dtype=bool)
        begins = self._begins()
        starts[[number for token, number in self._tokens.items() if begins(token)]] = True
        starts[list(self._added.values())] = True
        return starts

    @cached_property
    def stops(self) -> np.ndarray[Any, Any]:
        """Whether a token's text holds a full stop or a newline, bool [vocabulary]."""
        marks = re.compile("[.\nĊ]" if self._kind == "bytes" else "[.\n]|<0x0A>|<0x2E>")
        stops = np.zeros(self.vocabulary, dtype=bool)
        stops[[number for token, number in self._tokens.items() if marks.search(token)]] = True
        return stops

    # -- what kind of tokens they are -----------------------------------------------------

    @cached_property
    def _parts(self) -> dict[str, Any]:
        return json.loads(self.json)

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return self.raw.get_vocab(with_added_tokens=True)

    @cached_property
    def _added(self) -> dict[str, int]:
        return {token["content"]: token["id"] for token in self._parts["added_tokens"]}

    @cached_property
    def _kind(self) -> str:
        """How tokens are spelled: "bytes" (Ġ), "pieces" (▁), "subwords" (##) or "words"."""
        model = self._parts["model"]
        spelled = json.dumps([self._parts[k] for k in ("normalizer", "pre_tokenizer", "decoder")])
        if "ByteLevel" in spelled:
            return "bytes"
        if model.get("continuing_subword_prefix"):
            return "subwords"
        if "Metaspace" in spelled or "\\u2581" in spelled:
            return "pieces"
        return "words" if model.get("type") == "WordLevel" else "characters"

    def _begins(self) -> Callable[[str], bool]:
        """The rule for one spelled token."""
        if self._kind == "words":
            return lambda token: True
        if self._kind == "subwords":
            prefix = self._parts["model"]["continuing_subword_prefix"]
            return lambda token: not token.startswith(prefix)
        if self._kind == "bytes":
            return lambda token: _begins_bytes(_spelled(token[:4]))
        return _begins_piece


def _without_newline(found: Encoding) -> tuple[int, ...] | None:
    """The tokens of a text that was put on a line of its own; None where one holds the newline."""
    made: list[int] = []
    for token, (start, end) in zip(found.ids, found.offsets, strict=True):
        if start < 1 < end:
            return None
        if end > 1:
            made.append(token)
    return tuple(made)


@lru_cache(maxsize=8)
def _read(path: Path, name: str, changed: int) -> TextTokenizer:
    """A large vocabulary takes a quarter of a second to read: once for each state of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read", found=str(error)) from error
    return TextTokenizer.from_json(text, name)


# -- one token ------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level BPE spells bytes: themselves, or from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


@lru_cache(maxsize=1 << 16)
def _spelled(token: str) -> bytes:
    letters = _byte_letters()
    return bytes(letters.get(letter, 0) for letter in token)


def _spelled_piece(token: str) -> bytes:
    byte = re.fullmatch("<0x([0-9A-F]{2})>", token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


@lru_cache(maxsize=1 << 16)
def _begins_bytes(data: bytes) -> bool:
    """Whether a token with these first bytes begins a word; a part of a character does not."""
    for length in range(1, 5):
        try:
            return _begins_text(data[:length].decode())
        except UnicodeDecodeError:
            continue
    return False


def _begins_piece(token: str) -> bool:
    byte = re.fullmatch("<0x([0-9A-F]{2})>", token) if token[:1] == "<" else None
    if byte is not None:
        return _begins_bytes(bytes([int(byte[1], 16)]))
    return _begins_text(token[:1])


@lru_cache(maxsize=1 << 16)
def _begins_text(first: str) -> bool:
    """Whether a first character does not go on in a word (`▁`, a space, does not)."""
    return not joins(first)
