"""Rows as CSV and Parquet: a column for each name, in the order in which the names appear.

A cell of a CSV that a spreadsheet would compute is made text. Parquet has types, and needs nothing
of the kind: ids stay ids there.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headwater.engine.errors import InputError
from headwater.report.jsonl import json_text
from headwater.server.visible import UNSAFE, visible

MOST_COLUMNS = 500  # every row has a cell for each
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")  # of what spreadsheets compute, or cut off
_BLANKS = " \u1680"  # NFKC makes a space of every other blank that has a width
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?")

Cell = str | int | float | bool | None


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
    bare = unicodedata.normalize("NFKC", UNSAFE.sub("", value)).lstrip(_BLANKS)
    return f"'{safe}" if bare.startswith(_STARTS) or value.startswith(_STARTS) else safe


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


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json_text(value)
