"""Small corpora for phrase search, and what a naive search says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headwater as hw
from headwater.evidence.tokenizer import TextTokenizer
from headwater.tasks.texts import Texts

LETTERS = "abcdefghij"


def letters_json() -> str:
    """A serialised tokenizer of the words a, b, ... j, ids 0 to 9."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    raw = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, "?"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return raw.to_str()


def letters() -> TextTokenizer:
    return TextTokenizer.from_json(letters_json(), "letters")


def wide(size: int) -> TextTokenizer:
    """A tokenizer of `size` words w0, w1, ..."""
    from tokenizers import Tokenizer, models

    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, "w0"))
    return TextTokenizer.from_json(raw.to_str(), f"{size} words")


def text_index(texts: Sequence[str], folder: Path | None = None, **metadata: Any) -> hw.Index:
    """An index without a model, of texts d0, d1, ..."""
    rows = [
        {"id": f"d{i}", "text": text, **{name: f"{value}/{i}" for name, value in metadata.items()}}
        for i, text in enumerate(texts)
    ]
    return hw.Index.build(folder, Texts(), hw.Corpus.from_documents(rows), None)


def token_index(documents: Sequence[Sequence[int]], folder: Path | None = None) -> hw.Index:
    """An index without a model, of token ids."""
    rows = [{"id": f"d{i}", "input_ids": list(ids)} for i, ids in enumerate(documents)]
    return hw.Index.build(folder, Texts(), hw.Corpus.from_documents(rows), None)


# -- naive ----------------------------------------------------------------------------------------


def naive_find(documents: Sequence[Sequence[int]], phrase: Sequence[int]) -> list[tuple[int, int]]:
    size = len(phrase)
    return [
        (number, start)
        for number, ids in enumerate(documents)
        for start in range(len(ids) - size + 1)
        if list(ids[start : start + size]) == list(phrase)
    ]


def naive_longest(documents: Sequence[Sequence[int]], tokens: Sequence[int]) -> int:
    fits = (n for n in range(len(tokens), 0, -1) if naive_find(documents, tokens[:n]))
    return next(fits, 0)


def naive_next(documents: Sequence[Sequence[int]], phrase: Sequence[int]) -> dict[int, int]:
    found = Counter(
        documents[number][start + len(phrase)]
        for number, start in naive_find(documents, phrase)
        if start + len(phrase) < len(documents[number])
    )
    return dict(found)


def check(verbatim: Any, documents: Sequence[Sequence[int]], query: Sequence[int]) -> None:
    """Everything that a phrase index says of a query, against naive search."""
    longest = [naive_longest(documents, query[start:]) for start in range(len(query))]
    assert verbatim.longest_matches(query).tolist() == longest
    assert verbatim.longest_match(query) == (
        longest[0],
        len(naive_find(documents, query[: longest[0]])) if longest[0] else 0,
    )
    for size in range(1, len(query) + 1):
        found = naive_find(documents, query[:size])
        assert verbatim.count(query[:size]) == len(found)
        matches = [(match.position, match.offset) for match in verbatim.find(query[:size])]
        assert matches == found
        assert [(m.position, m.offset) for m in verbatim.find(query[:size], 2)] == found[:2]
        assert verbatim.next_tokens(query[:size]) == naive_next(documents, query[:size])
    suffixes = (n for n in range(len(query), 0, -1) if naive_find(documents, query[-n:]))
    length = next(suffixes, 0)
    gram = verbatim.infinity_gram(query)
    assert gram.length == length
    if length:
        assert gram.count == len(naive_find(documents, query[-length:]))
        assert gram.next == naive_next(documents, query[-length:])


def naive_text(texts: Sequence[str], query: str) -> list[tuple[int, int]]:
    """(document, character) of every place of a text: letters at its ends are the ends of words."""
    sought = query.strip()
    return [
        (number, start)
        for number, text in enumerate(texts)
        for start in range(len(text) - len(sought) + 1)
        if text[start : start + len(sought)] == sought
        and not _one_word(text[max(start - 1, 0) : start] + sought[0])
        and not _one_word(sought[-1] + text[start + len(sought) : start + len(sought) + 1])
    ]


def _one_word(pair: str) -> bool:
    """Whether two characters are of one word; Chinese ones never are."""
    return len(pair) == 2 and all(c.isalnum() and not "\u4e00" <= c <= "\u9fff" for c in pair)


def glued_bytes() -> TextTokenizer:
    """Byte-level BPE that joins marks, Chinese characters, and halves of characters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [
        'ab). ("ab", ab."',
        "京北京北 京北",
        "éa éb baé aé",
        "“ab” ab’s",
        "ab— a.. b..",
        "🙂🙃",
    ]
    raw.train_from_iterator(lines * 9, trainer)
    return TextTokenizer.from_json(raw.to_str(), "glued")


def sentence_pieces(letters: str = "abcdefgh.é") -> TextTokenizer:
    """Metaspace and byte fallback, as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters, "ab", "▁a"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    raw = Tokenizer(
        models.BPE(vocab, [("a", "b"), ("▁", "a")], unk_token="<unk>", byte_fallback=True)
    )
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return TextTokenizer.from_json(raw.to_str(), "pieces")
