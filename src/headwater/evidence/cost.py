"""What evidence without gradients will cost, before it is built: words of a sample are counted.

Disk and memory of lexical and verbatim evidence are those of their files and of the arrays that
their builds hold; both grow with the number of words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headwater.evidence.lexical import WORD, stop_words_of
from headwater.evidence.texts import document_text
from headwater.evidence.token_store import build_cost
from headwater.evidence.words import PATTERN
from headwater.index.estimate import count_documents, stored_bytes, take_sample
from headwater.tasks.texts import Texts

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus

GROWTH = 0.6  # the vocabulary of n times as many words is n^0.6 times as large (Heaps' law)
POSTING, TERM = 8, 28  # bytes on disk of a word in a document, and of a word of the vocabulary
# Bytes of memory while the lexical index is made: of each word, each that is kept, each posting.
READ, KEPT, SCORED = 4, 13, 72


@dataclass(frozen=True)
class TextCost:
    """What an index without a model takes, and its evidence.

    Args:
        documents, words: of the corpus; exact when `counted`. basis: how the numbers are known.
        skipped: documents of the sample that cannot be used.
        disk_bytes: of the corpus, and of lexical and verbatim evidence.
        peak_memory_bytes: while each of the two is built.
    """

    documents: int
    words: int
    counted: bool
    basis: str
    skipped: int
    disk_bytes: dict[str, int]
    peak_memory_bytes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-serialisable."""
        return asdict(self)


def text_cost(corpus: Corpus, *, skip_bad: bool = False) -> TextCost:
    """Documents of a corpus, and disk and memory of its evidence by words; nothing is written.

    Raises:
        InputError: when the corpus holds no example that can be used.
    """
    sample = take_sample(Texts(), corpus, skip_bad=skip_bad)
    documents, basis = count_documents(corpus, sample)
    factor = documents / max(sample.seen, 1)
    texts = [document_text(one) for one in sample.documents]
    pieces, vocabulary = _pieces(texts)
    tokens = round((pieces + len(texts)) * factor)  # and a separator for each document
    phrases, on_disk = build_cost(tokens, round(vocabulary * factor**GROWTH))
    words, kept, postings, terms = _words(texts)
    held = READ * words + KEPT * kept + SCORED * postings
    return TextCost(
        documents=round(len(texts) * factor),
        words=round(words * factor),
        counted=sample.whole,
        basis=basis,
        skipped=sample.skipped,
        disk_bytes={
            "corpus": round(stored_bytes(sample) * factor),
            "lexical": round(POSTING * postings * factor + TERM * terms * factor**GROWTH),
            "verbatim": on_disk,
        },
        peak_memory_bytes={"lexical": round(held * factor), "verbatim": phrases},
    )


def _pieces(texts: Sequence[str]) -> tuple[int, int]:
    """Tokens of the `words` tokenizer, and how many of them differ."""
    split, seen, count = re.compile(PATTERN).findall, set[str](), 0
    for text in texts:
        found = split(" " + text)
        seen.update(found)
        count += len(found)
    return count, len(seen)


def _words(texts: Sequence[str]) -> tuple[int, int, int, int]:
    """Words, those that are no stop words, postings and terms; stems would be a few less."""
    split, left_out = re.compile(WORD).findall, stop_words_of("english")
    words = kept = postings = 0
    terms: set[str] = set()
    for text in texts:
        found = split(text.lower())
        mine = [word for word in found if word not in left_out]
        words, kept, postings = words + len(found), kept + len(mine), postings + len(set(mine))
        terms.update(mine)
    return words, kept, postings, len(terms)
