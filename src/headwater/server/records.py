"""A query and what was found for it, under two sets of names: ours, and the PAIR viewer's.

PAIR keeps a list for each property of the examples (`proponent_ids`, `proponent_scores`, ...); ours
is one list of examples with properties. Each way every other field stays as it is, under its name,
so that a record comes back the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from headwater.evidence.filters import number

Record = dict[str, Any]

NAMES = {"example_id": "id", "inputs_plaintext": "prompt", "targets_plaintext": "completion"}
SIDES = ("proponent", "opponent")
# Properties of examples: PAIR's ending of the list's name, and ours.
PARTS = {"ids": "id", "scores": "score", "correct": "correct", "ais_scores": "ais"}
# Shown in places of their own; everything else of a record is one of its fields.
SHOWN = ("id", "prompt", "completion", "instead_of", "proponents", "opponents")


def is_pair(record: Mapping[str, Any]) -> bool:
    """Whether it is in the names of PAIR's viewer."""
    return "inputs_plaintext" in record


def from_pair(record: Mapping[str, Any]) -> Record:
    """A record of PAIR's viewer in our names."""
    made: Record = {}
    rest = dict(record)
    for theirs, ours in NAMES.items():
        if theirs in rest:
            made[ours] = rest.pop(theirs)
    for side in SIDES:
        texts = rest.get(f"{side}s")
        if not _is_texts(texts):
            continue
        items: list[Record] = [{"text": text} for text in rest.pop(f"{side}s")]
        for name in [name for name in rest if name.startswith(f"{side}_")]:
            values, ending = rest[name], name.removeprefix(f"{side}_")
            # An ending that is a name of ours would come back as another.
            ours = ending == "text" or (ending in PARTS.values() and ending not in PARTS)
            if ours or not items or not isinstance(values, list) or len(values) != len(items):
                continue
            for item, value in zip(items, rest.pop(name), strict=True):
                item[PARTS.get(ending, ending)] = value
        made[f"{side}s"] = items
    return _joined(made, rest)


def to_pair(record: Mapping[str, Any]) -> Record:
    """A record in our names as PAIR's viewer reads it."""
    made: Record = {}
    rest = dict(record)
    if "id" not in rest:  # an answer is called by its name, or by what was asked
        name = rest.get("name") or rest.get("query")
        made |= {} if name is None else {"example_id": name}
    for theirs, ours in NAMES.items():
        if ours in rest:
            made[theirs] = rest.pop(ours)
    made.setdefault("inputs_plaintext", "")
    endings = {ours: theirs for theirs, ours in PARTS.items()}
    for side in SIDES:
        items = rest.get(f"{side}s")
        if not _is_items(items):
            continue
        items = rest.pop(f"{side}s")
        made[f"{side}s"] = [one["text"] for one in items]
        parts = list(dict.fromkeys(part for one in items for part in one if part != "text"))
        for part in parts:
            name = _free(f"{side}_{endings.get(part, part)}", made)
            made[name] = [one.get(part) for one in items]
    return _joined(made, rest)


def _joined(made: Record, rest: Record) -> Record:
    """Both; a field whose name is taken now is kept under a longer one."""
    for name, value in rest.items():
        made[_free(name, made)] = value
    return made


def _free(name: str, made: Record) -> str:
    while name in made:
        name += "_"
    return name


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in cast("list[Any]", value))


def _is_items(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and isinstance(cast("Record", one).get("text"), str)
        for one in cast("list[Any]", value)
    )


def proponent_items(value: Any) -> list[Record]:
    """Examples as the interface has them: text, id, score, correct, ais of the right types."""
    made: list[Record] = []
    for one in cast("list[Any]", value) if isinstance(value, list) else []:
        item = cast("Record", one) if isinstance(one, dict) else {"text": one}
        correct = item.get("correct")
        made.append(
            {
                **item,
                "text": str(item.get("text") or ""),
                "id": None if item.get("id") is None else str(item["id"]),
                "score": _number(item.get("score")),
                "correct": bool(correct) if isinstance(correct, bool | int | float) else None,
                "ais": _number(item.get("ais")),
            }
        )
    return made


def _number(value: Any) -> float | None:
    return None if isinstance(value, str) else number(value)


def texts_of(value: Any) -> list[str]:
    """A text or a list of texts (of chat messages, their contents) as a list of texts."""
    if value is None:
        return []
    if isinstance(value, list):
        return [text for one in cast("list[Any]", value) for text in _one(one)]
    return _one(value)


def _one(value: Any) -> list[str]:
    if isinstance(value, dict):
        content = cast("Record", value).get("content")
        return [content] if isinstance(content, str) else []
    return [] if value is None or isinstance(value, list) else [str(value)]


def depth(value: Any) -> int:
    """How many lists and objects are inside each other."""
    deepest, level = 0, [value]
    while level:
        held = [one for one in level if isinstance(one, list | dict)]
        deepest += bool(held)
        level = [
            part
            for one in held
            for part in (
                cast("Record", one).values() if isinstance(one, dict) else cast("list[Any]", one)
            )
        ]
    return deepest
