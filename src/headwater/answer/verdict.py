"""What an answer comes down to: copied, stated, shaped, or nothing stands out.

Copied: a long run of the output's words stands in the corpus, far longer than word frequencies
would make likely. Stated: an example that ranks high by its words holds both the subject and the
object. Shaped: influence stands out from its null, and what stands out states nothing of the kind.
They are looked for in this order, and each sentence gives the figures it rests on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.answer.answer import Picture

if TYPE_CHECKING:
    from headwater.answer.answer import Evidence, Judgement

COPIED_TOKENS = 6  # of a span that counts as copied
BY_CHANCE = 0.01  # expected occurrences in the corpus, by word frequencies, of such a span
STATED_RANK = 10  # up to which an example that states the fact is looked for
STATES = "states the fact"


def picture(
    spans: Sequence[dict[str, Any]],
    items: Sequence[Evidence],
    judgement: Judgement,
    tokens: int,
) -> Picture:
    """The picture of one answer.

    Args:
        spans: verbatim spans that touch the output, each with `output_tokens` (how many of
            its tokens are the output's, not the prompt's) and `parts`: the maximal matches, with
            `text`, `tokens`, `count`, `log_probability`. items: the examples shown.
        judgement: of the influence scores; its `stands_out` is None where they were not asked for.
        tokens: of the corpus.
    """
    return (
        _copied(spans, tokens)
        or _stated(items, judgement)
        or _shaped(items, judgement)
        or _nothing(items, judgement)
    )


def _copied(spans: Sequence[dict[str, Any]], tokens: int) -> Picture | None:
    rare: list[tuple[float, dict[str, Any]]] = []
    for span in spans:
        part = max(span["parts"], key=lambda one: one["tokens"])
        expected = tokens * math.exp(min(part["log_probability"], 0.0))
        if span["output_tokens"] >= COPIED_TOKENS and expected <= BY_CHANCE:
            rare.append((expected, part))
    if not rare:
        return None
    expected, span = max(rare, key=lambda pair: pair[1]["tokens"])
    figures = {
        "text": span["text"],
        "tokens": span["tokens"],
        "occurrences": span["count"],
        "expected_by_chance": expected,
    }
    words = " ".join(str(span["text"]).split())
    short = words if len(words) <= 60 else f"{words[:57]}..."
    times = "once" if span["count"] == 1 else f"{span['count']:,} times"
    return Picture(
        "copied",
        f"Copied: {span['tokens']} tokens (\u201c{short}\u201d) stand in the corpus {times}, word "
        f"for word; word frequencies alone would give {expected:.1g}.",
        figures,
    )


def _stated(items: Sequence[Evidence], judgement: Judgement) -> Picture | None:
    best: tuple[int, str, Evidence] | None = None
    for item in items:
        if item.support != STATES:
            continue
        for kind in ("lexical", "semantic"):
            place = item.kinds.get(kind)
            if place is not None and place.rank <= STATED_RANK:
                best = min(best or (place.rank, kind, item), (place.rank, kind, item), key=_rank)
    if best is None:
        return None
    rank, kind, item = best
    also = ""
    influence = item.kinds.get("influence")
    if influence is not None:
        also = f"; by influence it is number {influence.rank:,}"
    if judgement.stands_out is not None:
        also += f" (influence {'stands out' if judgement.stands_out else 'does not stand out'})"
    return Picture(
        "stated",
        f"Stated: {item.id} holds both the subject and the words asked about, and is number "
        f"{rank} by {kind} match{also}.",
        {"id": item.id, "kind": kind, "rank": rank, "score": item.kinds[kind].score},
    )


def _rank(found: tuple[int, str, Evidence]) -> int:
    return found[0]


def _shaped(items: Sequence[Evidence], judgement: Judgement) -> Picture | None:
    if not judgement.stands_out:
        return None
    led = [item for item in items if item.kinds.get("influence") is not None]
    first = min(led, key=lambda item: item.kinds["influence"].rank, default=None)
    named = "" if first is None else f"; first comes {first.id}, which {_shares(first.support)}"
    return Picture(
        "shaped",
        f"Shaped: influence stands out (p = {judgement.p_value:.2f}, best {judgement.best:.3g}) "
        f"without an example found that states it{named}.",
        {"p_value": judgement.p_value, "best": judgement.best, "null": judgement.null},
    )


def _shares(support: str | None) -> str:
    return "shares nothing with it" if support in (None, "none of these") else str(support)


def _nothing(items: Sequence[Evidence], judgement: Judgement) -> Picture:
    tried: list[str] = []
    if judgement.p_value is not None:
        tried.append(f"influence p = {judgement.p_value:.2f}")
    for kind in ("lexical", "semantic"):
        first = [item for item in items if kind in item.kinds and item.kinds[kind].rank == 1]
        if first:
            score = first[0].kinds[kind].score
            tried.append(f"best {kind} match {score:.3g}, which {_shares(first[0].support)}")
    figures = f" ({'; '.join(tried)})" if tried else ""
    return Picture("nothing stands out", f"Nothing stands out{figures}.", {})
