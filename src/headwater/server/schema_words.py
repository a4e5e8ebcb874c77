"""A JSON schema in plain words: "a whole number from 1 to 1,000", "a list of texts".

The API is described by schemas anyway; who sent something that does not fit is told the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

Schema = dict[str, Any]

SIMPLE = {"string": "a text", "boolean": "true or false", "null": "null"}
NUMBERS = {"integer": "a whole number", "number": "a number"}
MANY = 12  # names that are listed


def at(schema: Schema, place: Sequence[str | int], definitions: Schema) -> Schema:
    """The schema of what stands at a place; an empty one where there is none."""
    here = schema
    for part in place:
        here = next((one for one in _inner(here, part, definitions)), {})
    return here


def fields(schema: Schema, definitions: Schema) -> list[str]:
    """The names that an object of this schema may have."""
    for one in _options(schema, definitions):
        if "properties" in one:
            return list(one["properties"])
    return []


def described(schema: Schema, definitions: Schema) -> str | None:
    """What belongs there; None where anything does."""
    told = [_one(option, definitions) for option in _options(schema, definitions)]
    words = list(dict.fromkeys(word for word in told if word is not None))
    # To write null is to leave a field out, which nobody has to be told.
    words = [word for word in words if word != "null"] or words
    return _either(words) if words else None


def _one(schema: Schema, definitions: Schema) -> str | None:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return _either([str(value) for value in schema["enum"]])
    kind = schema.get("type")
    if kind in NUMBERS:
        return NUMBERS[kind] + _bounds(schema)
    if kind == "array":
        return _list(schema, definitions)
    if kind == "object":
        names = list(schema.get("properties", {}))
        more = ", ..." if len(names) > MANY else ""
        return "an object" + (f" with {', '.join(names[:MANY])}{more}" if names else "")
    if kind == "string":
        count = _count(schema.get("minLength"), schema.get("maxLength"), "character")
        return SIMPLE["string"] + (f" of {count}" if count else "")
    return SIMPLE.get(cast("str", kind))


def _list(schema: Schema, definitions: Schema) -> str:
    if "prefixItems" in schema:
        parts = [described(one, definitions) or "any value" for one in schema["prefixItems"]]
        return f"a list of {len(parts)} ({'; '.join(parts)})"
    count = _count(schema.get("minItems"), schema.get("maxItems"), "entry")
    inner = described(schema.get("items", {}), definitions)
    told = "a list" + (f" of {count}" if count else "")
    return told if inner is None else f"{told}, each {inner}"


def _count(least: int | None, most: int | None, what: str) -> str:
    """So many characters, or entries; nothing where any number will do."""
    many = {"entry": "entries"}.get(what, f"{what}s")
    if least and most:
        whole = f"{least:,} {what if least == 1 else many}"
        return whole if least == most else f"{least:,} to {most:,} {many}"
    if most is not None:
        return f"at most {most:,} {many}"
    return f"at least {least:,} {what if least == 1 else many}" if least else ""


def _bounds(schema: Schema) -> str:
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    told = [
        f"{word} {value}"
        for word, value in (
            ("of at least", low),
            ("above", above),
            ("of at most" if above is None else "at most", high),
            ("below", below),
        )
        if value is not None
    ]
    return f" {' and '.join(told)}" if told else ""


def _bound(schema: Schema, name: str) -> str | None:
    value = schema.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else f"{value:,}"


def _either(words: Sequence[str]) -> str:
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _options(schema: Schema, definitions: Schema) -> Iterator[Schema]:
    """A schema without references, or each of those that it leaves the choice of."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        yield from _options(definitions.get(name, {}), definitions)
        return
    choice = schema.get("anyOf") or schema.get("oneOf")
    if not choice:
        yield schema
        return
    for one in choice:
        yield from _options(one, definitions)


def _inner(schema: Schema, part: str | int, definitions: Schema) -> Iterator[Schema]:
    for one in _options(schema, definitions):
        if isinstance(part, str):
            if part in one.get("properties", {}):
                yield one["properties"][part]
            elif isinstance(one.get("additionalProperties"), dict):
                yield one["additionalProperties"]
        elif part < len(one.get("prefixItems", ())):
            yield one["prefixItems"][part]
        elif isinstance(one.get("items"), dict):
            yield one["items"]
