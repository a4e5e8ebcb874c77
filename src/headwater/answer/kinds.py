"""The kinds of evidence that need no gradients, as an answer asks them: one score per example.

Each says what it means and what it does not: a verbatim match is not a cause, and a cause need not
match.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headwater.answer.verdict import COPIED_TOKENS, is_copied
from headwater.engine.as_dict import as_dict
from headwater.engine.errors import InputError
from headwater.evidence.texts import prompt_text
from headwater.methods.method import Method
from headwater.methods.scoring import scores

if TYPE_CHECKING:
    from headwater.answer.answer import Evidence
    from headwater.evidence.span import Span
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query

KINDS = ("influence", "verbatim", "lexical", "semantic")
WITHOUT_GRADIENTS = ("verbatim", "lexical")  # what any texts can be asked for
NOTES = {
    "influence": "moved the model towards these words; it need not contain them",
    "verbatim": "holds the same words in the same order; a match is not a cause",
    "lexical": "shares words with the output; a cause need not share any",
    "semantic": "means something similar; similarity is not a cause",
}
SHORT = 64  # tokens of prompt and output that are searched together
OFTEN = 10  # occurrences from which a short span is a turn of phrase
TERMS = 8  # matched words told of an example

Array = np.ndarray[Any, Any]


class Reader(Protocol):
    """A kind of evidence, ready for one query after another."""

    kind: str
    title: str
    unit: str
    telling: Mask | None  # of the last query: whose score counts as a rank; None = everyone's

    def scores(self, query: Query) -> Array:
        """Float [documents]: above zero = evidence; NaN = takes no part."""
        ...

    def mark(self, item: Evidence) -> None:
        """Say in `item` what the last query's score of it came from."""
        ...


class Ranked:
    """Lexical or semantic evidence by a method of its own."""

    telling: Mask | None = None

    def __init__(self, index: Index, kind: str, method: Method, among: Mask | None) -> None:
        self.index, self.kind, self.method, self.among = index, kind, method, among
        self.title, self.unit = method.title, method.unit
        self._query: Query | None = None

    def scores(self, query: Query) -> Array:
        """By the method."""
        self._query = query
        row = scores(self.index, query, method=self.method)[0]
        return row if self.among is None else np.where(self.among, row, np.float32(np.nan))

    def mark(self, item: Evidence) -> None:
        """The words that match, where the method can tell."""
        explain = getattr(self.method, "explain", None)
        if explain is None or self._query is None or self._query.completion is None:
            return
        text = prompt_text(self._query) + "".join(self._query.said)
        found: Sequence[Any] = explain(self.index, text, item.position)
        terms = sorted(((one.term, float(one.score)) for one in found), key=lambda t: -t[1])
        item.terms = terms[:TERMS]


class VerbatimReader:
    """Spans of the output that stand in the corpus word for word.

    A short output is searched together with its prompt, so that it is seen in its place, and all
    spans that touch it count; of a long one the least probable spans, as OLMoTrace has it. Short
    spans that are found everywhere ("was born in") are turns of phrase, and left out. An example's
    score is the surprise (negative log probability under unigram frequencies, in nats) of the
    tokens in the spans it holds; a token in several of them counts once. Telling are only those
    that hold a span long and rare enough to be called copied: "in the field of linguistics" is said
    of many, and would else weigh as much as the passage about the person who is asked about.
    """

    kind = "verbatim"
    unit = "nats of matched words"

    def __init__(self, index: Index, among: Mask | None, tokenizer: str | None = None) -> None:
        from headwater.evidence.verbatim import Verbatim

        self.index, self.among = index, among
        key = (self.kind, tokenizer)
        if key not in index.opened:
            index.opened[key] = Verbatim.open(index, tokenizer)
        self.verbatim: Verbatim = index.opened[key]
        self.title = f"Verbatim ({Path(self.verbatim.tokenizer.name).name})"
        self.spans: list[dict[str, Any]] = []
        self.telling: Mask | None = None
        self._held: dict[int, list[tuple[int, int]]] = {}

    def scores(self, query: Query) -> Array:
        """Sums over the tokens of the spans that each example holds."""
        row = np.zeros(len(self.index), dtype=np.float32)
        self.spans, self._held = [], {}
        self.telling = np.zeros(len(self.index), dtype=bool)
        if self.among is not None:
            row[~self.among] = np.nan
        if query.completion is None:
            return row
        prompt = prompt_text(query)
        before, found = self._trace(prompt, query.completion)
        if query.words is not None:
            found = [
                span for span in found if _touches(query, span.start - before, span.end - before)
            ]
        encoded = self.verbatim.tokenizer.encode(prompt[len(prompt) - before :] + query.completion)
        surprise = -self.verbatim.log_probabilities(encoded.ids)
        surprise[np.isinf(surprise)] = 0.0  # not in the corpus, and so in no span
        covered: dict[int, Array] = {}
        for span in found:
            inner = (encoded.offsets[:, 0] < span.end) & (encoded.offsets[:, 1] > span.start)
            said = as_dict(span)
            said["output_tokens"] = int((inner & (encoded.offsets[:, 1] > before)).sum())
            said["in_output"] = (max(span.start - before, 0), span.end - before)
            self.spans.append(said)
            copied = is_copied(said, self.verbatim.tokens)
            for document in span.documents:
                self.telling[document.position] |= copied
                covered[document.position] = inner | covered.get(document.position, False)
                self._held.setdefault(document.position, []).extend(document.matches)
        for position, tokens in covered.items():
            row[position] = surprise[tokens].sum()
        return row

    def _trace(self, prompt: str, completion: str) -> tuple[int, list[Span]]:
        """How many characters were searched before the output, and the spans that touch it."""
        from headwater.evidence.spans import Tracing, trace

        whole = prompt + completion
        if len(self.verbatim.tokenizer.encode(whole).ids) > SHORT:
            settings = Tracing(merge=False)
            return 0, _telling(trace(self.verbatim, completion, prompt, settings, self.among))
        settings = Tracing(density=1.0, merge=False)
        found = trace(self.verbatim, whole, settings=settings, among=self.among)
        kept: list[Span] = []
        for span in found:
            if span.end > len(prompt):
                kept.append(span)
        return len(prompt), _telling(kept)

    def mark(self, item: Evidence) -> None:
        """Where the words stand in the example."""
        item.spans = sorted(set(self._held.get(item.position, [])))


def _touches(query: Query, start: int, end: int) -> bool:
    """Whether these characters of the completion hold some of the chosen ones."""
    return any(first < end and start < last for first, last in query.chosen)


def _telling(spans: Sequence[Span]) -> list[Span]:
    """Spans that are long, or rare enough for all their places to be shown."""
    return [
        span
        for span in spans
        if span.count <= OFTEN or max(part.tokens for part in span.parts) >= COPIED_TOKENS
    ]


def reader(
    index: Index, kind: str, method: Method | None, among: Mask | None, tokenizer: str | None
) -> Reader:
    """One of the kinds besides influence; raises InputError for another name."""
    if kind == "verbatim":
        return VerbatimReader(index, among, tokenizer)
    if kind == "lexical":
        return Ranked(index, kind, method or _opened(index, kind), among)
    if kind == "semantic":
        return Ranked(index, kind, method or _opened(index, kind), among)
    raise InputError("There is no such kind of evidence", expected=", ".join(KINDS), found=kind)


def _opened(index: Index, kind: str) -> Method:
    """The usual method of a kind, kept with the index: to open it takes longer than a query."""
    if kind not in index.opened:
        from headwater.evidence.lexical import BM25
        from headwater.evidence.semantic import Dense

        index.opened[kind] = BM25() if kind == "lexical" else Dense()
    return index.opened[kind]
