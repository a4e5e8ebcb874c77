"""Rows from files, streamed: JSON Lines, text, Parquet and Arrow, plain or compressed.

Lines end at line feeds and nowhere else (JSON strings may hold U+2028), Parquet comes in record
batches of bounded bytes. A file that breaks off is an error and not a bad row: nobody who leaves
out bad rows means the unread rest of a file.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from headwater.corpus.rows import BadRow, Row, shown
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from _typeshed import WriteableBuffer

    from headwater.corpus.files import File

_BOM = b"\xef\xbb\xbf"
_BATCH_BYTES = 16 << 20
_BATCH_ROWS = 1024


class FileRows:
    """The rows of a list of files, file by file."""

    def __init__(self, name: str, files: Sequence[File]) -> None:
        self.name = name
        self.files = list(files)

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows, streamed; raises InputError if a file cannot be opened or breaks off."""
        for file in self.files:
            last = 0
            try:
                with file.open() as stored:
                    for row in _READERS[file.format or ""](file, stored):
                        last = row.row
                        yield row
            except (OSError, EOFError, zlib.error) as error:
                raise _broken(file, last, error) from error

    def describe(self) -> list[dict[str, Any]]:
        """Name, size and mtime of every file."""
        return [file.describe() for file in self.files]


def _plain(file: File, stored: BinaryIO) -> BinaryIO:
    if file.compression == "gz":
        return cast("BinaryIO", gzip.GzipFile(fileobj=stored))
    if file.compression == "zst":
        return cast("BinaryIO", io.BufferedReader(_ZstdReader(stored), 1 << 17))
    return stored


class _ZstdReader(io.RawIOBase):
    """Zstandard frames as one stream; the library's own reader ends silently in a cut-off file."""

    def __init__(self, stored: BinaryIO) -> None:
        import zstandard

        self._stored = stored
        # Files written with `zstd --long` need a window above the default limit.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while not self._ready:
            if not self._compressed:
                self._compressed = self._stored.read(1 << 17)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the compressed file ends before its end mark")
                return 0
            self._advance()
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _advance(self) -> None:
        frame = self._frame or self._decompressor.decompressobj()
        try:
            self._ready = memoryview(cast("bytes", frame.decompress(self._compressed)))
        except self._error as error:
            raise EOFError(str(error)) from error
        self._compressed = cast("bytes", frame.unused_data) if frame.eof else b""
        self._frame = None if frame.eof else frame


def _json_rows(file: File, stored: BinaryIO) -> Iterator[Row | BadRow]:
    lines = _plain(file, stored)
    number = 0
    while True:
        line = lines.readline()
        if not line:
            return
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
            if line.lstrip()[:1] == b"[":
                raise InputError(
                    f"{file.name} is a JSON array",
                    expected="JSON Lines: one object on each line",
                    do="write it as JSON Lines, or pass the list to Corpus.from_documents",
                )
        if not line.isspace():
            yield _json_row(file, number, line)


def _json_row(file: File, number: int, line: bytes) -> Row | BadRow:
    def bad(reason: str) -> BadRow:
        return BadRow(file.name, number, reason, "line")

    try:
        values = json.loads(line.decode())
        if b"\\ud" in line or b"\\uD" in line:
            # JSON can spell half a surrogate pair, which no file or tokenizer takes later.
            json.dumps(values, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        return bad(_not_utf8(error))
    except UnicodeEncodeError:
        return bad("not valid Unicode; found half of a surrogate pair")
    except json.JSONDecodeError as error:
        return bad(
            f"not valid JSON ({error.msg} at column {error.colno}); expected one object on each "
            f"line; found {shown(line[:60].decode(errors='replace'))}"
        )
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond Python's limits
        return bad(f"not readable JSON ({error})")
    if not isinstance(values, dict):
        return bad(f"not an object; expected {{...}}; found {shown(values)}")
    return Row(file.name, number, cast("dict[str, Any]", values), "line")


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not valid UTF-8; found byte 0x{error.object[error.start]:02x}"


def _text_rows(file: File, stored: BinaryIO) -> Iterator[Row | BadRow]:
    # The text is kept as it is, line ends included: a model may have been trained on them.
    data = _plain(file, stored).read().removeprefix(_BOM)
    try:
        yield Row(file.name, 1, {"text": data.decode(), "file": file.name})
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield BadRow(file.name, line, _not_utf8(error), "line")


def _parquet_rows(file: File, stored: BinaryIO) -> Iterator[Row | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(stored)
    except (pa.ArrowException, OSError) as error:
        raise _not_readable(file, "a Parquet", error) from error
    if len(set(table.schema_arrow.names)) < len(table.schema_arrow.names):
        raise InputError(f"{file.name} has two columns of one name", found=table.schema_arrow.names)
    batches = table.iter_batches(batch_size=_batch_rows(table.metadata))
    yield from _batch_rows_of(file, batches)


def _batch_rows(metadata: Any) -> int:
    # As many rows as keep a batch near _BATCH_BYTES in the group with the longest rows.
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    widest = max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=1.0)
    return int(min(_BATCH_ROWS, max(1.0, _BATCH_BYTES / max(widest, 1.0))))


def _arrow_rows(file: File, stored: BinaryIO) -> Iterator[Row | BadRow]:
    import pyarrow as pa

    try:
        reader = pa.ipc.open_file(stored)
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        try:
            stored.seek(0)
            batches = iter(pa.ipc.open_stream(stored))
        except (pa.ArrowException, OSError) as error:
            raise _not_readable(file, "an Arrow", error) from error
    yield from _batch_rows_of(file, batches)


def _broken(file: File, last: int, error: Exception) -> InputError:
    return InputError(
        f"{file.name} cannot be read on after row {last}",
        expected="a whole file",
        found=f"{type(error).__name__}: {error}",
        do="fetch or write the file again, or leave it out",
    )


def _not_readable(file: File, what: str, error: Exception) -> InputError:
    return InputError(f"{file.name} cannot be read", expected=f"{what} file", found=str(error))


def _batch_rows_of(file: File, batches: Iterator[pa.RecordBatch]) -> Iterator[Row | BadRow]:
    import pyarrow as pa

    number = 1
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise _broken(file, number - 1, error) from error
        if batch is None:
            return
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(start, _BATCH_ROWS)
            yield from _part_rows(file, number, part)
            number += part.num_rows


def _part_rows(file: File, number: int, part: pa.RecordBatch) -> Iterator[Row | BadRow]:
    try:
        columns = {name: _values(part.column(name)) for name in part.schema.names}
    except (UnicodeDecodeError, ValueError) as error:
        if part.num_rows == 1:
            utf8 = isinstance(error, UnicodeDecodeError)
            yield BadRow(file.name, number, _not_utf8(error) if utf8 else str(error))
            return
        for index in range(part.num_rows):
            yield from _part_rows(file, number + index, part.slice(index, 1))
        return
    for index in range(part.num_rows):
        values = {name: column[index] for name, column in columns.items()}
        yield Row(file.name, number + index, values)


def _values(column: pa.Array) -> list[Any]:
    # Lists of token ids go through numpy: Arrow's own way makes an object of every id.
    import pyarrow as pa

    kind: Any = column.type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (listed and pa.types.is_integer(kind.value_type) and column.null_count == 0):
        return column.to_pylist()
    lists = cast("pa.ListArray[Any]", column)
    if lists.flatten().null_count:
        return column.to_pylist()
    numbers: list[int] = lists.flatten().to_numpy(zero_copy_only=False).tolist()
    offsets: list[int] = lists.offsets.to_pylist()
    first = offsets[0]
    return [numbers[start - first : end - first] for start, end in itertools.pairwise(offsets)]


_READERS = {
    "json": _json_rows,
    "text": _text_rows,
    "parquet": _parquet_rows,
    "arrow": _arrow_rows,
}
