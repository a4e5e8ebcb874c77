"""What does not fit a request, in the words of who sent it.

The field is named as it stands in the request (`query.words[0]`), what belongs there is told from
the API's own description of it, and what was found is shown as JSON. Nothing of the validator's is
passed on but where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

from headwater.engine.errors import InputError
from headwater.server.schema_words import Schema, at, described, fields

LONGEST = 100  # characters of what is shown of a value
AROUND = 20  # characters of a body shown on either side of a slip
HALF = "text without halves of characters (surrogates that stand alone)"
BELONGS = {  # what Python's reader of JSON would have liked, by what it says
    "Expecting value": "a value: a text in double quotes, a number, true, false, null, [ or {",
    "Expecting property name enclosed in double quotes": "a name in double quotes, or }",
    "Expecting ':' delimiter": "a colon after the name",
    "Expecting ',' delimiter": "a comma, or the end of the list or object",
    "Unterminated string starting at": "a double quote at the end of the text",
    "Invalid control character at": "line breaks and the like as escapes, such as \\n",
    "Extra data": "nothing after the end of the JSON",
}

Place = Sequence[str | int]


def unfit(
    errors: Sequence[Mapping[str, Any]], given: Any, schema: Schema, definitions: Schema
) -> InputError:
    """The first thing that does not fit, as an error of ours.

    Args:
        errors: of the validator, each with `type`, `loc` and `input`. given: what was sent.
        schema: JSON schema of what is taken. definitions: what it refers to, by name.
    """
    kind, found = str(errors[0]["type"]), errors[0].get("input")
    place = placed(errors[0]["loc"], given, absent=kind == "missing")
    if kind == "missing":
        return _missing(place, given, schema, definitions)
    if kind == "extra_forbidden":
        return _unknown(place, schema, definitions)
    expected = described(at(schema, place, definitions), definitions)
    expected = HALF if kind == "string_unicode" else expected
    subject = f"The field {written(place)}" if place else "The body"
    return InputError(f"{subject} does not fit", expected=expected, found=shown(found))


def unfit_parameter(
    error: Mapping[str, Any], schema: Schema | None, definitions: Schema
) -> InputError:
    """The same of what stands in the address; `schema`: of that parameter, None = not known."""
    name = error["loc"][-1]
    expected = None if schema is None else described(schema, definitions)
    if error["type"] == "missing":
        return InputError(f"The parameter {name} is missing", expected=expected)
    found = shown(error.get("input"))
    return InputError(f"The parameter {name} does not fit", expected=expected, found=found)


def no_json(document: str, at: int, said: str) -> InputError:
    """A body that breaks off or slips at a character."""
    line = document.count("\n", 0, at) + 1
    column = at - document.rfind("\n", 0, at)
    near = " ".join(document[max(0, at - AROUND) : at + AROUND].split())
    where = f"line {line:,}, character {column:,}"
    found = f"{near or 'nothing'} ({where})" if at < len(document) else f"its end ({where})"
    return InputError(
        "The body is not JSON",
        expected=BELONGS.get(said, "what JSON allows there"),
        found=found,
    )


def placed(loc: Place, given: Any, *, absent: bool = False) -> list[str | int]:
    """Where in what was given: without the names that the validator has for its own branches.

    Args:
        absent: whether the last part is what is missing there.
    """
    place: list[str | int] = []
    here = given
    for number, part in enumerate(loc):
        if absent and number == len(loc) - 1:
            place.append(part)
        elif isinstance(here, dict) and part in here:
            place.append(part)
            here = cast("dict[Any, Any]", here)[part]
        elif isinstance(here, list) and isinstance(part, int):
            place.append(part)
            here = cast("list[Any]", here)[part]
    return place


def written(place: Place) -> str:
    """`query.words[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")[:LONGEST]


def shown(value: Any) -> str:
    """A value as it was sent, short; of what is long, how long it is."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        count = len(cast("Sequence[Any]", value))
        return "an empty list" if not count else f"a list of {count:,}"
    if isinstance(value, str) and len(value) > LONGEST:
        return f"a text of {len(value):,} characters"
    try:
        return json.dumps(value)[:LONGEST]
    except (TypeError, ValueError):
        return str(type(value).__name__)


def _missing(place: Place, given: Any, schema: Schema, definitions: Schema) -> InputError:
    """A field that is needed; of a body that is no object at all, the body."""
    expected = described(at(schema, place, definitions), definitions)
    if not place:
        return InputError("The body is missing", expected=expected)
    there = given
    for part in place[:-1]:
        there = there[part]
    names = ", ".join(map(str, there)) if isinstance(there, dict) else ""
    found = shown(there) if not isinstance(there, dict) else names[:LONGEST] or "an empty object"
    return InputError(f"The field {written(place)} is missing", expected=expected, found=found)


def _unknown(place: Place, schema: Schema, definitions: Schema) -> InputError:
    """A field that nobody reads: more often a slip than something to be passed over."""
    known = fields(at(schema, place[:-1], definitions), definitions)
    near = get_close_matches(str(place[-1]), known, 1) if place else []
    return InputError(
        f"There is no field {written(place)}",
        expected=f"some of {', '.join(known)}" if known else "no such field",
        do=f"did you mean {near[0]}?" if near else None,
    )
