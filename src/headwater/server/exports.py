"""An answer or a selection as a file: CSV, JSON Lines, JSON, Markdown, Parquet, the PAIR viewer's.

What each format does with texts that are anybody's is said where it is written: `tables.py`,
`markdown.py`, `visible.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.server.markdown import markdown
from headwater.server.tables import csv_text, parquet_bytes
from headwater.server.unfit import unfit
from headwater.server.visible import json_lines, safe_json

if TYPE_CHECKING:
    from headwater.answer.answer import Answer

ANSWER_FORMATS = ("csv", "jsonl", "json", "markdown", "pair", "html")
SELECTION_FORMATS = ("csv", "jsonl", "parquet")
MEDIA = {
    "csv": ("csv", "text/csv; charset=utf-8"),
    "jsonl": ("jsonl", "application/jsonl; charset=utf-8"),
    "pair": ("pair.jsonl", "application/jsonl; charset=utf-8"),
    "json": ("json", "application/json"),
    "markdown": ("md", "text/markdown; charset=utf-8"),
    "html": ("html", "text/html; charset=utf-8"),
    "parquet": ("parquet", "application/vnd.apache.parquet"),
}


@dataclass(frozen=True)
class File:
    """A file to hand over: its name (plain letters), what it is, its bytes."""

    name: str
    media: str
    content: bytes


def answer_from(value: Any) -> Answer:
    """An Answer from its `to_dict`, checked field by field; what it does not know is left out.

    Raises:
        InputError: naming the first field that does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    from headwater.answer.answer import Answer

    try:
        return TypeAdapter(Answer).validate_python(value)
    except ValidationError as error:
        schema = TypeAdapter(Answer).json_schema()
        found = unfit(error.errors(include_url=False), value, schema, schema.get("$defs", {}))
        raise InputError(
            "This is no answer", expected="what Answer.to_dict gives", found=_told(found)
        ) from None


def _told(error: InputError) -> str:
    """An error as part of another."""
    rest = "" if error.expected is None else f" ({error.expected} belongs there)"
    return f"{error.wrong[0].lower()}{error.wrong[1:]}{rest}"


def answer_file(value: Any, format: str) -> File:
    """An answer, as `Answer.to_dict` gives it, as a file.

    Raises:
        InputError: for another format, or what is no answer.
    """
    if format not in ANSWER_FORMATS:
        raise _unknown(format, ANSWER_FORMATS)
    answer = answer_from(value)
    if format == "csv":
        text = csv_text(_evidence_rows(answer))
    elif format in ("jsonl", "pair"):
        text = json_lines([answer.to_pair() if format == "pair" else answer.to_dict()])
    elif format == "json":
        text = safe_json(answer.to_dict(), indent=1) + "\n"
    elif format == "markdown":
        text = markdown(answer)
    else:
        from headwater.answer.page import to_html

        text = to_html([answer])
    return made_file(answer.name or answer.prompt or "answer", format, text)


def selection_file(rows: Sequence[Mapping[str, Any]], format: str) -> File:
    """Chosen examples, each with `id`, `action` and whatever else, as a file.

    Raises:
        InputError: for another format, or a row without an id.
    """
    if format not in SELECTION_FORMATS:
        raise _unknown(format, SELECTION_FORMATS)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("id"), str):
            raise InputError(f"Row {number} of the selection has no id", expected="a text 'id'")
    if format == "csv":
        return made_file("selection", format, csv_text(rows))
    if format == "jsonl":
        return made_file("selection", format, json_lines(rows))
    extension, media = MEDIA[format]
    return File(f"headwater-selection.{extension}", media, parquet_bytes(rows))


def made_file(name: str, format: str, text: str) -> File:
    """A file of text, named after what it is of."""
    extension, media = MEDIA[format]
    spelled = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    short = re.sub("[^a-z0-9]+", "-", spelled)[:48].strip("-")
    name = f"headwater-{short}.{extension}" if short else f"headwater.{extension}"
    return File(name, media, text.encode("utf-8"))


def _unknown(format: str, known: Iterable[str]) -> InputError:
    return InputError("There is no such format", expected=", ".join(known), found=format[:40])


def _evidence_rows(answer: Answer) -> list[dict[str, Any]]:
    """One row for each example: its place, its figures, its text, its metadata."""
    rows: list[dict[str, Any]] = []
    for side, items in (("supports", answer.proponents), ("opposes", answer.opponents)):
        for rank, item in enumerate(items, 1):
            row: dict[str, Any] = {
                "side": side,
                "rank": rank,
                "id": item.id,
                "score": item.score,
                "unit": answer.unit,
                "percentile": item.percentile,
                "kind": item.kind,
                "support": item.support,
                "specificity": item.specificity,
                "text": item.text,
                "duplicates": " ".join(item.duplicates),
                "position": item.position,
            }
            for kind, place in item.kinds.items():
                row |= {f"{kind} rank": place.rank, f"{kind} score": place.score}
            row |= {f"metadata.{name}": held for name, held in item.metadata.items()}
            rows.append(row)
    return rows
