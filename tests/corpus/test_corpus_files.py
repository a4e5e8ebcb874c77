"""Opening files: formats, folders, globs, URLs, compression, and damage."""

import gzip
import json
import zipfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from headwater.corpus import BadRow, Corpus, formats
from headwater.engine.errors import InputError


def lines(*rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def texts(corpus: Corpus) -> list[str]:
    return [document.content["text"] for document in corpus.documents()]


def write(path, data: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def squeeze(suffix: str, data: bytes) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    if suffix == ".zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return data


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "A.JSONL", "a.b.ndjson"])
def test_json_lines(tmp_path, name, suffix):
    path = write(tmp_path / (name + suffix), squeeze(suffix, lines({"text": "a"}, {"text": "b"})))
    corpus = Corpus.open(path)
    assert texts(corpus) == ["a", "b"]
    assert texts(corpus) == ["a", "b"], "a second pass"
    assert corpus.kind == "text"


def test_byte_order_mark_line_ends_blank_lines_and_line_separators(tmp_path):
    data = (
        b"\xef\xbb\xbf"
        + b'{"text": "a"}\r\n\r\n  \n'
        + '{"text": "b\u2028c\x85d"}\n'.encode()
        + b'{"text": "e"}'
        + b"\n\n\n"
    )
    corpus = Corpus.open(write(tmp_path / "a.jsonl", data))
    assert texts(corpus) == ["a", "b\u2028c\x85d", "e"]


def test_line_numbers_count_blank_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n\n{"text": 1}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 3: text is not text; .*found int 1"):
        texts(Corpus.open(path))


def test_a_huge_line(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(lines({"text": "x" * 5_000_000})))
    assert [len(text) for text in texts(Corpus.open(path))] == [5_000_000]


def test_zstandard_frames_and_long_windows(tmp_path):
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    # A stream of unknown size keeps its window in its header, as `zstd --long=28` on a pipe does.
    long = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frames = [
        zstandard.compress(lines({"text": "a"})),
        zstandard.compress(b""),
        long.compress(lines({"text": "b" * 300_000})) + long.flush(),
    ]
    path = write(tmp_path / "a.jsonl.zst", b"".join(frames))
    assert [len(text) for text in texts(Corpus.open(path))] == [1, 300_000]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("harm", ["cut", "noise"])
def test_a_damaged_file_is_an_error_even_when_bad_rows_are_left_out(tmp_path, suffix, harm):
    rng = np.random.default_rng(0)
    data = squeeze(suffix, lines(*({"text": rng.bytes(90).hex()} for _ in range(3000))))
    middle = len(data) // 2
    data = data[:middle] if harm == "cut" else data[:middle] + bytes(2000) + data[middle + 2000 :]
    corpus = Corpus.open(write(tmp_path / f"a.jsonl{suffix}", data), skip_bad=True)
    with pytest.raises(InputError, match=r"a\.jsonl\.\w+ cannot be read on after row \d+"):
        texts(corpus)


def test_bad_rows_are_listed_afresh_each_pass(tmp_path):
    data = (
        lines({"text": "ok"})
        + b'{"text": \n'
        + b"[1]\n"
        + b'{"text": "\xff"}\n'
        + b'{"text": "\\ud800"}\n'
        + lines({"body": "x"}, {"text": None}, {"text": "  "}, {"text": ["a"]})
        + b"[" * 100_000
        + b"\n"
        + b"9" * 5000
        + b"\n"
        + lines({"text": "\\u and \U0001f600"})
    )
    path = write(tmp_path / "a.jsonl", data)
    corpus = Corpus.open(path, skip_bad=True)
    assert corpus.bad == []
    for _ in range(2):
        assert texts(corpus) == ["ok", "\\u and \U0001f600"]
        assert [bad.row for bad in corpus.bad] == list(range(2, 12))
    assert all(bad.file == str(path) for bad in corpus.bad)
    words = ["not valid JSON", "list", "UTF-8", "surrogate", "no text", "null", "empty", "list"]
    for bad, word in zip(corpus.bad, words, strict=False):
        assert isinstance(bad, BadRow)
        assert word in bad.reason
    strict = Corpus.open(write(tmp_path / "b.jsonl", data[: data.index(b"[1]")]), skip_bad=True)
    assert texts(strict) == ["ok"]
    with pytest.raises(InputError, match=r"b\.jsonl, line 2: not valid JSON"):
        Corpus.open(tmp_path / "b.jsonl")


def test_escaped_surrogate_pairs_are_characters(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "\\ud83d\\ude00"}\n')
    assert texts(Corpus.open(path)) == ["\U0001f600"]


def test_a_json_array_is_explained(tmp_path):
    path = write(tmp_path / "a.json", b'[{"text": "a"},\n {"text": "b"}]')
    with pytest.raises(InputError, match=r"a\.json is a JSON array; expected JSON Lines"):
        Corpus.open(path, skip_bad=True)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_text_files_are_one_document_each(tmp_path, suffix):
    for name, data in [("b", b"\xef\xbb\xbfone\r\n\r\ntwo\n"), ("sub/a", "é".encode())]:
        write(tmp_path / f"{name}.txt{suffix}", squeeze(suffix, data))
    corpus = Corpus.open(tmp_path)
    assert texts(corpus) == ["one\r\n\r\ntwo\n", "é"]
    files = [document.metadata["file"] for document in corpus.documents()]
    assert files == [f"{tmp_path}/{name}.txt{suffix}" for name in ("b", "sub/a")]


def test_text_that_is_not_utf8_names_its_line(tmp_path):
    write(tmp_path / "a.txt", b"one\ntwo\nth\xffree")
    write(tmp_path / "b.txt", b"fine")
    with pytest.raises(InputError, match=r"a\.txt, line 3: not valid UTF-8; found byte 0xff"):
        Corpus.open(tmp_path)
    corpus = Corpus.open(tmp_path, skip_bad=True)
    assert texts(corpus) == ["fine"]
    assert len(corpus.bad) == 1


def test_folders_lists_and_globs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "d/2/c.jsonl", lines({"text": "c"}))
    write(tmp_path / "d/1/b.jsonl", lines({"text": "b"}))
    write(tmp_path / "d/a.jsonl.gz", gzip.compress(lines({"text": "a"})))
    write(tmp_path / "d/.hidden/x.jsonl", b"not json")
    write(tmp_path / "d/._b.jsonl", b"not json")
    write(tmp_path / "d/readme.md", b"not data")
    write(tmp_path / "odd[1].jsonl", lines({"text": "odd"}))
    assert texts(Corpus.open("d")) == ["b", "c", "a"]
    assert texts(Corpus.open(["d/2/c.jsonl", "d/1"])) == ["c", "b"]
    assert texts(Corpus.open("d/**/*.jsonl")) == ["b", "c"]
    assert texts(Corpus.open("odd[1].jsonl")) == ["odd"]
    assert texts(Corpus.open("d/[12]/*")) == ["b", "c"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", r"none\.jsonl does not exist; expected a file"),
        ("empty", "no files to read in .*; expected .jsonl"),
        ("x.csv", r"x\.csv is of a format that is not read; expected .jsonl"),
        ("x.parquet.gz", "a format that is not read"),
        ("*.nothing", "no files to read in"),
        ("zero.jsonl", "has no documents; expected at least one row; found none"),
        ("blank.jsonl", "has no documents"),
        ("fake.parquet", "expected a Parquet file"),
        ("fake.arrow", "expected an Arrow file"),
        ("memory://none.jsonl", "does not exist"),
        ("nowhere://none.jsonl", "cannot be read; found ValueError: Protocol not known"),
    ],
)
def test_what_cannot_be_opened(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    for file in ("x.csv", "x.parquet.gz", "fake.parquet", "fake.arrow"):
        write(tmp_path / file, b"a,b\n")
    write(tmp_path / "zero.jsonl", b"")
    write(tmp_path / "blank.jsonl", b"\n \n")
    source = name if "://" in name else str(tmp_path / name)
    with pytest.raises(InputError, match=message):
        Corpus.open(source)


@pytest.mark.parametrize("source", [[], 3, [3], None])
def test_what_is_no_source(source):
    with pytest.raises(InputError, match="source"):
        Corpus.open(source)


def test_a_file_without_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.jsonl", lines({"text": "a"}))
    monkeypatch.setattr("builtins.open", refuse)  # root may read a file of mode 0
    with pytest.raises(InputError, match=r"a\.jsonl cannot be read; found PermissionError"):
        Corpus.open(path)


def test_every_file_is_tried_when_the_corpus_is_opened(tmp_path, monkeypatch):
    def choosy(path, *rest, **named):
        if str(path).endswith("b.jsonl"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **named)

    real = open
    paths = [
        write(tmp_path / name, lines(*[{"text": "a"}] * 200)) for name in ("a.jsonl", "b.jsonl")
    ]
    monkeypatch.setattr("builtins.open", choosy)
    with pytest.raises(InputError, match=r"b\.jsonl cannot be read"):
        Corpus.open(paths)


def test_urls(tmp_path):
    with fsspec.open("memory://corpus/b/two.jsonl.gz", "wb") as file:
        file.write(gzip.compress(lines({"text": "two"})))
    with fsspec.open("memory://corpus/a/one.jsonl", "wb") as file:
        file.write(lines({"text": "one"}))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["three"]}), sink)
    with fsspec.open("memory://corpus/c.parquet", "wb") as file:
        file.write(sink.getvalue().to_pybytes())
    assert texts(Corpus.open("memory://corpus")) == ["one", "two", "three"]
    assert texts(Corpus.open("memory://corpus/*/*.jsonl*")) == ["one", "two"]
    assert texts(Corpus.open("memory://corpus/c.parquet")) == ["three"]
    path = write(tmp_path / "a.jsonl", lines({"text": "local"}))
    assert texts(Corpus.open(f"file://{path}")) == ["local"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.jsonl", lines({"text": "zipped"}))
    corpus = Corpus.open(f"zip://in/a.jsonl::{tmp_path}/a.zip")
    assert texts(corpus) == ["zipped"]
    assert corpus.describe()["sources"][0]["name"] == f"zip://in/a.jsonl::{tmp_path}/a.zip"


def _table():
    return pa.table(
        {
            "text": ["a", "b", "c", "d", "e"],
            "label": pa.array([1, None, 3, 4, 5], pa.int64()),
            "day": pa.array([0, 1, 2, 3, None], pa.date32()),
        }
    )


def test_parquet_keeps_types_and_nulls_in_metadata(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(_table(), path, row_group_size=2)
    corpus = Corpus.open(path)
    rows = list(corpus.documents())
    assert [row.content["text"] for row in rows] == list("abcde")
    assert [row.metadata["label"] for row in rows] == [1, None, 3, 4, 5]
    assert rows[1].metadata["day"].isoformat() == "1970-01-02"


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow(tmp_path, kind):
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    path = tmp_path / "a.arrow"
    with new(path, _table().schema) as writer:
        writer.write_table(_table(), max_chunksize=2)
    assert texts(Corpus.open(path)) == list("abcde")


def _ids(kind):
    return pa.array([[5], [1, 2, 3], [], None, [4, None], [-1], [7, 8]], kind)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int32()),
        pa.large_list(pa.int64()),
        pa.list_(pa.int16()),
        pa.list_view(pa.int32()),
    ],
)
def test_parquet_token_ids(tmp_path, kind, monkeypatch):
    path = tmp_path / "a.parquet"
    table = pa.table({"input_ids": _ids(kind), "n": list(range(7))})
    if pa.types.is_list_view(kind):
        path = tmp_path / "a.arrow"
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, path)
    for rows in (1024, 2):  # parts that start within a batch have offsets that start above 0
        monkeypatch.setattr(formats, "_BATCH_ROWS", rows)
        corpus = Corpus.open(path, skip_bad=True)
        found = [(d.content["input_ids"], d.metadata["n"]) for d in corpus.documents()]
        assert found == [([5], 0), ([1, 2, 3], 1), ([7, 8], 6)]
        assert all(type(n) is int for ids, _ in found for n in ids)
        assert [bad.row for bad in corpus.bad] == [3, 4, 5, 6]


def test_half_a_surrogate_pair_in_metadata(tmp_path):
    rows = [
        b'{"text": "a", "note": {"%s": 1}}' % name for name in (b"\\ud800", b"\\uDC00", b"\\u00e9")
    ]
    corpus = Corpus.open(write(tmp_path / "a.jsonl", b"\n".join(rows)), skip_bad=True)
    assert [document.metadata for document in corpus.documents()] == [{"note": {"é": 1}}]
    assert [(bad.row, "surrogate" in bad.reason) for bad in corpus.bad] == [(1, True), (2, True)]


@pytest.mark.parametrize("rows", [[[1], None, []], [[1], [2, None]], [[], [3]]])
def test_nulls_in_lists(rows):
    values = formats._values(pa.array(rows, pa.list_(pa.int32())))
    assert values == rows
    assert all(type(n) is not float for row in values for n in row or [])


def test_slices_of_lists_keep_their_offsets():
    column = pa.array([[1], [2, 3], [4, 5, 6]], pa.list_(pa.int32()))
    assert formats._values(column.slice(1)) == [[2, 3], [4, 5, 6]]
    assert formats._values(column.slice(3)) == []


def test_parquet_is_read_in_batches_of_bounded_bytes(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"text": [rng.bytes(5000).hex() for _ in range(50)]}), path)
    sizes = []
    real = formats._part_rows
    monkeypatch.setattr(formats, "_BATCH_BYTES", 50_000)
    monkeypatch.setattr(
        formats, "_part_rows", lambda f, n, part: sizes.append(part.num_rows) or real(f, n, part)
    )
    assert Corpus.open(path).count() == 50
    assert max(sizes) <= 10


def test_one_bad_string_does_not_spoil_its_batch(tmp_path):
    good = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, good.buffers())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": text}), path)
    corpus = Corpus.open(path, skip_bad=True)
    assert texts(corpus) == ["a", "c"]
    assert [(bad.row, "UTF-8" in bad.reason) for bad in corpus.bad] == [(2, True)]


def test_damaged_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    rng = np.random.default_rng(0)
    table = pa.table({"text": [rng.bytes(500).hex() for _ in range(400)]})
    pq.write_table(table, path, row_group_size=100, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60_000] = bytes(60_000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet"):
        list(Corpus.open(path, skip_bad=True).documents())


def test_a_file_that_goes_away_between_passes(tmp_path):
    path = write(tmp_path / "a.jsonl", lines({"text": "a"}))
    corpus = Corpus.open(path)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        texts(corpus)


def test_streaming_reads_no_further_than_asked(tmp_path):
    data = lines({"text": "a"}, {"text": "b"}) * 200 + b"broken\n"
    corpus = Corpus.open(write(tmp_path / "a.jsonl", data))
    stream = corpus.documents()
    assert [next(stream).content["text"] for _ in range(2)] == ["a", "b"]
    stream.close()
    with pytest.raises(InputError, match="line 401"):
        corpus.count()
