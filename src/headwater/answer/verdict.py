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
    further: Sequence[Evidence] = (),
) -> Picture:
    """The picture of one answer; its figures hold the `id` of the example that it names.

    Args:
        spans: verbatim spans that touch the output, each with `output_tokens` (how many of
            its tokens are the output's, not the prompt's) and `parts`: the maximal matches, with
            `text`, `tokens`, `count`, `log_probability`. items: the examples shown.
        further: some that are not, of which one is named where none of the shown will do.
        judgement: of the influence scores; its `stands_out` is None where they were not asked for.
        tokens: of the corpus.
    """
    return (
        _copied(spans, tokens)
        or _stated(items, judgement)
        or _stated(further, judgement)
        or _shaped(items, judgement)
        or _nothing([*items, *further], judgement)
    )


def is_copied(span: dict[str, Any], tokens: int) -> bool:
    """Whether a span is longer and rarer than chance in a corpus of so many tokens makes likely."""
    return span["output_tokens"] >= COPIED_TOKENS and _by_chance(span, tokens) <= BY_CHANCE


def _longest(span: dict[str, Any]) -> dict[str, Any]:
    return max(span["parts"], key=lambda one: one["tokens"])


def _by_chance(span: dict[str, Any], tokens: int) -> float:
    return tokens * math.exp(min(_longest(span)["log_probability"], 0.0))


def _copied(spans: Sequence[dict[str, Any]], tokens: int) -> Picture | None:
    rare = [span for span in spans if is_copied(span, tokens)]
    if not rare:
        return None
    whole = max(rare, key=lambda one: _longest(one)["tokens"])
    expected, span = _by_chance(whole, tokens), _longest(whole)
    figures = {
        "text": span["text"],
        "tokens": span["tokens"],
        "output_tokens": whole["output_tokens"],
        "occurrences": span["count"],
        "expected_by_chance": expected,
    }
    words = " ".join(str(span["text"]).split())
    short = words if len(words) <= 60 else f"{words[:57]}..."
    times = "once" if span["count"] == 1 else f"{span['count']:,} times"
    own = whole["output_tokens"]
    more = "" if own >= span["tokens"] else f", {span['tokens']} with those of the prompt"
    return Picture(
        "copied",
        f"Copied: {own} tokens of the output{more} (\u201c{short}\u201d) stand in the corpus "
        f"{times}, word for word; word frequencies alone would give {expected:.1g}.",
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
        f"Stated: example {item.id} holds both the subject and the words asked about, and is "
        f"number {rank} by {kind} match{also}.",
        {"id": item.id, "kind": kind, "rank": rank, "score": item.kinds[kind].score},
    )


def _rank(found: tuple[int, str, Evidence]) -> int:
    return found[0]


def _shaped(items: Sequence[Evidence], judgement: Judgement) -> Picture | None:
    if not judgement.stands_out:
        return None
    led = [item for item in items if item.kinds.get("influence") is not None]
    first = min(led, key=lambda item: item.kinds["influence"].rank, default=None)
    figures: dict[str, Any] = {"p_value": judgement.p_value, "best": judgement.best}
    figures["null"] = judgement.null
    named = ""
    if first is not None:
        rank = first.kinds["influence"].rank
        place = "first comes" if rank == 1 else f"the first shown, number {rank:,}, is"
        named = f"; {place} example {first.id}, which {_shares(first.support)}"
        figures["id"] = first.id
    return Picture(
        "shaped",
        f"Shaped: influence stands out (p = {judgement.p_value:.2f}, best {judgement.best:.3g}) "
        f"without an example found that states it{named}.",
        figures,
    )


def _shares(support: str | None) -> str:
    if support is None or support == "none of these":
        return "shares nothing with it"
    whole = {f"shares {part}": f"shares the {part}" for part in ("subject", "object", "template")}
    return whole.get(support, support)


def _nothing(items: Sequence[Evidence], judgement: Judgement) -> Picture:
    tried: list[str] = []
    if judgement.p_value is not None:
        tried.append(f"influence p = {judgement.p_value:.2f}")
    for kind in ("lexical", "semantic"):
        first = [item for item in items if kind in item.kinds and item.kinds[kind].rank == 1]
        if first:
            score = first[0].kinds[kind].score
            shared = _shares(first[0].support)
            tried.append(f"the best {kind} match scores {score:.3g} and {shared}")
    figures = f": {'; '.join(tried)}" if tried else ""
    return Picture("nothing stands out", f"Nothing stands out{figures}.", {})
