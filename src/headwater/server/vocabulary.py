"""The corpus's words, from the index of words that lexical evidence has: which are rare, and where.

No pass over the corpus: how many examples hold a word is the length of its postings.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.evidence.lexical import BM25
from headwater.evidence.texts import document_text
from headwater.tasks.query import Query

if TYPE_CHECKING:
    from headwater.index.index import Index

NULLS = 19  # random queries: with all of them below, p = 0.05
RAREST = 40  # words of a query that are told
LONGEST = 60  # characters of a word that is shown


class Vocabulary(BM25):
    """BM25's words and postings, to count with."""

    def telling(self, index: Index, positions: Sequence[int], k: int) -> list[dict[str, Any]]:
        """The k words that tell these examples from the corpus (TF-IDF), the heaviest first.

        The weight of a word is the sum over the examples of (1 + ln of how often it has it), times
        ln(examples / examples of the corpus with it): to repeat a word in one example adds little.
        Forms of one stem are one word, shown in its commonest form.
        """
        postings = self._opened(index)
        weights: Counter[int] = Counter()
        forms: dict[int, Counter[str]] = {}
        where: dict[int, list[int]] = {}
        for position, document in zip(positions, index.documents(positions), strict=True):
            words, numbers = self._numbered(postings, document_text(document))
            for number, times in Counter(numbers).items():
                weights[number] += 1 + math.log(times)  # pyright: ignore[reportArgumentType]
                where.setdefault(number, []).append(position)
            for word, number in zip(words, numbers, strict=True):
                forms.setdefault(number, Counter())[word] += 1
        made: list[dict[str, Any]] = []
        for number, weight in weights.items():
            documents = postings.count(number)
            idf = math.log(postings.documents / max(documents, 1))
            if idf <= 0:
                continue
            named = [form[:LONGEST] for form, _ in forms[number].most_common()]
            one = {"word": named[0], "forms": named, "weight": weight * idf}
            made.append({**one, "documents": documents, "positions": sorted(where[number])})
        return sorted(made, key=lambda one: (-one["weight"], one["word"]))[:k]

    def rarest(self, index: Index, text: str) -> list[dict[str, Any]]:
        """The words of a text and how many examples hold each, the rarest first."""
        postings = self._opened(index)
        words = [
            w for w in dict.fromkeys(self._split(text.lower())) if w not in postings.stop_words
        ]
        known = dict(zip(*self._numbered(postings, text), strict=True))
        made = [
            {
                "word": word[:LONGEST],
                "documents": postings.count(known[word]) if word in known else 0,
            }
            for word in words
        ]
        return sorted(made, key=lambda one: one["documents"])[:RAREST]


def random_queries(index: Index, query: Query, count: int = NULLS) -> list[Query]:
    """The same prompt with words drawn from examples by lot in place of the completion.

    Each is as long in words, and its words are as frequent as words of the corpus are.
    """
    if query.completion is None or not isinstance(query.prompt, str | None):
        return []
    wanted = max(1, len(query.completion.split()))
    digest = hashlib.sha256(f"{query.prompt}|{query.completion}".encode(errors="replace")).digest()
    random = np.random.default_rng(np.frombuffer(digest[:8], dtype="<u8"))
    positions = random.integers(0, len(index), count * wanted).tolist()
    texts = [document_text(one).split() for one in index.documents(positions)]
    words = [one[int(random.integers(len(one)))] if one else "-" for one in texts]
    parts = [words[start : start + wanted] for start in range(0, len(words), wanted)]
    return [Query(query.prompt, f" {' '.join(part)}") for part in parts]
