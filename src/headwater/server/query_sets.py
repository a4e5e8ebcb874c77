"""Sets of queries with what was found for them, from JSON Lines: to page, filter, sort and export.

Three kinds of line are read, also mixed: those of the PAIR pretraining-tda viewer, answers of ours
(`headwater ask --json`), and plain queries (prompt, completion, gold). Lines that cannot be read
are told by their number; the others stay. Nothing of a line is lost: what is not known is shown,
can be filtered and sorted by, and is written out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.bootstrap import interval, redrawn
from headwater.engine.errors import InputError
from headwater.engine.json_lines import json_object
from headwater.engine.kept import Kept
from headwater.evidence.filter_grammar import parse
from headwater.server.explore_schemas import MOST_SET
from headwater.server.exports import File, made_file
from headwater.server.jobs import Missing
from headwater.server.query_entry import AIS, AIS_ENDING, METRICS, Entry
from headwater.server.records import depth, is_pair, to_pair
from headwater.server.visible import json_lines

if TYPE_CHECKING:
    from headwater.server.workbench import Workbench

FILE_BYTES = 400_000_000
LINE_CHARACTERS = 8_000_000
MOST_ROWS = 200_000
MOST_UPLOADS = 12
MOST_COLUMNS = 200
TOLD = 20  # broken lines that are named; all are counted
DEEPEST = 40  # lists and objects inside each other
KEPT = 16  # filtered and sorted views that are kept
Record = dict[str, Any]


@dataclass
class QuerySet:
    """A set, and the lines that were no query.

    Args:
        problems: {"line", "wrong"} of the first of them. problem_count: of all.
    """

    name: str
    entries: list[Entry]
    problems: list[Record] = field(default_factory=list[Record])
    problem_count: int = 0
    uploaded: bool = False
    _views: Kept[list[Entry]] = field(default_factory=lambda: Kept[list[Entry]](KEPT))
    _metrics: Kept[list[Record]] = field(default_factory=lambda: Kept[list[Record]](KEPT))

    @cached_property
    def columns(self) -> list[str]:
        """Names of single values, in the order in which they first appear."""
        single: dict[str, bool] = {}
        for entry in self.entries:
            for name, value in entry.columns.items():
                if value is not None:
                    fits = isinstance(value, str | int | float | bool)
                    single[name] = fits and single.get(name, True)
        return [name for name, fits in single.items() if fits][:MOST_COLUMNS]

    @cached_property
    def known(self) -> set[str]:
        """Names that a filter may ask for."""
        return {name for entry in self.entries for name in entry.columns}

    def view(self, filter: str = "", sort: str = "", *, descending: bool = False) -> list[Entry]:
        """The entries that pass, in order; those without the value come last.

        Raises:
            InputError: for a filter or a column that is not understood.
        """
        key = repr((filter.strip(), sort, descending))
        found = self._views.get(key)
        if found is None:
            wanted = parse(filter, self.known)
            found = [e for e in self.entries if wanted is None or wanted.matches(e.row)]
            found = self._sorted(found, sort, descending) if sort else found
            self._views.put(key, found)
        return found

    def _sorted(self, found: list[Entry], sort: str, descending: bool) -> list[Entry]:
        if sort not in self.columns:
            told = ", ".join(self.columns[:20])
            raise InputError("There is no such column", expected=told, found=sort[:80])
        there = [e for e in found if e.columns.get(sort) is not None]
        rest = [e for e in found if e.columns.get(sort) is None]
        there.sort(key=lambda e: _order(e.columns[sort]), reverse=descending)
        return there + rest

    def metrics(self, filter: str = "") -> list[Record]:
        """Means over the entries that pass, with 95 % intervals over queries."""
        made = self._metrics.get(filter.strip())
        if made is None:
            found = self.view(filter)
            names = list(dict.fromkeys(name for e in found for name in e.metrics))
            made = [_mean(name, found) for name in names]
            self._metrics.put(filter.strip(), made)
        return made

    def page(
        self,
        filter: str = "",
        sort: str = "",
        *,
        descending: bool = False,
        offset: int = 0,
        limit: int = 25,
    ) -> Record:
        """A page of it, as the interface has it."""
        found = self.view(filter, sort, descending=descending)
        return {
            "total": len(found),
            "columns": self.columns,
            "metrics": self.metrics(filter),
            "problems": self.problems,
            "problem_count": self.problem_count,
            "rows": [entry.shown for entry in found[offset : offset + limit]],
        }

    def export(self, format: str, filter: str = "") -> File:
        """The lines that pass: as PAIR's viewer reads them, or in our names.

        Raises:
            InputError: for another format.
        """
        found = self.view(filter)
        if format == "pair":
            rows = [e.record if is_pair(e.record) else to_pair(e.own) for e in found]
        elif format == "jsonl":
            rows = [e.own for e in found]
        else:
            raise InputError("There is no such format", expected="pair or jsonl", found=format[:40])
        return made_file(self.name, format, json_lines(rows))


def _order(value: Any) -> tuple[int, Any]:
    """Numbers before texts; what is neither last, by its text."""
    if isinstance(value, float) and isnan(value):  # it has no place among numbers
        return 1, "nan"
    if isinstance(value, bool | int | float):
        return 0, value  # as it is: an integer may be too large for a float
    return 1, str(value).casefold()


def _mean(name: str, entries: Sequence[Entry]) -> Record:
    values = np.array([[e.metrics[name]] for e in entries if name in e.metrics])
    low = high = None
    if len(values) > 1:
        ends = interval(redrawn(values) / len(values))
        low, high = (float(one[0]) for one in ends)
    title = METRICS[name.removesuffix(AIS_ENDING)]
    if name.endswith(AIS_ENDING):
        title += f"; right is what the entailment (AIS) score puts above {AIS}"
    made = {"name": name, "title": title, "mean": float(values.mean())}
    return {**made, "low": low, "high": high, "rows": len(values)}


# -- reading ------------------------------------------------------------------------------


def read_set(name: str, content: bytes) -> QuerySet:
    """A set from the bytes of a JSON Lines file.

    Raises:
        InputError: when no line is a query, or there are too many.
    """
    made = QuerySet(name, [])
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        if len(made.entries) >= MOST_ROWS:
            raise InputError(f"{name} is too long", expected=f"at most {MOST_ROWS:,} queries")
        try:
            record = _record(f"line {number}", raw)
        except InputError as error:
            made.problem_count += 1
            if len(made.problems) < TOLD:
                made.problems.append({"line": number, "wrong": str(error)})
            continue
        made.entries.append(Entry(len(made.entries), number, record, name))
    if not made.entries:
        found = made.problems[0]["wrong"] if made.problems else "an empty file"
        raise InputError(f"{name} holds no query", expected="one JSON object a line", found=found)
    return made


def _record(place: str, raw: bytes) -> Record:
    if len(raw) > LINE_CHARACTERS:
        raise InputError(f"{place}: too long", expected=f"at most {LINE_CHARACTERS:,} bytes")
    try:
        record = json_object(place, raw.decode("utf-8"), "query")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8", found=error.reason) from error
    except RecursionError as error:
        raise InputError(f"{place}: too many brackets in each other") from error
    if depth(record) > DEEPEST:
        raise InputError(f"{place}: too many brackets in each other", expected=f"{DEEPEST}")
    if not any(name in record for name in ("inputs_plaintext", "prompt", "query")):
        raise InputError(
            f"{place}: not a query",
            expected="inputs_plaintext (PAIR's viewer), or prompt",
            found=", ".join(list(record)[:8]) or "no fields",
        )
    return record


class QuerySets:
    """The sets of a server, by name: files given at the start, and what was uploaded since.

    Args:
        files: paths by name; read when they are first asked for.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        self._sets: dict[str, QuerySet] = {}

    def names(self) -> list[str]:
        """All of them, those given at the start first."""
        return list(dict.fromkeys([*self.files, *self._sets]))

    def get(self, name: str) -> QuerySet:
        """A set.

        Raises:
            InputError: for a name that is not there, or a file that cannot be read.
        """
        if name not in self._sets and name not in self.files:
            told = ", ".join(self.names()) or "none: give one with --query-sets, or upload one"
            raise Missing("There is no such query set", expected=told, found=name[:200])
        if name not in self._sets:
            self._sets[name] = read_set(name, _content(self.files[name]))
        return self._sets[name]

    def upload(self, name: str, lines: str) -> QuerySet:
        """Take a set in; one of the same name that was uploaded before goes.

        Raises:
            InputError: for what is too large, no set, or the name of a file given at the start.
        """
        content = lines.encode("utf-8", "surrogatepass")
        if len(content) > MOST_SET:
            raise InputError(
                "The file is too large",
                expected=f"at most {MOST_SET // 1_000_000} MB",
                found=f"{len(content) / 1e6:.1f} MB",
                do="give it to the server at its start, with --query-sets",
            )
        # The name stands in addresses, so it holds no slash, and nothing that cannot be seen.
        name = "".join("-" if one in "/\\" or not one.isprintable() else one for one in name)
        name = " ".join(name.split())[:200]
        if not name or name in self.files:
            raise InputError(
                "The set needs another name", expected="one that no given set has", found=name
            )
        uploaded = [one for one, held in self._sets.items() if held.uploaded and one != name]
        if len(uploaded) >= MOST_UPLOADS:
            raise InputError(
                "Too many sets were uploaded",
                expected=f"at most {MOST_UPLOADS}",
                do=f"replace one of them ({', '.join(uploaded[:3])}, ...) by using its name",
            )
        made = read_set(name, content)
        made.uploaded = True
        self._sets[name] = made
        return made


def of(workbench: Workbench) -> QuerySets:
    """The sets of a server; made once."""
    made: QuerySets = workbench.extra.setdefault("query_sets", QuerySets(workbench.query_sets))
    return made


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES:
            raise InputError(
                f"{path.name} is too large",
                expected=f"at most {FILE_BYTES // 1_000_000} MB",
                found=f"{size / 1e6:.0f} MB",
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read", found=error.strerror or str(error)) from error
