"""BM25 by tantivy against its formula written out; growing, being killed, damage, and bad input."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
import Stemmer
import tantivy
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.cli.app import run
from headwater.engine.errors import DamageError, InputError, ResourceError
from headwater.evidence import lexical_tantivy, tantivy_index
from headwater.evidence.lexical_tantivy import Tantivy
from headwater.evidence.rankers import method_by_name
from headwater.index.store import damaged_stores
from headwater.tasks.texts import Texts
from models import SENTENCES

WORDS = ["aa", "bb", "cc", "dd", "the", "running", "runs", "Capital", "ёлка", "日本"]
MORE = ["?!", "the of and", "Capitals of the world: Lima, Lima, LIMA!", "the cat sat on the mat"]
TEXTS = SENTENCES + MORE
NEW = ["Lima, once more", "the running of the cats", "."]
STOP = frozenset(bm25s.stopwords.STOPWORDS_EN)
K1, B = 1.2, 0.75


def rows(texts: Sequence[str], first: int = 0) -> hw.Corpus:
    names = enumerate(texts, start=first)
    return hw.Corpus.from_documents(
        [{"id": f"d{i:03d}", "text": text, "half": i % 2} for i, text in names]
    )


def index_of(texts: Sequence[str], folder: Path | None = None) -> hw.Index:
    return hw.Index.build(folder, Texts(), rows(texts), None, hw.Plan(shard_rows=4))


def put(path: Path, content: bytes) -> None:
    """Write a file anew: an earlier reader maps the old one, and dies if it shrinks."""
    fresh = path.with_name(path.name + ".fresh")
    fresh.write_bytes(content)
    fresh.replace(path)


def terms(text: str, stop: frozenset[str] = frozenset()) -> list[str]:
    stemmer = Stemmer.Stemmer("english")
    words = re.findall(r"[^\W_]+", text.lower())
    return [stemmer.stemWord(word) for word in words if word not in stop]


def naive(texts: Sequence[str], query: str, stop: frozenset[str] = STOP) -> list[float]:
    """The formula, in float64; stop words are left out of the query, not of the documents."""
    bags = [Counter(terms(text)) for text in texts]
    mean = sum(bag.total() for bag in bags) / len(bags)
    result = []
    for bag in bags:
        score = 0.0
        for term in terms(query, stop):
            if bag[term]:
                df = sum(term in other for other in bags)
                idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
                norm = K1 * (1 - B + B * bag.total() / mean)
                score += idf * (K1 + 1) * bag[term] / (bag[term] + norm)
        result.append(score)
    return result


def scores(index: hw.Index, query: str, method: Tantivy | None = None) -> Any:
    return hw.scores(index, hw.Query("", query), method=method or Tantivy())[0]


def store_of(index: hw.Index) -> Path:
    (folder,) = [path.parent for path in index.path.glob("lexical/*/record.json")]
    return folder


def files_of(index: hw.Index) -> dict[str, tuple[bytes, int]]:
    """What a store holds, and when it was written, without locks and lists of files."""
    lists = ("meta.json", ".managed.json")
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (store_of(index) / "tantivy").iterdir()
        if path.suffix != ".lock" and path.name not in lists
    }


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return index_of(TEXTS)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the documents that builds read, in order."""
    seen: list[str] = []
    kept = lexical_tantivy.document_text

    def noted(document: Any, decode: Any = None) -> str:
        seen.append(document.id)
        return kept(document, decode)

    monkeypatch.setattr(lexical_tantivy, "document_text", noted)
    return seen


sentence = st.lists(st.sampled_from(WORDS), max_size=8).map(lambda words: " ".join([".", *words]))


# -- scores -------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(sentence, min_size=1, max_size=7), query=sentence)
def test_scores_are_the_formula_of_all_documents(texts: list[str], query: str) -> None:
    index = index_of(texts)
    for stop_words, stop in (("english", STOP), (None, frozenset[str]()), (["aa"], {"aa"})):
        found = scores(index, query, Tantivy(stop_words))
        wanted = np.array(naive(texts, query, frozenset(stop)))
        assert found.dtype == np.float32
        assert np.allclose(found, wanted, rtol=1e-4, atol=0)
        assert ((found == 0) == (wanted == 0)).all()  # what matches nothing scores 0, not NaN


def test_long_documents_have_rounded_lengths() -> None:
    """tantivy keeps a length in a byte: exact to 40 terms, then to an eighth."""
    texts = [f"lima {'xx ' * n}" for n in (9, 38, 39, 43, 79, 400, 1500)]
    found, wanted = scores(index_of(texts), "lima"), np.array(naive(texts, "lima"))
    off = np.abs(found / wanted - 1)
    assert off[:3].max() < 1e-4
    assert 1e-4 < off.max() < 0.13


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=60) | sentence)
def test_words_are_cut_as_en_stem_cuts_them(text: str) -> None:
    builder = tantivy.SchemaBuilder().add_text_field("text", tokenizer_name="en_stem")
    bare = tantivy.Index(builder.build())
    clean = text.encode("utf-8", "replace").decode()
    with bare.writer(num_threads=1) as writer:
        writer.add_document(tantivy.Document(text=clean))
        writer.commit()
    bare.reload()
    theirs = {term for term, _ in bare.searcher().terms_with_prefix("text", "")}
    assert {term for _, term in tantivy_index.words(text)} == theirs


def test_forms_are_words_of_the_text() -> None:
    found = tantivy_index.words(f"ёлка É running, (Capitals)_x {'z' * 39} {'y' * 40}")
    assert found == [
        ("ёлка", "ёлка"),
        ("É", "é"),
        ("running", "run"),
        ("Capitals", "capit"),
        ("x", "x"),
        ("z" * 39, "z" * 39),  # one more, and tantivy leaves it out
    ]


@pytest.mark.parametrize(
    "query",
    [
        'lima AND (quito OR NOT "capital"~2) -peru +the^3',
        "text:lima position:0 *",
        "lima [a TO z] /li.*/ \\ ' :",
        '"',
        "IN [lima quito]",
    ],
)
def test_nothing_is_query_syntax(index: hw.Index, query: str) -> None:
    assert np.allclose(scores(index, query), naive(TEXTS, query), rtol=1e-4, atol=0)


def test_queries_that_no_document_knows(index: hw.Index) -> None:
    for query in (" ", "zebra xylophone", "the of", "?!", "日本語の文", "\ud800 zebra", "x" * 50):
        assert (scores(index, query) == 0).all()
        assert len(Tantivy().top(index, query)[0]) == 0


def test_equal_documents_score_equal_and_go_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever segments they lie in, and in whatever order tantivy adds up their terms."""
    monkeypatch.setattr(tantivy_index, "COMMIT", 7)
    rng = np.random.default_rng(0)
    same = "lima quito peru ecuador river cat"
    others = [" ".join(rng.choice(same.split(), rng.integers(1, 6))) for _ in range(60)]
    texts = [text for other in others for text in (same, other)]
    names = [f"n{i:03d}" for i in rng.permutation(len(texts))]
    corpus = hw.Corpus.from_documents(
        [{"id": name, "text": text} for name, text in zip(names, texts, strict=True)]
    )
    index = hw.Index.build(None, Texts(), corpus, None)
    row = scores(index, same)
    assert len(np.unique(row[::2])) == 1
    segments = json.loads((store_of(index) / "tantivy" / "meta.json").read_text())["segments"]
    assert 1 < len(segments) < len(texts) // 7  # some were merged, and that was waited for
    assert damaged_stores(index.path) == []
    (first,) = hw.top(index, hw.Query("", same), 30, method=Tantivy())
    assert first.ids == sorted(names[::2])[:30]
    for k in (1, 30, 59, 61, 200):
        positions, values = Tantivy().top(index, same, k)
        wanted = sorted(range(len(texts)), key=lambda p: (-row[p], names[p]))[:k]
        assert positions.tolist() == wanted
        assert np.array_equal(values, row[wanted])


@pytest.mark.parametrize(("first", "more"), [(1, 2), (4, 8)])
def test_top_is_hw_top_without_what_shares_no_word(
    index: hw.Index, monkeypatch: pytest.MonkeyPatch, first: int, more: int
) -> None:
    monkeypatch.setattr(tantivy_index, "FIRST", first)
    monkeypatch.setattr(tantivy_index, "MORE", more)
    twice = index_of(["aa bb", "cc", "aa bb", "aa cc", "aa bb"])
    repeated = "bb bb bb cc"  # three times what bb adds is more than what the rarer cc does
    asked = [(index, "the capital of Peru"), (twice, "aa"), (twice, "bb cc dd"), (twice, repeated)]
    for held, query in asked:
        method, row = Tantivy(), scores(held, query)
        for k in (1, 2, 3, 20):
            (right,) = hw.top(held, hw.Query("", query), k, method=method)
            positions, values = method.top(held, query, k)
            shared = [s for s in right.scores if s > 0]
            assert positions.tolist() == right.positions[: len(shared)]
            assert values.tolist() == shared
        mask = np.arange(len(held)) % 2 == 1
        order = sorted(np.flatnonzero(mask & (row > 0)).tolist(), key=lambda p: (-row[p], p))
        for k in (1, 2, 9):  # the best of all are not among them
            positions, values = method.top(held, query, k, mask)
            assert positions.tolist() == order[:k]
            assert np.array_equal(values, row[positions])
    assert [twice.ids[i] for i in Tantivy().top(twice, "aa bb", 2)[0]] == ["d000", "d002"]
    with pytest.raises(InputError, match="k must be positive"):
        Tantivy().top(twice, "aa", 0)


def test_what_each_word_added_sums_to_the_score(index: hw.Index) -> None:
    method, query = Tantivy(), "Lima Lima and other capitals; the cats, zebra"
    row = scores(index, query)
    for position in range(len(index)):
        found = method.explain(index, query, position)
        assert sum(term.score for term in found) == pytest.approx(row[position], rel=1e-5)
        assert [t.score for t in found] == sorted((t.score for t in found), reverse=True)
    lima, capital = method.explain(index, query, 7)
    assert (lima.term, lima.count, lima.documents, lima.forms) == ("lima", 3, 3, ("lima",))
    assert (capital.term, capital.count, capital.documents) == ("capitals", 1, 3)
    assert method.explain(index, query, 0)[1].term == "capital"  # the document's own form
    assert method.explain(index, "zebra", 0) == []
    with pytest.raises(InputError, match=r"position from 0 to 8; found 9"):
        method.explain(index, query, 9)


def test_contrast_mean_and_chosen_examples(index: hw.Index) -> None:
    method = Tantivy()
    lima, quito = hw.Query("capital ", "Lima"), hw.Query("capital ", "Quito")
    one, other = hw.scores(index, [lima, quito], method=method)
    contrast = hw.Query("capital ", "Lima", instead_of="Quito")
    found = hw.scores(index, [contrast, lima, hw.Query.mean([lima, quito, lima])], method=method)
    assert np.allclose(found[0], one - other, atol=1e-6)
    assert found[0].min() < 0 < found[0].max()
    assert np.array_equal(found[1], one)
    assert np.allclose(found[2], (2 * one + other) / 3, atol=1e-6)
    some = hw.scores(index, lima, method=method, groups=("half", [1]))[0]
    assert np.isnan(some[::2]).all()
    assert np.array_equal(some[1::2], one[1::2])


def test_blocks_do_not_change_the_scores(index: hw.Index, monkeypatch: Any) -> None:
    queries = [hw.Query("", text) for text in TEXTS]
    whole = hw.scores(index, queries, method=Tantivy())
    monkeypatch.setattr(lexical_tantivy, "CELLS", 4 * len(queries))
    assert len(list(Tantivy().stream(index, queries))) == 3
    assert np.array_equal(hw.scores(index, queries, method=Tantivy()), whole)


# -- files --------------------------------------------------------------------------------


def test_append_adds_only_the_new_documents(tmp_path: Path, read: list[str]) -> None:
    index, method = index_of(TEXTS, tmp_path / "i"), Tantivy()
    before = scores(index, "Lima", method)
    held, names = files_of(index), [f"d{i:03d}" for i in range(len(TEXTS))]
    assert read == names
    scores(hw.Index.open(tmp_path / "i"), "Lima")  # another process's: nothing is built
    assert (read, files_of(index)) == (names, held)
    read.clear()
    index.append(rows(NEW, first=len(TEXTS)))
    grown = scores(index, "Lima", method)  # the same instance
    assert read == ["d009", "d010", "d011"]
    now = files_of(index)
    assert held.items() < now.items()  # the old files as they were, and some more
    anew = index_of([*TEXTS, *NEW])
    assert np.array_equal(grown, scores(anew, "Lima"))
    assert (grown[: len(before)] != before).any()  # other documents, another idf
    assert damaged_stores(index.path) == []
    recorded = json.loads((store_of(index) / "record.json").read_text())
    assert {Path(name).name for name in recorded["files"]} == {*now, "meta.json", ".managed.json"}
    modes = {path.stat().st_mode for path in (store_of(index) / "tantivy").glob("*.json")}
    assert modes == {(store_of(index) / "record.json").stat().st_mode}  # not its owner's alone


def test_another_corpus_or_damage_is_nothing_to_add_to(tmp_path: Path, read: list[str]) -> None:
    index = index_of(TEXTS, tmp_path / "i")
    scores(index, "Lima")
    path = next((store_of(index) / "tantivy").glob("*.idx"))
    put(path, b"\xff" * 8 + path.read_bytes()[8:])  # as long as before
    index.append(rows(NEW, first=len(TEXTS)))
    read.clear()
    assert np.allclose(scores(index, "Lima"), naive([*TEXTS, *NEW], "Lima"), rtol=1e-4)
    assert len(read) == len(TEXTS) + len(NEW)
    texts = [*TEXTS, *NEW][::-1]  # as many, but others
    other = index_of(texts, tmp_path / "other")
    store_of(index).parent.rename(other.path / "lexical")
    read.clear()
    assert np.allclose(scores(other, "Lima"), naive(texts, "Lima"), rtol=1e-4)
    assert len(read) == len(texts)


def test_what_is_left_of_a_build_must_be_readable(tmp_path: Path, read: list[str]) -> None:
    index = index_of(TEXTS, tmp_path / "i")
    right, folder = scores(index, "Lima"), store_of(index)
    for name, change in (("meta.json", b"{"), ("*.term", b"\xff" * 8), ("*.fast", b"")):
        (folder / "record.json").unlink()  # as in one that was stopped
        (path,) = (folder / "tantivy").glob(name)
        put(path, change)
        read.clear()
        assert np.array_equal(scores(index, "Lima"), right)
        assert len(read) == len(TEXTS)
        assert damaged_stores(index.path) == []


@pytest.mark.parametrize("grown", [False, True])
def test_a_killed_build_goes_on_after_what_was_committed(
    tmp_path: Path, read: list[str], grown: bool
) -> None:
    index, first = index_of(TEXTS, tmp_path / "i"), 0
    if grown:
        scores(index, "Lima")
        index.append(rows(NEW, first=len(TEXTS)))
        first = len(TEXTS)
    code = """
        import sys, time
        import headwater as hw
        from headwater.evidence import lexical_tantivy, tantivy_index
        def slow(index, first):
            texts = [text for group in kept(index, first) for text in group]
            yield texts[:2]
            print("committed", flush=True)
            time.sleep(60)
        tantivy_index.COMMIT = 1
        kept, lexical_tantivy._texts = lexical_tantivy._texts, slow
        lexical_tantivy.Tantivy().top(hw.Index.open(sys.argv[1]), "Lima")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(index.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "committed\n"
        os.kill(process.pid, signal.SIGKILL)
    (folder,) = [path.parent for path in index.path.glob("lexical/*/state.json")]
    assert not (folder / "record.json").exists()
    assert damaged_stores(index.path) == []
    read.clear()
    texts = [*TEXTS, *NEW] if grown else TEXTS
    assert np.allclose(scores(index, "Lima"), naive(texts, "Lima"), rtol=1e-4)
    assert read == [f"d{i:03d}" for i in range(first + 2, len(texts))]
    assert damaged_stores(index.path) == []


def test_damaged_files_are_named_or_made_again(tmp_path: Path, read: list[str]) -> None:
    index = index_of(TEXTS, tmp_path / "i")
    right, folder = scores(index, "Lima"), store_of(index)

    def damaged(pattern: str, change: Any) -> None:
        (path,) = (folder / "tantivy").glob(pattern)
        whole = path.read_bytes()
        put(path, change(whole))
        assert len(whole) == path.stat().st_size
        try:
            with pytest.raises(DamageError, match=f"tantivy is damaged; .* Remove {folder}"):
                Tantivy().top(index, "Lima")
            assert damaged_stores(index.path) == [f"lexical/{folder.name}/tantivy/{path.name}"]
        finally:
            put(path, whole)

    damaged("meta.json", lambda b: b"[" + b[1:])
    damaged("meta.json", lambda b: b.replace(b'"max_doc": 9', b'"max_doc": 8'))
    damaged("*.term", lambda b: b"\xff" * 8 + b[8:])
    damaged("*.fast", lambda b: b"\xff" * 8 + b[8:])
    damaged("*.idx", lambda b: b[:-4] + b"\xff" * 4)
    for name in ("*.idx", "meta.json", ".managed.json"):  # cut short: made again
        path = next((folder / "tantivy").glob(name))
        put(path, path.read_bytes()[:-3])
        read.clear()
        assert np.array_equal(scores(index, "Lima"), right)
        assert len(read) == len(TEXTS)
        assert damaged_stores(index.path) == []


@pytest.mark.parametrize(
    ("places", "score"), [([0, 0], 1.0), ([0, 9], 1.0), ([None, 1], 1.0), ([0, 1], math.inf)]
)
def test_what_tantivy_finds_must_be_documents(
    index: hw.Index, places: list[Any], score: float
) -> None:
    class Found:
        hits = ((1.0, "a"), (score, "b"))

        def search(self, *_: Any, **__: Any) -> Any:
            return self

        def fast_field_values(self, *_: Any) -> list[Any]:
            return places

    scores(index, "Lima")
    grown = tantivy_index.Grown(store_of(index) / "tantivy", len(TEXTS))
    grown._searcher = Found()
    with pytest.raises(DamageError, match="is damaged"):
        grown._found(None, 2)


def test_no_room_on_the_disk(tmp_path: Path) -> None:
    texts = [f"lima {' '.join(f'w{i}x{j}' for j in range(40))}" for i in range(300)]
    index = index_of(texts, tmp_path / "i")
    code = """
        import resource, signal, sys
        import headwater as hw
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        try:
            hw.Tantivy().top(hw.Index.open(sys.argv[1]), "Lima")
        except hw.engine.errors.ResourceError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(len(hw.Tantivy().top(hw.Index.open(sys.argv[1]), "Lima", 900)[0]))
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", textwrap.dedent(code), str(index.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, found = done.stdout.splitlines()
    assert "room on its disk" in said or "The disk is full" in said
    assert found == "300"


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Failed to acquire Lockfile: IoError(Os { code: 13 })", InputError, "may be written to"),
        ("Os { code: 13, kind: PermissionDenied }", InputError, "Copy the index"),
        ("Os { code: 28, kind: StorageFull }", ResourceError, "The disk is full"),
        ("An index writer was killed.. A worker", ResourceError, "room on its disk"),
        ("Data corrupted", DamageError, "built again"),
        ("", DamageError, "built again"),
    ],
)
def test_failures_of_tantivy_are_told_apart(
    tmp_path: Path, said: str, kind: type[Exception], words: str
) -> None:
    class PanicException(BaseException):
        pass

    for failure in (ValueError, PanicException):
        with pytest.raises(kind, match=words), tantivy_index._told(tmp_path):
            raise failure(said)
        with pytest.raises(kind) as told, tantivy_index._told(tmp_path):
            raise failure(f"{said} {'x' * 1000}".strip())
        assert "x" * 200 not in str(told.value)  # it may quote a whole file
    with pytest.raises(KeyboardInterrupt), tantivy_index._told(tmp_path):
        raise KeyboardInterrupt


# -- the package, and the ways in ---------------------------------------------------------


def test_without_the_package(
    index: hw.Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(InputError, match=r"pip install 'headwater\[tantivy\]'"):
        Tantivy()
    with pytest.raises(InputError, match=r"pip install 'headwater\[tantivy\]'"):
        method_by_name("tantivy")
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"prompt": "The capital of Peru is", "completion": " Lima"}\n')
    words = ["rank", str(index.path), "--queries", str(queries), "--method", "tantivy"]
    assert run(words) == 2
    told = capsys.readouterr().err.strip()
    assert "pip install 'headwater[tantivy]'" in " ".join(told.split())
    method_by_name("bm25")  # the others do without


def test_neither_torch_nor_tantivy_is_imported_too_early(tmp_path: Path) -> None:
    index_of(TEXTS, tmp_path / "i")
    code = """
        import sys
        import headwater as hw
        from headwater.evidence.rankers import METHODS
        index, kind = hw.Index.open(sys.argv[1]), METHODS["tantivy"]
        assert kind is hw.Tantivy and "tantivy" not in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "i")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = """
        import sys
        import headwater as hw
        index, method = hw.Index.open(sys.argv[1]), hw.Tantivy()
        assert len(method.top(index, "Lima")[0]) == 3  # builds
        method.explain(index, "Lima", 0)
        list(method.stream(index, [hw.Query("", "Lima")]))
        assert not {"torch", "transformers"} & set(sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "i")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bad_requests(index: hw.Index) -> None:
    with pytest.raises(InputError, match="no such list of stop words"):
        Tantivy(stop_words="klingon")
    with pytest.raises(InputError, match="no modules"):
        hw.scores(index, hw.Query("", "Lima"), method=Tantivy(), modules=["*"])
    with pytest.raises(InputError, match="reads text"):
        hw.scores(index, hw.Query(columns={"x": [1]}), method=Tantivy())
    with pytest.raises(InputError, match="may not be summed"):
        hw.rank(index, hw.Query("", "Lima"), by="half", method=Tantivy())


def test_it_stands_beside_bm25_and_describes_itself(index: hw.Index) -> None:
    found = Tantivy(stop_words=["zz", "aa"]).describe()
    assert found == {
        "method": "tantivy",
        "k1": 1.2,
        "b": 0.75,
        "tokenizer": "en_stem",
        "stop_words": ["aa", "zz"],
    }
    assert json.dumps(found)
    own = index_of(TEXTS)
    scores(own, "Lima")
    hw.BM25().top(own, "Lima")
    scores(own, "Lima", Tantivy(stop_words=None))  # of queries alone: no files of its own
    assert len(list(own.path.glob("lexical/*/record.json"))) == 2
    assert damaged_stores(own.path) == []


def test_lexical_evidence_of_an_answer(index: hw.Index) -> None:
    query = hw.Query("The capital of Peru is", " Lima")
    answer = hw.ask(index, query, evidence=("lexical",), lexical=Tantivy())
    best = answer.proponents[0]
    assert best.id == "d000"
    assert best.kinds is not None
    assert best.kinds["lexical"].score == pytest.approx(
        naive(TEXTS, "The capital of Peru is Lima")[0], rel=1e-4
    )
    assert best.terms is not None
    assert [term for term, _ in best.terms] == ["peru", "capital", "lima"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = index_of(TEXTS, tmp_path / "i")
    facts = tmp_path / "facts.jsonl"
    fact = {"prompt": "The capital of Peru is", "completion": " Lima", "gold": ["d000"]}
    facts.write_text(json.dumps(fact) + "\n")
    words = ["rank", str(index.path), "--queries", str(facts), "--method", "tantivy", "--json"]
    assert run(words) == 0
    ranked = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "d000" in json.dumps(ranked[0])
    methods = ("--method", "bm25", "--method", "tantivy", "--json")
    assert run(["evaluate", "retrieval", str(index.path), "--facts", str(facts), *methods]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["result"]["mrr"]["value"] for row in found["rows"]] == [1.0, 1.0]
