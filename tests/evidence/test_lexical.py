"""BM25 against its formula written out, against bm25s itself, and against bad input."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.engine.errors import DamageError, InputError
from headwater.evidence.lexical import BM25
from headwater.index.store import damaged_stores
from headwater.tasks.texts import Texts
from models import SENTENCES, byte_tokenizer

WORDS = ["aa", "bb", "cc", "dd", "the", "running", "runs", "Capital", "ёлка", "日本"]
MORE = ["?!", "the of and", "Capitals of the world: Lima, Lima, LIMA!", "the cat sat on the mat"]
TEXTS = SENTENCES + MORE


def index_of(texts: list[str], folder: Path | None = None, prefix: str = "d") -> hw.Index:
    rows = [{"id": f"{prefix}{i:03d}", "text": text, "half": i % 2} for i, text in enumerate(texts)]
    plan = hw.Plan(shard_rows=4)
    return hw.Index.build(folder, Texts(), hw.Corpus.from_documents(rows), None, plan)


def terms(text: str, stop: Any = bm25s.stopwords.STOPWORDS_EN) -> list[str]:
    stemmer = Stemmer.Stemmer("english")
    words = re.findall(r"\b\w\w+\b", text.lower())
    return [stemmer.stemWord(word) for word in words if word not in stop]


def idf(variant: str, n: int, df: int) -> float:
    if variant == "atire":
        return math.log(n / df)
    odds = (n - df + 0.5) / (df + 0.5)
    return math.log(1 + odds) if variant == "lucene" else math.log(max(odds, 1))


def naive(
    texts: list[str], query: str, k1: float = 1.5, b: float = 0.75, variant: str = "lucene"
) -> list[float]:
    bags = [Counter(terms(text)) for text in texts]
    mean = sum(bag.total() for bag in bags) / len(bags)
    result = []
    for bag in bags:
        score = 0.0
        for term in terms(query):
            if bag[term]:
                df = sum(term in other for other in bags)
                norm = k1 * (1 - b + b * bag.total() / mean)
                gain = k1 + 1 if variant == "atire" else 1
                score += idf(variant, len(texts), df) * gain * bag[term] / (bag[term] + norm)
        result.append(score)
    return result


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return index_of(TEXTS)


sentence = st.lists(st.sampled_from(WORDS), max_size=8).map(lambda words: " ".join([".", *words]))


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(sentence, min_size=1, max_size=7),
    query=sentence,
    k1=st.floats(0, 3),
    b=st.floats(0, 1),
    variant=st.sampled_from(["lucene", "robertson", "atire"]),
)
def test_scores_are_the_formula(
    texts: list[str], query: str, k1: float, b: float, variant: str
) -> None:
    found = hw.scores(
        index_of(texts), hw.Query("", query), method=BM25(k1=k1, b=b, variant=variant)
    )
    assert found.dtype == np.float32
    assert np.allclose(found[0], naive(texts, query, k1, b, variant), rtol=1e-5, atol=1e-6)


def test_the_files_are_those_of_bm25s(index: hw.Index) -> None:
    """Both ways: bm25s opens ours, and its own build of the same texts scores the same."""
    query = "which cat is the capital of Peru and Ecuador? the cat"
    ours = hw.scores(index, hw.Query("", query), method=BM25())[0]
    (folder,) = [path.parent for path in index.path.glob("lexical/*/record.json")]
    theirs = bm25s.BM25.load(folder, mmap=True, allow_pickle=False)
    assert np.allclose(theirs.get_scores(terms(query)), ours, rtol=1e-6)
    assert (theirs.method, theirs.k1, theirs.scores["num_docs"]) == ("lucene", 1.5, len(TEXTS))
    bare = bm25s.BM25()
    tokens = bm25s.tokenize(
        TEXTS, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False
    )
    bare.index(tokens, show_progress=False)
    assert np.allclose(bare.get_scores(terms(query)), ours, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=40))
def test_words_are_split_as_bm25s_splits_them(text: str) -> None:
    from headwater.evidence.lexical import _Numbers, _stem, stop_words_of

    numbers = _Numbers(_stem("english"), stop_words_of("english"))
    mine = [numbers[word] for word in BM25()._split(text.lower())]
    names = {number: stem for stem, number in numbers.stems.items()}
    assert [names[n] for n in mine if n >= 0] == terms(text)


def test_what_each_word_added_sums_to_the_score(index: hw.Index) -> None:
    method, query = BM25(), "Lima Lima and other capitals; the cats, zebra"
    row = hw.scores(index, hw.Query("", query), method=method)[0]
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


def test_top_is_hw_top_without_what_shares_no_word(index: hw.Index) -> None:
    twice = index_of(["aa bb", "cc", "aa bb", "aa cc", "aa bb"])
    for held, query in ((index, "the capital of Peru"), (twice, "aa"), (twice, "bb cc dd")):
        method = BM25()
        (right,) = hw.top(held, hw.Query("", query), 3, method=method)
        positions, scores = method.top(held, query, 3)
        shared = [s for s in right.scores if s > 0]
        assert positions.tolist() == right.positions[: len(shared)]
        assert np.allclose(scores, shared)
        assert scores.dtype == np.float32
    ties = [twice.ids[i] for i in BM25().top(twice, "aa bb", 2)[0]]
    assert ties == ["d000", "d002"]
    with pytest.raises(InputError, match="k must be positive"):
        BM25().top(twice, "aa", 0)


def test_a_query_that_no_document_knows(index: hw.Index) -> None:
    for query in ("zebra xylophone", "the of", "?!", "a b c", "日本語の文", "\ud800 zebra"):
        row = hw.scores(index, hw.Query("", query), method=BM25())[0]
        assert (row == 0).all()
        assert len(BM25().top(index, query)[0]) == 0


def test_contrast_mean_and_chosen_examples(index: hw.Index) -> None:
    method = BM25()
    lima, quito = hw.Query("capital ", "Lima"), hw.Query("capital ", "Quito")
    one, other = hw.scores(index, [lima, quito], method=method)
    contrast = hw.Query("capital ", "Lima", instead_of="Quito")
    found = hw.scores(index, [contrast, lima, hw.Query.mean([lima, quito, lima])], method=method)
    assert np.allclose(found[0], one - other, atol=1e-6)
    assert found[0].min() < 0 < found[0].max()
    assert np.allclose(found[1], one)
    assert np.allclose(found[2], (2 * one + other) / 3, atol=1e-6)
    some = hw.scores(index, lima, method=method, groups=("half", [1]))[0]
    assert np.isnan(some[::2]).all()
    assert np.array_equal(some[1::2], one[1::2])
    mask = np.arange(len(index)) % 2 == 1
    positions, values = method.top(index, "capital Lima", 9, mask)
    assert set(positions.tolist()) == {p for p in range(1, 9, 2) if one[p] > 0}
    assert np.array_equal(values, one[positions])


def test_blocks_do_not_change_the_scores(index: hw.Index, monkeypatch: Any) -> None:
    queries = [hw.Query("", text) for text in TEXTS]
    whole = hw.scores(index, queries, method=BM25())
    monkeypatch.setattr("headwater.evidence.lexical.CELLS", 3 * len(queries))
    assert len(list(BM25().stream(index, queries))) == 3
    assert np.array_equal(hw.scores(index, queries, method=BM25()), whole)


def test_a_store_is_made_once_and_again_when_the_corpus_grows(tmp_path: Path) -> None:
    index, method = index_of(TEXTS, tmp_path / "i"), BM25()
    before = hw.scores(index, hw.Query("", "Lima"), method=method)[0]
    (record,) = tmp_path.glob("i/lexical/*/record.json")
    made = record.stat().st_mtime_ns
    again = hw.Index.open(tmp_path / "i")
    assert np.array_equal(hw.scores(again, hw.Query("", "Lima"), method=BM25())[0], before)
    assert record.stat().st_mtime_ns == made
    index.append(hw.Corpus.from_documents([{"id": "new", "text": "Lima, once more"}]))
    grown = hw.scores(index, hw.Query("", "Lima"), method=method)[0]  # the same instance
    texts = [*TEXTS, "Lima, once more"]
    assert np.allclose(grown, naive(texts, "Lima"), rtol=1e-5)
    assert index.verify() == []
    BM25(stemmer=None).top(index, "Lima")
    assert len(list(tmp_path.glob("i/lexical/*/record.json"))) == 2  # side by side


def test_damaged_files_are_named_or_made_again(tmp_path: Path) -> None:
    index = index_of(TEXTS, tmp_path / "i")
    right = hw.scores(index, hw.Query("", "Lima"), method=BM25())
    (folder,) = [path.parent for path in tmp_path.glob("i/lexical/*/record.json")]

    def damaged(name: str, change: Any) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(change(whole))
        try:
            with pytest.raises(DamageError, match=f"{name} is damaged"):
                BM25().top(index, "Lima")
            assert damaged_stores(index.path) == [f"lexical/{folder.name}/{name}"]
        finally:
            (folder / name).write_bytes(whole)

    damaged("vocab.index.json", lambda b: b"[" + b[1:])
    damaged("data.csc.index.npy", lambda b: b"x" + b[1:])
    damaged("indptr.csc.index.npy", lambda b: b[:-8] + b"\xff" * 8)
    damaged("indices.csc.index.npy", lambda b: b[:128] + b"\xff" * (len(b) - 128))
    whole = (folder / "data.csc.index.npy").read_bytes()
    (folder / "data.csc.index.npy").write_bytes(whole[:-4])  # cut short: made again
    assert np.array_equal(hw.scores(index, hw.Query("", "Lima"), method=BM25()), right)
    assert (folder / "data.csc.index.npy").read_bytes() == whole


def test_a_killed_build_leaves_nothing_that_counts(tmp_path: Path) -> None:
    index = index_of(TEXTS, tmp_path / "i")
    code = """
        import sys, time
        import headwater as hw
        from headwater.evidence import lexical
        def slow(*args, **kwargs):
            names = kept(*args, **kwargs)
            print("written", flush=True)
            time.sleep(60)
            return names
        kept, lexical.save = lexical.save, slow
        lexical.BM25().top(hw.Index.open(sys.argv[1]), "Lima")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(index.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
    (folder,) = [path.parent for path in index.path.glob("lexical/*/state.json")]
    assert not (folder / "record.json").exists()
    (folder / ".bm25s.1.tmp").mkdir()  # what one killed earlier leaves
    started = time.time()
    assert len(BM25().top(index, "Lima")[0]) == 3
    assert json.loads((folder / "record.json").read_text())["documents"] == len(TEXTS)
    assert not (folder / ".bm25s.1.tmp").exists()
    assert time.time() - started < 30


def test_nothing_of_torch_is_imported(tmp_path: Path) -> None:
    index_of(TEXTS, tmp_path / "i")
    code = """
        import sys
        import headwater as hw
        from headwater.evidence.lexical import BM25
        index, method = hw.Index.open(sys.argv[1]), BM25()
        assert len(method.top(index, "Lima")[0]) == 3  # builds
        method.explain(index, "Lima", 0)
        list(method.stream(index, [hw.Query("", "Lima")]))
        assert not {"torch", "transformers"} & set(sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "i")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_corpora_with_hardly_a_word() -> None:
    for texts in (["."], ["the of and"], ["-", "a b c", "!!"]):
        index = index_of(texts)
        assert (hw.scores(index, hw.Query("", "the cat"), method=BM25()) == 0).all()
    one = index_of([".", "cat"])
    assert np.allclose(
        hw.scores(one, hw.Query("", "cat"), method=BM25())[0], naive([".", "cat"], "cat")
    )


def test_other_scripts() -> None:
    """Spaces make words; where there are none, single characters do."""
    index = index_of(["利马是秘鲁的首都", "基多是厄瓜多尔的首都", "ليما عاصمة بيرو", "Lima"])
    assert BM25().top(index, "秘鲁")[0].tolist() == []  # a sentence is one word
    characters = BM25(stemmer=None, stop_words=None, pattern=r"[\u4e00-\u9fff]|\w\w+")
    assert characters.top(index, "秘鲁")[0].tolist() == [0]
    assert BM25(stemmer="arabic", stop_words=None).top(index, "العاصمة")[0].tolist() == [2]


def test_tokens_are_read_with_the_tokenizer_of_the_task(tmp_path: Path) -> None:
    from models import tiny_llama

    tokenizer = byte_tokenizer()
    task = hw.CausalLM(tiny_llama(), tokenizer)
    ids = [tokenizer(text)["input_ids"] for text in SENTENCES]
    corpus = hw.Corpus.from_documents([{"input_ids": row} for row in ids])
    index = hw.Index.build(None, task, corpus, None)
    texts = hw.scores(index_of(SENTENCES), hw.Query("", "Lima"), method=BM25())
    query = hw.Query(input_ids=tokenizer("Lima")["input_ids"], target=(1, 2))
    assert np.array_equal(hw.scores(index, query, method=BM25()), texts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k1": -1}, "k1 at least 0"),
        ({"b": 1.5}, "b from 0 to 1"),
        ({"variant": "bm25+"}, "lucene, robertson, atire"),
        ({"stemmer": "klingon"}, "no such stemmer; expected arabic"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": r"\w*"}, "matches nothing"),
    ],
)
def test_parameters_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BM25(**options)


def test_bad_requests(index: hw.Index, monkeypatch: Any) -> None:
    with pytest.raises(InputError, match="no such list of stop words"):
        BM25(stop_words="klingon").top(index, "Lima")
    with pytest.raises(InputError, match="no modules"):
        hw.scores(index, hw.Query("", "Lima"), method=BM25(), modules=["*"])
    with pytest.raises(InputError, match="reads text"):
        hw.scores(index, hw.Query(columns={"x": [1]}), method=BM25())
    with pytest.raises(InputError, match="may not be summed"):
        hw.rank(index, hw.Query("", "Lima"), by="half", method=BM25())
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    with pytest.raises(InputError, match="pip install PyStemmer"):
        BM25()


def test_rank_and_description(index: hw.Index) -> None:
    ranked = hw.rank(index, hw.Query("", "Lima capital"), method=BM25())
    assert [place.name for place in ranked[:3]] == ["d000", "d001", "d007"] or ranked[0].score > 0
    made = BM25(stop_words=["zz", "aa"], k1=1)
    assert made.describe() == {
        "method": "bm25",
        "k1": 1.0,
        "b": 0.75,
        "stemmer": "english",
        "stop_words": ["aa", "zz"],
        "variant": "lucene",
        "pattern": r"\b\w\w+\b",
    }
    assert json.dumps(made.describe())
