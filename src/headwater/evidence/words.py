"""A tokenizer whose vocabulary is every word of a corpus, for corpora without a model.

A word stands with the space before it, as does a mark; other white space stands alone. In scripts
that write no spaces between words each character is a word. A text is taken as if a space stood
before it, so that its first word is the word that it is elsewhere. Decoding gives
the text back letter by letter, and nothing that the corpus holds is unknown. The vocabulary is
evidence of its own on disk: it is counted once, and again when the corpus has grown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.engine.files import write_atomic
from headwater.engine.progress import Progress
from headwater.evidence.spelling import UNSPACED
from headwater.evidence.texts import document_text
from headwater.evidence.tokenizer import FILE, WORDS, TextTokenizer
from headwater.index.store import Store, prepared, remove_outdated

if TYPE_CHECKING:
    from headwater.index.index import Index

PATTERN = rf" ?[^\W{UNSPACED}]+| ?(?!\s)[{UNSPACED}]| ?[^\w\s]|\s+(?!\S)|\s+"
UNKNOWN = "<unknown>"  # cannot be a piece: it is split at its marks


def words_of(index: Index) -> TextTokenizer:
    """The word tokenizer of an index's corpus; its memory is that of the distinct words."""
    store = Store(index, "verbatim", {"vocabulary": WORDS, "pattern": PATTERN})
    prepared(store, _build)
    return TextTokenizer.from_file(store.path(FILE), WORDS)


def word_tokenizer(texts: Iterator[str]) -> str:
    """The serialised tokenizer whose words are those of `texts`, the most frequent first."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    space, split = normalizers.Prepend(" "), pre_tokenizers.Split(Regex(PATTERN), "isolated")
    counted = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    counted.normalizer, counted.pre_tokenizer = space, split
    trainer = trainers.WordLevelTrainer(vocab_size=1 << 40, special_tokens=[], show_progress=False)
    counted.train_from_iterator(texts, trainer)
    # Unknown is an entry of the vocabulary, not a special token, which would be found in texts.
    vocabulary = counted.get_vocab(with_added_tokens=False)
    made = Tokenizer(models.WordLevel({**vocabulary, UNKNOWN: len(vocabulary)}, UNKNOWN))
    made.normalizer, made.pre_tokenizer = space, split
    made.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return made.to_str()


def _build(store: Store) -> None:
    text = _count(store.index)
    write_atomic(store.folder / FILE, lambda path: _write(path, text))
    store.finish([FILE], {"tokenizer": WORDS})
    # Each vocabulary has a store of phrases of its own, as large as the corpus.
    remove_outdated(store.index, store.kind)


def _count(index: Index) -> str:
    with Progress("words", len(index), "examples") as progress:

        def texts() -> Iterator[str]:
            for document in index.stream():
                yield document_text(document)
                progress.advance()

        return word_tokenizer(texts())


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
