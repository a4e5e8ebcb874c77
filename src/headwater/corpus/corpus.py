"""The corpus: an ordered table of training examples, streamed anew each time it is asked for.

Nothing is held in memory but a hash of 8 bytes for each id. A row that cannot be used ends the
stream with its file and line, or, with `skip_bad`, is left out and listed in `bad`.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from headwater.corpus import hub
from headwater.corpus.content import check_renames, detect
from headwater.corpus.document import Document, content_hash
from headwater.corpus.files import find_files
from headwater.corpus.formats import FileRows
from headwater.corpus.memory import DictRows, read_columns
from headwater.corpus.rows import BadRow, Row, RowProblem
from headwater.corpus.seen import HashCounter
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.corpus.content import Layout, Parsed
    from headwater.corpus.rows import RowSource

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Columns are settled from the first rows; more are read only while an asked one is not seen.
_FIRST_ROWS = 100
_MOST_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class _Filter:
    keep: Callable[[Document], bool]
    facts: dict[str, Any]


class Corpus:
    """Training examples in a fixed order.

    Open one with `open`, `from_columns` or `from_documents`. `kind` says what its documents hold
    (see `Document`); `bad` lists the rows left out in the latest pass.
    """

    def __init__(
        self,
        source: RowSource,
        layout: Layout,
        *,
        skip_bad: bool = False,
        filters: tuple[_Filter, ...] = (),
    ) -> None:
        self._source = source
        self._layout = layout
        self._skip_bad = skip_bad
        self._filters = filters
        self._count: int | None = None
        self.bad: list[BadRow] = []

    @classmethod
    def open(
        cls,
        source: Source,
        *,
        columns: Mapping[str, str] | None = None,
        skip_bad: bool = False,
        kind: str | None = None,
    ) -> Corpus:
        """Open files, a folder, a glob, a URL of fsspec, `hf://NAME[:SPLIT]` or a saved data set.

        Args:
            source: what to read; a list of files keeps its order, folders and globs are sorted.
                Formats are told by suffix: .jsonl, .json or .ndjson (one object a line) and .txt
                (one document a file), each also .gz and .zst; .parquet; .arrow.
            columns: our word -> your column, such as {"text": "body", "group": "source"}. Our words
                are text, prompt, completion, messages, input_ids, labels and id; others, and
                columns not named here, are kept as metadata.
            skip_bad: leave out rows that cannot be used and list them in `bad`, instead of failing.
            kind: "tokens", "messages", "prompt" or "text", where the columns allow several; the
                first of them in this order is the default, after one named in `columns`.

        Raises:
            InputError: nothing is there or can be read, or no column fits.
        """
        renames = check_renames(columns)
        rows = _open_source(source)
        return cls(rows, _settle(rows, renames, kind, skip_bad), skip_bad=skip_bad)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Mapping[str, Any]],
        *,
        columns: Mapping[str, str] | None = None,
        skip_bad: bool = False,
        kind: str | None = None,
    ) -> Corpus:
        """A corpus of dicts in memory, each like a line of a JSON Lines file; see `open`."""
        rows = DictRows(list(documents))
        layout = _settle(rows, check_renames(columns), kind, skip_bad)
        return cls(rows, layout, skip_bad=skip_bad)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        *,
        ids: Sequence[Any] | None = None,
        metadata: Mapping[str, Sequence[Any]] | None = None,
    ) -> Corpus:
        """A corpus of columns in memory: arrays, tensors or lists of equal length.

        Row i holds column[i]: an array, or a numpy scalar of a column of one dimension (kind
        "columns"). Columns that are just those of another kind, with what it wants in them
        ({"text": [...]}, for example), give a corpus of that kind.

        Args:
            columns: name -> [rows, ...]; arrays are not copied.
            ids: an id for each row; content hash plus occurrence otherwise.
            metadata: name -> a value for each row.

        Raises:
            InputError: lengths differ, there are no rows, or a column is neither numbers nor text.
        """
        rows, layout = read_columns(columns, ids, metadata)
        return cls(rows, layout)

    @property
    def kind(self) -> str:
        """What documents hold: "text", "prompt", "messages", "tokens" or "columns"."""
        return self._layout.kind

    def __repr__(self) -> str:
        view = f", {len(self._filters)} selections" if self._filters else ""
        return f"Corpus({self._source.name!r}, kind={self.kind!r}{view})"

    def documents(self) -> Iterator[Document]:
        """All documents, streamed from the source in order, the same at every call.

        Raises:
            InputError: a row cannot be used (unless `skip_bad`), or an id is there twice.
        """
        bad: list[BadRow] = []
        self.bad = bad
        ids = HashCounter()
        for position, row in enumerate(self._source.rows()):
            try:
                if isinstance(row, BadRow):
                    bad.append(self._refused(row))
                    continue
                parsed = self._layout.read(row.values)
            except RowProblem as problem:
                bad.append(self._refused(BadRow(row.file, row.row, str(problem), row.unit)))
                continue
            identity = self._identify(position, row, parsed, ids)
            document = Document(identity, parsed.content, parsed.metadata)
            if all(one.keep(document) for one in self._filters):
                yield document

    def count(self) -> int:
        """How many documents there are: one pass over the source, the first time."""
        if self._count is None:
            self._count = sum(1 for _ in self.documents())
        return self._count

    def select(
        self,
        *,
        ids: Iterable[str] | None = None,
        without: Iterable[str] | None = None,
        where: Callable[[Document], bool] | None = None,
    ) -> Corpus:
        """The documents that meet every condition given: a view that reads the same source.

        Args:
            ids: keep only documents of these ids.
            without: leave out documents of these ids.
            where: keep the documents for which it is true.
        """
        filters = list(self._filters)
        if ids is not None:
            kept = _id_set("ids", ids)
            filters.append(_Filter(lambda document: document.id in kept, _told("ids", kept)))
        if without is not None:
            left = _id_set("without", without)
            filters.append(_Filter(lambda one: one.id not in left, _told("without", left)))
        if where is not None:
            name = getattr(where, "__qualname__", type(where).__name__)
            filters.append(_Filter(where, {"where": str(name)}))
        return Corpus(self._source, self._layout, skip_bad=self._skip_bad, filters=tuple(filters))

    def sample(self, n: int, seed: int) -> list[Document]:
        """A sample of `n` documents (all, if there are fewer), in the order of the corpus.

        Drawn by the smallest sha256 of seed and id: the order and what else is in the corpus decide
        nothing but who makes way for whom, so that a grown corpus keeps most of its sample.
        """
        if n < 0:
            raise InputError("a sample cannot be negative", expected="n >= 0", found=n)
        # The root is the largest key kept; the position breaks no tie (ids differ) but orders.
        kept: list[tuple[int, int, Document]] = []
        for position, document in enumerate(self.documents()):
            digest = hashlib.sha256(f"{seed}:{document.id}".encode()).digest()
            entry = (-int.from_bytes(digest, "big"), position, document)
            if len(kept) < n:
                heapq.heappush(kept, entry)
            elif kept and entry[0] > kept[0][0]:
                heapq.heapreplace(kept, entry)
        return [document for _, _, document in sorted(kept, key=lambda entry: entry[1])]

    def describe(self) -> dict[str, Any]:
        """What was opened and how it is read, JSON-serialisable, for a manifest."""
        return {
            **self._layout.describe(),
            "sources": self._source.describe(),
            "skip_bad": self._skip_bad,
            "selections": [one.facts for one in self._filters],
        }

    def _refused(self, bad: BadRow) -> BadRow:
        if self._skip_bad:
            return bad
        raise _as_error(bad)

    def _identify(self, position: int, row: Row, parsed: Parsed, ids: HashCounter) -> str:
        if parsed.id is None:
            prefix = content_hash(parsed.content)[:16]
            return f"{prefix}-{ids.add(int(prefix, 16))}"
        digest = hashlib.sha256(parsed.id.encode(errors="surrogatepass")).digest()
        if ids.add(int.from_bytes(digest[:8], "big")):
            # Only hashes are kept: the source tells whether it is the id, and where it was.
            first = self._first_place(parsed.id, position)
            if first is not None:
                raise InputError(
                    f"the id {parsed.id!r} is there twice: {first} and {row.place}",
                    expected="ids that differ",
                    do="give another column as id, or call this one something else with columns="
                    '{"source_id": "id"}; ids are then made from the content',
                )
        return parsed.id

    def _first_place(self, identity: str, until: int) -> str | None:
        for row in itertools.islice(self._source.rows(), until):
            if isinstance(row, BadRow):
                continue
            try:
                parsed = self._layout.read(row.values)
            except RowProblem:
                continue
            if parsed.id == identity:
                return row.place
        return None


def _open_source(source: Source) -> RowSource:
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if hub.is_hub_name(text):
            return hub.open_hub(text)
        if "://" not in text and hub.is_saved_dataset(text):
            return hub.open_saved(text)
        return FileRows(text, find_files(source))
    if not isinstance(cast("object", source), Iterable):
        raise InputError(
            "this is not a source", expected="a path, a URL or a list", found=repr(source)
        )
    listed = list(source)
    name = str(listed[0]) if len(listed) == 1 else f"these {len(listed)} sources"
    return FileRows(name, find_files(listed))


def _settle(rows: RowSource, renames: dict[str, str], kind: str | None, skip_bad: bool) -> Layout:
    """The layout, from the columns of the first rows."""
    found: dict[str, None] = {}
    wanted = set(renames.values())
    good = 0
    first_bad: BadRow | None = None
    for row in itertools.islice(rows.rows(), _MOST_ROWS):
        if isinstance(row, BadRow):
            first_bad = first_bad or row
            if not skip_bad:
                raise _as_error(row)
            continue
        found.update(dict.fromkeys(row.values))
        good += 1
        if good >= _FIRST_ROWS and wanted <= found.keys():
            break
    if not good:
        raise InputError(
            f"{rows.name} has no documents",
            expected="at least one row",
            found=f"only bad rows ({first_bad.place}: {first_bad.reason})" if first_bad else "none",
        )
    return detect(list(found), renames, kind, rows.name)


def _as_error(bad: BadRow) -> InputError:
    return InputError(
        f"{bad.place}: {bad.reason}",
        do="correct it, or leave bad rows out with skip_bad=True (--skip-bad)",
    )


def _id_set(name: str, ids: Iterable[str]) -> frozenset[str]:
    if isinstance(ids, str):
        raise InputError(f"{name} is one string", expected="a set of ids", found=repr(ids))
    return frozenset(ids)


def _told(name: str, ids: frozenset[str]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for one in sorted(ids):
        digest.update(f"{len(one)}:{one}".encode(errors="surrogatepass"))
    return {name: {"count": len(ids), "sha256": digest.hexdigest()}}
