"""Postings that grow: an index of the `tantivy` package in a folder, to which documents are added.

They are committed in the order of the corpus, so however a build ended, the documents that count
are the first so many, and the next build goes on after them. Memory is tantivy's buffer, whatever
the size of the corpus. A text is not stored, only its terms: the corpus shards have it.

Words of documents and of queries are cut by one analyser, and a query is put together from terms:
nothing in a text is ever read as query syntax.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import DamageError, InputError, ResourceError
from headwater.engine.files import disk_error, make_folder

if TYPE_CHECKING:
    from headwater.index.selection import Mask

TOKENIZER = "en_stem"
LONGEST = 40  # bytes; words of so many or more do not count, as in tantivy's own en_stem
TEXT, POSITION = "text", "position"
COMMIT = 1 << 18  # documents that a killed build loses at most
FIRST = 4  # times k: what a search for the best k first asks for
MORE = 8  # times that, when it was not enough
SAID = 160  # characters of a failure of tantivy, which may quote whole files

_OS_ERROR = re.compile(r"(?:os error|code:) (\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KEPT_OUT = ("PermissionDenied", "ReadOnlyFilesystem", "Failed to acquire Lockfile")

Array = np.ndarray[Any, Any]


def tantivy_package() -> Any:
    """The package, imported now; raises InputError when it is not installed."""
    try:
        import tantivy
    except ImportError as error:
        raise InputError(
            "This lexical evidence needs a package that is not installed",
            do="run pip install 'headwater[tantivy]', or take BM25",
        ) from error
    return tantivy


def file_format() -> str:
    """The format of the files that the installed package writes, such as "v7"."""
    said = str(tantivy_package().__version__)
    return said.partition("index_format ")[2] or said


def words(text: str) -> list[tuple[str, str]]:
    """The words of a text that count, as they stand there and as terms."""
    text = _valid(text)
    found: Any = _analyser().pre_tokenize(text)
    return [(text[t.char_offset_from : t.char_offset_to], t.text) for t in found.tokens]


def _valid(text: str) -> str:
    """Without what UTF-8 cannot say (lone surrogates)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _analyser() -> Any:
    """One of its own for each caller: quickly made, and not safe between threads."""
    package = tantivy_package()
    kinds = package.Filter
    made = package.TextAnalyzerBuilder(package.Tokenizer.simple())
    for step in (kinds.remove_long(LONGEST), kinds.lowercase(), kinds.stemmer("english")):
        made = made.filter(step)
    return made.build()


def _schema() -> Any:
    made = tantivy_package().SchemaBuilder()
    made = made.add_text_field(TEXT, tokenizer_name=TOKENIZER, index_option="freq")
    return made.add_unsigned_field(POSITION, indexed=True, fast=True).build()


# -- writing ------------------------------------------------------------------------------


class Growing:
    """An index that documents are added to; what a folder holds already stays.

    What cannot be read, or holds more documents than there are, is thrown away.

    Args:
        folder: of the index; made where it is not there. documents: how many it will hold.
    """

    def __init__(self, folder: Path, documents: int) -> None:
        self.folder = folder
        make_folder(folder)
        try:
            self._open()
            usable = self.held <= documents
        except DamageError:
            usable = False
        if not usable:
            shutil.rmtree(folder)
            make_folder(folder)
            self._open()

    def _open(self) -> None:
        with _told(self.folder):
            self._index = tantivy_package().Index(_schema(), path=str(self.folder))
            self._index.register_tokenizer(TOKENIZER, _analyser())
            self.held = int(_searcher(self._index).num_docs)

    def add(self, groups: Iterable[Sequence[str]]) -> None:
        """Add the texts of the documents from position `held` on, and commit them."""
        with _told(self.folder):  # one thread: commits keep the order, and reading is as slow
            writer = self._index.writer(num_threads=1)
        try:
            for group in groups:
                with _told(self.folder):
                    self._put(writer, group)
            with _told(self.folder):
                writer.commit()
        finally:
            with _told(self.folder):
                writer.wait_merging_threads()  # and gives back its lock

    def _put(self, writer: Any, texts: Sequence[str]) -> None:
        make = tantivy_package().Document
        for text in texts:
            document = make()
            document.add_text(TEXT, _valid(text))
            document.add_unsigned(POSITION, self.held)
            writer.add_document(document)
            self.held += 1
            if self.held % COMMIT == 0:
                writer.commit()

    def names(self) -> list[str]:
        """The files that make the index, without tantivy's locks."""
        return sorted(path.name for path in self.folder.iterdir() if path.suffix != ".lock")


# -- reading ------------------------------------------------------------------------------


class Grown:
    """An open index of tantivy: which documents have a term, and what it adds to their scores.

    Args:
        folder: of the index. documents: how many it holds.

    Raises:
        DamageError: when it is something else.
        InputError: when this process may not read it.
    """

    def __init__(self, folder: Path, documents: int) -> None:
        self.folder, self.documents = folder, documents
        with _told(folder):
            index = tantivy_package().Index.open(str(folder))
            self._schema = index.schema
            self._searcher = _searcher(index)
        if self._searcher.num_docs != documents:
            raise _damage(folder, f"{documents} documents", f"{self._searcher.num_docs}")

    def count(self, term: str) -> int:
        """How many documents have a term."""
        with _told(self.folder):
            return int(self._searcher.doc_freq(TEXT, term))

    def postings(self, term: str, among: Sequence[int] | None = None) -> tuple[Array, Array]:
        """Positions int64, ascending, and scores float32 of the documents that have a term.

        Args:
            term: of `words`. among: positions of the documents that are looked at; None = all.
        """
        wanted = self._term(term)
        if among is None:
            return self._found(wanted, self.count(term))
        package = tantivy_package()
        one_of, must = package.Occur.Should, package.Occur.Must
        places = [
            (one_of, package.Query.term_query(self._schema, POSITION, int(position)))
            for position in among
        ]
        # Constant 0, so that where a document stands adds nothing to its score.
        place = package.Query.const_score_query(package.Query.boolean_query(places), 0.0)
        both = package.Query.boolean_query([(must, wanted), (must, place)])
        return self._found(both, len(places))

    def nearest(self, wanted: Mapping[str, int], k: int, among: Mask | None) -> Array:
        """Positions of documents that have any of the terms, the k best of them included.

        tantivy adds up a document's terms in an order of its own, so equal documents may differ in
        the last bit: all that come so near to the k-th are named. It skips documents that cannot
        be among the best, and reads the more the larger k is.

        Args:
            wanted: how often each term counts. k: how many. among: those that take part.
        """
        query, limit = self._any(wanted), FIRST * k
        slack = (len(wanted) + 4) * 2.0**-22
        while True:
            positions, scores = self._found(query, min(limit, self.documents))
            mine = scores if among is None else scores[among[positions]]
            floor = np.partition(mine, -k)[-k] * (1 - slack) if len(mine) >= k else 0.0
            if len(positions) < limit or scores.min() < floor:
                near = scores >= floor
                return positions[near if among is None else near & among[positions]]
            limit *= MORE

    def _term(self, term: str) -> Any:
        return tantivy_package().Query.term_query(self._schema, TEXT, term, "freq")

    def _any(self, wanted: Mapping[str, int]) -> Any:
        package = tantivy_package()
        boost, one_of = package.Query.boost_query, package.Occur.Should
        return package.Query.boolean_query(
            [(one_of, boost(self._term(term), float(times))) for term, times in wanted.items()]
        )

    def _found(self, query: Any, limit: int) -> tuple[Array, Array]:
        """Positions, ascending, and scores of the best `limit` documents for a query."""
        if limit < 1:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        with _told(self.folder):
            hits: Any = self._searcher.search(query, limit=limit, count=False).hits
            addresses = [address for _, address in hits]
            found: Any = self._searcher.fast_field_values(POSITION, addresses)
        scores = np.fromiter((score for score, _ in hits), np.float32, len(hits))
        positions = np.asarray([-1 if place is None else place for place in found], np.int64)
        order = np.argsort(positions)
        positions, scores = positions[order], scores[order]
        if len(positions) and (
            positions[0] < 0
            or positions[-1] >= self.documents
            or (np.diff(positions) < 1).any()
            or not np.isfinite(scores).all()
        ):
            raise _damage(self.folder, "each document once", "others, or one twice")
        return positions, scores


def _searcher(index: Any) -> Any:
    index.config_reader("manual")  # nothing watches the folder in the background
    return index.searcher()


@contextmanager
def _told(folder: Path) -> Generator[None]:
    """tantivy's failures as ours; they are `ValueError`s, or panics, and told apart by words."""
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # no `Exception`, and not exported
        if not (panic or isinstance(error, ValueError | OSError)):
            raise
        said = " ".join(str(error).split())[:SAID] or type(error).__name__
        number = _OS_ERROR.search(said)
        if any(reason in said for reason in _KEPT_OUT):
            raise InputError(
                f"{folder} cannot be opened: tantivy keeps a lock file in it",
                expected="a folder that may be written to",
                found=said,
                do="copy the index to a folder of yours, or take BM25",
            ) from error
        if number is not None and int(number[1]) in _FULL:
            raise disk_error(folder, OSError(int(number[1]), said)) from error
        if "writer was killed" in said:  # its thread does not tell why
            raise ResourceError(
                f"{folder} was not written",
                expected="room on its disk",
                found=said,
                do="run the same command again: what was committed is kept",
            ) from error
        raise _damage(folder, "an index of tantivy", said) from error


def _damage(folder: Path, expected: str, found: str) -> DamageError:
    return DamageError(
        f"{folder} is damaged",
        expected=expected,
        found=found,
        do=f"remove {folder.parent}; it is built again when it is needed",
    )
