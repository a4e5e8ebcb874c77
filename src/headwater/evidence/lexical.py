"""BM25: which examples share rare words with the output. Overlap, not cause; the baseline to beat.

    score(q, z) = sum over words t of q: idf(t) tf(t, z) / (tf(t, z) + k1 (1 - b + b |z| / mean))

The score of every word in every document is computed at the build (Lu 2024, BM25S), so a query only
adds up a few columns. The files are those of the `bm25s` package, which opens them, too; they are
computed here whole columns at a time, and read from memory maps. Nothing here imports torch.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.evidence.postings import Postings, bm25s_package, postings_of, save
from headwater.evidence.ranker import TextRanker, best, decoder
from headwater.evidence.texts import document_text
from headwater.index.store import Store, prepared

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask

WORD = r"\b\w\w+\b"  # two word characters or more, as bm25s and scikit-learn split
VARIANTS = ("lucene", "robertson", "atire")
CELLS = 1 << 24  # scores held at a time: 64 MiB

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TermScore:
    """What one word of a query added to a document's score.

    Args:
        term: the word as it stands in the document (lower case; its commonest form).
        count: how often the document has it, in any form with the same stem.
        documents: how many documents have it.
        score: what it added.
        forms: all forms in which the document has it, for marking them.
    """

    term: str
    count: int
    documents: int
    score: float
    forms: tuple[str, ...]

    @classmethod
    def of(cls, forms: Counter[str], documents: int, score: float) -> TermScore:
        """From how often the document has the term in each form."""
        found = [form for form, _ in forms.most_common()]
        return cls(found[0], forms.total(), documents, score, tuple(found))


class BM25(TextRanker):
    """BM25 over the documents' texts.

    Words are runs of two or more word characters, in lower case, without stop words, stemmed. This
    fits languages that put spaces between words; give the stemmer (Snowball's name, `arabic` for
    example) and stop words of yours. Where a language has no spaces (Chinese, Japanese, Thai) a
    whole sentence is one word and nothing matches: take single characters,
    `BM25(stemmer=None, stop_words=None, pattern=r"[\u4e00-\u9fff]|\\w\\w+")`, or `Dense` with a
    multilingual encoder.

    Args:
        k1: how soon repetition stops counting. b: how much long documents are marked down, 0 to 1.
        stemmer: language of a Snowball stemmer; None = words as they are.
        stop_words: language of a list of bm25s, or a list of words (lower case); None = none.
        variant: of the formula: "lucene", "robertson" or "atire" (Kamphuis et al. 2020).
        pattern: regular expression of a word.

    Raises:
        InputError: for parameters out of range, unknown languages, or a package that is missing.
    """

    name, title = "bm25", "BM25"
    unit = "BM25 score (lexical overlap; not a cause)"
    needs = "texts"
    costs = "an index of words once, milliseconds a query"

    def __init__(
        self,
        k1: float = 1.5,
        b: float = 0.75,
        stemmer: str | None = "english",
        stop_words: str | Sequence[str] | None = "english",
        variant: str = "lucene",
        pattern: str = WORD,
    ) -> None:
        super().__init__()
        if not 0 <= k1 < float("inf") or not 0 <= b <= 1:
            raise InputError(
                "BM25's parameters are out of range",
                expected="k1 at least 0, b from 0 to 1",
                found=f"k1={k1}, b={b}",
            )
        if variant not in VARIANTS:
            raise InputError("Unknown variant of BM25", expected=", ".join(VARIANTS), found=variant)
        self.k1, self.b, self.variant = float(k1), float(b), variant
        self.stemmer = stemmer
        self.stop_words = stop_words if isinstance(stop_words, str) else sorted(stop_words or ())
        self.pattern = pattern
        self._split = _compiled(pattern)
        _stem(stemmer)  # refuses an unknown language now, not after the build

    # -- queries --------------------------------------------------------------------------

    def top(
        self, index: Index, text: str, k: int = 10, among: Mask | None = None
    ) -> tuple[Array, Array]:
        """The best k documents for a text: positions int64 [k] and scores float32 [k], best first.

        In the order of `hw.top`, ties by id: only documents that share a word with the text, so for
        one whose words no document has, there are none.

        Args:
            index, text: what is asked of what.
            k: how many; fewer come back when fewer share a word.
            among: bool [documents]; None = all take part.
        """
        postings: Postings = self._opened(index)
        scores = np.zeros(postings.documents, dtype=np.float32)
        postings.add(scores, self._terms(postings, text))
        found = np.flatnonzero(scores if among is None else scores * among)
        return best(index, found, scores[found], k)

    def explain(self, index: Index, text: str, position: int) -> list[TermScore]:
        """The words of `text` that a document has, and what each added, the largest first.

        The scores sum to the document's score for the text.

        Args:
            index, text: as in `top`. position: of the document in the index.

        Raises:
            InputError: when there is no such document.
        """
        postings: Postings = self._opened(index)
        require_position(position, postings.documents)
        document = document_text(index.documents([position])[0], decoder(index))
        forms: dict[int, Counter[str]] = {}
        for word, number in zip(*self._numbered(postings, document), strict=True):
            forms.setdefault(number, Counter())[word] += 1
        made: list[TermScore] = []
        for number, times in self._terms(postings, text).items():
            score = postings.score(number, position)
            if score is None or number not in forms:
                continue
            made.append(TermScore.of(forms[number], postings.count(number), times * score))
        return sorted(made, key=lambda term: (-term.score, term.term))

    def _blocks(self, index: Index, items: Sequence[str]) -> Iterator[tuple[int, Array]]:
        postings: Postings = self._opened(index)
        terms = [self._terms(postings, text) for text in items]
        step = max(1, CELLS // max(1, len(items)))
        for first in range(0, postings.documents, step):
            rows = np.zeros((len(items), min(step, postings.documents - first)), dtype=np.float32)
            for row, mine in zip(rows, terms, strict=True):
                postings.add(row, mine, first)
            yield first, rows

    def _terms(self, postings: Postings, text: str) -> Counter[int]:
        """How often the text has each stem of the vocabulary, by the stem's number."""
        return Counter(self._numbered(postings, text)[1])

    def _numbered(self, postings: Postings, text: str) -> tuple[list[str], list[int]]:
        """The words of a text that the vocabulary has, with their stems' numbers."""
        stem, known = _stem(self.stemmer), postings.vocabulary
        words = [w for w in self._split(text.lower()) if w not in postings.stop_words]
        numbers = [known.get(stem(word), -1) for word in words]
        kept = [place for place, number in enumerate(numbers) if number >= 0]
        return [words[place] for place in kept], [numbers[place] for place in kept]

    # -- the store ------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {"method": self.name, **self._settings()}

    def _settings(self) -> dict[str, Any]:
        return {
            "k1": self.k1,
            "b": self.b,
            "stemmer": self.stemmer,
            "stop_words": self.stop_words,
            "variant": self.variant,
            "pattern": self.pattern,
        }

    def _read(self, index: Index) -> Postings:
        store = Store(index, "lexical", self._settings())
        return Postings.open(prepared(store, self._build))

    def _build(self, store: Store) -> None:
        stop_words = stop_words_of(self.stop_words)
        numbers = _Numbers(_stem(self.stemmer), stop_words)
        tokens, lengths = array("i"), array("i")
        decode = decoder(store.index)
        with Progress("lexical", len(store.index), "passages") as progress:
            for document in store.index.stream():
                words = self._split(document_text(document, decode).lower())
                tokens.extend(map(numbers.__getitem__, words))
                lengths.append(len(words))
                progress.advance()
        words = len(numbers.stems)
        made = postings_of(np.asarray(tokens), np.asarray(lengths), words, self._formula)
        told = {"k1": self.k1, "b": self.b, "method": self.variant}
        names = save(store.folder, made, numbers.stems, len(lengths), **told)
        store.finish(names, {"documents": len(lengths), "stop_words": sorted(stop_words)})

    def _formula(self, tf: Array, length: Array, df: Array, documents: int) -> Array:
        """Scores of postings, float64: counts of a term, lengths over their mean, documents."""
        tf, df = tf.astype(np.float64), df.astype(np.float64)
        saturation = tf + self.k1 * (1 - self.b + self.b * length)
        if self.variant == "atire":
            return np.log(documents / df) * tf * (self.k1 + 1) / saturation
        odds = (documents - df + 0.5) / (df + 0.5)
        idf = np.log1p(odds) if self.variant == "lucene" else np.log(np.maximum(odds, 1))
        return idf * tf / saturation


def require_position(position: int, documents: int) -> None:
    """Raise InputError when no document stands at a position."""
    if not 0 <= position < documents:
        raise InputError(
            "There is no such document",
            expected=f"a position from 0 to {documents - 1}",
            found=position,
        )


class _Numbers(dict[str, int]):
    """The number of each word's stem, -1 for stop words: looked up as fast as a dict can."""

    def __init__(self, stem: Callable[[str], str], stop_words: Iterable[str]) -> None:
        super().__init__((word, -1) for word in stop_words)
        self.stem = stem
        self.stems: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        number = self[word] = self.stems.setdefault(self.stem(word), len(self.stems))
        return number


def _compiled(pattern: str) -> Callable[[str], list[str]]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError("The pattern of a word is no regular expression", found=error) from error
    if compiled.groups > 1 or compiled.search("") is not None:
        raise InputError(
            "The pattern of a word does not fit",
            expected="one that never matches nothing, with at most one group",
            found=pattern,
        )
    return compiled.findall


def _stem(language: str | None) -> Callable[[str], str]:
    """A stemmer of its own for each caller: they are quickly made, and not safe between threads."""
    if language is None:
        return str
    try:
        import Stemmer
    except ImportError as error:
        raise InputError(
            "Stemming needs a package that is not installed",
            do="run pip install PyStemmer, or take stemmer=None",
        ) from error
    try:
        return Stemmer.Stemmer(language).stemWord
    except KeyError as error:
        known = ", ".join(Stemmer.algorithms())
        raise InputError("There is no such stemmer", expected=known, found=language) from error


def stop_words_of(wanted: str | Sequence[str]) -> frozenset[str]:
    """The words of a list, or of the list of a language; raises InputError when there is none."""
    if not isinstance(wanted, str):
        return frozenset(wanted)
    bm25s_package()
    from bm25s.tokenization import Tokenizer

    try:
        return frozenset(Tokenizer(stopwords=wanted).stopwords)
    except ValueError as error:
        raise InputError(
            "There is no such list of stop words",
            expected="english, german, french, ... (those of bm25s), or a list of words",
            found=wanted,
        ) from error
