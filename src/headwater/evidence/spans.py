"""Which parts of an output stand verbatim in the corpus, and where: the algorithm of OLMoTrace.

Maximal matching spans of the output; of these the least probable ones by their unigrams; documents
for each; overlapping spans and snippets of one document joined; documents ranked by BM25 of prompt
and output against what was retrieved (arXiv 2504.07096, section 3). The settings are the paper's:
those of its open API differ. A match is no proof that the model got the words there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.evidence.phrases import PhraseIndex
from headwater.evidence.relevance import Relevance
from headwater.evidence.span import Part, Snippet, Span, SpanDocument
from headwater.evidence.text_places import TextMatch
from headwater.evidence.word_spans import first_words, word_spans

if TYPE_CHECKING:
    from headwater.evidence.tokenizer import Encoded
    from headwater.index.selection import Mask

RANKINGS = ("unigram", "length")
UNSEEN = -10_000.0  # log probability of a token that the corpus does not hold


@dataclass(frozen=True)
class Tracing:
    """How spans are found and shown; the defaults are the paper's.

    Attributes:
        density: spans kept for each token of the output, rounded up: K = ceil(0.05 L).
        ranking: which: "unigram" = least product of unigram probabilities, "length" = longest.
        documents: at most so many occurrences of a span are looked at; of more, a sample.
        seed: of that sample.
        whole_words: spans begin where a word does and end before one.
        sentences: a span holds no token with a full stop or newline, but for its last.
        minimum: least tokens of a span. frequency: most occurrences (None = any number).
        merge: join overlapping spans.
        snippet, context: tokens shown, and tokens that BM25 reads, on both sides together.
        relevance: BM25 and what it counts as.
    """

    density: float = 0.05
    ranking: str = "unigram"
    documents: int = 10
    seed: int = 42
    whole_words: bool = True
    sentences: bool = True
    minimum: int = 1
    frequency: int | None = None
    merge: bool = True
    snippet: int = 80
    context: int = 500
    relevance: Relevance = field(default_factory=Relevance)

    def __post_init__(self) -> None:
        if self.ranking not in RANKINGS:
            raise InputError(
                "Unknown ranking of spans", expected=" or ".join(RANKINGS), found=self.ranking
            )
        least = {"documents": 1, "minimum": 1, "snippet": 0, "context": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(
                    f"{name} is too small", expected=f">= {value}", found=getattr(self, name)
                )
        if not self.density > 0:
            raise InputError("density is too small", expected="> 0", found=self.density)


_Group = list[tuple[Part, list[TextMatch]]]  # parts of one span, with their occurrences
_Place = tuple[TextMatch, str]  # one occurrence, and the words that stand there


def trace(
    verbatim: PhraseIndex,
    text: str,
    prompt: str = "",
    settings: Tracing | None = None,
    among: Mask | None = None,
) -> list[Span]:
    """The spans of an output that stand verbatim in the corpus.

    Args:
        verbatim: a `Verbatim`, or an `InfiniGram`. text: the output. prompt: what it answers; it
            is not searched, but counts towards the relevance of documents.
        among: the documents that are searched, bool [documents]; None = all. Counts are of these;
            how probable a word is stays a matter of the whole corpus.

    Returns:
        In the order of the output; they serialise by `dataclasses.asdict`.
    """
    settings = settings or Tracing()
    if not isinstance(verbatim, PhraseIndex):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            "Spans are those of a corpus's phrases",
            expected="a Verbatim (hw.Verbatim.open(index)) or an InfiniGram",
            found=type(verbatim).__name__,
        )
    for name, given in (("output", text), ("prompt", prompt)):
        if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"The {name} is no text", expected="str", found=type(given).__name__)
    encoded = verbatim.tokenizer.encode(text)

    def characters(first: int, end: int) -> tuple[int, int]:
        part = encoded.offsets[first:end]
        return _trimmed(text, int(part[:, 0].min()), int(part[:, 1].max()))

    found = spans_of(verbatim, text, encoded, settings, among)
    found = [span for span in found if text[slice(*characters(*span))]]  # not white space alone
    if settings.frequency is not None:
        most = settings.frequency
        counted = [
            _places(verbatim, text[slice(*characters(*s))], encoded.ids[slice(*s)], settings, among)
            for s in found
        ]
        found = [s for s, (count, _) in zip(found, counted, strict=True) if count <= most]
    parts: _Group = []
    logs = dict(
        zip(found, _log_probabilities(verbatim, text, encoded, found, settings), strict=True)
    )
    for first, end in _least_probable(logs, len(encoded.ids), settings):
        start, stop = characters(first, end)
        ids = encoded.ids[first:end]
        count, matches = _places(verbatim, text[start:stop], ids, settings, among)
        part = Part(start, stop, text[start:stop], end - first, count, logs[first, end])
        parts.append((part, matches))
    return _documented(verbatim, _joined(parts, settings.merge), text, prompt, settings)


def _places(
    verbatim: PhraseIndex,
    text: str,
    ids: np.ndarray[Any, Any],
    settings: Tracing,
    among: Mask | None,
) -> tuple[int, list[TextMatch]]:
    """How often a span stands in the corpus, and where, or a sample of that.

    Words are counted wherever they stand; what is not cut at words, as the tokens that it is.
    """
    if settings.whole_words:
        count, found = verbatim.sample_text(text, settings.documents, settings.seed, among)
        if count:
            return count, found
    sampled = verbatim.sample(ids, settings.documents, settings.seed, among)
    matches = [TextMatch(match.position, match.offset, len(ids)) for match in sampled]
    return verbatim.count(ids, among), matches


# -- finding --------------------------------------------------------------------------------------


def spans_of(
    verbatim: PhraseIndex,
    text: str,
    encoded: Encoded,
    settings: Tracing,
    among: Mask | None = None,
) -> list[tuple[int, int]]:
    """Token ranges [first, end) of the maximal matching spans, in order; none within another.

    From each word's start the longest match of whole words, wherever these stand (see
    `evidence/word_spans.py`), cut after the first stop token.

    Args:
        text, encoded: the output and its tokens.
    """
    if not settings.whole_words:
        return maximal_spans(verbatim, encoded.ids, settings, among)
    if not len(encoded.ids):
        return []
    stops = _stops(verbatim, encoded.ids, settings)
    return word_spans(verbatim, text, encoded, stops, settings.minimum, among)


def _stops(
    verbatim: PhraseIndex, ids: np.ndarray[Any, Any], settings: Tracing
) -> np.ndarray[Any, Any]:
    return verbatim.tokenizer.stops[ids] if settings.sentences else np.zeros(len(ids), bool)


def maximal_spans(
    verbatim: PhraseIndex,
    ids: np.ndarray[Any, Any],
    settings: Tracing,
    among: Mask | None = None,
) -> list[tuple[int, int]]:
    """The same of tokens as they are, whatever words they are of."""
    if not len(ids):
        return []
    stops = _stops(verbatim, ids, settings)
    starts = np.arange(len(ids))
    ends = starts + verbatim.longest_matches(ids, starts, among)
    cuts = np.append(np.flatnonzero(stops), len(ids)) + 1
    ends = np.minimum(ends, cuts[np.searchsorted(cuts, starts, side="right")])
    spans: list[tuple[int, int]] = []
    reached = 0
    for first, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - first >= settings.minimum and end > reached:
            spans.append((first, end))
            reached = end
    return spans


def _log_probabilities(
    verbatim: PhraseIndex,
    text: str,
    encoded: Encoded,
    spans: list[tuple[int, int]],
    settings: Tracing,
) -> list[float]:
    """Of each span; its first word is as probable as its two forms are together."""
    one_by_one = np.maximum(verbatim.log_probabilities(encoded.ids), UNSEEN)
    sums = np.concatenate([[0.0], np.cumsum(one_by_one)])
    made = [float(sums[end] - sums[first]) for first, end in spans]
    if not (settings.whole_words and spans):
        return made
    for number, (head, other) in enumerate(first_words(verbatim, text, encoded, spans)):
        if other:
            own = sums[head] - sums[spans[number][0]]
            also = np.maximum(verbatim.log_probabilities(other), UNSEEN).sum()
            made[number] += float(np.logaddexp(own, also) - own)
    return made


def _least_probable(
    spans: dict[tuple[int, int], float], tokens: int, settings: Tracing
) -> list[tuple[int, int]]:
    """The K spans that are kept, in the order of the output.

    Args:
        spans: with their log probabilities. tokens: of the output.
    """
    keep = math.ceil(settings.density * tokens)
    if settings.ranking == "length":
        return sorted(sorted(spans, key=lambda span: span[0] - span[1])[:keep])
    return sorted(sorted(spans, key=lambda span: spans[span])[:keep])


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The characters [start, end) without white space around: a word's token may hold a space."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


# -- showing --------------------------------------------------------------------------------------


def _joined(parts: _Group, merge: bool) -> list[_Group]:
    """Parts that overlap, together."""
    groups: list[_Group] = []
    end = -1
    for part, matches in parts:
        if merge and part.start < end:
            groups[-1].append((part, matches))
        else:
            groups.append([(part, matches)])
        end = max(end, part.end)
    return groups


def _documented(
    verbatim: PhraseIndex, groups: list[_Group], text: str, prompt: str, settings: Tracing
) -> list[Span]:
    """Spans with their documents, ranked against all that were retrieved for the output."""
    places: list[dict[int, list[_Place]]] = []  # of each group, by document
    every: dict[int, list[_Place]] = {}
    for group in groups:
        mine: dict[int, list[_Place]] = {}
        for part, matches in group:
            for match in matches:
                mine.setdefault(match.position, []).append((match, part.text))
                every.setdefault(match.position, []).append((match, part.text))
        places.append(mine)
    verbatim.prefetch(list(every))
    contexts = [
        " ".join(piece.text for piece in _pieces(verbatim, position, places_, settings.context))
        for position, places_ in every.items()
    ]
    shares = settings.relevance.scores(contexts, prompt, text)
    scores = dict(zip(every, shares, strict=True))
    spans: list[Span] = []
    for group, mine in zip(groups, places, strict=True):
        order = sorted(mine, key=lambda position: (-scores[position], position))
        documents = [_card(verbatim, p, mine[p], scores[p], settings) for p in order]
        parts = [part for part, _ in group]
        rarest = min(parts, key=lambda part: part.log_probability)
        start, end = parts[0].start, max(part.end for part in parts)
        about = (rarest.count, rarest.log_probability)
        spans.append(Span(start, end, text[start:end], *about, parts, documents))
    return spans


def _card(
    verbatim: PhraseIndex,
    position: int,
    places: Sequence[_Place],
    score: float,
    settings: Tracing,
) -> SpanDocument:
    """What is shown of one document for one span."""
    matches = sorted({verbatim.range_of(*place) for place in places})
    snippets = _pieces(verbatim, position, places, settings.snippet)
    name, metadata = verbatim.source(position)
    inner = metadata.get("metadata")  # Dolma, which infini-gram's indexes hold, has it there
    url = metadata.get("url", inner.get("url") if isinstance(inner, dict) else None)
    return SpanDocument(
        position=position,
        id=name,
        start=matches[0][0],
        end=matches[0][1],
        matches=matches,
        snippet=snippets[0].text,
        snippet_start=snippets[0].start,
        snippets=snippets,
        score=score,
        relevance=settings.relevance.level(score),
        url=None if url is None else str(url),
        metadata=metadata,
    )


def _pieces(
    verbatim: PhraseIndex, position: int, places: Sequence[_Place], around: int
) -> list[Snippet]:
    """The document around places, half of `around` on each side; overlapping ones joined."""
    characters = verbatim.characters(position)
    half, joined = around // 2, list[tuple[int, int]]()
    for first, end in sorted((m.offset, m.offset + m.tokens) for m, _ in places):
        low, high = max(first - half, 0), min(end + half, len(characters))
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    ranges = [characters.range(*tokens) for tokens in joined]
    return [Snippet(start, characters.text[start:end]) for start, end in ranges]
