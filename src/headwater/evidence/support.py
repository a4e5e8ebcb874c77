"""How an example supports an output: states the fact, shares a part of it, or only its style.

The kinds are those that readers of TrackStar's results gave to its proponents. Here they come from
string and entity overlap: a cheap reading, made to sort and to filter by, not a judgement. A scorer
of entailment (example, statement) -> probability may be given for the first of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

KINDS = (
    "states the fact",
    "shares subject",
    "shares object",
    "shares template",
    "shares names or style",
    "none of these",
)
ENTAILED = 0.5  # probability from which an entailment scorer's word is taken

Entailment = Callable[[str, str], float]

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
_COMMON_WORDS = """
a about after all also an and any are as at be because been before being but by can could did do
does for from had has have he her him his how i if in into is it its just me more most my no not of
on one or other our out over she so some such than that the their them then there these they this to
up us was we were what when where which who whom whose why will with would you your
born called found known located made named used work works
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True)
class Statement:
    """What an output says, as far as strings tell.

    Args:
        subjects: names in the prompt (runs of capitalised words and numbers), normalised; the
            prompt's rarest content word where there are none.
        objects: the completion, normalised, and its names.
        template: the prompt's other content words.
        text: prompt and completion, for a scorer of entailment.
    """

    subjects: tuple[str, ...]
    objects: tuple[str, ...]
    template: tuple[str, ...]
    text: str


def normal(text: str) -> str:
    """Lower case, without accents and punctuation, one space between words and at the ends."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    return f" {' '.join(_WORD.findall(plain))} "


def statement(prompt: str, completion: str) -> Statement:
    """The parts of an output that examples may share."""
    names = entities(prompt)
    content = [w for w in normal(prompt).split() if w not in _COMMON]
    inside = {word for name in names for word in name.split()}
    rest = tuple(dict.fromkeys(w for w in content if w not in inside))
    if not names and rest:  # no names: the last content word is what most prompts are about
        names, rest = (rest[-1],), rest[:-1]
    whole = normal(completion).strip()
    objects = tuple(dict.fromkeys(part for part in (whole, *entities(completion)) if part))
    return Statement(names, objects, rest, prompt + completion)


def entities(text: str) -> tuple[str, ...]:
    """Runs of capitalised words and numbers, normalised, in order.

    A capital at the start of a sentence counts only for words that are not common ones.
    """
    runs: list[list[str]] = []
    last = -1
    for match in _WORD.finditer(text):
        word = match.group()
        named = word[0].isupper() or word[0].isdigit()
        if named and word.casefold() not in _COMMON:
            joined = text[last : match.start()] in (" ", "-", ". ") if runs and last >= 0 else False
            if joined:
                runs[-1].append(word)
            else:
                runs.append([word])
            last = match.end()
        else:
            last = -1
    found = (normal(" ".join(run)).strip() for run in runs)
    return tuple(dict.fromkeys(name for name in found if name))


def support(stated: Statement, example: str, entailment: Entailment | None = None) -> str:
    """One of `KINDS` for an example's text.

    Args:
        stated: what the output says, by `statement`.
        example: the example's text.
        entailment: probability that the example (first) entails the statement (second).
    """
    if entailment is not None and entailment(example, stated.text) >= ENTAILED:
        return KINDS[0]
    text = normal(example)
    subject = any(f" {name} " in text for name in stated.subjects)
    thing = any(f" {name} " in text for name in stated.objects[:1]) or (
        len(stated.objects) > 1 and all(f" {name} " in text for name in stated.objects[1:])
    )
    if subject and thing and entailment is None:
        return KINDS[0]
    if subject:
        return KINDS[1]
    if thing:
        return KINDS[2]
    shared = sum(f" {word} " in text for word in stated.template)
    if stated.template and shared * 2 > len(stated.template):
        return KINDS[3]
    if _shares_names(stated, text):
        return KINDS[4]
    return KINDS[5]


def _shares_names(stated: Statement, text: str) -> bool:
    """A word of a name, or any content word of the prompt."""
    words = {word for name in (*stated.subjects, *stated.objects) for word in name.split()}
    words |= set(stated.template)
    return any(f" {word} " in text for word in words - _COMMON if len(word) > 2)
