"""An answer or a selection as a file: CSV, JSON Lines, JSON, Markdown, Parquet, the PAIR viewer's.

Training texts are anybody's, and so are files of them: a cell of a CSV that a spreadsheet would
compute is made text, Markdown is escaped, and what turns the writing direction or drives a terminal
stands as an escape. Only JSON keeps every character, as escapes where they are not plain.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.report.jsonl import json_text

if TYPE_CHECKING:
    from headwater.answer.answer import Answer, Evidence

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
MOST_COLUMNS = 500  # every row has a cell for each
SHOWN = 600  # characters of an example in Markdown
# Control characters, marks and turns of direction, what has no width, and halves of pairs.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")  # of what spreadsheets compute, or cut off
_BLANKS = " \u1680"  # NFKC makes a space of every other blank that has a width
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?")
# What means something in Markdown: marks anywhere, links that need none, lists at the beginning.
_MARKS = re.compile(r"[\\`*_{}\[\]#|~$!@^]|:(?=//)|(?<=www)\.|^[-+=]", re.IGNORECASE)
_NUMBERED = re.compile(r"^(\d+)([.)])")

Cell = str | int | float | bool | None


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
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        raise InputError(
            "This is no answer",
            expected="what Answer.to_dict gives",
            found=f"{place}: {first['msg']}",
        ) from error


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


def _columns(rows: Sequence[Mapping[str, Any]], first: Iterable[str] = ()) -> list[str]:
    """`first`, and the names of all rows in the order in which they appear."""
    names = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    if len(names) > MOST_COLUMNS:
        raise InputError(
            "This makes too many columns",
            expected=f"at most {MOST_COLUMNS} names in all rows",
            found=f"{len(names):,}",
            do="take it as JSON Lines, which have no columns",
        )
    return names


# -- CSV ----------------------------------------------------------------------------------


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and a line for each row; columns in the order in which they first appear."""
    names = _columns(rows)
    told = io.StringIO()
    writer = csv.writer(told, lineterminator="\r\n")
    writer.writerow([guarded(name) for name in names])
    for row in rows:
        writer.writerow([guarded(_cell(row.get(name))) for name in names])
    return told.getvalue()


def guarded(value: Cell) -> Cell:
    """A cell that no spreadsheet computes: numbers as they are, formulas behind an apostrophe.

    Wide forms of the marks, and marks behind blanks or what cannot be seen, count as well.
    """
    if not isinstance(value, str):
        return value
    safe = visible(value)
    if _NUMBER.fullmatch(safe):
        return safe
    bare = unicodedata.normalize("NFKC", _UNSAFE.sub("", value)).lstrip(_BLANKS)
    return f"'{safe}" if bare.startswith(_STARTS) or value.startswith(_STARTS) else safe


def visible(text: str) -> str:
    """What cannot be seen, or turns what follows, as an escape; line breaks and tabs stay."""
    return _UNSAFE.sub(lambda one: f"\\u{ord(one[0]):04x}", text)


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json_text(value)


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


# -- JSON ---------------------------------------------------------------------------------


def safe_json(value: Any, **options: Any) -> str:
    """JSON that holds every character, those that cannot be seen as escapes."""
    from headwater.server.jobs import as_json

    text = as_json(value)
    if options:
        text = json.dumps(json.loads(text), ensure_ascii=False, **options)
    return _UNSAFE.sub(_escape, text)


def _escape(one: re.Match[str]) -> str:
    """Line breaks of the layout stay; within strings JSON has escaped control characters itself."""
    code = ord(one[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def json_lines(rows: Iterable[Any]) -> str:
    """One object a line."""
    return "".join(safe_json(row) + "\n" for row in rows)


# -- Parquet ------------------------------------------------------------------------------


def parquet_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A table with a column for each name; one of several types holds texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = _columns(rows, ["id", "action"])
    columns: dict[str, Any] = {}
    for name in names:
        values = [_cell(row.get(name)) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        large = any(isinstance(v, int) and abs(v) >= 2**63 for v in values)
        if kinds == {int} and not large:
            type_ = pa.int64()
        elif kinds and kinds <= {int, float} and not large:
            type_, values = pa.float64(), [None if v is None else float(v) for v in values]
        elif kinds == {bool}:
            type_ = pa.bool_()
        else:
            type_, values = pa.string(), [None if v is None else _whole(v) for v in values]
        columns[_whole(name)] = pa.array(values, type_)
    made = io.BytesIO()
    pq.write_table(pa.table(columns), made, compression="zstd")
    return made.getvalue()


def _whole(value: Cell) -> str:
    """A text that UTF-8 can hold."""
    return str(value).encode("utf-8", "backslashreplace").decode()


# -- Markdown -----------------------------------------------------------------------------


def escaped(text: str, most: int = SHOWN) -> str:
    """Text on one line of Markdown, as it is: no mark of it means anything."""
    line = " ".join(text.split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    marked = _NUMBERED.sub(r"\1\\\2", _MARKS.sub(r"\\\g<0>", visible(line)))
    return html.escape(marked, quote=False)


def markdown(answer: Answer) -> str:
    """An answer to paste into an issue or a note: the question, what it comes down to, examples."""
    found = answer.picture.summary if answer.picture is not None else answer.judgement.summary
    lines = [
        f"## Where it comes from: {escaped(answer.query, 200)}",
        "",
        escaped(found, 2000),
        "",
        f"Method: {escaped(answer.title)} ({escaped(answer.order())}); "
        f"{answer.examples:,} examples scored.",
    ]
    if answer.completion:
        lines += ["", f"> {escaped(answer.prompt)} **{escaped(answer.completion) or ' '}**"]
    for head, items in (
        ("Examples that support it", answer.proponents),
        ("Examples that oppose it", answer.opponents),
    ):
        if items:
            lines += ["", f"### {head}", "", *(_item(n, one) for n, one in enumerate(items, 1))]
    if answer.notes:
        lines += ["", "### Notes", "", *(f"- {escaped(note)}" for note in answer.notes)]
    command = answer.reproduce.get("command")
    if command:
        lines += ["", "### To get it again", "", *_fenced(command, "sh")]
    return "\n".join(lines) + "\n"


def _item(number: int, item: Evidence) -> str:
    score = "no score" if item.score is None else f"{item.score:+.4g}"
    above = "" if item.percentile is None else f", above {item.percentile:.2f} % of all"
    told = f", {escaped(item.support)}" if item.support else ""
    copies = f", {len(item.duplicates)} more with this text" if item.duplicates else ""
    return (
        f"{number}. **{escaped(item.id, 200)}** ({score}{above}{told}{copies}): "
        f"{escaped(item.text)}"
    )


def _fenced(text: str, language: str) -> list[str]:
    """A block of code, its fence longer than any within."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", visible(text), fence]
