"""BM25 by tantivy: for corpora too large to be indexed in memory, and for those that grow.

    score(q, z) = sum over terms t of q: idf(t) (k1 + 1) tf / (tf + k1 (1 - b + b |z| / mean))

What is appended to the corpus is added to the files; nothing is read again. tantivy fixes k1 = 1.2
and b = 0.75, and rounds lengths above 40 terms down, by at most an eighth. A document's score is
added up term by term in one order, so that equal documents score equal, bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.evidence.lexical import CELLS, TermScore, require_position, stop_words_of
from headwater.evidence.ranker import TextRanker, best, decoder
from headwater.evidence.tantivy_index import (
    TOKENIZER,
    Growing,
    Grown,
    file_format,
    tantivy_package,
    words,
)
from headwater.evidence.texts import document_text
from headwater.index.store import STATE, Store, prepared

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask

FOLDER = "tantivy"  # of its files, within the store
TOGETHER = 1024  # documents read at once

Array = np.ndarray[Any, Any]


class Tantivy(TextRanker):
    """BM25 over the documents' texts, in an index that grows with the corpus.

    Words are runs of letters and digits, in lower case, stemmed as English. The index holds all of
    them, and counts all of them as a document's length; stop words are left out of queries only.

    Args:
        stop_words: language of a list of bm25s, or a list of words (lower case); None = none. They
            are in most documents: with them the scores of all documents take 30 times as long.

    Raises:
        InputError: when the package is not installed, or there is no such list.
    """

    name, title = "tantivy", "BM25 (tantivy)"
    unit = "BM25 score (lexical overlap; not a cause)"
    needs = "texts"
    costs = "an index of words once, milliseconds a query"

    def __init__(self, stop_words: str | Sequence[str] | None = "english") -> None:
        super().__init__()
        tantivy_package()  # refuses now, not after the corpus was read
        self.stop_words = stop_words if isinstance(stop_words, str) else sorted(stop_words or ())
        self._left_out = stop_words_of(self.stop_words)

    # -- queries --------------------------------------------------------------------------

    def top(
        self, index: Index, text: str, k: int = 10, among: Mask | None = None
    ) -> tuple[Array, Array]:
        """The best k documents for a text: positions int64 [k] and scores float32 [k], best first.

        In the order of `hw.top`, ties by id: only documents that share a word with the text. Only
        those that may be among the best are read: on large corpora this is much faster than the
        scores of all.

        Args:
            index, text: what is asked of what.
            k: how many; fewer come back when fewer share a word.
            among: bool [documents]; None = all take part.
        """
        if k < 1:
            raise InputError("k must be positive", found=k)
        grown: Grown = self._opened(index)
        wanted = self._terms(text)
        positions = grown.nearest(wanted, k, among)
        scores = np.zeros(len(positions), dtype=np.float32)
        for term, times in sorted(wanted.items()):
            at, added = grown.postings(term, positions.tolist())
            scores[np.searchsorted(positions, at)] += added * np.float32(times)
        return best(index, positions, scores, k)

    def explain(self, index: Index, text: str, position: int) -> list[TermScore]:
        """The words of `text` that a document has, and what each added, the largest first.

        The scores sum to the document's score for the text.

        Args:
            index, text: as in `top`. position: of the document in the index.

        Raises:
            InputError: when there is no such document.
        """
        grown: Grown = self._opened(index)
        require_position(position, grown.documents)
        document = document_text(index.documents([position])[0], decoder(index))
        forms: dict[str, Counter[str]] = {}
        for form, term in words(document):
            forms.setdefault(term, Counter())[form.lower()] += 1
        made: list[TermScore] = []
        for term, times in self._terms(text).items():
            _, added = grown.postings(term, [position])
            if term in forms and len(added):
                score = times * float(added[0])
                made.append(TermScore.of(forms[term], grown.count(term), score))
        return sorted(made, key=lambda term: (-term.score, term.term))

    def _blocks(self, index: Index, items: Sequence[str]) -> Iterator[tuple[int, Array]]:
        grown: Grown = self._opened(index)
        wanted = [self._terms(text) for text in items]
        # Each term is looked up once for all queries: 12 bytes for each document that has it.
        held = {term: grown.postings(term) for term in set[str]().union(*wanted)}
        step = max(1, CELLS // max(1, len(items)))
        for first in range(0, grown.documents, step):
            rows = np.zeros((len(items), min(step, grown.documents - first)), dtype=np.float32)
            for row, mine in zip(rows, wanted, strict=True):
                for term, times in sorted(mine.items()):
                    at, added = held[term]
                    a, b = np.searchsorted(at, [first, first + len(row)])
                    row[at[a:b] - first] += added[a:b] * np.float32(times)
            yield first, rows

    def _terms(self, text: str) -> Counter[str]:
        """How often a query has each term."""
        return Counter(term for form, term in words(text) if form.lower() not in self._left_out)

    # -- the store ------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        fixed = {"k1": 1.2, "b": 0.75, "tokenizer": TOKENIZER}
        return {"method": self.name, **fixed, "stop_words": self.stop_words}

    def _read(self, index: Index) -> Grown:
        settings = {"ranker": self.name, "tokenizer": TOKENIZER, "format": file_format()}
        store = prepared(Store(index, "lexical", settings), self._build, grows=True)
        return Grown(store.folder / FOLDER, len(index))

    def _build(self, store: Store) -> None:
        documents = len(store.index)
        growing = Growing(store.folder / FOLDER, documents)
        growing.add(_texts(store.index, growing.held))
        names = [f"{FOLDER}/{name}" for name in growing.names()]
        mode = (store.folder / STATE).stat().st_mode
        for name in names:  # tantivy hides some from other users, whom the index may be meant for
            (store.folder / name).chmod(mode)
        store.finish(names, {"documents": documents})


def _texts(index: Index, first: int) -> Iterator[list[str]]:
    """The texts of the documents from position `first` on, in groups."""
    decode, documents = decoder(index), len(index)
    with Progress("lexical", documents - first, "passages") as progress:
        for start in range(first, documents, TOGETHER):
            group = range(start, min(start + TOGETHER, documents))
            yield [document_text(document, decode) for document in index.documents(group)]
            progress.advance(len(group))
