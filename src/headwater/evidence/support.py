"""How an example supports an output: states the fact, shares a part of it, or only its style.

The kinds are those that readers of TrackStar's results gave to its proponents. Here they come from
string and entity overlap: a cheap reading, made to sort and to filter by, not a judgement. A scorer
of entailment (example, statement) -> probability may be given for the first of them. A word of the
example counts once: what is part of the object's match is none of the subject, and the other way
round, or every example about Alan Turing would say that he invented the Turing machine.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
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
BETWEEN = 2  # words that may stand between those of one name: middle names, "Turing, Alan M."
NEAR = 40  # words within which the names of one subject stand
MOST = 16  # places of one name that are looked at

Entailment = Callable[[str, str], float]
Match = frozenset[int]  # places of words

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
_POSSESSIVE = re.compile(r"['\u2019]s$")
_LABEL = re.compile(r"(?:^|(?<=\s))[A-Z]\w*:(?=\s|$)")  # "Q:", "Answer:"
# A full stop after up to three letters, the first a capital, is that of "Dr." or "J.".
_SENTENCE = re.compile(r"(?:[!?]|(?<!\b[A-Z])(?<!\b[A-Z]\w)(?<!\b[A-Z]\w\w)\.)\s+|\n+")
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
        subjects: what the prompt is about, normalised; an example has to hold all of them. Its
            names (runs of capitalised words and numbers), or its last content word where there are
            none. A name whose words are all in the object stands with another word of the prompt
            ("turing machine"), since where the object is, it is, too.
        objects: the completion, normalised, without common words at its ends, and its names; empty
            where it has common words only.
        template: the prompt's other content words.
        text: prompt and completion, for a scorer of entailment.
    """

    subjects: tuple[str, ...]
    objects: tuple[str, ...]
    template: tuple[str, ...]
    text: str


def normal(text: str) -> str:
    """Lower case, without accents and punctuation, one space between words and at the ends."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in text if not unicodedata.combining(c))
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _words(text: str) -> list[str]:
    """Normalised words; of a possessive ("Turing's") the name."""
    return [_POSSESSIVE.sub("", word) for word in normal(text).split()]


def statement(prompt: str, completion: str) -> Statement:
    """The parts of an output that examples may share."""
    names, content = _names(prompt), _content(prompt)
    whole = _words(completion)
    while whole and whole[0] in _COMMON:
        whole = whole[1:]
    while whole and whole[-1] in _COMMON:
        whole = whole[:-1]
    objects = (" ".join(whole), *entities(completion)) if whole else ()
    subjects = names or content[-1:]  # the last content word is what most prompts are about
    held = {word for name in objects for word in name.split()}
    told = [_told_apart(name, content, held) for name in subjects]
    subjects = tuple(dict.fromkeys(name for name in told if name))
    inside = {word for name in (*names, *subjects) for word in name.split()}
    rest = tuple(dict.fromkeys(word for word in content if word not in inside))
    return Statement(subjects, objects, rest, prompt + completion)


def _content(prompt: str) -> tuple[str, ...]:
    """Words of the prompt that are no common ones."""
    return tuple(word for word in _words(_LABEL.sub(" ", prompt)) if word not in _COMMON)


def _names(prompt: str) -> tuple[str, ...]:
    """The names of the last sentence; where it has none, the first name of the nearest before."""
    sentences = [one for one in _SENTENCE.split(_LABEL.sub(" ", prompt)) if one.strip()]
    for number, sentence in enumerate(reversed(sentences)):
        found = entities(sentence)
        if found:
            return found if number == 0 else found[:1]
    return ()


def _told_apart(name: str, content: Sequence[str], held: set[str]) -> str:
    """The name, with the next (or else the last) content word if its own words are all `held`.

    Empty where there is no such word: then nothing tells the subject from the object.
    """
    words = name.split()
    if not set(words) <= held:
        return name
    last = max((place for place, word in enumerate(content) if word == words[-1]), default=-1)
    after = [word for word in content[last + 1 :] if word not in held]
    before = [word for word in content[: max(last, 0)] if word not in held]
    if after:
        return f"{name} {after[0]}"
    return f"{before[-1]} {name}" if before else ""


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
    found = (" ".join(_words(" ".join(run))) for run in runs)
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
    words = _words(example)
    subjects, objects = _apart(words, stated)
    if subjects and objects and entailment is None:
        return KINDS[0]
    if subjects:
        return KINDS[1]
    if objects:
        return KINDS[2]
    there = set(words)
    shared = sum(word in there for word in stated.template)
    if stated.template and shared * 2 > len(stated.template):
        return KINDS[3]
    if _shares_names(stated, there):
        return KINDS[4]
    return KINDS[5]


def _apart(words: Sequence[str], stated: Statement) -> tuple[list[Match], list[Match]]:
    """Where the subject and where the object stands, at no place both.

    A match within one of the other is none ("Paris" in "Paris Saint-Germain"); where they overlap
    otherwise, the object has the word.
    """
    subjects = [_places(words, name) for name in stated.subjects]
    whole = [_runs(words, phrase) for phrase in stated.objects[:1]]
    names = [_places(words, name) for name in stated.objects[1:]]
    of_subject = {match for part in subjects for match in part}
    of_object = {match for part in (*whole, *names) for match in part}
    subjects = [[m for m in part if all(o < m for o in of_object if o & m)] for part in subjects]
    whole, names = (
        [[m for m in part if not any(m < s for s in of_subject)] for part in parts]
        for parts in (whole, names)
    )
    return _together(subjects, NEAR), [*_together(whole), *_together(names)]


def _runs(words: Sequence[str], phrase: str) -> list[Match]:
    """Where the words of a phrase stand one after the other."""
    wanted = phrase.split()
    starts = (at for at, word in enumerate(words) if word == wanted[0])
    found = (at for at in starts if list(words[at : at + len(wanted)]) == wanted)
    return [frozenset(range(at, at + len(wanted))) for at in found][:MOST]


def _places(words: Sequence[str], name: str) -> list[Match]:
    """Where all words of a name stand near each other, in any order; common words end a name.

    Initials may be written out or left out, where the name has two words besides.
    """
    full = [word for word in name.split() if len(word) > 1]
    full = full if len(full) > 1 else name.split()
    found: list[tuple[int, bool, list[int]]] = []
    for start, first in enumerate(words):
        if first not in full or len(found) == 4 * MOST:
            continue
        left, held = Counter(full), list[int]()
        for place in range(start, min(start + len(full) + BETWEEN, len(words))):
            word = words[place]
            if left[word]:
                left[word] -= 1
                held.append(place)
            elif word in _COMMON and len(word) > 1:
                break
        if len(held) == len(full):
            found.append((held[-1] - start, [words[place] for place in held] != full, held))
    kept: list[Match] = []  # of those that overlap the closest, and the one in order
    for _, _, held in sorted(found):
        if all(one.isdisjoint(held) for one in kept):
            kept.append(frozenset(held))
    return kept[:MOST]


def _together(parts: Sequence[Sequence[Match]], near: int | None = None) -> list[Match]:
    """Ways to take one match of each part, none over another, all within `near` words."""
    made = [Match()] if parts else []
    for part in sorted(parts, key=len):
        joined = (one | match for one in made for match in part if not one & match)
        made = [one for one in joined if near is None or max(one) - min(one) < near][:MOST]
    return made


def _shares_names(stated: Statement, there: set[str]) -> bool:
    """A word of a name, or any content word of the prompt."""
    words = {word for name in (*stated.subjects, *stated.objects) for word in name.split()}
    words |= set(stated.template)
    return any(word in there for word in words - _COMMON if len(word) > 2)
