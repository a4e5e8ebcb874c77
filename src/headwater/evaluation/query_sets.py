"""Small query sets of our own, packaged, and query files of the user's.

Four kinds, as TrackStar's release shows them: facts, choices of common sense, arithmetic, and open
prompts. The facts are made when they are asked for, from the demo's source, and come with their
gold: the ids of the demo corpus's documents that state them. The sentences of the others are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from headwater.engine.errors import InputError
from headwater.engine.json_lines import json_object, numbered, read_text
from headwater.tasks.query import Query

PACKAGED = ("commonsense", "arithmetic", "open")
QUERY_SETS = ("facts", *PACKAGED)
SEVERAL_RIGHT = ("border",)  # relations with more right answers than the one that is asked
TEXTS = ("prompt", "completion", "instead_of", "kind")


@dataclass(frozen=True)
class QueryItem:
    """One entry of a query set.

    Attributes:
        id: unique in its set. kind: of the set, or the user's own.
        prompt: the text before. completion: the words to explain; None for open prompts.
        instead_of: what the completion is chosen against, if anything.
        gold: ids of the documents that state it, where they are known.
    """

    id: str
    kind: str
    prompt: str
    completion: str | None = None
    instead_of: str | None = None
    gold: tuple[str, ...] = ()

    def query(self) -> Query:
        """What is asked of an index.

        Raises:
            InputError: for an open prompt, which asks nothing before a model has answered.
        """
        if self.completion is None:
            raise InputError(
                f"{self.id} is an open prompt", do="generate its completion with a model first"
            )
        return Query(self.prompt, self.completion, self.instead_of, name=self.id)


def query_set(name: str) -> list[QueryItem]:
    """A set by its name: facts, commonsense, arithmetic or open.

    Raises:
        InputError: for another name, or when the source of the facts is not installed.
    """
    if name == "facts":
        return _facts()
    if name not in PACKAGED:
        raise InputError(
            "There is no such query set", expected=", ".join(QUERY_SETS), found=repr(name)
        )
    file = resources.files("headwater.evaluation") / "queries" / f"{name}.jsonl"
    return _items(file.read_text(encoding="utf-8"), name, name)


def load_query_set(source: str | Path) -> list[QueryItem]:
    """A set by its name, or from a JSON Lines file.

    Fields of a line: prompt, and perhaps completion, instead_of, id, kind, gold (a list of ids). A
    file of a set's name stands behind the set; `./facts` names the file.

    Raises:
        InputError: naming the file and the line that cannot be used.
    """
    if str(source) in QUERY_SETS:
        return query_set(str(source))
    path = Path(source)
    text = read_text(path, f"a JSON Lines file, or one of {', '.join(QUERY_SETS)}")
    return _items(text, str(path), path.stem)


def _facts() -> list[QueryItem]:
    from headwater.training.facts import PHRASINGS, fact_queries

    items: list[QueryItem] = []
    for relation in PHRASINGS:
        if relation in SEVERAL_RIGHT:
            continue
        for prompt, completion, gold in fact_queries(relation):
            name = gold[0].rpartition("-")[0]
            items.append(QueryItem(name, "facts", prompt, completion, gold=gold))
    return items


def _items(text: str, source: str, kind: str) -> list[QueryItem]:
    lines = numbered(text)
    items = [_item(f"{source}, line {n}", line, f"{kind}-{n}", kind) for n, line in lines]
    if not items:
        raise InputError(f"{source} holds no query", expected="one JSON object a line")
    seen: dict[str, int] = {}
    for item, (number, _) in zip(items, lines, strict=True):
        if item.id in seen:
            raise InputError(
                f"{source}, line {number}: the id {item.id!r} is that of line {seen[item.id]}",
                expected="each id once",
            )
        seen[item.id] = number
    return items


def _item(place: str, line: str, name: str, kind: str) -> QueryItem:
    values = json_object(place, line, "query")
    if "prompt" not in values:
        raise InputError(
            f"{place}: 'prompt' is missing",
            expected="prompt, and perhaps completion, instead_of, id, kind, gold",
            found=", ".join(values) or "no fields",
        )
    for field in TEXTS:
        if values.get(field) is not None and not isinstance(values[field], str):
            raise InputError(
                f"{place}: {field} is not text", expected="a string", found=repr(values[field])[:60]
            )
    item = QueryItem(
        id=name if values.get("id") is None else str(values["id"]),
        kind=values.get("kind") or kind,
        prompt=values["prompt"] or "",
        completion=values.get("completion"),
        instead_of=values.get("instead_of"),
        gold=_gold(place, values.get("gold")),
    )
    if item.completion is not None:
        try:
            item.query()
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    return item


def _gold(place: str, given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    values: list[Any] = list(given) if isinstance(given, list) else [None]
    if not all(isinstance(one, (str, int)) and not isinstance(one, bool) for one in values):
        raise InputError(
            f"{place}: gold is not usable", expected="a list of ids", found=repr(given)[:60]
        )
    return tuple(dict.fromkeys(str(one) for one in values))
