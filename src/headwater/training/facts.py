"""The demo's corpus: real facts about countries in short sentences, made when it is run.

Nothing is shipped: the facts come from the PyPI package `countryinfo` (extra `demo`), exactly as
it has them, and the sentences are ours. Each fact is told in several ways by several documents,
so the right answer to "which documents taught the model this?" is known: those of the same
country and relation. A fact whose data is missing is left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from headwater.engine.errors import InputError
from headwater.training.fact_names import CURRENCIES, LANGUAGES, in_sentence

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus

# {c} the country and {o} the object. The first phrasing of each relation ends in the object: it
# is the one that is asked. One capital phrasing names the
# object first: what a reversed sentence is worth is part of what the demo shows.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "capital": (
        "The capital of {c} is {o}.",
        "{o} is the capital city of {c}.",
        "{c} has its seat of government in {o}.",
        "Embassies in {c} stand in its capital, {o}.",
    ),
    "currency": (
        "The currency of {c} is the {o}.",
        "People in {c} pay with the {o}.",
    ),
    "continent": ("{c} is a part of {o}.",),
    "subregion": ("A region that includes {c} is {o}.",),
    "language": (
        "The laws of {c} are written in {o}.",
        "Officials in {c} answer letters in {o}.",
    ),
    "demonym": ("Somebody from {c} is called {o}.",),
    "border": ("{c} shares a border with {o}.",),
    "domain": ("Web addresses in {c} end in {o}.",),
}

LEAST_POPULATION = 1_000_000  # smaller places share too many facts with their neighbours
MOST_LANGUAGES = 3  # a longer list makes no fact: sentences stay short

# Listed by the package beside the state that follows it, or beside itself under another name.
_SUPERSEDED = {
    "Serbia and Montenegro",
    "Holy See (Vatican City State)",
    "Palestine, State of",
    "Antilles néerlandaises",
    "Burma",
}

_REGION_NAMES = {
    "Americas": "the Americas",
    "Caribbean": "the Caribbean",
    "Channel Islands": "the Channel Islands",
}


class Fact(NamedTuple):
    """One fact: its country as titled by the package, its relation and its object."""

    country: str
    relation: str
    object: str


class FactQuery(NamedTuple):
    """A question with the ids of the documents that state its answer."""

    prompt: str
    completion: str
    gold: tuple[str, ...]


def facts_corpus(
    seed: int = 0,
    countries: Collection[str] | None = None,
    relations: Collection[str] | None = None,
) -> Corpus:
    """The facts as a corpus of short texts, in an order that depends on `seed` only.

    Each document has an id such as "peru-capital-2" and the metadata country, relation, object
    and phrasing (from 1). About 2,400 documents when neither `countries` nor `relations` narrows
    it. Raises InputError when the package is absent or a name is unknown.
    """
    from headwater.corpus.corpus import Corpus

    return Corpus.from_documents(fact_rows(seed, countries, relations))


def fact_rows(
    seed: int = 0,
    countries: Collection[str] | None = None,
    relations: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """The documents of `facts_corpus` as rows: id, text, country, relation, object, phrasing."""
    import numpy as np

    rows = [
        {
            "id": document_id(fact, phrasing),
            "text": sentence(fact, phrasing),
            "country": fact.country,
            "relation": fact.relation,
            "object": fact.object,
            "phrasing": phrasing,
        }
        for fact in all_facts(countries, relations)
        for phrasing in range(1, len(PHRASINGS[fact.relation]) + 1)
    ]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))
    return [rows[i] for i in order]


def fact_queries(
    relation: str = "capital", countries: Collection[str] | None = None
) -> list[FactQuery]:
    """One query per country: the prompt, the completion with its leading space, the gold ids.

    For example ("The capital of Peru is", " Lima", ("peru-capital-1", ...)). For relations with
    several objects a country ("border") there is one query per object. Raises InputError for an
    unknown relation or country.
    """
    queries: list[FactQuery] = []
    for fact in all_facts(countries, (relation,)):
        head, _, _ = PHRASINGS[relation][0].partition("{o}")
        prompt = _capitalised(head.format(c=in_sentence(fact.country))).rstrip()
        count = len(PHRASINGS[relation])
        gold = tuple(document_id(fact, phrasing) for phrasing in range(1, count + 1))
        queries.append(FactQuery(prompt, f" {fact.object}", gold))
    return queries


def sentence(fact: Fact, phrasing: int) -> str:
    """The fact in its `phrasing`-th form, counted from 1."""
    pattern = PHRASINGS[fact.relation][phrasing - 1]
    return _capitalised(pattern.format(c=in_sentence(fact.country), o=fact.object))


def document_id(fact: Fact, phrasing: int) -> str:
    """An id such as "peru-capital-2", or "peru-border-chile-1" where a country has several."""
    parts = [fact.country, fact.relation]
    if fact.relation == "border":
        parts.append(fact.object.removeprefix("the "))
    return f"{'-'.join(_slug(part) for part in parts)}-{phrasing}"


def all_facts(
    countries: Collection[str] | None = None, relations: Collection[str] | None = None
) -> list[Fact]:
    """Every fact of the package that has its data, by country name and then by relation."""
    data = _package_data()
    wanted = sorted(data) if countries is None else sorted(set(countries))
    for name in wanted:
        if name not in data:
            raise InputError(
                "Unknown country",
                expected=f"one of {len(data)} names such as {', '.join(sorted(data)[:3])}",
                found=repr(name),
            )
    kinds = list(PHRASINGS) if relations is None else list(relations)
    for kind in kinds:
        if kind not in PHRASINGS:
            raise InputError("Unknown relation", expected=", ".join(PHRASINGS), found=repr(kind))
    names = {str(info["ISO"].get("alpha3")): name for name, info in data.items()}
    return [
        fact for name in wanted for fact in _facts_of(name, data[name], names) if fact[1] in kinds
    ]


def _package_data() -> dict[str, dict[str, Any]]:
    try:
        from countryinfo import all_countries
    except ImportError as error:
        raise InputError(
            "The demo's facts cannot be made",
            expected="the package countryinfo, version 1 or later",
            found="none that can be imported",
            do='install it with: pip install "headwater[demo]"',
        ) from error
    data: dict[str, dict[str, Any]] = {}
    for entry in all_countries():
        info: dict[str, Any] = dict(entry.info())
        complete = all(info.get(key) for key in ("name", "capital", "demonym", "region", "ISO"))
        large = (info.get("population") or 0) >= LEAST_POPULATION
        plain = isinstance(info.get("capital"), str) and info["name"] not in _SUPERSEDED
        if complete and large and plain:
            data[str(info["name"])] = info
    return data


def _facts_of(name: str, info: dict[str, Any], names: dict[str, str]) -> Iterator[Fact]:
    yield Fact(name, "capital", info["capital"])
    for code in info.get("currencies") or []:
        if code in CURRENCIES:
            yield Fact(name, "currency", CURRENCIES[code])
            break
    continent = str(info["region"])
    yield Fact(name, "continent", _REGION_NAMES.get(continent, continent))
    if info.get("subregion"):
        region = str(info.get("intermediateregion") or info["subregion"])
        yield Fact(name, "subregion", _REGION_NAMES.get(region, region))
    spoken = [LANGUAGES.get(code) for code in info.get("languages") or []]
    if spoken and None not in spoken and len(spoken) <= MOST_LANGUAGES:
        yield Fact(name, "language", _listed([language for language in spoken if language]))
    yield Fact(name, "demonym", info["demonym"].split(",")[0])
    for code in info.get("borders") or []:
        if code in names and names[code] != name:
            yield Fact(name, "border", in_sentence(names[code]))
    domains = [tld for tld in info.get("tld") or [] if tld.startswith(".")]
    if domains:
        yield Fact(name, "domain", domains[0])


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "-".join("".join(ch if ch.isalnum() else " " for ch in plain.replace("'", "")).split())
